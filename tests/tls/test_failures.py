"""From OpenSSL's words to ours.  They stand in logs and counters: a change here is an incident there.

That OpenSSL gives these numbers for these clients is shown in test_openssl_failures.py.
"""

from __future__ import annotations

import errno

import pytest

from termproxy.errors import Fault, TlsError, TruncatedError
from termproxy.observability.metrics import FAILURES
from termproxy.tls._openssl import known_ciphers
from termproxy.tls.client_hello import RawOffer
from termproxy.tls.failures import (
    _ABOUT_OUR_CERTIFICATE,
    _MEANINGS,
    _MISMATCHES,
    _REASONS,
    _REFUSALS,
    Failure,
    alert_name,
    explain,
    explain_handshake,
    timed_out,
)
from termproxy.tls.mismatch import Accepts


def tls_error(
    code: int = 0, errno: int = 0, alert: int | None = None, alert_from: str | None = None
) -> TlsError:
    return TlsError("openssl's words", code, errno, alert, alert_from)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (101, "no_shared_group"),
        (118, "no_shared_signature_algorithm"),
        (134, "client_certificate_refused"),
        (199, "no_client_certificate"),
        (155, "plain_http"),
        (156, "plain_http"),
        (193, "no_shared_cipher"),
        (235, "no_shared_protocol"),
        (252, "no_shared_version"),
        (258, "no_shared_version"),
        (267, "not_tls"),
        (294, "client_closed"),
        (373, "inappropriate_fallback"),
        (376, "no_shared_signature_algorithm"),
        (396, "no_shared_version"),
        (410, "no_shared_group"),
        (443, "not_tls"),
        (1042, "certificate_rejected"),
        (1048, "certificate_rejected"),
        (1040, "client_alert"),
        (281, "protocol_error"),
        (0, "protocol_error"),
    ],
)
def test_each_code_has_its_word_and_is_the_clients_fault(code: int, reason: str) -> None:
    failure = explain(tls_error(code))
    assert (failure.reason, failure.fault) == (reason, Fault.CLIENT)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ECONNRESET, "client_reset"),
        (errno.EPIPE, "client_reset"),
        (errno.ETIMEDOUT, "socket_error"),
        (errno.EBADF, "socket_error"),
    ],
)
def test_each_failure_of_the_socket_has_its_word(number: int, reason: str) -> None:
    assert explain(tls_error(errno=number)).reason == reason


def test_an_internal_error_that_we_sent_is_our_fault() -> None:
    failure = explain(tls_error(alert=80, alert_from="proxy"))
    assert failure == Failure(
        "internal_error",
        "openssl's words",
        "report this, with the line of the log",
        Fault.PROXY,
        "internal_error",
        "proxy",
    )


def test_an_internal_error_of_the_clients_is_not_ours() -> None:
    failure = explain(tls_error(1080, alert=80, alert_from="client"))
    assert (failure.reason, failure.fault, failure.alert_from) == (
        "client_alert",
        Fault.CLIENT,
        "client",
    )


def test_an_alert_of_the_client_is_named() -> None:
    failure = explain(tls_error(1040, alert=40, alert_from="client"))
    assert failure.detail == "the client refused with the alert handshake_failure"
    assert (failure.alert, failure.alert_from) == ("handshake_failure", "client")


@pytest.mark.parametrize(
    ("number", "told", "cure"),
    [
        (42, "mostly for its name or issuer", "explain --sni"),
        (43, "this kind of certificate", "another type of key"),
        (44, "revoked", "issued"),
        (45, "expired", "termproxy certs"),
        (46, "mostly for its name or issuer", "explain --sni"),
        (48, "does not trust the issuer", "intermediate"),
        (113, "OCSP", "clocks"),
    ],
)
def test_an_alert_about_our_certificate_says_what_the_client_has_against_it(
    number: int, told: str, cure: str
) -> None:
    failure = explain(tls_error(1000 + number, alert=number, alert_from="client"))
    assert failure.reason == "certificate_rejected"
    assert failure.detail.startswith("the client refused our certificate: ")
    assert told in failure.detail
    assert cure in failure.cure
    assert (failure.alert, failure.alert_from) == (alert_name(number), "client")


