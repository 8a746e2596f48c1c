"""PROXY headers: what is written is what the specification shows, and only that is read.

"Spec" is HAProxy's doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termproxy.errors import Fault
from termproxy.relay.proxy_protocol import (
    ALGORITHM_MAX,
    ALPN_MAX,
    AUTHORITY_MAX,
    CERTIFICATE_MAX,
    COMMON_NAME_MAX,
    HEADER_MAX,
    NO_TLVS,
    UNIQUE_ID_MAX,
    V1_MAX,
    BadProxyHeader,
    Endpoint,
    ProxyHeader,
    ShownCertificate,
    SocketName,
    TlsFacts,
    Tlvs,
    crc32c,
    header_v1,
    header_v2,
    read_header,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")

CLIENT = ("192.0.2.1", 56324)
SERVER = ("198.51.100.7", 443)
CLIENT_6 = ("2001:db8::1", 56324, 0, 0)
SERVER_6 = ("2001:db8::7", 443, 0, 0)
IPV4 = bytes.fromhex("c0000201 c6336407 dc04 01bb")
IPV6 = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000007 dc04 01bb")
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def v2(block: bytes = b"", family: int = 0x11, command: int = 0x21, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2) + block


def tlv(kind: int, value: bytes = b"", length: int | None = None) -> bytes:
    return bytes((kind,)) + (len(value) if length is None else length).to_bytes(2) + value


LOCAL = v2(command=0x20, family=0x00)


def tlv_values(block: bytes) -> Iterator[tuple[int, bytes]]:
    while block:
        kind, length = struct.unpack_from("!BH", block)
        yield kind, block[3 : 3 + length]
        assert len(block) >= 3 + length
        block = block[3 + length :]


def told(header: bytes) -> dict[int, bytes]:
    """The TLVs of what header_v2 wrote for two IPv4 addresses."""
    assert header[12:14] == b"\x21\x11"
    assert int.from_bytes(header[14:16]) == len(header) - 16
    return dict(tlv_values(header[28:]))


def told_of_tls(tls: TlsFacts) -> tuple[int, int, dict[int, bytes]]:
    """The SSL TLV's bit field, `verify`, and sub-TLVs."""
    value = told(header_v2(CLIENT, SERVER, tls))[0x20]
    bits, verify = struct.unpack_from("!BI", value)
    return bits, verify, dict(tlv_values(value[5:]))


def with_checksum(header: bytes) -> bytes:
    """As spec §2.2.3 says, for a header that has the TLV with zeros in it."""
    zeros = tlv(3, bytes(4))
    assert header.count(zeros) == 1
    return header.replace(zeros, tlv(3, crc32c(header).to_bytes(4)))


def reason_of(data: bytes) -> str:
    with pytest.raises(BadProxyHeader) as bad:
        read_header(data)
    return bad.value.reason


# Writing version 1.


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        # The example of spec §2.1.
        (("192.168.0.1", 56324), ("192.168.0.11", 443), "TCP4 192.168.0.1 192.168.0.11 56324 443"),
        (("0.0.0.0", 0), ("0.0.0.0", 0), "TCP4 0.0.0.0 0.0.0.0 0 0"),
        (
            ("255.255.255.255", 65535),
            ("255.255.255.255", 65535),
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
        ),
        (CLIENT_6, SERVER_6, "TCP6 2001:db8::1 2001:db8::7 56324 443"),
        (("2001:DB8:0:0::1", 1, 0, 0), SERVER_6, "TCP6 2001:db8::1 2001:db8::7 1 443"),
        (("::", 0, 0, 0), ("::1", 0, 0, 0), "TCP6 :: ::1 0 0"),
        (("fe80::1", 5, 7, 3), ("fe80::2", 6, 0, 3), "TCP6 fe80::1 fe80::2 5 6"),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 2, 0, 0), "TCP4 192.0.2.1 192.0.2.2 1 2"),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.2", 2), "TCP4 192.0.2.1 192.0.2.2 1 2"),
        (
            ("192.0.2.1", 1),
            ("2001:db8::7", 2, 0, 0),
            "TCP6 ::ffff:c000:201 2001:db8::7 1 2",
        ),
        (
            ("2001:db8::1", 1, 0, 0),
            ("::ffff:192.0.2.1", 2, 0, 0),
            "TCP6 2001:db8::1 ::ffff:c000:201 1 2",
        ),
        (("::192.0.2.1", 1, 0, 0), ("::1", 2, 0, 0), "TCP6 ::c000:201 ::1 1 2"),
        (("::0.1.0.0", 1, 0, 0), ("::1", 2, 0, 0), "TCP6 ::1:0 ::1 1 2"),
        (None, None, "UNKNOWN"),
        (CLIENT, None, "UNKNOWN"),
        (None, SERVER_6, "UNKNOWN"),
    ],
)
def test_a_line_has_the_words_of_the_specification(
    source: SocketName | None, destination: SocketName | None, line: str
) -> None:
    header = header_v1(source, destination)
    assert header == f"PROXY {line}\r\n".encode()
    assert len(header) <= V1_MAX


def test_the_longest_line_has_the_specification_s_104_bytes() -> None:
    longest = ("ffff:" * 7 + "ffff", 65535, 0, 0)
    assert len(header_v1(longest, longest)) == 104


# Writing version 2.


