"""What stands in the environment and must not say what a TLS terminator does: it is not configuration.

The libraries read these by themselves: where to log the keys of sessions, which modules to load, whom to
trust.  What the interpreter and the loader read (PYTHON*, LD_*) has had its effect before we run.
"""

from __future__ import annotations

from collections.abc import MutableMapping

# Whoever starts us: sessions' keys in a file, and what gevent and libev load and how they wait.
NEVER = ("SSLKEYLOGFILE", "GEVENT", "LIBEV_")
# Root, who may have got them from someone else's shell: OpenSSL's configuration and modules, and CAs.
NEVER_FOR_ROOT = ("OPENSSL_", "SSL_CERT_")


def scrub(environment: MutableMapping[str, str], *, is_root: bool) -> list[str]:
    """Take out what must have no effect; the names of what there was.

    To be called before OpenSSL or gevent is imported: they look early.
    """
    beginnings = NEVER + (NEVER_FOR_ROOT if is_root else ())
    found = sorted(name for name in environment if name.startswith(beginnings))
    for name in found:
        del environment[name]
    return found