def test_no_other_alert_is_about_our_certificate() -> None:
    about = {n for n in range(256) if explain(tls_error(1000 + n)).reason == "certificate_rejected"}
    assert about == {42, 43, 44, 45, 46, 48, 113}


def test_the_same_alert_of_ours_is_not_the_client_s() -> None:
    failure = explain(tls_error(134, alert=48, alert_from="proxy"))
    assert failure.reason == "client_certificate_refused"


@pytest.mark.parametrize(
    ("alert", "reason"), [(112, "unknown_name"), (50, "malformed_name"), (40, "protocol_error")]
)
def test_a_refusal_of_the_callback_is_told_by_its_alert(alert: int, reason: str) -> None:
    failure = explain(tls_error(234, alert=alert, alert_from="proxy"))
    assert (failure.reason, failure.fault) == (reason, Fault.CLIENT)
    assert (failure.alert, failure.alert_from) == (alert_name(alert), "proxy")


@pytest.mark.parametrize("alert", [50, 112])
def test_the_same_alert_for_another_reason_is_no_refusal_of_a_name(alert: int) -> None:
    assert explain(tls_error(159, alert=alert, alert_from="proxy")).reason == "protocol_error"
    assert explain(tls_error(1000 + alert, alert=alert, alert_from="client")).reason == "client_alert"


def test_a_refused_certificate_is_told_with_openssl_s_reason() -> None:
    error = TlsError("certificate verify failed: certificate has expired", 134, 0, 45, "proxy")
    assert explain(error) == Failure(
        "client_certificate_refused",
        "the client's certificate was not accepted: certificate has expired",
        "have client_ca issue the client a certificate that is valid now",
        Fault.CLIENT,
        "certificate_expired",
        "proxy",
    )


def test_without_an_alert_none_is_named() -> None:
    failure = explain(tls_error(294))
    assert (failure.alert, failure.alert_from) == (None, None)


def test_a_truncation_is_a_client_that_closed() -> None:
    assert explain(TruncatedError()).reason == "client_closed"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "close_notify"),
        (40, "handshake_failure"),
        (70, "protocol_version"),
        (112, "unrecognized_name"),
        (116, "certificate_required"),
        (120, "no_application_protocol"),
        (121, "alert_121"),  # unassigned when this was written
        (255, "alert_255"),
    ],
)
def test_an_alert_has_its_name_in_the_rfc(number: int, name: str) -> None:
    assert alert_name(number) == name


def test_every_word_is_one_word() -> None:
    for code in range(2000):
        reason = explain(tls_error(code)).reason
        assert reason.replace("_", "").isalpha()
        assert reason == reason.lower()


# Every word has its meaning.

# These are given with a meaning of their own, where they happen.
SAID_ELSEWHERE = {"handshake_timeout", "drain_timeout", "no_proxy_header", "bad_proxy_header"}


def test_every_word_of_the_table_has_its_meaning_and_cure() -> None:
    assert set(_MEANINGS) == set(FAILURES) - SAID_ELSEWHERE
    for meaning, cure in (*_MEANINGS.values(), *_ABOUT_OUR_CERTIFICATE.values()):
        assert meaning
        assert cure


def test_every_word_that_can_be_given_is_in_the_table() -> None:
    """A worker counts by the word: one that is not there would be a bug of ours in the log."""
    given = {*_REASONS.values(), *_REFUSALS.values(), *_MISMATCHES}
    for alert in (None, *range(256)):
        for sender in (None, "client", "proxy"):
            for code in (0, 134, 193, 234, 267, 294, 1000 + (alert or 0)):
                given.add(explain(tls_error(code, alert=alert, alert_from=sender)).reason)
    for number in errno.errorcode:
        given.add(explain(tls_error(errno=number)).reason)
    given.add(timed_out(1.0, None).reason)

    assert given <= set(FAILURES)


def test_every_cure_is_a_sentence() -> None:
    for code in range(2000):
        failure = explain(tls_error(code))
        assert failure.detail
        assert failure.cure


