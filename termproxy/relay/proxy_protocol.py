"""The PROXY protocol: tell a backend who its client is, and hear it from a balancer in front of us.

    header_v1, header_v2    what a backend is sent, in one piece, before the client's first byte
    read_header             bytes as they come: a header, None ("go on reading") or BadProxyHeader

Version 1 is a line of text.  Version 2 is binary, and also tells what TLS has agreed on, in TLVs: a type
(one byte), a length (two) and a value.  "Spec" is HAProxy's doc/proxy-protocol.txt.

A header says whom all that follows is from, so the reader never guesses: what is not exactly a header
is refused, and what comes after one is not looked at.  The writer tells nothing rather than a part: half
a name is somebody else's.  An IPv4 address that is spelt as IPv6 (::ffff:192.0.2.1) is the same client,
and no list of addresses may be passed by with the other spelling: inside termproxy it is 192.0.2.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, AddressFamily, inet_ntop, inet_pton
from struct import Struct
from typing import Literal

from termproxy.errors import Fault, TermproxyError

V1_MAX = 107  # bytes, with the line's end (spec §2.1)
HEADER_MAX = 4096
"""Bytes of a whole header, of either version, that are read; a caller needs no larger buffer.

The spec has no bound but the field's 64 KiB.  nginx reads 4096 too: there is room for all that header_v2
can write, a certificate included, and little to hold for each of many that have only just connected.
"""

Endpoint = tuple[str, int]
SocketName = Endpoint | tuple[str, int, int, int]
"""As socket.getpeername() and getsockname() give it, for TCP over IPv4 and IPv6."""

_LINE_START = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_2 = 0x20
_LOCAL, _PROXY = 0x0, 0x1
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_FIXED = 16  # bytes: signature, version and command, family and transport, length

_LOCAL_START = _SIGNATURE + bytes((_VERSION_2 | _LOCAL, _UNSPEC, 0, 0))

# TLVs and their bounds (spec §2.2.1 to §2.2.6).
_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL = 0x01, 0x02, 0x03, 0x05, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER, _SSL_SIG_ALG, _SSL_KEY_ALG = range(0x21, 0x26)
_SSL_GROUP, _SSL_CLIENT_CERT = 0x26, 0x28
_CLIENT_SSL, _CLIENT_CERT_CONN, _CLIENT_CERT_SESS = 0x01, 0x02, 0x04
_NOT_VERIFIED = 1  # any number but zero; OpenSSL's X509_V_ERR_UNSPECIFIED

ALPN_MAX = 255  # RFC 7301 §3.1: one byte of length
AUTHORITY_MAX = 255  # HAProxy refuses more; no host name has as many
UNIQUE_ID_MAX = 128
COMMON_NAME_MAX = 256  # RFC 5280's 64 characters, in UTF-8
ALGORITHM_MAX = 64  # characters; IANA's names of cipher suites have fewer than 50
CERTIFICATE_MAX = 2048  # so that all TLVs together stay below HEADER_MAX

_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"

_HEADER = Struct("!12sBBH")
_LAYOUTS = {_TCP4: Struct("!12sBBH4s4sHH"), _TCP6: Struct("!12sBBH16s16sHH")}
_TLV = Struct("!BH")
_SSL_FIELDS = Struct("!BI")


# Writing.


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCertificate:
    """The client's.  Name and bytes are told only when it `is_verified`: not every backend looks."""

    is_verified: bool
    on_this_connection: bool  # False: in the handshake of the session that is resumed
    common_name: str | None = None
    der: bytes | None = None  # None keeps the header small: HAProxy refuses TLVs above 1 KiB since 2.9


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What header_v2 tells of a TLS connection, as the spec words it (§2.2.1, §2.2.2, §2.2.6)."""

    version: str  # "TLSv1.3"
    cipher: str | None = None  # "ECDHE-RSA-AES128-GCM-SHA256"
    group: str | None = None  # "x25519"
    alpn: bytes | None = None  # the protocol that was agreed on
    sni: str | None = None
    signature_algorithm: str | None = None  # that signed the certificate we showed: "RSA-SHA256"
    key_algorithm: str | None = None  # of that certificate's key: "RSA2048", "EC256"
    client_certificate: ShownCertificate | None = None


def header_v1(source: SocketName | None, destination: SocketName | None) -> bytes:
    """The line for a client at `source` that connected to `destination` (spec §2.1).

    UNKNOWN when either is None.  When one is IPv4 and the other is not, both are written as IPv6.
    OSError: a host that is no IP address.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    one, other = _of_one_family(source[0], destination[0])
    family = "TCP4" if len(one) == 4 else "TCP6"
    line = f"PROXY {family} {_line_host(one)} {_line_host(other)} {source[1]} {destination[1]}\r\n"
    return line.encode()


