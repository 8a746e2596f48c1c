"""From OpenSSL's words for a failed handshake to ours: one table, one word a reason.

The words stand in logs and counters and stay what they are; OpenSSL's own text goes along as detail.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace

from termproxy.errors import Fault, TlsError
from termproxy.tls.client_hello import RawOffer, parse_offer
from termproxy.tls.mismatch import Accepts, find_mismatch


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str  # one word, stable
    detail: str  # a sentence for the operator: what differs
    cure: str  # what would be right
    fault: Fault
    alert: str | None  # RFC 8446 §6 name, when one was sent
    alert_from: str | None  # "client" or "proxy"
    client_left: bool = False  # nobody is there to read our alert


# OpenSSL's SSL_R_ numbers (sslerr.h; they are never given anew), and our word.
_REASONS: dict[int, str] = {
    101: "no_shared_group",
    118: "no_shared_signature_algorithm",
    134: "client_certificate_refused",
    155: "plain_http",
    156: "plain_http",
    193: "no_shared_cipher",
    199: "no_client_certificate",
    235: "no_shared_protocol",
    252: "no_shared_version",
    258: "no_shared_version",
    267: "not_tls",
    294: "client_closed",
    373: "inappropriate_fallback",
    376: "no_shared_signature_algorithm",
    396: "no_shared_version",
    410: "no_shared_group",
    443: "not_tls",
}

# What a word means, and the cure, where nothing closer is known.
_MEANINGS: dict[str, tuple[str, str]] = {
    "scanner": (
        "the client left before it had sent a ClientHello",
        "nothing, if it is a port scanner; a health check over TCP may be one over TLS",
    ),
    "not_tls": ("what the client sent is not TLS", "nothing, or have it speak TLS to this port"),
    "plain_http": (
        "plain HTTP was spoken to the TLS port",
        "have the client use https://, or the port that speaks HTTP",
    ),
    "old_client": ("the client speaks no TLS version that we allow", "update the client"),
    "no_shared_version": (
        "the client speaks no TLS version that we allow",
        "update the client, or widen min_version and max_version",
    ),
    "no_shared_cipher": ("the client has no cipher in common with us", "update the client"),
    "no_shared_group": (
        "the client has no key exchange group in common with us",
        "update the client, or add one of its groups to `groups`",
    ),
    "no_shared_signature_algorithm": (
        "the client accepts no signature our key can make",
        "add a certificate with another type of key",
    ),
    "no_shared_protocol": (
        "the client's ALPN has no protocol in common with ours",
        "add what the client speaks to `alpn`, if the backend does",
    ),
    "unknown_name": (
        "the client asked for a name that is not served here, or for none",
        'add a certificate for it, or write unknown_name = "default"',
    ),
    "malformed_name": (
        "the client's server_name extension cannot be read",
        "nothing: no well-made client sends this",
    ),
    "no_client_certificate": (
        "the client showed no certificate, and must",
        'give the client one that client_ca issued, or write client_auth = "optional"',
    ),
    "client_certificate_refused": (
        "the client's certificate was not accepted",
        "have client_ca issue the client a certificate that is valid now",
    ),
    "certificate_rejected": (
        "the client did not accept our certificate",
        "look at it with `termproxy check --deep` and `termproxy explain --sni`",
    ),
    "client_alert": ("the client refused", "ask the client's log"),
    "client_closed": (
        "the client closed the connection in the middle of TLS",
        "nothing, if it is rare; else look for what stands between, or too slow an answer",
    ),
    "client_reset": (
        "the client reset the connection",
        "nothing, if it is rare; else look for what stands between, or too slow an answer",
    ),
    "inappropriate_fallback": (
        "the client offered less than it can, and said so",
        "find out why its first attempt failed",
    ),
    "protocol_error": ("the client broke the protocol", "update the client"),
    "socket_error": ("the client's socket failed", "look at the network"),
    "internal_error": ("OpenSSL failed here", "report this, with the line of the log"),
}

# A client that refuses our certificate says so with one of these.
_ABOUT_OUR_CERTIFICATE: dict[str, tuple[str, str]] = {
    "unknown_ca": (
        "it does not trust the issuer",
        "send the intermediate (`termproxy check --deep`), or have the client trust the root",
    ),
    "certificate_expired": (
        "it says that the certificate has expired, or is not valid yet",
        "renew it (`termproxy certs`), or set the client's clock",
    ),
    "certificate_revoked": ("it says that the certificate is revoked", "have another one issued"),
    "certificate_unknown": (
        "it does not accept the certificate, mostly for its name or issuer",
        "see what it gets with `termproxy explain --sni`, and what it trusts",
    ),
    "bad_certificate": (
        "it does not accept the certificate, mostly for its name or issuer",
        "see what it gets with `termproxy explain --sni`, and what it trusts",
    ),
    "unsupported_certificate": (
        "it cannot use this kind of certificate",
        "add one with another type of key beside it",
    ),
    "bad_certificate_status_response": (
        "it does not accept the stapled OCSP response",
        "compare the clocks of both sides, and look at `termproxy certs`",
    ),
}

# A mismatch of what both sides can do: here the offer tells more than OpenSSL.
_MISMATCHES = frozenset({
    "no_shared_version",
    "no_shared_cipher",
    "no_shared_group",
    "no_shared_signature_algorithm",
    "no_shared_protocol",
})  # fmt: skip

# OpenSSL gives an alert it received as 1000 + the alert's number.
_ALERT_RECEIVED = 1000

_INTERNAL_ERROR = 80
_MISSING_EXTENSION = 109

# Our ClientHello callback refused, with this alert.
_CALLBACK_FAILED = 234
_REFUSALS: dict[int | None, str] = {50: "malformed_name", 112: "unknown_name"}

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
    reason, detail, cure = _reason(error)
    fault = Fault.PROXY if reason == "internal_error" else Fault.CLIENT
    # To a client that has gone OpenSSL still sends an alert, which tells nobody anything.
    left = reason in ("client_closed", "client_reset")
    if error.alert is None or reason == "client_closed":
        return Failure(reason, detail, cure, fault, None, None, left)
    return Failure(reason, detail, cure, fault, alert_name(error.alert), error.alert_from, left)


def explain_handshake(
    error: TlsError, raw_offer: RawOffer | None, accepts: Callable[[], Accepts]
) -> Failure:
    """As explain(), with what the client offered (None: no ClientHello came) and what we accept."""
    failure = explain(error)
    if raw_offer is None and failure.client_left:
        return _with(failure, "scanner", *_MEANINGS["scanner"])
    if raw_offer is None:
        return failure
    if failure.reason == "not_tls":  # its ClientHello was
        return _with(failure, "protocol_error", error.reason, _MEANINGS["protocol_error"][1])
    if failure.reason not in _MISMATCHES:
        return failure
    mismatch = find_mismatch(failure.reason, parse_offer(raw_offer), accepts())
    if mismatch is None:
        return failure
    return _with(failure, mismatch.reason, mismatch.differs, mismatch.cure)


def timed_out(seconds: float, raw_offer: RawOffer | None) -> Failure:
    """A handshake that was not done in time."""
    if raw_offer is None:
        detail = f"the client sent no whole ClientHello within {seconds:g} s"
        cure = "nothing, if it is a scanner; else look at the network's packet loss and MTU"
    else:
        detail = f"the client did not finish its handshake within {seconds:g} s"
        cure = "look at the network's packet loss and MTU, or raise timeouts.handshake"
    return Failure("handshake_timeout", detail, cure, Fault.CLIENT, None, None)


def _with(failure: Failure, reason: str, detail: str, cure: str) -> Failure:
    return replace(failure, reason=reason, detail=detail, cure=cure)


def _reason(error: TlsError) -> tuple[str, str, str]:
    """Our word, what it means here, and the cure."""
    known = _REFUSALS.get(error.alert) if error.code == _CALLBACK_FAILED else _REASONS.get(error.code)
    if known is not None and error.alert != _MISSING_EXTENSION:
        detail, cure = _MEANINGS[known]
        # Of a refused certificate OpenSSL says why, as in "…: certificate has expired".
        why = error.reason.partition(": ")[2]
        return known, f"{detail}: {why}" if why else detail, cure
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "client_reset", *_MEANINGS["client_reset"]
    if error.errno:
        return "socket_error", error.reason, _MEANINGS["socket_error"][1]
    if error.code > _ALERT_RECEIVED:
        return _of_alert(alert_name(error.code - _ALERT_RECEIVED))
    if error.alert == _INTERNAL_ERROR and error.alert_from == "proxy":
        return "internal_error", error.reason, _MEANINGS["internal_error"][1]
    return "protocol_error", error.reason, _MEANINGS["protocol_error"][1]


def _of_alert(name: str) -> tuple[str, str, str]:
    if name in _ABOUT_OUR_CERTIFICATE:
        what, cure = _ABOUT_OUR_CERTIFICATE[name]
        return "certificate_rejected", f"the client refused our certificate: {what}", cure
    return "client_alert", f"the client refused with the alert {name}", _MEANINGS["client_alert"][1]
