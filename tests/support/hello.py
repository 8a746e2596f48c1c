"""ClientHellos as bytes, to be sent in pieces, broken or with a name no client would send."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable


def client_hello(
    name: str | bytes | None, *, alpn: bytes | None = None, version: ssl.TLSVersion | None = None
) -> bytes:
    """The first record of a handshake, asking for `name`: any bytes at all, when it is bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols([_placeholder(alpn, "y")])
    asked = _placeholder(name, "x") if isinstance(name, bytes) else name
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=asked)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for raw, letter in ((name if isinstance(name, bytes) else None, "x"), (alpn, "y")):
        if raw is not None:
            hello = hello.replace(_placeholder(raw, letter).encode(), raw)
    return hello


def _placeholder(raw: bytes | str | None, letter: str) -> str:
    """A harmless text as long as `raw`, of labels that are not too long: Python checks names."""
    assert isinstance(raw, bytes)
    return "".join("." if at % 50 == 49 else letter for at in range(len(raw) - 1)) + letter


def hand_made(
    *,
    version: int = 0x0303,
    ciphers: Iterable[int] = (0xC02B, 0xC02F),
    extensions: Iterable[tuple[int, bytes]] = (),
    record_version: int = 0x0301,
) -> bytes:
    """A ClientHello of just these parts, in one record (RFC 8446 §4.1.2)."""
    suites = b"".join(number.to_bytes(2) for number in ciphers)
    rest = b"".join(kind.to_bytes(2) + _vector(body) for kind, body in extensions)
    body = version.to_bytes(2) + bytes(32) + b"\0" + _vector(suites) + b"\1\0"
    body += _vector(rest) if rest else b""
    message = b"\1" + len(body).to_bytes(3) + body
    return b"\x16" + record_version.to_bytes(2) + _vector(message)


def numbers(*values: int, length_bytes: int = 2) -> bytes:
    """A list as extensions write it: its length, then two bytes each."""
    return (2 * len(values)).to_bytes(length_bytes) + b"".join(value.to_bytes(2) for value in values)


def _vector(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content
