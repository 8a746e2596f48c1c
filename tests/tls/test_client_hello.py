"""The server_name extension: a name, none, or a refusal, and nothing else (RFC 6066 §3); and offers."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termproxy.hostname import is_host_name
from termproxy.tls.client_hello import (
    DECODE_ERROR,
    PROTOCOLS_MAX,
    UNRECOGNIZED_NAME,
    BadServerName,
    Offer,
    RawOffer,
    host_name,
    parse_offer,
    server_name,
)

LABEL = b"a" * 63
LONGEST = b".".join([LABEL, LABEL, LABEL, b"a" * 61])


def vector(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content


def entry(name: bytes, kind: int = 0) -> bytes:
    return bytes([kind]) + vector(name)


def extension(*names: bytes) -> bytes:
    return vector(b"".join(map(entry, names)))


def alert_of(body: bytes) -> int:
    with pytest.raises(BadServerName) as bad:
        server_name(body)
    return bad.value.alert


# Names.


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"a.test", "a.test"),
        (b"A.Test", "a.test"),
        (b"a.test.", "a.test"),
        (b"A.TEST.", "a.test"),
        (b"localhost", "localhost"),
        (b"xn--mnchen-3ya.test", "xn--mnchen-3ya.test"),
        (b"XN--MNCHEN-3YA.test", "xn--mnchen-3ya.test"),
        (b"_sip.a.test", "_sip.a.test"),
        (LABEL + b".test", f"{LABEL.decode()}.test"),
        (LONGEST, LONGEST.decode()),
        (LONGEST + b".", LONGEST.decode()),
        (b"1.2.3", "1.2.3"),
        (b"1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_a_name_is_given_as_certificates_write_it(sent: bytes, name: str) -> None:
    assert server_name(extension(sent)) == name


def test_no_extension_is_no_name() -> None:
    assert server_name(None) is None


@pytest.mark.parametrize(
    "address",
    [
        b"192.0.2.1",
        b"192.0.2.1.",
        b"::1",
        b"2001:DB8::1",
        b"[2001:db8::1]",
        b"::ffff:192.0.2.1",
        b"0.0.0.0",
    ],
)
def test_an_address_is_no_name(address: bytes) -> None:
    """Clients send it although RFC 6066 does not allow it: curl did for years."""
    assert server_name(extension(address)) is None


# Refusals.


@pytest.mark.parametrize(
    "sent",
    [
        b".",
        b"a..",
        b".a",
        b"a..b",
        b"a\0",
        b"a.test\0.evil.test",
        b"\0",
        b"a b",
        b"a.test ",
        b"a.test\n",
        b"*.a.test",
        b"-a.test",
        b"a.test:443",
        b"https://a.test",
        "m\u00fcnchen.test".encode(),
        "m\u00fcnchen.test".encode("latin-1"),
        b"\xe2\x84\xaa.test",  # the Kelvin sign, whose lower case is k
        b"\xff" * 10,
        b"a" * 64 + b".test",
        b"a" + LONGEST,
        b"a" * 60_000,
        b"999.0.2.1x!",
    ],
)
def test_what_cannot_be_a_name_is_an_unknown_one(sent: bytes) -> None:
    assert alert_of(extension(sent)) == UNRECOGNIZED_NAME


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\0",
        vector(b""),
        vector(b"\0"),
        vector(b"\0\0"),
        extension(b""),
        extension(b"a.test", b"b.test"),
        extension(b"a.test", b"a.test"),
        vector(entry(b"a.test", kind=1)),
        vector(entry(b"a.test", kind=255)),
        vector(entry(b"a.test") + entry(b"x", kind=1)),
        vector(entry(b"x", kind=1) + entry(b"a.test")),
        extension(b"a.test") + b"\0",
        extension(b"a.test")[:-1],
        b"\0" + extension(b"a.test"),
        b"\xff\xff" + entry(b"a.test"),
        b"\0\x03" + entry(b"a.test"),
        vector(b"\0\xff\xffa.test"),
        vector(b"\0\0\x05a.test"),
        vector(b"\0\0\x07a.test"),
        b"a.test",
    ],
)
def test_lengths_that_do_not_fit_and_other_kinds_of_name_are_refused(body: bytes) -> None:
    """CVE-2026-32305: what could not be read was taken for no name, and got the default's policy."""
    assert alert_of(body) == DECODE_ERROR


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(BadServerName) as bad:
        server_name(extension(b"\x1b[2J"))
    assert "\x1b" not in str(bad.value)


