"""How Python's ssl tells that a connection ended without close_notify."""

from __future__ import annotations

import ssl
import sys

# Before 3.11.3 it takes such an end for a good one, unless an option is off; and has no class of its own
# for it then.
CutError = ssl.SSLEOFError if sys.version_info >= (3, 11, 3) else ssl.SSLError


def tell_cuts(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have the context's connections raise CutError."""
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context
