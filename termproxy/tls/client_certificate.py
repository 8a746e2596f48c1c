"""What a client's certificate says: for the access log, and for what is told to backends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from termproxy.observability.record import printable

NAMES_MAX = 64  # of the subject alternative names; what is more is left out


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Of one that OpenSSL has verified.  What is not plain ASCII is escaped, for logs and headers."""

    subject: str  # RFC 4514, as in CN=alice,O=Example
    common_name: str
    issuer: str
    serial: str  # in hexadecimal
    sha256: str
    names: tuple[str, ...]  # subject alternative names, as in DNS:a.test, email:a@b.test, URI:…, IP:…


@lru_cache(maxsize=1024)
def read_client_certificate(der: bytes) -> ClientCertificate:
    """The facts; only the SHA-256 of one that cannot be taken apart here, though OpenSSL could."""
    sha256 = hashlib.sha256(der).hexdigest()
    try:
        certificate = x509.load_der_x509_certificate(der)
        return ClientCertificate(
            subject=_text(certificate.subject.rfc4514_string()),
            common_name=_text(_common_name(certificate.subject)),
            issuer=_text(certificate.issuer.rfc4514_string()),
            serial=f"{certificate.serial_number:x}",
            sha256=sha256,
            names=_names(certificate),
        )
    except (ValueError, x509.InvalidVersion):
        return ClientCertificate("", "", "", "", sha256, ())


def _common_name(subject: x509.Name) -> str:
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[-1].value) if found else ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    told = (
        f"{kind}:{_text(str(name.value))}"
        for name in names
        for known, kind in _KINDS.items()
        if isinstance(name, known)
    )
    return tuple(told)[:NAMES_MAX]


_KINDS = {
    x509.DNSName: "DNS",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "URI",
    x509.IPAddress: "IP",
}


def _text(text: str) -> str:
    return printable(text.encode("utf-8", "replace"))
