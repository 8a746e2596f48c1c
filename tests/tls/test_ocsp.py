"""OCSP responses: what is believed, what is not, and that nothing in one breaks us."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from termproxy.tls.ocsp import (
    SKEW,
    WITHOUT_END,
    NotGoodError,
    OcspError,
    Staple,
    make_request,
    responder_of,
    verify,
)
from tests.support.ocsp import (
    DAY,
    OCSP_SIGNING,
    REVOKED,
    UNKNOWN,
    Issuer,
    ocsp_at,
    respond,
    this_second,
)
from tests.support.pki import Issued, now, rsa_key

SECOND = timedelta(seconds=1)
NOW = this_second()

URL = "http://ocsp.test/"


@functools.cache
def issuer_with(kind: str) -> Issuer:
    return Issuer(f"the {kind} issuer", kind=kind)


ISSUER = issuer_with("ecdsa")
LEAF = ISSUER.issue()
DELEGATE = ISSUER.issue("a responder", usage=OCSP_SIGNING)
GOOD_RESPONSE = respond(LEAF, ISSUER, this_update=NOW - DAY, next_update=NOW + DAY)
DELEGATED = respond(
    LEAF,
    ISSUER,
    this_update=NOW - DAY,
    signer=DELEGATE,
    shows=[DELEGATE.certificate],
    next_update=NOW + DAY,
)


def verified(
    response: bytes, leaf: Issued = LEAF, issuer: Issuer = ISSUER, now: datetime = NOW
) -> Staple:
    return verify(response, leaf.certificate, issuer.certificate, now)


def refusal(response: bytes, leaf: Issued = LEAF, issuer: Issuer = ISSUER, now: datetime = NOW) -> str:
    with pytest.raises(OcspError) as refused:
        verified(response, leaf, issuer, now)
    return str(refused.value)


NOT_SIGNED = "the response is not signed by the certificate's issuer, nor for it"


# Whom to ask, and what.


def leaf_naming(*where: x509.AccessDescription | str) -> x509.Certificate:
    return ISSUER.issue(
        responder=[ocsp_at(each) if isinstance(each, str) else each for each in where]
    ).certificate


def at(method: x509.ObjectIdentifier, name: x509.GeneralName) -> x509.AccessDescription:
    return x509.AccessDescription(method, name)


def test_the_first_responder_over_http_is_asked() -> None:
    others: list[x509.AccessDescription | str] = [
        at(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.test/")),
        at(AuthorityInformationAccessOID.OCSP, x509.DNSName("ocsp.test")),
        "ldap://ocsp.test/",
        "file:///etc/passwd",
    ]
    assert (
        responder_of(leaf_naming(*others, "HTTP://one.test/", "http://two.test/")) == "HTTP://one.test/"
    )
    assert responder_of(leaf_naming("https://one.test/")) == "https://one.test/"
    assert responder_of(leaf_naming(*others)) is None


def test_a_certificate_without_access_information_has_nobody_to_ask() -> None:
    assert responder_of(ISSUER.issue(responder=None).certificate) is None
    assert responder_of(ISSUER.certificate) is None


def test_the_question_names_the_certificate_and_its_issuer() -> None:
    asked = ocsp.load_der_ocsp_request(make_request(LEAF.certificate, ISSUER.certificate))
    answered = ocsp.load_der_ocsp_response(GOOD_RESPONSE)
    assert asked.serial_number == LEAF.certificate.serial_number
    assert asked.issuer_key_hash == answered.issuer_key_hash
    assert asked.issuer_name_hash == answered.issuer_name_hash
    assert not list(asked.extensions), "a nonce makes responders that sign ahead fail"


# What is believed.


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_good_response_is_a_staple(kind: str) -> None:
    issuer = issuer_with(kind)
    leaf = issuer.issue()
    response = respond(leaf, issuer, this_update=NOW - DAY, next_update=NOW + 3 * DAY)
    staple = verified(response, leaf, issuer)
    assert staple == Staple(response, NOW - DAY, NOW + 3 * DAY)
    assert staple.refresh_at() == NOW + DAY


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()])  # noqa: S303
def test_the_certificate_may_be_named_with_any_hash(algorithm: hashes.HashAlgorithm) -> None:
    assert verified(respond(LEAF, ISSUER, this_update=NOW, algorithm=algorithm))


def test_it_is_found_among_others(tmp_path: Path) -> None:
    """`openssl ocsp` answers for several at a time."""
    others = [ISSUER.issue() for _ in range(2)]
    (tmp_path / "ca.pem").write_bytes(ISSUER.pem + ISSUER.key_pem)
    lines = []
    command = ["openssl", "ocsp", "-issuer", "ca.pem", "-no_nonce"]
    for number, leaf in enumerate([others[0], LEAF, others[1]]):
        (tmp_path / f"{number}.pem").write_bytes(leaf.leaf)
        command += ["-cert", f"{number}.pem"]
        lines.append(f"V\t491231235959Z\t\t{leaf.serial}\tunknown\t/CN={number}\n")
    (tmp_path / "index").write_text("".join(lines))
    answer = "openssl ocsp -index index -CA ca.pem -rsigner ca.pem -ndays 3 -noverify"
    answer += " -reqin request -respout answer"
    for each in ([*command, "-reqout", "request"], answer.split()):
        subprocess.run(each, cwd=tmp_path, check=True, capture_output=True)
    response = (tmp_path / "answer").read_bytes()
    for leaf in (LEAF, *others):
        assert verified(response, leaf, now=now()).response == response
    assert refusal(response, ISSUER.issue(), now=now()) == "the response is about another certificate"


def test_a_staple_does_not_show_its_bytes() -> None:
    assert "response" not in repr(verified(GOOD_RESPONSE))


def test_a_response_without_an_end_lasts_an_hour() -> None:
    response = respond(LEAF, ISSUER, this_update=NOW, has_end=False)
    staple = verified(response)
    assert staple.next_update == NOW + WITHOUT_END
    assert verified(response, now=NOW + WITHOUT_END - SECOND)
    assert "expired" in refusal(response, now=NOW + WITHOUT_END)


def test_a_response_without_an_end_from_the_end_of_time_is_refused() -> None:
    """Its hour does not fit into the calendar."""
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert "not an OCSP response" in refusal(respond(LEAF, ISSUER, this_update=last, has_end=False))


# When.


def test_it_expires_at_the_very_second() -> None:
    end = NOW + DAY
    assert verified(GOOD_RESPONSE, now=end - SECOND).is_fresh(end - SECOND)
    assert refusal(GOOD_RESPONSE, now=end) == f"the response expired on {end:%Y-%m-%d %H:%M} UTC"
    assert not verified(GOOD_RESPONSE).is_fresh(end)


def test_it_may_be_from_as_far_in_the_future_as_clocks_differ() -> None:
    begin = NOW - DAY
    assert verified(GOOD_RESPONSE, now=begin - SKEW)
    said = refusal(GOOD_RESPONSE, now=begin - SKEW - SECOND)
    assert said == f"the response is from the future: {begin:%Y-%m-%d %H:%M} UTC"


# What is said.


@pytest.mark.parametrize("status", [REVOKED, UNKNOWN])
def test_what_is_not_good_is_told_apart(status: ocsp.OCSPCertStatus) -> None:
    response = respond(LEAF, ISSUER, status=status, this_update=NOW - DAY, next_update=NOW + DAY)
    with pytest.raises(NotGoodError, match=status.name.lower()) as said:
        verified(response)
    assert said.value.this_update == NOW - DAY


@pytest.mark.parametrize("status", [REVOKED, UNKNOWN])
def test_what_is_not_good_counts_only_when_it_is_proven_and_current(status: ocsp.OCSPCertStatus) -> None:
    """Else anybody on the way to the responder could take a staple away."""
    stranger = Issuer("the ecdsa issuer")
    forged = respond(LEAF, ISSUER, status=status, signer=stranger, this_update=NOW)
    old = respond(LEAF, ISSUER, status=status, this_update=NOW - 2 * DAY, next_update=NOW - DAY)
    other = respond(ISSUER.issue(), ISSUER, status=status, this_update=NOW)
    for response in (forged, old, other):
        with pytest.raises(OcspError) as refused:
            verified(response)
        assert not isinstance(refused.value, NotGoodError)


@pytest.mark.parametrize(
    "status",
    [each for each in ocsp.OCSPResponseStatus if each is not ocsp.OCSPResponseStatus.SUCCESSFUL],
)
def test_a_responder_that_will_not_answer_is_quoted(status: ocsp.OCSPResponseStatus) -> None:
    response = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
    assert refusal(response) == f"the responder answers {status.name.lower()}"


# About whom.


def test_a_response_about_another_certificate_is_refused() -> None:
    response = respond(ISSUER.issue(), ISSUER, this_update=NOW)
    assert refusal(response) == "the response is about another certificate"


def test_the_same_number_of_another_issuer_is_another_certificate() -> None:
    """Signed by the right one, which may well answer for two."""
    other = Issuer("another issuer")
    twin = other.issue(serial=LEAF.certificate.serial_number)
    response = respond(twin, other, signer=ISSUER, this_update=NOW)
    assert refusal(response) == "the response is about another certificate"


def test_an_issuer_of_the_same_name_with_another_key_is_another_issuer() -> None:
    namesake = Issuer("the ecdsa issuer")
    response = respond(LEAF, namesake, signer=ISSUER, this_update=NOW)
    assert refusal(response) == "the response is about another certificate"


# By whom.


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("real", ["rsa", "ecdsa", "ed25519"])
def test_a_response_signed_by_somebody_else_is_refused(kind: str, real: str) -> None:
    issuer, stranger = issuer_with(real), Issuer(f"the {real} issuer", kind=kind)
    leaf = issuer.issue()
    for shows in ([], [stranger.certificate]):
        response = respond(leaf, issuer, signer=stranger, shows=shows, this_update=NOW)
        assert refusal(response, leaf, issuer) == NOT_SIGNED


def test_the_certificate_cannot_speak_for_itself() -> None:
    response = respond(LEAF, ISSUER, signer=LEAF, shows=[LEAF.certificate], this_update=NOW)
    assert refusal(response) == NOT_SIGNED


def test_the_issuer_may_delegate() -> None:
    for delegate in (DELEGATE, ISSUER.issue("a responder", usage=OCSP_SIGNING, key=rsa_key())):
        response = respond(LEAF, ISSUER, signer=delegate, shows=[delegate.certificate], this_update=NOW)
        assert verified(response).response == response


def test_a_delegate_has_to_show_its_certificate() -> None:
    assert refusal(respond(LEAF, ISSUER, signer=DELEGATE, this_update=NOW)) == NOT_SIGNED


@pytest.mark.parametrize(
    "usage", [None, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
)
def test_a_delegate_without_the_usage_is_none(usage: x509.ObjectIdentifier | None) -> None:
    delegate = ISSUER.issue("a responder", usage=usage)
    response = respond(LEAF, ISSUER, signer=delegate, shows=[delegate.certificate], this_update=NOW)
    assert refusal(response) == NOT_SIGNED


def test_a_delegate_of_another_issuer_is_none() -> None:
    for other in (Issuer("another issuer"), Issuer("the ecdsa issuer")):
        delegate = other.issue("a responder", usage=OCSP_SIGNING)
        shows = [delegate.certificate, other.certificate]
        response = respond(LEAF, ISSUER, signer=delegate, shows=shows, this_update=NOW)
        assert refusal(response) == NOT_SIGNED


def test_a_delegate_cannot_delegate() -> None:
    """The signature of a delegate on a certificate is worth nothing."""
    middle = Issuer("a responder", key=rsa_key())
    delegate = middle.issue("a responder's responder", usage=OCSP_SIGNING)
    shows = [delegate.certificate, DELEGATE.certificate]
    response = respond(LEAF, ISSUER, signer=delegate, shows=shows, this_update=NOW)
    assert refusal(response) == NOT_SIGNED


def test_a_delegate_counts_from_its_first_second_to_its_last() -> None:
    begin, end = NOW - DAY, NOW + DAY
    delegate = ISSUER.issue("a responder", usage=OCSP_SIGNING, not_before=begin, not_after=end)
    response = respond(
        LEAF,
        ISSUER,
        signer=delegate,
        shows=[delegate.certificate],
        this_update=begin,
        next_update=end + DAY,
    )
    assert verified(response, now=begin)
    assert verified(response, now=end - SECOND)
    assert refusal(response, now=begin - SECOND) == NOT_SIGNED
    assert refusal(response, now=end) == NOT_SIGNED


# Certificates that a response may carry along, though nobody can do anything with them.


def with_an_extension_twice() -> x509.Certificate:
    """No builder allows it: another extension is renamed, and the signature is gone."""
    odd = ISSUER.issue(
        responder=None,
        usage=OCSP_SIGNING,
        more=[x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.38"), b"\x30\x00")],
    ).certificate.public_bytes(Encoding.DER)
    return x509.load_der_x509_certificate(odd.replace(b"\x06\x03\x55\x1d\x26", b"\x06\x03\x55\x1d\x25"))


def with_a_broken_extension() -> x509.Certificate:
    usage = x509.UnrecognizedExtension(ExtendedKeyUsageOID.OCSP_SIGNING, b"\x05")
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.37"), b"\xff\xff")
    return ISSUER.issue(responder=None, more=[usage, broken]).certificate


def with_a_name_of_an_unknown_kind() -> x509.Certificate:
    x400 = bytes.fromhex("3004a3023000")  # an X.400 address, which nobody has
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.18"), x400)
    return ISSUER.issue(responder=None, usage=OCSP_SIGNING, more=[odd]).certificate


def with_an_unknown_key() -> x509.Certificate:
    """The algorithm's number is one that does not exist."""
    der = DELEGATE.certificate.public_bytes(Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")
    return x509.load_der_x509_certificate(der.replace(curve, curve[:-1] + b"\x7f"))


STRANGE = [
    with_an_extension_twice,
    with_a_broken_extension,
    with_a_name_of_an_unknown_kind,
    with_an_unknown_key,
]


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_certificates_in_a_response_are_passed_over(
    strange: Callable[[], x509.Certificate],
) -> None:
    odd = strange()
    good = respond(LEAF, ISSUER, signer=DELEGATE, shows=[odd, DELEGATE.certificate], this_update=NOW)
    assert verified(good).response == good
    bad = respond(LEAF, ISSUER, signer=Issuer("a stranger"), shows=[odd], this_update=NOW)
    assert refusal(bad) == NOT_SIGNED


# Rubbish.


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\0",
        b"\x30",
        b"\x30\x00",
        b"<html>404</html>",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80" * 9999,
    ],
)
def test_rubbish_is_not_a_response(rubbish: bytes) -> None:
    assert refusal(rubbish).startswith("not an OCSP response")


