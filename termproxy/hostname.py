"""Which texts are host names, for certificates, configurations and ClientHellos alike."""

from __future__ import annotations

import ipaddress
import re

NAME_MAX = 253  # characters (RFC 1035 §2.3.4, as text)

# Underscores are no host name's, but they are in use, and mean nothing else here.
_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def is_host_name(text: str) -> bool:
    """Whether `text` is a name in lower case, without a trailing dot; international ones as A-labels.

    An IP address is none, though a v4 one is written like one (RFC 6066 §3).
    """
    return len(text) <= NAME_MAX and _LABELS.fullmatch(text) is not None and not is_ip_address(text)


def is_ip_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, in brackets or not."""
    if not text or not (text[-1].isdigit() or ":" in text):
        return False  # no top-level domain is a number: most names are seen through at once
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
