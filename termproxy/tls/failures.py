"""From OpenSSL's words for a failed handshake to ours: one table, one word a reason.

The words stand in logs and counters and stay what they are; OpenSSL's own text goes along as detail.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from termproxy.errors import Fault, TlsError


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str  # one word, stable
    detail: str  # a sentence for the operator
    fault: Fault
    alert: str | None  # RFC 8446 §6 name, when one was sent
    alert_from: str | None  # "client" or "proxy"


# OpenSSL's SSL_R_ numbers (sslerr.h; they are never given anew), the word, what it means here.
_REASONS: dict[int, tuple[str, str]] = {
    101: ("no_shared_group", "the client has no key exchange group in common with us"),
    118: ("no_shared_signature_algorithm", "the client accepts no signature our key can make"),
    134: ("client_certificate_refused", "the client's certificate was not accepted"),
    155: ("plain_http", "an HTTP proxy request (CONNECT) came where TLS was expected"),
    156: ("plain_http", "plain HTTP was spoken to the TLS port; the client should use https"),
    193: ("no_shared_cipher", "the client has no cipher in common with us"),
    199: ("no_client_certificate", "the client showed no certificate, and must"),
    235: ("no_shared_protocol", "the client's ALPN has no protocol in common with ours"),
    252: ("unsupported_version", "the client speaks no TLS version that we allow"),
    258: ("unsupported_version", "the client speaks no TLS version that we allow"),
    267: ("not_tls", "what the client sent is not TLS"),
    294: ("client_closed", "the client closed the connection in the middle of TLS"),
    373: ("inappropriate_fallback", "the client offered less than it can, and said so"),
    376: ("no_shared_signature_algorithm", "the client accepts no signature our key can make"),
    396: ("unsupported_version", "the client speaks no TLS version that we allow"),
    410: ("no_shared_group", "the client has no key exchange group in common with us"),
    443: ("not_tls", "a record of a type that TLS does not have"),
}

# OpenSSL gives an alert it received as 1000 + the alert's number.
_ALERT_RECEIVED = 1000

_INTERNAL_ERROR = 80

# Our ClientHello callback refused, with this alert.
_CALLBACK_FAILED = 234
_REFUSALS: dict[int | None, tuple[str, str]] = {
    50: ("malformed_name", "the client's server_name extension cannot be read"),
    112: ("unknown_name", "the client asked for a name that is not served here"),
}

_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}


def alert_name(number: int) -> str:
    """The alert's name in RFC 8446 §6 and IANA's registry."""
    return _ALERTS.get(number, f"alert_{number}")


def explain(error: TlsError) -> Failure:
    """What went wrong, in words that stay the same, and whose fault it is."""
    reason, detail, fault = _reason(error)
    # To a client that has gone OpenSSL still sends an alert, which tells nobody anything.
    if error.alert is None or reason == "client_closed":
        return Failure(reason, detail, fault, None, None)
    return Failure(reason, detail, fault, alert_name(error.alert), error.alert_from)


def _reason(error: TlsError) -> tuple[str, str, Fault]:
    known = _REFUSALS.get(error.alert) if error.code == _CALLBACK_FAILED else _REASONS.get(error.code)
    if known is not None:
        reason, detail = known
        # Of a refused certificate OpenSSL says why, as in "…: certificate has expired".
        why = error.reason.partition(": ")[2]
        return reason, f"{detail}: {why}" if why else detail, Fault.CLIENT
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "client_reset", "the client reset the connection", Fault.CLIENT
    if error.errno:
        return "socket_error", error.reason, Fault.CLIENT
    if error.code > _ALERT_RECEIVED:
        name = alert_name(error.code - _ALERT_RECEIVED)
        return "client_alert", f"the client refused with the alert {name}", Fault.CLIENT
    if error.alert == _INTERNAL_ERROR and error.alert_from == "proxy":
        return "internal_error", error.reason, Fault.PROXY
    return "protocol_error", error.reason, Fault.CLIENT
