"""Read a certificate chain and its key from PEM files, and check that they can serve.

Each refusal says what is wrong and what would be right, and never shows what a file holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

# A chain with its key is some kilobytes; a file beyond this was named by mistake.
FILE_MAX = 1 << 20  # bytes


class CertificateError(ValueError):
    """A certificate or key cannot be used; `cure` says what would be right."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain (leaf first) and its private key, both as PEM."""

    chain_file: Path
    key_file: Path
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime

    def validity_warning(self, now: datetime) -> str | None:
        """What to tell the operator of a certificate outside its time; None when it is inside."""
        if now >= self.not_after:
            return f"{self.chain_file}: the certificate expired on {self.not_after:%Y-%m-%d %H:%M} UTC"
        if now < self.not_before:
            return (
                f"{self.chain_file}: the certificate is not valid before "
                f"{self.not_before:%Y-%m-%d %H:%M} UTC"
            )
        return None


def load_certificate(chain_file: Path, key_file: Path | None = None) -> Certificate:
    """The certificate in `chain_file`, its key in `key_file` or, without one, in the same file.

    CertificateError when either cannot be read, is no PEM, or they do not belong together.
    """
    chain = _read(chain_file)
    key_file = key_file or chain_file
    key = _read(key_file)
    leaf = _leaf(chain_file, chain)
    if _public_key_of(key_file, key, chain_file) != leaf.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise CertificateError(
            f"the key in {key_file} is not the key of the certificate in {chain_file}",
            "name the key that the certificate was issued for; the site's own certificate comes first",
        )
    return Certificate(
        chain_file, key_file, chain, key, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_MAX + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CertificateError(
            f"cannot read {file}: {reason}", "name a PEM file that the starting user may read"
        ) from None
    if len(content) > FILE_MAX:
        raise CertificateError(f"{file} is larger than {FILE_MAX} bytes", "name a PEM file")
    return content


def _leaf(file: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise CertificateError(
            f"{file} holds no readable certificate",
            'expected PEM text with "-----BEGIN CERTIFICATE-----"',
        ) from None


def _public_key_of(file: Path, pem: bytes, chain_file: Path) -> bytes:
    """The public half of the private key, in DER."""
    if b"PRIVATE KEY-----" not in pem:
        where = "; name its key with --key, or { chain = …, key = … }" if file == chain_file else ""
        raise CertificateError(
            f"{file} holds no private key",
            f'expected PEM text with "-----BEGIN PRIVATE KEY-----"{where}',
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError(
            f"the key in {file} is encrypted",
            "decrypt it with `openssl pkey -in … -out …` and protect the file by its mode",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            f"the private key in {file} cannot be read", "make it anew, or export it as PKCS#8 PEM"
        ) from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