def header_v2(
    source: SocketName | None,
    destination: SocketName | None,
    tls: TlsFacts | None = None,
    unique_id: bytes | None = None,
    *,
    checksum: bool = False,
) -> bytes:
    """The binary header (spec §2.2), of HEADER_MAX bytes at most.

    LOCAL and AF_UNSPEC when an address is None, still with its TLVs.  Without these it is also what to
    send on a connection of our own, as to see whether a backend lives.  What does not fit its bound, or
    is not text where text is due, is left out.  OSError: a host that is no IP address.
    """
    tlvs = b"" if tls is None else _tls_tlvs(tls)
    if unique_id is not None:
        tlvs += _tlv(_UNIQUE_ID, unique_id, UNIQUE_ID_MAX)
    header = _addressed(source, destination, len(tlvs) + (_TLV.size + 4) * checksum) + tlvs
    if not checksum:
        return header
    header += _TLV.pack(_CRC32C, 4)
    return header + crc32c(header + bytes(4)).to_bytes(4)


def _addressed(source: SocketName | None, destination: SocketName | None, more: int) -> bytes:
    """The header up to its TLVs, of which there are `more` bytes."""
    if source is None or destination is None:
        # PROXY would say better that there is a client, but a receiver need not accept that without its
        # address, and HAProxy does not.  LOCAL it must accept, and goes by the socket all the same.
        return _HEADER.pack(_SIGNATURE, _VERSION_2 | _LOCAL, _UNSPEC, more)
    one, other = _of_one_family(source[0], destination[0])
    family = _TCP4 if len(one) == 4 else _TCP6
    layout = _LAYOUTS[family]
    return layout.pack(
        _SIGNATURE,
        _VERSION_2 | _PROXY,
        family,
        layout.size - _FIXED + more,
        one,
        other,
        source[1],
        destination[1],
    )


def _of_one_family(one: str, other: str) -> tuple[bytes, bytes]:
    """Both as IPv4 where they can be, else both as IPv6: a header has one family."""
    first, second = _packed(one), _packed(other)
    if len(first) != len(second):
        return _widened(first), _widened(second)
    return first, second


def _packed(host: str) -> bytes:
    if ":" not in host:
        return inet_pton(AF_INET, host)
    return inet_pton(AF_INET6, host).removeprefix(_IPV4_IN_IPV6)


def _widened(address: bytes) -> bytes:
    return _IPV4_IN_IPV6 + address if len(address) == 4 else address


def _line_host(address: bytes) -> str:
    """Version 1 has hexadecimal digits for IPv6, and no dots, with which inet_ntop() may end."""
    if len(address) == 4:
        return inet_ntop(AF_INET, address)
    text = inet_ntop(AF_INET6, address)
    begin, _, end = text.rpartition(":")
    if "." not in end:
        return text
    return f"{begin}:{int.from_bytes(address[12:14]):x}:{int.from_bytes(address[14:]):x}"


def _tls_tlvs(tls: TlsFacts) -> bytes:
    return (
        _tlv(_ALPN, tls.alpn, ALPN_MAX)
        + _tlv(_AUTHORITY, _utf8(tls.sni), AUTHORITY_MAX)
        + _ssl_tlv(tls, tls.client_certificate)
    )