@pytest.mark.parametrize(
    ("source", "destination", "header"),
    [
        (CLIENT, SERVER, v2(IPV4)),
        (CLIENT_6, SERVER_6, v2(IPV6, family=0x21)),
        (("::ffff:192.0.2.1", 56324, 0, 0), ("::ffff:198.51.100.7", 443, 0, 0), v2(IPV4)),
        (("::ffff:192.0.2.1", 56324, 0, 0), SERVER, v2(IPV4)),
        (
            CLIENT,
            SERVER_6,
            v2(bytes(10) + b"\xff\xff" + IPV4[:4] + IPV6[16:], family=0x21),
        ),
        (
            CLIENT_6,
            ("::ffff:198.51.100.7", 443, 0, 0),
            v2(IPV6[:16] + bytes(10) + b"\xff\xff" + IPV4[4:8] + IPV6[32:], family=0x21),
        ),
        (None, None, LOCAL),
        (CLIENT, None, LOCAL),
        (None, SERVER_6, LOCAL),
    ],
)
def test_a_binary_header_has_the_bytes_of_the_specification(
    source: SocketName | None, destination: SocketName | None, header: bytes
) -> None:
    assert header_v2(source, destination) == header


def test_what_haproxy_sent_is_what_we_write() -> None:
    """Captured from HAProxy with send-proxy-v2-ssl-cn."""
    facts = TlsFacts(
        version="TLSv1.3",
        client_certificate=ShownCertificate(
            is_verified=True,
            on_this_connection=True,
            common_name="Example Common Name Client Cert",
        ),
    )
    ssl = b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"Example Common Name Client Cert")
    captured = v2(bytes.fromhex("7f000001 7f000001 cc8a 232e") + tlv(0x20, ssl), length=0x40)
    assert header_v2(("127.0.0.1", 52362), ("127.0.0.1", 9006), facts) == captured


def test_a_host_that_is_no_address_makes_no_header() -> None:
    for host in ("a.test", "", "192.0.2.1\r\n", "192.0.2.1 192.0.2.2", "192.0.2.01", "1", ":"):
        for write in (header_v1, header_v2):
            with pytest.raises(OSError, match="illegal IP address"):
                write((host, 1), SERVER)


# What is told of TLS.

FULL = TlsFacts(
    version="TLSv1.2",
    cipher="ECDHE-RSA-AES128-GCM-SHA256",
    group="x25519",
    alpn=b"h2",
    sni="www.example.com",
    signature_algorithm="RSA-SHA256",
    key_algorithm="RSA2048",
    client_certificate=ShownCertificate(
        is_verified=True, on_this_connection=True, common_name="Zoë", der=b"\x30\x00"
    ),
)


def test_every_fact_has_its_type() -> None:
    header = header_v2(CLIENT, SERVER, FULL, b"\0id\xff")
    tlvs = told(header)
    assert list(tlvs) == [0x01, 0x02, 0x20, 0x05]
    assert (tlvs[0x01], tlvs[0x02], tlvs[0x05]) == (b"h2", b"www.example.com", b"\0id\xff")
    bits, verify, ssl = told_of_tls(FULL)
    assert (bits, verify) == (0x07, 0)
    assert ssl == {
        0x21: b"TLSv1.2",
        0x22: "Zoë".encode(),
        0x23: b"ECDHE-RSA-AES128-GCM-SHA256",
        0x24: b"RSA-SHA256",
        0x25: b"RSA2048",
        0x26: b"x25519",
        0x28: b"\x30\x00",
    }


def test_an_unknown_client_s_tls_is_told_all_the_same() -> None:
    header = header_v2(None, None, FULL, b"id")
    assert header[12:14] == b"\x20\x00"
    assert [kind for kind, _ in tlv_values(header[16:])] == [0x01, 0x02, 0x20, 0x05]


def test_without_a_client_certificate_nothing_is_verified() -> None:
    """Spec §2.2.6: `verify` is zero only if a certificate was presented, and verified."""
    bits, verify, ssl = told_of_tls(TlsFacts(version="TLSv1.3"))
    assert bits == 0x01
    assert verify != 0
    assert ssl == {0x21: b"TLSv1.3"}


@pytest.mark.parametrize(
    ("is_verified", "on_this_connection", "bits"),
    [(True, True, 0x07), (True, False, 0x05), (False, True, 0x07), (False, False, 0x05)],
)
def test_a_client_certificate_is_of_the_connection_or_only_of_its_session(
    *, is_verified: bool, on_this_connection: bool, bits: int
) -> None:
    shown = ShownCertificate(
        is_verified=is_verified, on_this_connection=on_this_connection, common_name="a", der=b"0"
    )
    found_bits, verify, ssl = told_of_tls(TlsFacts(version="TLSv1.3", client_certificate=shown))
    assert found_bits == bits
    assert (verify == 0) is is_verified
    # A backend that looks at the name alone must not take it for proven.
    assert ((0x22 in ssl), (0x28 in ssl)) == (is_verified, is_verified)


def named(name: str) -> TlsFacts:
    shown = ShownCertificate(is_verified=True, on_this_connection=True, common_name=name)
    return TlsFacts(version="TLSv1.3", client_certificate=shown)


BREAKING = ["", "a\0b", "a\r\nb", "a\n", "\x1b[2J", "\x7f", "\x85", "a\u2028b", "\u202eb", "\ud800"]


