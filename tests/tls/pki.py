"""Certificates as no authority would issue them: expired, for another use, too weak, without names."""

from __future__ import annotations

import functools
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from termproxy.tls.certificates import Certificate, parse_certificate

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

CLIENT_USE, SERVER_USE = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, and those that stand between it and the root."""

    certificate: x509.Certificate
    key: Key
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        return pem_of(self.certificate)

    @property
    def chain(self) -> bytes:
        return self.pem + b"".join(map(pem_of, self.intermediates))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def is_root(self) -> bool:
        return self.certificate.subject == self.certificate.issuer


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@functools.cache
def an_rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same one every time: making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def new_key(kind: str) -> Key:
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return an_rsa_key(int(kind.removeprefix("rsa") or 2048))


def name_of(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def issue(
    common: str = "somebody",
    *names: str,
    by: Issued | None = None,
    key: str | Key = "ecdsa",
    is_authority: bool = False,
    use: x509.ObjectIdentifier | None = None,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 365 * DAY,
    digest: hashes.HashAlgorithm | None = None,
) -> Issued:
    """A certificate by `by`, or by itself; `names` are its DNS names."""
    own = new_key(key) if isinstance(key, str) else key
    signer = by.key if by is not None else own
    builder = (
        x509.CertificateBuilder(
            issuer_name=by.certificate.subject if by is not None else name_of(common),
            subject_name=name_of(common),
            public_key=own.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=not_before,
            not_valid_after=not_after,
        )
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    )
    if names:
        dns = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(dns), critical=False)
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    certificate = builder.sign(signer, algorithm)  # type: ignore[arg-type]
    if by is None or by.is_root:
        return Issued(certificate, own)
    return Issued(certificate, own, (by.certificate, *by.intermediates))


@functools.cache
def an_authority(common: str = "Tests' root") -> Issued:
    return issue(common, is_authority=True)


def crl_of(
    authority: Issued,
    *revoked: Issued,
    last_update: datetime = NOW - DAY,
    next_update: datetime = NOW + DAY,
) -> bytes:
    builder = x509.CertificateRevocationListBuilder(
        authority.certificate.subject, last_update, next_update
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder(each.certificate.serial_number, NOW - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    algorithm = None if isinstance(authority.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(authority.key, algorithm).public_bytes(Encoding.PEM)


def showing(client: ssl.SSLContext, shown: Issued | None) -> ssl.SSLContext:
    """A client that shows this certificate when it is asked for one."""
    if shown is not None:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(shown.chain + shown.key_pem)
            file.flush()
            client.load_cert_chain(file.name)
    return client


def write(file: Path, *parts: bytes) -> Path:
    """A file that only its owner may read."""
    file.touch(mode=0o600)
    file.write_bytes(b"".join(parts))
    return file


def loaded(issued: Issued, name: str = "site.pem", *, root: Sequence[Issued] = ()) -> Certificate:
    """As from a file, without one."""
    chain = issued.chain + b"".join(each.pem for each in root)
    return parse_certificate(Path(name), Path(name), chain, issued.key_pem)