def _ssl_tlv(tls: TlsFacts, certificate: ShownCertificate | None) -> bytes:
    bits, verify, common_name, der = _CLIENT_SSL, _NOT_VERIFIED, None, None
    if certificate is not None:
        bits |= _CLIENT_CERT_SESS
        if certificate.on_this_connection:
            bits |= _CLIENT_CERT_CONN
        if certificate.is_verified:
            verify, common_name, der = 0, certificate.common_name, certificate.der
    value = b"".join(
        (
            _SSL_FIELDS.pack(bits, verify),
            _tlv(_SSL_VERSION, _ascii(tls.version), ALGORITHM_MAX),
            _tlv(_SSL_CN, _utf8(common_name), COMMON_NAME_MAX),
            _tlv(_SSL_CIPHER, _ascii(tls.cipher), ALGORITHM_MAX),
            _tlv(_SSL_SIG_ALG, _ascii(tls.signature_algorithm), ALGORITHM_MAX),
            _tlv(_SSL_KEY_ALG, _ascii(tls.key_algorithm), ALGORITHM_MAX),
            _tlv(_SSL_GROUP, _ascii(tls.group), ALGORITHM_MAX),
            _tlv(_SSL_CLIENT_CERT, der, CERTIFICATE_MAX),
        )
    )
    return _TLV.pack(_SSL, len(value)) + value


def _tlv(kind: int, value: bytes | None, at_most: int) -> bytes:
    """Nothing when there is nothing to tell, or it does not fit."""
    if not value or len(value) > at_most:
        return b""
    return _TLV.pack(kind, len(value)) + value


def _utf8(text: str | None) -> bytes | None:
    return text.encode() if text is not None and text.isprintable() else None


def _ascii(text: str | None) -> bytes | None:
    return _utf8(text) if text is not None and text.isascii() else None


# Reading.

Reason = Literal[
    "not_proxy",  # neither version begins like this
    "bad_line",  # what began as version 1 is not the line that spec §2.1 has
    "bad_version",
    "bad_command",
    "bad_family",
    "bad_length",  # too short for the addresses that it announces
    "too_long",  # above HEADER_MAX
    "bad_tlv",
    "bad_checksum",
]


class BadProxyHeader(TermproxyError):  # noqa: N818 - named for what it is about
    """This can never become a header.  `reason` is one word for logs and counters.

    Nothing that was sent is repeated, but for numbers.
    """

    fault = Fault.CLIENT

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tlvs:
    """What version 2 tells beside the addresses; None: nothing, or of no length."""

    alpn: bytes | None = None
    authority: str | None = None  # of AUTHORITY_MAX bytes of UTF-8 at most, and printable
    unique_id: bytes | None = None  # UNIQUE_ID_MAX bytes at most
    ssl: bytes | None = None  # the whole value; its sub-TLVs fit into it


