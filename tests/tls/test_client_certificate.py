"""The facts of a client's certificate, safe to be written into a log or a header, whatever it says."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from termproxy.tls.client_certificate import NAMES_MAX, read_client_certificate
from tests.support.pki import LONG, SKEW, Authority, now

KEY = ec.generate_private_key(ec.SECP256R1())


def a_name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


ALICE = a_name((NameOID.COMMON_NAME, "alice"))


def certificate(
    subject: x509.Name = ALICE,
    issuer: x509.Name = ALICE,
    serial: int = 5,
    names: Sequence[x509.GeneralName] = (),
    more: Sequence[x509.ExtensionType] = (),
) -> bytes:
    builder = x509.CertificateBuilder(
        issuer, subject, KEY.public_key(), serial, now() - SKEW, now() + LONG
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def only_the_digest(der: bytes) -> bool:
    facts = read_client_certificate(der)
    told = (facts.subject, facts.issuer, facts.serial, facts.names)
    return told == ("", "", "", ()) and facts.sha256 == hashlib.sha256(der).hexdigest()


def test_it_says_who_it_is_and_by_whom() -> None:
    organisation = a_name(
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATION_NAME, "Example, Inc."),
        (NameOID.COMMON_NAME, "alice"),
    )
    der = certificate(organisation, a_name((NameOID.COMMON_NAME, "the CA")), serial=0xABC)
    facts = read_client_certificate(der)
    assert facts.subject == "CN=alice,O=Example\\, Inc.,C=DE"
    assert facts.issuer == "CN=the CA"
    assert facts.serial == "abc"
    assert facts.sha256 == hashlib.sha256(der).hexdigest()
    assert facts.names == ()


def test_the_serial_number_is_the_one_that_the_authority_gave() -> None:
    issued = Authority("a CA").client("alice")
    der = issued.certificate.public_bytes(Encoding.DER)
    assert int(read_client_certificate(der).serial, 16) == issued.certificate.serial_number


def test_its_other_names_are_told_with_their_kinds() -> None:
    names: list[x509.GeneralName] = [
        x509.DNSName("a.test"),
        x509.RFC822Name("alice@a.test"),
        x509.UniformResourceIdentifier("spiffe://a.test/alice"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.DirectoryName(ALICE),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ]
    facts = read_client_certificate(certificate(names=names))
    assert facts.names == (
        "DNS:a.test",
        "email:alice@a.test",
        "URI:spiffe://a.test/alice",
        "IP:2001:db8::1",
    )


def test_of_very_many_names_the_first_are_told() -> None:
    names = [x509.DNSName(f"{number}.test") for number in range(NAMES_MAX + 10)]
    told = read_client_certificate(certificate(names=names)).names
    assert told == tuple(f"DNS:{number}.test" for number in range(NAMES_MAX))


@pytest.mark.parametrize(
    "evil", ["a\nb", "a\r\nX: y", "a\x1b[2J", "a\x00b", "\x85", "ü\u2028\u202e", "\x7f"]
)
def test_what_would_do_harm_in_a_log_or_a_header_is_escaped(evil: str) -> None:
    facts = read_client_certificate(certificate(a_name((NameOID.COMMON_NAME, evil))))
    assert facts.subject.isascii()
    assert facts.subject.isprintable()
    assert facts.subject.startswith("CN=")


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() or not text.isspace()))
def test_any_name_is_one_printable_line(text: str) -> None:
    try:
        der = certificate(a_name((NameOID.ORGANIZATION_NAME, text)))
    except (ValueError, UnicodeEncodeError):
        return  # nobody can issue that
    subject = read_client_certificate(der).subject
    assert subject.isascii()
    assert subject.isprintable()


def test_a_subject_may_be_empty() -> None:
    assert read_client_certificate(certificate(x509.Name([]))).subject == ""


# What OpenSSL may have verified, and cannot be taken apart here.


@pytest.mark.parametrize("rubbish", [b"", b"\x30", b"\x30\x00", b"x" * 1000])
def test_of_rubbish_there_is_only_the_digest(rubbish: bytes) -> None:
    assert only_the_digest(rubbish)


def test_of_a_version_that_does_not_exist_there_is_only_the_digest() -> None:
    der = certificate()
    version_3, version_2 = bytes.fromhex("a003020102"), bytes.fromhex("a003020101")
    assert der.count(version_3) == 1
    assert only_the_digest(der.replace(version_3, version_2))


@pytest.mark.parametrize(
    "alternative",
    [b"\xff\xff", b"\x05\x00", bytes.fromhex("3004a3023000"), bytes.fromhex("3006870401020304ff")],
    ids=["no DER", "no list", "an X.400 address", "too long"],
)
def test_broken_names_cost_no_more_than_the_names(alternative: bytes) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), alternative)
    facts = read_client_certificate(certificate(more=[extension]))
    assert facts.names == ()
    assert facts.subject in {"CN=alice", ""}


def test_an_extension_that_is_there_twice_costs_the_names() -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.38"), b"\x30\x00")
    der = certificate(names=[x509.DNSName("a.test")], more=[extension])
    twice = der.replace(b"\x06\x03\x55\x1d\x26", b"\x06\x03\x55\x1d\x11")
    assert twice != der
    facts = read_client_certificate(twice)
    assert (facts.subject, facts.names) == ("CN=alice", ())


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.filterwarnings("ignore:The parsed certificate")
def test_no_changed_byte_breaks_us() -> None:
    """Whoever gets a certificate from the CA decides on much of what is in it."""
    der = certificate(names=[x509.DNSName("a.test"), x509.RFC822Name("b@a.test")])
    for at in range(len(der)):
        for flip in (1, 0x20, 0x80, 0xFF):
            changed = der[:at] + bytes((der[at] ^ flip,)) + der[at + 1 :]
            facts = read_client_certificate(changed)
            assert facts.sha256 == hashlib.sha256(changed).hexdigest()
            for text in (facts.subject, facts.issuer, facts.serial, *facts.names):
                assert text.isascii()
                assert text.isprintable()


def test_the_same_certificate_is_taken_apart_once() -> None:
    der = certificate()
    assert read_client_certificate(der) is read_client_certificate(bytes(bytearray(der)))
