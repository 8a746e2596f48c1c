"""What a ClientHello says: the name it asks for, before OpenSSL has looked at it, and what it offers.

server_name is
    a host name        lower-case, without a trailing dot (RFC 6066 §3, RFC 5890 A-labels as they are)
    None               no name was sent, or an IP address, which RFC 6066 does not allow as one
    BadServerName      it is not what RFC 6066 describes, or cannot be a host name

A name that cannot be read never means "the default": a client that hides its name in a broken
extension must not be given another name's policy (CVE-2026-32305 was such a fallback).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from termproxy.hostname import is_host_name, is_ip_address
from termproxy.observability.record import printable
from termproxy.tls.registry import TLS_1_2

SERVER_NAME = 0  # the extension's number

DECODE_ERROR = 50
UNRECOGNIZED_NAME = 112


class BadServerName(ValueError):  # noqa: N818 - named for what it is about
    """`alert` is what to refuse the handshake with (RFC 8446 §6.2)."""

    def __init__(self, what: str, alert: int) -> None:
        super().__init__(what)
        self.alert = alert


def asking_for(name: str) -> bytes:
    """The extension's body as nearly every client writes it that asks for `name`."""
    raw = name.encode()
    entry = b"\0" + len(raw).to_bytes(2) + raw
    return len(entry).to_bytes(2) + entry


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


RawOffer = tuple[int, bytes, bytes | None, bytes | None, bytes | None, bytes | None]
"""As the binding keeps it: the legacy version, the cipher suites, and the bodies of the extensions
supported_versions, supported_groups, signature_algorithms and ALPN (None: not sent)."""

PROTOCOLS_MAX = 8  # of ALPN, that an explanation needs


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client can do, in its order, by IANA's numbers; GREASE (RFC 8701) is left out.

    None: it did not say.  Lists may be cut or broken: OpenSSL refuses the handshake for it, and this is
    only to explain.
    """

    versions: tuple[int, ...]
    ciphers: tuple[int, ...]
    groups: tuple[int, ...] | None
    signature_algorithms: tuple[int, ...] | None
    protocols: tuple[str, ...]  # the first few of ALPN, printable


def parse_offer(raw: RawOffer) -> Offer:
    """RFC 8446 §4.1.2, §4.2.1, §4.2.3, §4.2.7."""
    legacy_version, ciphers, versions, groups, signature_algorithms, protocols = raw
    return Offer(
        versions=(min(legacy_version, TLS_1_2),) if versions is None else _numbers(versions[1:]),
        ciphers=_numbers(ciphers),
        groups=None if groups is None else _numbers(groups[2:]),
        signature_algorithms=None
        if signature_algorithms is None
        else _numbers(signature_algorithms[2:]),
        protocols=() if protocols is None else tuple(islice(_protocols(protocols[2:]), PROTOCOLS_MAX)),
    )


def _protocols(data: bytes) -> Iterator[str]:
    """RFC 7301 §3.1: each with its length before it."""
    while data:
        protocol = data[1 : 1 + data[0]]
        if len(protocol) != 2 or not _is_grease(protocol):
            yield printable(protocol)
        data = data[1 + data[0] :]


def _numbers(data: bytes) -> tuple[int, ...]:
    pairs: Iterable[bytes] = (data[at : at + 2] for at in range(0, len(data) - 1, 2))
    return tuple(int.from_bytes(pair) for pair in pairs if not _is_grease(pair))


def _is_grease(pair: bytes) -> bool:
    return pair[0] == pair[1] and pair[0] & 0x0F == 0x0A