NO_TLVS = Tlvs()


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Whom a connection is from, in the words of the proxy in front of us.

    No source and no destination: the connection is that proxy's own (`is_local`), or came to it other
    than by TCP.  Then the socket's addresses count (spec §2.1 UNKNOWN, §2.2 LOCAL, AF_UNSPEC).
    """

    length: int  # bytes; what follows belongs to the client
    source: Endpoint | None = None
    destination: Endpoint | None = None
    is_local: bool = False
    tlvs: Tlvs = NO_TLVS


def read_header(data: bytes | memoryview) -> ProxyHeader | None:
    """The header that `data` begins with; None: it is not all there yet, and every byte is the header's.

    Raises BadProxyHeader as soon as no further bytes could make it one: at the first wrong byte of a
    line, and of the sixteen that version 2 begins with.  The rest of version 2 is judged when it is
    complete (spec §2.2), which is at HEADER_MAX bytes at the latest: to judge it anew with each byte
    that drips in would cost its length squared.
    """
    start = bytes(data[:_FIXED])
    if _LINE_START.startswith(start[: len(_LINE_START)]):
        return _read_v1(bytes(data[:V1_MAX]))
    if _SIGNATURE.startswith(start[: len(_SIGNATURE)]):
        return _read_v2(start, data)
    raise BadProxyHeader("not_proxy", "neither version of the PROXY protocol begins like this")


# Version 1.

_LINE_FAMILIES = {b"TCP4": AF_INET, b"TCP6": AF_INET6}
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_PRINTABLE = re.compile(rb"[ -~]*")

# What makes a line of its beginning: an end for the last word, which can be an address or a port, and
# the shortest words for those that are missing.
_WORD_ENDS = (b"", b"0", b":", b"::", b".0", b"0.0", b".0.0", b"0.0.0", b".0.0.0", b"0.0.0.0")
_SHORTEST_WORDS: dict[bytes, tuple[bytes, ...]] = {
    b"TCP4": (b"0.0.0.0", b"0.0.0.0", b"0", b"0"),
    b"TCP6": (b"::", b"::", b"0", b"0"),
    b"UNKNOWN": (),
}


def _read_v1(start: bytes) -> ProxyHeader | None:
    line, end, _ = start.partition(b"\r\n")
    if end:
        return _parse_line(line)
    if not any(map(_is_line, _completed(start))):
        raise BadProxyHeader("bad_line", "no line of version 1 begins like this")
    return None


def _completed(start: bytes) -> Iterator[bytes]:
    """Lines that begin with `start`, without their ends; one of them is good if any such line is."""
    if start.endswith(b"\r"):
        yield start[:-1]
        return
    words = start.split(b" ")
    if len(words) <= 2:
        began = words[1] if len(words) == 2 else b""
        yield from (
            b" ".join((b"PROXY", name, *shortest))
            for name, shortest in _SHORTEST_WORDS.items()
            if name.startswith(began)
        )
        return
    missing = _SHORTEST_WORDS.get(words[1], ())[len(words) - 2 :]
    yield from (b" ".join((start + end, *missing)) for end in _WORD_ENDS)


def _is_line(line: bytes) -> bool:
    try:
        _parse_line(line)
    except BadProxyHeader:
        return False
    return True


def _parse_line(line: bytes) -> ProxyHeader:
    """Spec §2.1; `line` is without its end."""
    length = len(line) + 2
    if length > V1_MAX:
        raise BadProxyHeader("bad_line", f"it does not end within {V1_MAX} bytes")
    match line.split(b" "):
        case [_, b"TCP4" | b"TCP6" as name, source, destination, source_port, destination_port]:
            family = _LINE_FAMILIES[name]
            return ProxyHeader(
                length,
                source=(_parse_host(family, source), _parse_port(source_port)),
                destination=(_parse_host(family, destination), _parse_port(destination_port)),
            )
        case [_, b"UNKNOWN", *_] if _PRINTABLE.fullmatch(line):
            return ProxyHeader(length)
    raise BadProxyHeader("bad_line", "not PROXY, TCP4 or TCP6, two addresses and two ports, nor UNKNOWN")


def _parse_host(family: AddressFamily, text: bytes) -> str:
    """Dots are let pass in IPv6, though the spec has none: HAProxy writes ::ffff:192.0.2.1 so."""
    try:
        return _host(inet_pton(family, text.decode()))
    except (OSError, ValueError):
        raise BadProxyHeader("bad_line", "an address is not one of its family") from None


def _parse_port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise BadProxyHeader("bad_line", "a port is not a number from 0 to 65535")
    return int(text)


def _host(address: bytes) -> str:
    """As one would write it; IPv4 however it came."""
    address = address.removeprefix(_IPV4_IN_IPV6)
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


# Version 2.

_ADDRESS_SIZES = {
    0x00: 0,  # unspecified
    0x11: 12,  # TCP over IPv4
    0x12: 12,  # UDP over IPv4
    0x21: 36,  # TCP over IPv6
    0x22: 36,  # UDP over IPv6
    0x31: 216,  # Unix stream
    0x32: 216,  # Unix datagram
}
"""How many bytes stand before the TLVs, for each family and transport that spec §2.2 expects."""

_AT_MOST = {_AUTHORITY: AUTHORITY_MAX, _UNIQUE_ID: UNIQUE_ID_MAX}
_READ = frozenset((_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL))


def _read_v2(start: bytes, data: bytes | memoryview) -> ProxyHeader | None:
    """Spec §2.2.  What has not come yet cannot be wrong: a good header's stands in for it."""
    _, version_and_command, family, length = _HEADER.unpack(start + _LOCAL_START[len(start) :])
    if version_and_command & 0xF0 != _VERSION_2:
        raise BadProxyHeader("bad_version", f"version {version_and_command >> 4}, not 2")
    command = version_and_command & 0x0F
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("bad_command", f"command {command}, neither LOCAL nor PROXY")
    is_local = command == _LOCAL
    if not is_local and family not in _ADDRESS_SIZES:
        raise BadProxyHeader("bad_family", f"family and transport are {family:#04x}")
    end = _FIXED + length
    if end > HEADER_MAX:
        raise BadProxyHeader("too_long", f"more than {HEADER_MAX} bytes")
    if len(start) < _FIXED:
        return None
    addresses = _ADDRESS_SIZES.get(family, length)
    if length < addresses and not is_local:
        raise BadProxyHeader("bad_length", f"{length} bytes for {addresses} of addresses")
    if len(data) < end:
        return None
    return _parse_block(bytes(data[:end]), family, _FIXED + addresses, is_local=is_local)