@pytest.mark.parametrize("text", [*BREAKING, "é" * 129, "a" * (COMMON_NAME_MAX + 1)])
def test_a_common_name_that_is_no_text_or_does_not_fit_is_not_told(text: str) -> None:
    assert 0x22 not in told_of_tls(named(text))[2]


@pytest.mark.parametrize("text", ["a", "a b", "Ångström", "東京", "é" * 128, "a" * COMMON_NAME_MAX])
def test_a_common_name_that_fits_is_told_whole(text: str) -> None:
    assert told_of_tls(named(text))[2][0x22] == text.encode()


@pytest.mark.parametrize("text", [*BREAKING, "a" * (AUTHORITY_MAX + 1)])
def test_a_server_name_that_is_no_text_or_does_not_fit_is_not_told(text: str) -> None:
    assert 0x02 not in told(header_v2(CLIENT, SERVER, TlsFacts(version="TLSv1.3", sni=text)))


@pytest.mark.parametrize("alpn", [b"", b"x" * (ALPN_MAX + 1)])
def test_a_protocol_that_does_not_fit_is_not_told(alpn: bytes) -> None:
    assert 0x01 not in told(header_v2(CLIENT, SERVER, TlsFacts(version="TLSv1.3", alpn=alpn)))


def test_a_protocol_is_told_byte_for_byte() -> None:
    """RFC 7301 §3.1: it is opaque."""
    facts = TlsFacts(version="TLSv1.3", alpn=b"\0\r\n\xff")
    assert told(header_v2(CLIENT, SERVER, facts))[0x01] == b"\0\r\n\xff"


@pytest.mark.parametrize("unique_id", [b"", b"x" * (UNIQUE_ID_MAX + 1)])
def test_a_unique_id_that_does_not_fit_is_not_told(unique_id: bytes) -> None:
    assert header_v2(CLIENT, SERVER, unique_id=unique_id) == v2(IPV4)


@pytest.mark.parametrize("text", [*BREAKING, "é", "a" * (ALGORITHM_MAX + 1)])
def test_an_algorithm_that_is_not_ascii_or_does_not_fit_is_not_told(text: str) -> None:
    facts = TlsFacts(version=text, cipher=text, group=text, signature_algorithm=text, key_algorithm=text)
    assert told_of_tls(facts)[2] == {}


def test_a_certificate_that_does_not_fit_is_not_told() -> None:
    for size, is_told in ((0, False), (CERTIFICATE_MAX, True), (CERTIFICATE_MAX + 1, False)):
        shown = ShownCertificate(is_verified=True, on_this_connection=True, der=b"0" * size)
        facts = TlsFacts(version="TLSv1.3", client_certificate=shown)
        assert (0x28 in told_of_tls(facts)[2]) is is_told


def largest(*, der: bytes | None) -> bytes:
    text = "a" * ALGORITHM_MAX
    shown = ShownCertificate(
        is_verified=True, on_this_connection=True, common_name="a" * COMMON_NAME_MAX, der=der
    )
    facts = TlsFacts(
        version=text,
        cipher=text,
        group=text,
        alpn=b"a" * ALPN_MAX,
        sni="a" * AUTHORITY_MAX,
        signature_algorithm=text,
        key_algorithm=text,
        client_certificate=shown,
    )
    return header_v2(CLIENT_6, SERVER_6, facts, b"a" * UNIQUE_ID_MAX, checksum=True)


def test_the_largest_header_is_one_that_is_read() -> None:
    header = largest(der=b"a" * CERTIFICATE_MAX)
    assert len(header) <= HEADER_MAX
    found = read_header(header)
    assert found is not None
    assert found.length == len(header)


def test_without_the_certificate_s_bytes_haproxy_reads_the_largest_header() -> None:
    """Since 2.9 it refuses a TLV above 1024 bytes (HA_PP2_MAX_ALLOC)."""
    found = read_header(largest(der=None))
    assert found is not None
    assert found.tlvs.ssl is not None
    assert len(found.tlvs.ssl) <= 1024


# The checksum.