# Whatever is sent.


def outcome(body: bytes) -> str | int | None:
    try:
        return server_name(body)
    except BadServerName as bad:
        return bad.alert


def is_of_the_three(found: str | int | None) -> bool:
    return (
        found is None
        or found in (DECODE_ERROR, UNRECOGNIZED_NAME)
        or (isinstance(found, str) and is_host_name(found))
    )


@settings(max_examples=500)
@given(body=st.binary(max_size=300))
@example(body=extension(b"a.test"))
def test_any_bytes_are_a_name_none_or_a_refusal(body: bytes) -> None:
    assert is_of_the_three(outcome(body))


@settings(max_examples=500)
@given(name=st.binary(min_size=1, max_size=300))
def test_any_name_is_a_name_none_or_a_refusal(name: bytes) -> None:
    found = outcome(extension(name))
    assert found != DECODE_ERROR
    assert is_of_the_three(found)
    if isinstance(found, str):
        assert name.lower().removesuffix(b".") == found.encode()


@given(name=st.text("aB1.-_:[]%", min_size=1, max_size=30))
def test_what_nearly_is_a_name_or_an_address_is_one_of_the_three(name: str) -> None:
    assert is_of_the_three(outcome(extension(name.encode())))


@given(data=st.data())
def test_a_well_formed_extension_with_one_byte_changed_is_one_of_the_three(data: st.DataObject) -> None:
    body = bytearray(extension(b"some.name.test"))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert is_of_the_three(outcome(bytes(body)))


@given(cut=st.integers(0, 18))
def test_a_shortened_extension_is_refused(cut: int) -> None:
    assert outcome(extension(b"some.name.test")[:cut]) == DECODE_ERROR


def test_a_name_means_the_same_from_a_certificate_and_from_a_client() -> None:
    assert host_name(b"A.Test.") == server_name(extension(b"a.test"))


# What a client offers.


def listed(*values: int) -> bytes:
    """With two bytes of length; supported_versions has one."""
    return vector(b"".join(value.to_bytes(2) for value in values))


def raw(
    *,
    version: int = 0x0303,
    ciphers: bytes = b"\xc0\x2b",
    versions: bytes | None = None,
    groups: bytes | None = None,
    signature_algorithms: bytes | None = None,
    protocols: bytes | None = None,
) -> RawOffer:
    return version, ciphers, versions, groups, signature_algorithms, protocols


def test_an_offer_is_what_stands_in_the_lists() -> None:
    assert parse_offer(
        raw(
            ciphers=b"\x13\x01\xc0\x2b",
            versions=b"\x04\x03\x04\x03\x03",
            groups=listed(0x1D, 0x17),
            signature_algorithms=listed(0x0403),
            protocols=vector(b"\x02h2\x08http/1.1"),
        )
    ) == Offer(
        versions=(0x0304, 0x0303),
        ciphers=(0x1301, 0xC02B),
        groups=(0x1D, 0x17),
        signature_algorithms=(0x0403,),
        protocols=("h2", "http/1.1"),
    )


def test_what_was_not_sent_is_told_from_what_is_empty() -> None:
    silent = parse_offer(raw())
    assert (silent.groups, silent.signature_algorithms, silent.protocols) == (None, None, ())
    empty = parse_offer(raw(groups=b"\0\0", signature_algorithms=b"\0\0", protocols=b"\0\0"))
    assert (empty.groups, empty.signature_algorithms, empty.protocols) == ((), (), ())


