"""From OpenSSL's words to ours.  They stand in logs and counters: a change here is an incident there.

That OpenSSL gives these numbers for these clients is shown in test_openssl_failures.py.
"""

from __future__ import annotations

import errno

import pytest

from termproxy.errors import Fault, TlsError, TruncatedError
from termproxy.tls.failures import Failure, alert_name, explain


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
        (252, "unsupported_version"),
        (258, "unsupported_version"),
        (267, "not_tls"),
        (294, "client_closed"),
        (373, "inappropriate_fallback"),
        (376, "no_shared_signature_algorithm"),
        (396, "unsupported_version"),
        (410, "no_shared_group"),
        (443, "not_tls"),
        (1042, "client_alert"),
        (1048, "client_alert"),
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
        "internal_error", "openssl's words", Fault.PROXY, "internal_error", "proxy"
    )


def test_an_internal_error_of_the_clients_is_not_ours() -> None:
    failure = explain(tls_error(1080, alert=80, alert_from="client"))
    assert (failure.reason, failure.fault, failure.alert_from) == (
        "client_alert",
        Fault.CLIENT,
        "client",
    )


def test_an_alert_of_the_client_is_named() -> None:
    failure = explain(tls_error(1048, alert=48, alert_from="client"))
    assert failure.detail == "the client refused with the alert unknown_ca"
    assert (failure.alert, failure.alert_from) == ("unknown_ca", "client")


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
