"""ClientHellos as bytes, to be sent in pieces, broken or with a name no client would send."""

from __future__ import annotations

import contextlib
import ssl


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
