"""OCSP (RFC 6960): ask whether a certificate is revoked, and believe no answer that is not proven.

A response comes over plain HTTP from somebody else's server.  It is stapled (RFC 6066 §8) when it is
about this certificate, signed by its issuer or by whom that has delegated, says "good", and is current.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

# Clocks differ: a response may be from so far in our future.
SKEW = timedelta(minutes=5)

# A response without an end: the responder always has newer ones (RFC 6960 §4.2.2.1).
WITHOUT_END = timedelta(hours=1)

# Real ones have one or two thousand bytes.  OpenSSL's clients take 16380 in TLS 1.2; what has no room
# in its extension ends the handshake in TLS 1.3.
RESPONSE_MAX = 16_000


class OcspError(ValueError):
    """A response cannot be stapled; the text says why."""


class NotGoodError(OcspError):
    """The issuer says so itself: what was at hand is not to be shown any longer."""

    def __init__(self, what: str, this_update: datetime) -> None:
        super().__init__(what)
        self.this_update = this_update


@dataclass(frozen=True, slots=True)
class Staple:
    """A response that has been verified, in DER, and when it is current (UTC)."""

    response: bytes = field(repr=False)
    this_update: datetime
    next_update: datetime

    def is_fresh(self, now: datetime) -> bool:
        return now < self.next_update

    def refresh_at(self) -> datetime:
        """Half-way through its life: then there is as much time again to get another."""
        return self.this_update + (self.next_update - self.this_update) / 2


def responder_of(leaf: x509.Certificate) -> str | None:
    """Where to ask about `leaf`: its first OCSP address over HTTP (RFC 5280 §4.2.2.1), if it has one."""
    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    for description in access:
        location = description.access_location
        is_ocsp = description.access_method == x509.oid.AuthorityInformationAccessOID.OCSP
        if not is_ocsp or not isinstance(location, x509.UniformResourceIdentifier):
            continue
        if location.value.lower().startswith(("http://", "https://")):
            return location.value
    return None


def make_request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """The question, in DER.  Without a nonce: responders that sign ahead ignore it (RFC 5019 §4)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())  # noqa: S303 - names it, no more
    return builder.build().public_bytes(Encoding.DER)


def verify(response: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> Staple:
    """The staple that `response` is.  OcspError when it must not be shown."""
    try:
        single = _proven(ocsp.load_der_ocsp_response(response), leaf, issuer, now)
        begin = single.this_update_utc
        end = single.next_update_utc or begin + WITHOUT_END
    except OcspError:
        raise
    except (ValueError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise OcspError(f"not an OCSP response: {error}") from None
    if begin > now + SKEW:
        raise OcspError(f"the response is from the future: {begin:%Y-%m-%d %H:%M} UTC")
    if end <= now:
        raise OcspError(f"the response expired on {end:%Y-%m-%d %H:%M} UTC")
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        status = single.certificate_status.name.lower()
        raise NotGoodError(f"the issuer says that the certificate is {status}", begin)
    return Staple(response, begin, end)


def _proven(
    parsed: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> ocsp.OCSPSingleResponse:
    """What is said about `leaf`, by somebody who may say it."""
    if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OcspError(f"the responder answers {parsed.response_status.name.lower()}")
    _check_signature(parsed, issuer, now)
    return _about(leaf, issuer, parsed)


def _about(
    leaf: x509.Certificate, issuer: x509.Certificate, parsed: ocsp.OCSPResponse
) -> ocsp.OCSPSingleResponse:
    """The part that is about `leaf`, as named by its number and the hashes of its issuer."""
    for single in parsed.responses:
        if single.serial_number != leaf.serial_number:
            continue
        asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
        if (single.issuer_name_hash, single.issuer_key_hash) == (
            asked.issuer_name_hash,
            asked.issuer_key_hash,
        ):
            return single
    raise OcspError("the response is about another certificate")


def _check_signature(parsed: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    for signer in _signers(parsed, issuer, now):
        try:
            _verify_with(signer, parsed)
        except InvalidSignature:
            continue
        return
    raise OcspError("the response is not signed by the certificate's issuer, nor for it")


def _signers(
    parsed: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime
) -> Iterator[x509.Certificate]:
    """The issuer, and those in the response to whom it has delegated (RFC 6960 §4.2.2.2)."""
    yield issuer
    for certificate in parsed.certificates:
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            certificate.verify_directly_issued_by(issuer)
        except _NO_DELEGATE:
            continue
        is_valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        if x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING in usage and is_valid:
            yield certificate


# What cryptography raises for a certificate that it does not understand, or that is not of the issuer.
_NO_DELEGATE = (
    InvalidSignature,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


def _verify_with(signer: x509.Certificate, parsed: ocsp.OCSPResponse) -> None:
    """InvalidSignature when it is not of `signer`."""
    key = signer.public_key()
    signature, signed = parsed.signature, parsed.tbs_response_bytes
    algorithm = parsed.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
        key.verify(signature, signed, ec.ECDSA(algorithm))
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    else:
        raise InvalidSignature