# With what the client offered.

OFFER: RawOffer = (0x0303, b"\xc0\x2b", None, b"\0\2\0\x19", b"\0\2\4\3", b"\0\3\2h3")


def accepts() -> Accepts:
    return Accepts(
        min_version=0x0303,
        max_version=0x0304,
        ciphers={0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256"},
        ciphersuites={0x1301: "TLS_AES_128_GCM_SHA256"},
        groups={0x17: "P-256"},
        protocols=("h2",),
        key_types=("ecdsa",),
        curves={0x17: "secp256r1"},
        signature_algorithms=(),
        known_ciphers=known_ciphers(),
    )


def nobody_asks() -> Accepts:
    raise AssertionError("it is not about what is accepted")


def test_a_mismatch_is_told_by_what_differs() -> None:
    failure = explain_handshake(tls_error(193, alert=40, alert_from="proxy"), OFFER, accepts)
    assert (failure.reason, failure.fault) == ("no_shared_group", Fault.CLIENT)
    assert failure.detail == "the client offers P-521; accepted here: P-256"
    assert (failure.alert, failure.alert_from) == ("handshake_failure", "proxy")


def test_a_mismatch_that_cannot_be_told_from_the_offer_is_told_in_general() -> None:
    offer = (*OFFER[:3], b"\0\2\0\x17", *OFFER[4:])
    failure = explain_handshake(tls_error(101, alert=40, alert_from="proxy"), offer, accepts)
    assert (failure.reason, failure.detail) == ("no_shared_group", _MEANINGS["no_shared_group"][0])


def test_a_mismatch_without_an_offer_is_told_in_general() -> None:
    failure = explain_handshake(tls_error(193), None, nobody_asks)
    assert (failure.reason, failure.detail) == ("no_shared_cipher", _MEANINGS["no_shared_cipher"][0])


@pytest.mark.parametrize("error", [tls_error(294), tls_error(errno=errno.ECONNRESET), TruncatedError()])
def test_who_leaves_before_a_client_hello_is_a_scanner(error: TlsError) -> None:
    failure = explain_handshake(error, None, nobody_asks)
    assert (failure.reason, failure.fault, failure.client_left) == ("scanner", Fault.CLIENT, True)
    assert failure.detail == _MEANINGS["scanner"][0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(tls_error(294), "client_closed"), (tls_error(errno=errno.ECONNRESET), "client_reset")],
)
def test_who_leaves_after_it_is_none(error: TlsError, reason: str) -> None:
    assert explain_handshake(error, OFFER, nobody_asks).reason == reason


@pytest.mark.parametrize("code", [156, 199, 134, 234, 281, 1048, 373])
def test_what_is_no_mismatch_is_told_without_the_offer(code: int) -> None:
    assert explain_handshake(tls_error(code), OFFER, nobody_asks) == explain(tls_error(code))


def test_a_client_that_has_sent_a_client_hello_speaks_tls() -> None:
    """A record of another version after it is no other protocol."""
    error = tls_error(267)
    assert explain_handshake(error, None, nobody_asks).reason == "not_tls"
    failure = explain_handshake(error, OFFER, nobody_asks)
    assert (failure.reason, failure.detail) == ("protocol_error", "openssl's words")


def test_a_missing_extension_is_no_missing_group() -> None:
    """TLS 1.3 without key_share: OpenSSL gives the same reason as for groups, and another alert."""
    failure = explain_handshake(tls_error(101, alert=109, alert_from="proxy"), OFFER, nobody_asks)
    assert (failure.reason, failure.alert) == ("protocol_error", "missing_extension")


@pytest.mark.parametrize(
    ("offer", "told"), [(None, "sent no whole ClientHello"), (OFFER, "did not finish its handshake")]
)
def test_a_timeout_says_how_far_the_client_came(offer: RawOffer | None, told: str) -> None:
    failure = timed_out(2.5, offer)
    assert (failure.reason, failure.fault) == ("handshake_timeout", Fault.CLIENT)
    assert told in failure.detail
    assert failure.detail.endswith("within 2.5 s")
    assert "MTU" in failure.cure