@pytest.mark.parametrize("response", [GOOD_RESPONSE, DELEGATED])
def test_a_response_that_is_cut_or_goes_on_is_not_one(response: bytes) -> None:
    for length in range(len(response)):
        assert refusal(response[:length]).startswith("not an OCSP response")
    assert refusal(response + b"\0").startswith("not an OCSP response")


def every_change(response: bytes) -> Sequence[bytes]:
    return [
        response[:at] + bytes((response[at] ^ flip,)) + response[at + 1 :]
        for at in range(len(response))
        for flip in (1, 0x20, 0x80, 0xFF)
    ]


def test_no_changed_byte_is_believed_or_breaks_us() -> None:
    """What is changed in the unsigned wrapping may leave a response as good as it was."""
    told = verified(GOOD_RESPONSE)
    for changed in every_change(GOOD_RESPONSE):
        try:
            staple = verified(changed)
        except OcspError:
            continue
        assert (staple.this_update, staple.next_update) == (told.this_update, told.next_update)
        parsed = ocsp.load_der_ocsp_response(changed)
        assert parsed.tbs_response_bytes == ocsp.load_der_ocsp_response(GOOD_RESPONSE).tbs_response_bytes


def test_no_changed_byte_of_a_delegated_response_breaks_us() -> None:
    """Among them are all those of the delegate's certificate, which is read before it is trusted."""
    for changed in every_change(DELEGATED):
        try:
            verified(changed)
        except OcspError:
            pass


@given(st.binary(max_size=600))
def test_no_bytes_break_us(data: bytes) -> None:
    with pytest.raises(OcspError):
        verified(data)


@given(st.sampled_from([GOOD_RESPONSE, DELEGATED]), st.data())
def test_no_spliced_response_breaks_us(response: bytes, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(response)))
    end = data.draw(st.integers(begin, min(len(response), begin + 40)))
    patch = data.draw(st.binary(max_size=40))
    try:
        verified(response[:begin] + patch + response[end:])
    except OcspError:
        pass
