"""A small certification authority: chains, clients, CRLs, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

LONG = timedelta(days=400)
# Clocks may differ, and a certificate is valid from a whole second on.
SKEW = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with what was issued along: `rest` are the intermediates, leaf's issuer first."""

    certificate: x509.Certificate
    private_key: PrivateKey
    rest: tuple[x509.Certificate, ...] = ()

    @property
    def leaf(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def chain(self) -> bytes:
        return self.leaf + b"".join(each.public_bytes(Encoding.PEM) for each in self.rest)

    @property
    def key(self) -> bytes:
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pem(self) -> bytes:
        return self.chain + self.key

    @property
    def serial(self) -> str:
        """As Python's `getpeercert()` writes it."""
        digits = f"{self.certificate.serial_number:X}"
        return digits.zfill(len(digits) + len(digits) % 2)

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, file: Path) -> Path:
        """Chain and key in one file that only we may read; in its place at once."""
        return replace_file(file, self.pem)

    def write_pair(self, chain_file: Path, key_file: Path) -> None:
        replace_file(chain_file, self.chain)
        replace_file(key_file, self.key)


class Authority:
    """A root, or an intermediate below another authority."""

    def __init__(
        self, name: str, *, issuer: Authority | None = None, path_length: int | None = None
    ) -> None:
        self._private_key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = issuer
        self._name = _subject(name)
        basic = x509.BasicConstraints(ca=True, path_length=path_length)
        usage = _key_usage(ca=True)
        builder = _builder(self._name, self._private_key.public_key(), now() - SKEW, now() + LONG)
        builder = builder.add_extension(basic, critical=True).add_extension(usage, critical=True)
        above = issuer or self
        self.certificate = builder.issuer_name(above._name).sign(above._private_key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key(self) -> bytes:
        return self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def intermediate(self, name: str) -> Self:
        return type(self)(name, issuer=self)

    def issue(
        self,
        *names: str,
        usage: x509.ObjectIdentifier | None = SERVER,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: PrivateKey | None = None,
        rsa_bits: int | None = None,
    ) -> Issued:
        """For DNS names, or (usage=CLIENT) for whoever the first one says."""
        key = key or (rsa_key(rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1()))
        not_after = not_after or now() + LONG
        not_before = not_before or min(now(), not_after) - SKEW
        builder = _builder(_subject(names[0]), key.public_key(), not_before, not_after)
        builder = builder.issuer_name(self._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_alternatives(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._private_key, hashes.SHA256())
        return Issued(certificate, key, tuple(self._below_root()))

    def client(
        self,
        name: str,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        usage: x509.ObjectIdentifier = CLIENT,
    ) -> Issued:
        return self.issue(name, usage=usage, not_before=not_before, not_after=not_after)

    def revoke(self, *revoked: Issued, next_update: datetime | None = None) -> bytes:
        """A CRL, as PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now() - SKEW).next_update(next_update or now() + LONG)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now() - SKEW).build())
        return builder.sign(self._private_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _below_root(self) -> Iterable[x509.Certificate]:
        authority: Authority = self
        while authority._issuer is not None:
            yield authority.certificate
            authority = authority._issuer


def self_signed_client(name: str) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(name), key.public_key(), now() - SKEW, now() + LONG)
    builder = builder.issuer_name(_subject(name))
    builder = builder.add_extension(x509.ExtendedKeyUsage([CLIENT]), critical=False)
    return Issued(builder.sign(key, hashes.SHA256()), key)


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def replace_file(file: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write beside it and rename, as careful programs do."""
    new = file.with_name(f".{file.name}.new")
    new.touch(mode=mode)
    new.write_bytes(content)
    new.rename(file)
    return file


def replace_link(link: Path, target: str | Path) -> None:
    """Point a symbolic link, in one step, to something else."""
    new = link.with_name(f".{link.name}.new")
    new.symlink_to(target)
    new.rename(link)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternatives(names: Iterable[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(not_before).not_valid_after(not_after)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
