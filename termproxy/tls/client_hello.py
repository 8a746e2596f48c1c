"""What a ClientHello's server_name extension says, before OpenSSL has looked at it.

    a host name        lower-case, without a trailing dot (RFC 6066 §3, RFC 5890 A-labels as they are)
    None               no name was sent, or an IP address, which RFC 6066 does not allow as one
    BadServerName      it is not what RFC 6066 describes, or cannot be a host name

A name that cannot be read never means "the default": a client that hides its name in a broken
extension must not be given another name's policy (CVE-2026-32305 was such a fallback).
"""

from __future__ import annotations

from functools import lru_cache

from termproxy.hostname import is_host_name, is_ip_address

SERVER_NAME = 0  # the extension's number

DECODE_ERROR = 50
UNRECOGNIZED_NAME = 112


class BadServerName(ValueError):  # noqa: N818 - named for what it is about
    """`alert` is what to refuse the handshake with (RFC 8446 §6.2)."""

    def __init__(self, what: str, alert: int) -> None:
        super().__init__(what)
        self.alert = alert


@lru_cache(maxsize=4096)
def server_name(extension: bytes | None) -> str | None:
    """The name in the extension's body; None when there is no name to go by.

    Most clients ask for one of a few names.  Only good ones are kept, so no entry is longer than one.
    """
    if extension is None:
        return None
    return host_name(_only_host_name(extension))


def host_name(raw: bytes) -> str | None:
    """`raw` as certificates and configurations write names; None for an IP address."""
    text = raw.decode("latin-1").lower().removesuffix(".")
    if is_ip_address(text):
        return None
    if not is_host_name(text):
        raise BadServerName("not a host name", UNRECOGNIZED_NAME)
    return text


def _only_host_name(extension: bytes) -> bytes:
    """RFC 6066 §3: a list with a length, at most one name of a kind, and host_name is the only kind."""
    entry = _vector(extension)
    if len(entry) < 1 or entry[0] != 0:
        raise BadServerName("no host_name in server_name", DECODE_ERROR)
    name = _vector(entry[1:])
    if not name:
        raise BadServerName("an empty host_name", DECODE_ERROR)
    return name


def _vector(data: bytes) -> bytes:
    """The content of a vector with two bytes of length that fills `data` (RFC 8446 §3.4)."""
    if len(data) < 2 or int.from_bytes(data[:2]) != len(data) - 2:
        raise BadServerName("lengths in server_name do not fit", DECODE_ERROR)
    return data[2:]