@pytest.mark.parametrize(
    ("octets", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720 B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_the_checksum_is_castagnoli_s(octets: bytes, crc: int) -> None:
    assert crc32c(octets) == crc


def test_a_checksum_is_of_the_whole_header() -> None:
    header = header_v2(CLIENT, SERVER, FULL, b"id", checksum=True)
    assert header[-7:-4] == b"\x03\0\x04"
    assert header == with_checksum(header[:-4] + bytes(4))
    assert header[16:-7] == header_v2(CLIENT, SERVER, FULL, b"id")[16:]


def load_balancer_header(client: str, server: str, ports: str, crc: str, endpoint: bytes) -> bytes:
    """As AWS's network load balancer sends it: checksum, its own type, and padding."""
    return v2(
        bytes.fromhex(client + server + ports)
        + tlv(0x03, bytes.fromhex(crc))
        + tlv(0xEA, b"\x01" + endpoint)
        + tlv(0x04, bytes(36))
    )


AWS_EXAMPLE = load_balancer_header(
    "ac1f0771", "ac1f0a1f", "c8f20050", "e8d6892d", b"vpce-08d2bf15fac5001c9"
)
AWS_CAPTURE = load_balancer_header(
    "c0a82c0a", "c0a82c07", "cc3e241b", "b9286fa6", b"vpce-00eafc458ec97b833"
)


# Reading what is right.


def sent(length: int, tlvs: Tlvs = NO_TLVS) -> ProxyHeader:
    return ProxyHeader(length, CLIENT, SERVER, tlvs=tlvs)


def sent_6(length: int, tlvs: Tlvs = NO_TLVS) -> ProxyHeader:
    return ProxyHeader(length, CLIENT_6[:2], SERVER_6[:2], tlvs=tlvs)


def nobody(length: int, tlvs: Tlvs = NO_TLVS) -> ProxyHeader:
    return ProxyHeader(length, tlvs=tlvs)


def own(length: int, tlvs: Tlvs = NO_TLVS) -> ProxyHeader:
    return ProxyHeader(length, is_local=True, tlvs=tlvs)


LINES = [
    (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ("192.168.0.1", 56324),
        ("192.168.0.11", 443),
    ),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::7 1 2\r\n", ("2001:db8::1", 1), ("2001:db8::7", 2)),
    (b"PROXY TCP6 2001:0db8:0:0::01 ::1 1 2\r\n", ("2001:db8::1", 1), ("::1", 2)),
    (b"PROXY TCP6 :: 1:2:3:4:5:6:7:: 0 0\r\n", ("::", 0), ("1:2:3:4:5:6:7:0", 0)),
    (
        b"PROXY TCP6 ::2:3:4:5:6:7:8 1:2:3:4:5:6:7:8 0 9\r\n",
        ("0:2:3:4:5:6:7:8", 0),
        ("1:2:3:4:5:6:7:8", 9),
    ),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:0202 1 2\r\n", ("192.0.2.1", 1), ("192.0.2.2", 2)),
    (b"PROXY TCP6 ::FFFF:192.0.2.1 2001:db8::7 1 2\r\n", ("192.0.2.1", 1), ("2001:db8::7", 2)),
    (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        ("ffff:" * 7 + "ffff", 65535),
        ("ffff:" * 7 + "ffff", 65535),
    ),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN \r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None, None),
    (b"PROXY UNKNOWN whatever  is  here\r\n", None, None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, None),  # 107 bytes
]

SSL = b"\x01\0\0\0\1" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_256_GCM_SHA384")
HAPROXY_SSL = (
    b"\x07\0\0\0\0"
    + tlv(0x21, b"TLSv1.3")
    + tlv(0x22, b"alice")
    + tlv(0x25, b"EC256")
    + tlv(0x24, b"ecdsa-with-SHA256")
    + tlv(0x23, b"TLS_AES_256_GCM_SHA384")
)

BINARIES = [
    # Addresses.
    (v2(IPV4), sent(28)),
    (v2(IPV6, family=0x21), sent_6(52)),
    (
        v2(bytes(10) + b"\xff\xff" + IPV4[:4] + IPV6[16:], family=0x21),
        ProxyHeader(52, CLIENT, SERVER_6[:2]),
    ),
    (
        v2((bytes(10) + b"\xff\xff" + IPV4[:4]) * 2 + IPV6[32:], family=0x21),
        ProxyHeader(52, CLIENT, ("192.0.2.1", 443)),
    ),
    # P3: of the sender's own, with and without a block, whatever the family and the block are.
    (LOCAL, own(16)),
    (v2(command=0x20), own(16)),
    (v2(IPV4, command=0x20), own(28)),
    (v2(IPV4 + b"\2", command=0x20), own(29)),
    (v2(IPV4, command=0x20, family=0x00), own(28)),
    (v2(b"\0", command=0x20, family=0x21), own(17)),
    (v2(b"\xff" * 50, command=0x20, family=0xFF), own(66)),
    (v2(b"\x02\0\1\xff", command=0x20, family=0x00), own(20)),
    (v2(tlv(5, b"id"), command=0x20, family=0x00), own(21, Tlvs(unique_id=b"id"))),
    (v2(IPV4 + tlv(5, b"id"), command=0x20), own(33, Tlvs(unique_id=b"id"))),
    # P4: of what says nothing to us the client is unknown, as spec §2.2 asks.
    (v2(family=0x00), nobody(16)),
    (v2(IPV4, family=0x00), nobody(28)),
    (v2(tlv(2, b"a.test"), family=0x00), nobody(25, Tlvs(authority="a.test"))),
    (v2(IPV4, family=0x12), nobody(28)),
    (v2(IPV4 + tlv(2, b"a.test"), family=0x12), nobody(37, Tlvs(authority="a.test"))),
    (v2(IPV6, family=0x22), nobody(52)),
    (v2(UNIX, family=0x31), nobody(232)),
    (v2(UNIX + tlv(1, b"h2"), family=0x32), nobody(237, Tlvs(alpn=b"h2"))),
    # TLVs: those we read, in any order, and those we do not, often.
    (v2(IPV4 + tlv(1, b"h2")), sent(33, Tlvs(alpn=b"h2"))),
    (v2(IPV4 + tlv(1, b"\0\xff\r\n")), sent(35, Tlvs(alpn=b"\0\xff\r\n"))),
    (v2(IPV4 + tlv(2, b"12345")), sent(36, Tlvs(authority="12345"))),
    (v2(IPV4 + tlv(2, "bücher.test".encode())), sent(43, Tlvs(authority="bücher.test"))),
    (v2(IPV4 + tlv(2, b"a" * 255)), sent(286, Tlvs(authority="a" * 255))),
    (v2(IPV4 + tlv(5, b"x" * 128)), sent(159, Tlvs(unique_id=b"x" * 128))),
    (v2(IPV4 + tlv(0x20, SSL)), sent(71, Tlvs(ssl=SSL))),
    (v2(IPV4 + tlv(0x20, b"\0\0\0\0\1")), sent(36, Tlvs(ssl=b"\0\0\0\0\1"))),
    (v2(IPV4 + tlv(1) + tlv(2) + tlv(5)), sent(37)),
    (v2(IPV4 + tlv(4) + tlv(4, b"\0\0") + tlv(4)), sent(39)),
    (v2(IPV4 + tlv(0x30, b"ns") + tlv(0xE0, b"a") + tlv(0xE0, b"b") + tlv(0xFF)), sent(44)),
    (
        v2(IPV6 + tlv(5, b"id") + tlv(0xEE, b"\1") + tlv(2, b"a.test") + tlv(1, b"h2"), family=0x21),
        sent_6(75, Tlvs(unique_id=b"id", authority="a.test", alpn=b"h2")),
    ),
    (v2(IPV4 + tlv(4, bytes(HEADER_MAX - 31))), sent(HEADER_MAX)),
    # Checksums.
    (with_checksum(v2(IPV4 + tlv(3, bytes(4)))), sent(35)),
    (with_checksum(v2(IPV4 + tlv(3, bytes(4)) + tlv(2, b"a.test"))), sent(44, Tlvs(authority="a.test"))),
    (with_checksum(v2(tlv(3, bytes(4)), command=0x20, family=0)), own(23)),
    # As HAProxy 2.6 sends them: for a client on a Unix socket, and with a client certificate.
    (
        v2(tlv(3, b"\x88\x9d\xa1\xdf") + tlv(0x20, bytes(5)), family=0, command=0x20),
        own(31, Tlvs(ssl=bytes(5))),
    ),
    (
        v2(IPV4 + tlv(1, b"h2") + tlv(2, b"www.example.com") + tlv(0x20, HAPROXY_SSL)),
        sent(130, Tlvs(alpn=b"h2", authority="www.example.com", ssl=HAPROXY_SSL)),
    ),
    # As AWS's load balancer sends it.
    (AWS_EXAMPLE, ProxyHeader(100, ("172.31.7.113", 51442), ("172.31.10.31", 80))),
    (AWS_CAPTURE, ProxyHeader(100, ("192.168.44.10", 52286), ("192.168.44.7", 9243))),
]

GOOD = [
    *((line, ProxyHeader(len(line), source, destination)) for line, source, destination in LINES),
    *BINARIES,
]


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_header_is_read_for_what_it_says(data: bytes, header: ProxyHeader) -> None:
    assert read_header(data) == header
    assert header.length == len(data)


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_header_in_pieces_is_waited_for(data: bytes, header: ProxyHeader) -> None:
    assert [read_header(data[:cut]) for cut in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(("data", "header"), GOOD)
@pytest.mark.parametrize("payload", [b"\x16\x03\x01\x02\0\1", b"\n", b"\r\n", LOCAL, tlv(2, b"x")])
def test_what_follows_a_header_is_left_alone(data: bytes, header: ProxyHeader, payload: bytes) -> None:
    """P5: they may come in one segment, and a second header is the client's."""
    assert read_header(data + payload) == header


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_buffer_is_as_good_as_bytes(data: bytes, header: ProxyHeader) -> None:
    buffer = bytearray(data + bytes(HEADER_MAX))
    assert read_header(memoryview(buffer)) == header
    assert read_header(memoryview(buffer)[: len(data) - 1]) is None
    buffer.clear()  # which a header that still looked into it would not allow


# Reading what is wrong.

BAD_LINES = [
    # P6, and all else that is not the line of spec §2.1; "|" stands behind the byte that gives it away.
    b"PROXY  |TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4  |192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1  |192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2  |1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1  |2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 |\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 |3\r\n",
    b"PROXY TCP4\t|192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY t|cp4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY Tc|p4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP5| 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP44| 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP |192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UD|P4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY u|nknown\r\n",
    b"PROXY UNKNOWNx|\r\n",
    b"PROXY UNKNOWN\n|",
    b"PROXY UNKNOWN\rx|",
    b"PROXY UNKNOWN a\n|b\r\n",
    b"PROXY UNKNOWN a\0|b\r\n",
    b"PROXY UNKNOWN \xc3|\xa9\r\n",
    b"PROXY \r|\n",
    b"PROXY TCP4\r|\n",
    b"PROXY TCP4 192.0.2.1\r|\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2\r|\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r|\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \r|\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n|",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r|\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r |\n",
    b"PROXY TCP4 192.0.2.1\n| 192.0.2.2 1 2\r\n",
    # Addresses.
    b"PROXY TCP4 01|92.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.00|.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.01| 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 256|.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.256| 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2 |192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1.|1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192..|2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 .|192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 0x|c0.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 +|192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 2001|:db8::1 2001:db8::7 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 :|:1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1\0| 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 \xd9|\xa1.0.2.1 192.0.2.2 1 2\r\n",  # U+0661 is a digit to int()
    b"PROXY TCP6 192.|0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 2001:db8::1::|7 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 2001:::|1 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 1:2:3:4:5:6:7:8:|9 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 1:2:3:4:5:6:7 |2001:db8::7 1 2\r\n",
    b"PROXY TCP6 1:2:3:4:5:6:7: |2001:db8::7 1 2\r\n",
    b"PROXY TCP6 20010|:db8::1 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 g|001:db8::1 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 fe80::1%|eth0 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 [|2001:db8::1] 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 2001:db8::/|32 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 ::ffff:192.0.2.01| 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 ::ffff:192.0.2.256| 2001:db8::7 1 2\r\n",
    b"PROXY TCP6 :2|001:db8::1 2001:db8::7 1 2\r\n",
    # Ports.
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536| 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 99999| 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 100000| 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536|\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 00| 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01| 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 02|\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -|1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +|1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1_|0 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 0x|1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1.|0 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 h|ttp 2\r\n",
    b"PROXY TCP6 ::1 ::2 0 :|\r\n",
    # Longer than 107 bytes.
    b"PROXY UNKNOWN " + b"x" * 92 + b"|\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"|" + b"x" * 500,
    b"PROXY TCP6 " + b"ffff:" * 6 + b"255.255.255.255 " + b"ffff:" * 6 + b"255.255.255.255| 1 2\r\n",
]

NO_PROXY = [
    b"p|roxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXy| TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY\t|TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY\r|\n",
    b"PROXYT|CP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b" |PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PO|ST / HTTP/1.1\r\n\r\n",
    b"G|ET / HTTP/1.1\r\n\r\n",
    b"\x16|\x03\x01\x02\0\1\0\1\xfc\x03\x03" + bytes(40),  # P2: a ClientHello
    b"\0|" + LOCAL,
    b"\r\n\r\n\r|\n",
    b"\r\n\r\n\0\r\nq|uit\n",
    b"\r\n\r\n\0\r\nQUIT\r|",
]

BAD_BINARIES = [
    *((v2(IPV4, command=command), 13, "bad_version") for command in (0x01, 0x11, 0x30, 0x31, 0xF1)),
    *((v2(IPV4, command=command), 13, "bad_command") for command in (0x22, 0x23, 0x2F)),
    # Spec §2.2: other families and transports must be rejected, and halves of one may be.
    *(
        (v2(IPV4, family=family), 14, "bad_family")
        for family in (0x13, 0x1F, 0x03, 0x41, 0xF1, 0xFF, 0x01, 0x02, 0x10, 0x20, 0x30)
    ),
    # P5: lengths that lie.
    *((v2(IPV4, length=length), 16, "bad_length") for length in (0, 1, 11)),
    *((v2(IPV4, length=length, family=0x12), 16, "bad_length") for length in (0, 11)),
    *((v2(IPV6, length=length, family=0x21), 16, "bad_length") for length in (0, 12, 35)),
    *((v2(UNIX, length=length, family=0x31), 16, "bad_length") for length in (0, 215)),
    (v2(IPV4, length=HEADER_MAX - 15), 16, "too_long"),
    (v2(IPV4, length=0x1000), 15, "too_long"),
    (v2(IPV4, length=0xFFFF), 15, "too_long"),
    (v2(command=0x20, family=0, length=0xFFFF), 15, "too_long"),
    *((v2(IPV4 + bytes(size)), 28 + size, "bad_tlv") for size in (1, 2)),
    (v2(IPV4 + tlv(2, b"12345", length=10)), 36, "bad_tlv"),
    (v2(IPV4 + tlv(2, b"12345", length=6)), 36, "bad_tlv"),
    (v2(IPV4 + tlv(2, b"12345", length=4)), 36, "bad_tlv"),
    (v2(IPV4 + tlv(2, b"12345", length=0xFFFF)), 36, "bad_tlv"),
    (v2(IPV4 + tlv(4, b"") + tlv(4, b"", length=1)), 34, "bad_tlv"),
    (v2(IPV4 + tlv(0xE0, b"1", length=2), family=0x12), 32, "bad_tlv"),
    (v2(UNIX + b"\2", family=0x31), 233, "bad_tlv"),
    # Sub-TLVs.
    *((v2(IPV4 + tlv(0x20, bytes(size))), 31 + size, "bad_tlv") for size in (0, 1, 4, 6, 7)),
    (v2(IPV4 + tlv(0x20, SSL[:-1])), 70, "bad_tlv"),
    (v2(IPV4 + tlv(0x20, SSL + b"\x22")), 72, "bad_tlv"),
    (v2(IPV4 + tlv(0x20, SSL + tlv(0x22, b"a", length=2)) + tlv(4)), 78, "bad_tlv"),
    # What is in them.
    (v2(IPV4 + tlv(5, b"x" * 129)), 160, "bad_tlv"),
    (v2(IPV4 + tlv(2, b"a" * 256)), 287, "bad_tlv"),
    *(
        (v2(IPV4 + tlv(2, name)), 31 + len(name), "bad_tlv")
        for name in (
            b"a\0b",
            b"a\r\nb",
            b"\x1b[2J",
            b"\x7f",
            b"\xff",
            b"\xc3",
            b"\xe2\x80\xae",
            b"\xed\xa0\x80",
        )
    ),
    *(
        (v2(IPV4 + tlv(kind, value) * 2), 34 + 2 * len(value), "bad_tlv")
        for kind, value in ((1, b"h2"), (2, b"a.test"), (5, b"id"), (0x20, SSL))
    ),
    # Checksums.
    *((v2(IPV4 + tlv(3, bytes(size))), 31 + size, "bad_tlv") for size in (0, 3, 5)),
    (v2(IPV4 + tlv(3, bytes(4))), 35, "bad_checksum"),
    (v2(IPV4 + tlv(3, bytes(4)), command=0x20), 35, "bad_checksum"),
    (v2(tlv(3, bytes(4)), family=0), 23, "bad_checksum"),
    (AWS_EXAMPLE.replace(b"vpce", b"vpcf"), 100, "bad_checksum"),
    (v2(IPV4 + tlv(3, bytes(4)) * 2), 42, "bad_checksum"),
]

BAD = [
    *((line.replace(b"|", b""), line.index(b"|"), "bad_line") for line in BAD_LINES),
    *((start.replace(b"|", b""), start.index(b"|"), "not_proxy") for start in NO_PROXY),
    *BAD_BINARIES,
]


@pytest.mark.parametrize(("data", "at", "reason"), BAD)
def test_what_is_no_header_is_refused(data: bytes, at: int, reason: str) -> None:
    assert reason_of(data) == reason
    assert reason_of(data + b"\r\n") == reason
    assert reason_of(data + bytes(HEADER_MAX)) == reason


@pytest.mark.parametrize(("data", "at", "reason"), BAD)
def test_what_is_no_header_is_refused_as_soon_as_that_is_plain(
    data: bytes, at: int, reason: str
) -> None:
    """P7: a sender of one byte at a time learns it at `at` bytes, and not before."""
    assert [read_header(data[:cut]) for cut in range(at)] == [None] * at
    assert {reason_of(data[:cut]) for cut in range(at, len(data) + 1)} == {reason}


def test_a_refusal_is_the_client_s_fault_and_repeats_nothing() -> None:
    """What it says comes to stand in a log."""
    for data, _, reason in BAD:
        with pytest.raises(BadProxyHeader) as bad:
            read_header(data)
        assert bad.value.fault is Fault.CLIENT
        text = str(bad.value)
        assert text.startswith(f"{reason}: ")
        assert text.isascii()
        assert text.isprintable()
        assert not any(sent in text for sent in ("192.0.2", "2001", "[2J", "1.0", "a.test"))


def test_nothing_yet_may_become_anything() -> None:
    assert read_header(b"") is None
    assert read_header(memoryview(b"")) is None


def test_more_than_the_longest_header_is_never_waited_for() -> None:
    """So that a caller needs no larger buffer than HEADER_MAX, and for version 1 than V1_MAX."""
    longest = v2(IPV4 + tlv(4, bytes(HEADER_MAX - 31)))
    assert (len(longest), read_header(longest[:-1])) == (HEADER_MAX, None)
    line = b"PROXY UNKNOWN ".ljust(V1_MAX - 2, b"x")
    assert read_header(line + b"\r") is None
    assert reason_of(line + b"x") == "bad_line"


# Whatever is sent.

ports = st.integers(0, 65535)
addresses_4 = st.ip_addresses(v=4).map(str)
addresses_6 = st.ip_addresses(v=6).map(str)
mapped = addresses_4.map("::ffff:{}".format)
names_4 = st.tuples(addresses_4, ports)
names_6 = st.tuples(addresses_6 | mapped, ports, st.integers(0, 9), st.integers(0, 9))
names: st.SearchStrategy[SocketName] = names_4 | names_6
texts = st.none() | st.text(max_size=80)
certificates = st.builds(
    ShownCertificate,
    is_verified=st.booleans(),
    on_this_connection=st.booleans(),
    common_name=texts,
    der=st.none() | st.binary(max_size=40),
)
facts_of_tls = st.builds(
    TlsFacts,
    version=st.text(max_size=80),
    cipher=texts,
    group=texts,
    alpn=st.none() | st.binary(max_size=300),
    sni=texts,
    signature_algorithm=texts,
    key_algorithm=texts,
    client_certificate=st.none() | certificates,
)
headers = st.builds(header_v1, names, names) | st.builds(
    header_v2,
    st.none() | names,
    names,
    st.none() | facts_of_tls,
    st.none() | st.binary(max_size=140),
    checksum=st.booleans(),
)


def canonical(name: SocketName) -> Endpoint:
    """Told from the standard library's point of view."""
    address = ipaddress.ip_address(name[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return str(address), name[1]


def same(found: Endpoint | None, name: SocketName) -> bool:
    """inet_ntop() and the standard library write some addresses differently (::1.2.3.4)."""
    assert found is not None
    host, port = canonical(name)
    return (ipaddress.ip_address(found[0]), found[1]) == (ipaddress.ip_address(host), port)


Outcome = ProxyHeader | str | None


def outcome(data: bytes) -> Outcome:
    try:
        return read_header(data)
    except BadProxyHeader as bad:
        return bad.reason


def dripped(data: bytes) -> Outcome:
    """What comes of it one byte at a time."""
    pieces = (outcome(data[:cut]) for cut in range(len(data) + 1))
    return next((found for found in pieces if found is not None), None)


@given(source=names, destination=names)
def test_a_line_that_is_written_is_read(source: SocketName, destination: SocketName) -> None:
    line = header_v1(source, destination)
    found = read_header(line)
    assert found is not None
    assert found.length == len(line) <= V1_MAX
    assert same(found.source, source)
    assert same(found.destination, destination)


@given(
    source=names,
    destination=names,
    tls=st.none() | facts_of_tls,
    unique_id=st.none() | st.binary(max_size=140),
    checksum=st.booleans(),
)
def test_a_binary_header_that_is_written_is_read(
    *,
    source: SocketName,
    destination: SocketName,
    tls: TlsFacts | None,
    unique_id: bytes | None,
    checksum: bool,
) -> None:
    header = header_v2(source, destination, tls, unique_id, checksum=checksum)
    found = read_header(header)
    assert found is not None
    assert found.length == len(header) <= HEADER_MAX
    assert same(found.source, source)
    assert same(found.destination, destination)
    assert found.tlvs.unique_id in (unique_id or None, None)
    assert found.tlvs.alpn in ((tls and tls.alpn) or None, None)
    assert found.tlvs.authority in ((tls and tls.sni) or None, None)
    assert (found.tlvs.ssl is None) is (tls is None)


@given(header=headers)
def test_every_part_of_a_header_is_waited_for(header: bytes) -> None:
    assert {read_header(header[:cut]) for cut in range(len(header))} == {None}


hexadecimal = st.text("0123456789abcdefABCDEF", min_size=1, max_size=4)


@st.composite
def spelt_6(draw: st.DrawFn) -> str:
    """An IPv6 address in any of the ways to write one."""
    groups = draw(st.lists(hexadecimal, min_size=8, max_size=8))
    if draw(st.booleans()):
        groups[6:] = [draw(addresses_4)]
    if draw(st.booleans()):
        return ":".join(groups)
    begin = draw(st.integers(0, len(groups) - 1))
    end = draw(st.integers(begin + 1, len(groups)))
    if "." in groups[-1] and end == len(groups):
        return ":".join(groups)
    return f"{':'.join(groups[:begin])}::{':'.join(groups[end:])}"


@given(source=spelt_6(), destination=spelt_6(), port=ports)
def test_an_address_may_be_spelt_in_any_way_and_cut_anywhere(
    source: str, destination: str, port: int
) -> None:
    line = f"PROXY TCP6 {source} {destination} {port} {port}\r\n".encode()
    found = outcome(line)
    if len(line) > V1_MAX:
        assert found == "bad_line"
        return
    assert isinstance(found, ProxyHeader)
    assert same(found.source, (source, port, 0, 0))
    assert same(found.destination, (destination, port, 0, 0))
    assert {read_header(line[:cut]) for cut in range(len(line))} == {None}


@settings(max_examples=500)
@given(data=st.binary(max_size=150))
@example(data=b"PROXY ")
@example(data=LOCAL)
def test_any_bytes_are_a_header_a_part_of_one_or_refused(data: bytes) -> None:
    assert dripped(data) == outcome(data)


@settings(max_examples=500)
@given(
    words=st.lists(
        st.sampled_from([b"PROXY", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"\r", b"\n", b"\0"])
        | st.sampled_from([b"192.0.2.1", b"::1", b":", b".", b"0", b"1", b"65535", b"ffff:"])
    )
)
def test_any_words_are_a_line_a_part_of_one_or_refused(words: list[bytes]) -> None:
    data = b"PROXY TCP" + b"".join(words)
    assert dripped(data) == outcome(data)


@settings(max_examples=500)
@given(
    block=st.binary(max_size=80),
    family=st.sampled_from([0x00, 0x11, 0x12, 0x21, 0x31]) | st.integers(0, 255),
    command=st.sampled_from([0x20, 0x21]) | st.integers(0, 255),
    more=st.integers(-5, 5),
)
def test_any_block_is_read_waited_for_or_refused(
    block: bytes, family: int, command: int, more: int
) -> None:
    data = v2(block, family, command, max(0, len(block) + more))
    assert dripped(data) == outcome(data)
    found = outcome(data)
    if isinstance(found, ProxyHeader):
        assert found.length == 16 + max(0, len(block) + more)


@given(block=st.binary(max_size=80), family=st.integers(0, 255))
def test_any_local_block_is_accepted_unless_it_says_itself_that_it_is_damaged(
    block: bytes, family: int
) -> None:
    """Spec §2.2: the receiver must accept it, and must verify a checksum (§2.2.3)."""
    data = v2(block, family, 0x20)
    found = outcome(data)
    assert found == "bad_checksum" or (
        isinstance(found, ProxyHeader)
        and (found.length, found.source, found.is_local) == (len(data), None, True)
    )


@settings(max_examples=500)
@given(header=headers, draw=st.data())
def test_a_header_that_is_damaged_is_read_waited_for_or_refused(
    header: bytes, draw: st.DataObject
) -> None:
    data = bytearray(header)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        how = draw.draw(st.sampled_from(["change", "insert", "remove"]))
        octets = b"" if how == "remove" else bytes((draw.draw(st.integers(0, 255)),))
        data[at : at + (how != "insert")] = octets
    assert dripped(bytes(data)) == outcome(bytes(data))


@given(header=headers, payload=st.binary(max_size=40))
def test_a_payload_changes_nothing(header: bytes, payload: bytes) -> None:
    assert read_header(header + payload) == read_header(header)


def test_no_single_bit_of_a_header_with_a_checksum_may_be_wrong() -> None:
    """But for those that hide that there is a checksum, or promise more bytes."""
    for at in range(len(AWS_EXAMPLE)):
        for bit in range(8):
            data = bytearray(AWS_EXAMPLE)
            data[at] ^= 1 << bit
            found = outcome(bytes(data))
            assert isinstance(found, str) or at == 28 or (at in (14, 15) and found is None)