@pytest.mark.parametrize(
    ("legacy", "version"),
    [(0x0303, 0x0303), (0x0301, 0x0301), (0x0002, 0x0002), (0x0304, 0x0303), (0xFFFF, 0x0303)],
)
def test_without_a_list_of_versions_the_old_field_counts_up_to_1_2(legacy: int, version: int) -> None:
    """RFC 8446 §4.2.1: TLS 1.3 is not negotiated without supported_versions."""
    assert parse_offer(raw(version=legacy)).versions == (version,)


def test_with_a_list_of_versions_the_old_field_does_not_count() -> None:
    assert parse_offer(raw(version=0x0303, versions=b"\x02\x03\x04")).versions == (0x0304,)
    assert parse_offer(raw(version=0x0303, versions=b"\x02\x0a\x0a")).versions == ()


def test_grease_is_no_offer() -> None:
    """RFC 8701: values that mean nothing, to keep servers tolerant."""
    grease = [byte << 8 | byte for byte in range(0x0A, 0x100, 0x10)]
    offer = parse_offer(
        raw(
            ciphers=listed(*grease, 0xC02B)[2:],
            versions=b"\x22" + listed(*grease, 0x0304)[2:],
            groups=listed(*grease, 0x17),
            signature_algorithms=listed(*grease, 0x0403),
            protocols=vector(b"".join(b"\x02" + number.to_bytes(2) for number in grease) + b"\x02h2"),
        )
    )
    assert offer == Offer((0x0304,), (0xC02B,), (0x17,), (0x0403,), ("h2",))


@pytest.mark.parametrize("pair", [b"\x0a\x1a", b"\x0b\x0b", b"\x1a\x0a", b"\xaa\xab"])
def test_what_only_looks_like_grease_is_an_offer(pair: bytes) -> None:
    assert parse_offer(raw(ciphers=pair)).ciphers == (int.from_bytes(pair),)


def test_half_a_number_is_none() -> None:
    offer = parse_offer(raw(ciphers=b"\xc0\x2b\xc0", groups=b"\0\x03\0\x17\0"))
    assert (offer.ciphers, offer.groups) == ((0xC02B,), (0x17,))


@pytest.mark.parametrize("body", [b"", b"\0", b"\xff"])
def test_a_list_without_room_for_its_length_is_empty(body: bytes) -> None:
    offer = parse_offer(raw(versions=body, groups=body, signature_algorithms=body, protocols=body))
    assert offer == Offer((), (0xC02B,), (), (), ())


def test_protocols_are_few_and_printable() -> None:
    """They come to stand in a log."""
    many = b"".join(b"\x02a" + bytes([number]) for number in range(30))
    protocols = parse_offer(raw(protocols=vector(many))).protocols
    assert len(protocols) == PROTOCOLS_MAX
    assert protocols[0] == r"a\x00"


def test_a_protocol_that_is_cut_is_told_as_far_as_it_goes() -> None:
    assert parse_offer(raw(protocols=vector(b"\x08http"))).protocols == ("http",)


@given(
    version=st.integers(0, 0xFFFF),
    ciphers=st.binary(max_size=40),
    bodies=st.tuples(*[st.none() | st.binary(max_size=40)] * 4),
)
def test_any_bytes_make_an_offer(
    version: int, ciphers: bytes, bodies: tuple[bytes | None, bytes | None, bytes | None, bytes | None]
) -> None:
    offer = parse_offer((version, ciphers, *bodies))
    assert len(offer.ciphers) <= len(ciphers) // 2
    for numbers in (offer.versions, offer.ciphers, offer.groups or (), offer.signature_algorithms or ()):
        assert all(0 <= number <= 0xFFFF for number in numbers)
    assert all(protocol.isprintable() for protocol in offer.protocols)