def _parse_block(header: bytes, family: int, tlvs_at: int, *, is_local: bool) -> ProxyHeader:
    source = destination = None
    layout = _LAYOUTS.get(family)
    if layout is not None and not is_local:
        *_, one, other, source_port, destination_port = layout.unpack_from(header)
        source, destination = (_host(one), source_port), (_host(other), destination_port)
    try:
        tlvs = _parse_tlvs(header, tlvs_at)
    except BadProxyHeader as bad:
        # Where there is no client, or one from nobody knows where, the spec lets any bytes stand.
        if bad.reason != "bad_tlv" or not (is_local or family == _UNSPEC):
            raise
        tlvs = NO_TLVS
    return ProxyHeader(len(header), source, destination, is_local, tlvs)


def _parse_tlvs(header: bytes, at: int) -> Tlvs:
    """Those that we read; one that comes twice is refused, since others may go by the other one."""
    values: dict[int, bytes] = {}
    for kind, begin, end in list(_spans(header, at)):
        if kind not in _READ:
            continue
        if kind in values:
            raise BadProxyHeader("bad_tlv", f"type {kind:#04x} comes twice")
        if end - begin > _AT_MOST.get(kind, HEADER_MAX):
            raise BadProxyHeader("bad_tlv", f"type {kind:#04x} has {end - begin} bytes")
        values[kind] = header[begin:end]
        if kind == _CRC32C:
            _verify_checksum(header, begin, end)
    if not values:
        return NO_TLVS
    return Tlvs(
        alpn=values.get(_ALPN) or None,
        authority=_authority(values.get(_AUTHORITY, b"")) or None,
        unique_id=values.get(_UNIQUE_ID) or None,
        ssl=_ssl(values.get(_SSL)),
    )


def _spans(block: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Of each TLV its type, and where its value begins and ends."""
    while at < len(block):
        begin = at + _TLV.size
        if begin > len(block):
            raise BadProxyHeader("bad_tlv", "a TLV is cut off")
        kind, length = _TLV.unpack_from(block, at)
        at = begin + length
        if at > len(block):
            raise BadProxyHeader("bad_tlv", f"type {kind:#04x} is longer than what it stands in")
        yield kind, begin, at


def _verify_checksum(header: bytes, begin: int, end: int) -> None:
    """Spec §2.2.3: of the whole header, with zeros for the sum itself."""
    if end - begin != 4:
        raise BadProxyHeader("bad_tlv", f"a checksum of {end - begin} bytes")
    if crc32c(header[:begin] + bytes(4) + header[end:]) != int.from_bytes(header[begin:end]):
        raise BadProxyHeader("bad_checksum", "the header was changed on its way")


def _authority(value: bytes) -> str:
    """Spec §2.2.2.  What is not UTF-8 becomes surrogates here, and these do not print."""
    text = value.decode(errors="surrogateescape")
    if not text.isprintable():
        raise BadProxyHeader("bad_tlv", "the authority is not text")
    return text


def _ssl(value: bytes | None) -> bytes | None:
    """Spec §2.2.6: a bit field, a number, and sub-TLVs that fit."""
    if value is None:
        return None
    if len(value) < _SSL_FIELDS.size:
        raise BadProxyHeader("bad_tlv", f"an SSL TLV of {len(value)} bytes")
    for _ in _spans(value, _SSL_FIELDS.size):
        pass
    return value


# CRC32C, which the standard library has not: zlib's is of another polynomial.


def _table_entry(entry: int) -> int:
    for _ in range(8):
        entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
    return entry


_TABLE = tuple(map(_table_entry, range(256)))


def crc32c(octets: bytes) -> int:
    """RFC 4960 appendix B; some 8 µs for 100 bytes."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = crc >> 8 ^ _TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF
