"""Read certificate chains and their keys from PEM files, and check that they can serve.

What cannot serve is refused, with what would be right; what can, but should not stay so, is a finding
for `termproxy check --deep`.  Nothing here ever shows what a file holds of a key.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from termproxy.tls.client_hello import BadServerName, host_name
from termproxy.tls.ocsp import responder_of

# A chain with its key is some kilobytes; a file beyond this was named by mistake.
FILE_MAX = 1 << 20  # bytes

RSA_BITS_MIN = 2048  # NIST SP 800-57 part 1, table 2: 112 bits of security

# Where a chain's key is looked for when its file does not hold one.
KEY_SUFFIXES = (".key", ".key.pem")
CHAIN_SUFFIXES = (".pem", ".crt", ".cer")


class CertificateError(ValueError):
    """A certificate or key cannot be used; `cure` says what would be right."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a certificate that its owner should know; it serves all the same."""

    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain (leaf first) and its private key, both as PEM."""

    chain_file: Path
    key_file: Path
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    names: tuple[str, ...]  # as clients ask for them; wildcards as *.example.com
    issuer: str
    key_type: str  # "rsa", "ecdsa" …: a context holds one of each
    curve: str | None  # of an ECDSA key, as in "secp256r1"
    not_before: datetime
    not_after: datetime
    sha256: str  # of the leaf, in hexadecimal
    chain_sha256: str  # of all that is sent: a new intermediate makes another certificate of it
    leaf_der: bytes = field(repr=False)
    findings: tuple[Finding, ...]
    ocsp_responder: str | None  # where to ask about it; None also without the issuer, whom one must name

    def is_valid(self, now: datetime) -> bool:
        return self.not_before <= now < self.not_after

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


def find_files(pattern: Path) -> list[Path]:
    """The chain files that a setting names: a file, a folder's, or a glob's, in lexical order."""
    if pattern.is_dir():
        try:
            files = [file for file in sorted(pattern.iterdir()) if _may_be_chain(file)]
        except OSError as error:
            raise CertificateError(
                f"cannot read {pattern}: {error.strerror}",
                "name a folder that can be read",
            ) from None
        expected = f"put files that end in {', '.join(CHAIN_SUFFIXES)} there"
    elif any(character in pattern.name for character in "*?["):
        found = sorted(pattern.parent.glob(pattern.name))
        files = [file for file in found if _is_no_key(file) and not file.is_dir()]
        expected = "name files that exist"
    else:
        return [pattern]
    if not files:
        raise CertificateError(f"no certificate in {pattern}", expected)
    return files


def _may_be_chain(file: Path) -> bool:
    return file.suffix in CHAIN_SUFFIXES and _is_no_key(file) and file.is_file()


def _is_no_key(file: Path) -> bool:
    return not file.name.endswith(KEY_SUFFIXES)


def load_certificate(
    chain_file: Path, key_file: Path | None = None, passphrase_file: Path | None = None
) -> Certificate:
    """The certificate in `chain_file`, its key in `key_file` or, without one, in or beside that file.

    An encrypted key is decrypted with the first line of `passphrase_file`, and is held decrypted.
    CertificateError when either cannot be read, is no PEM, or they do not belong together.
    """
    chain_pem = _read(chain_file)
    key_file = key_file or _key_file_of(chain_file, chain_pem)
    key_pem = chain_pem if key_file == chain_file else _read(key_file)
    if passphrase_file is not None:
        key_pem = _decrypted(key_file, key_pem, passphrase_file)
    certificate = parse_certificate(chain_file, key_file, chain_pem, key_pem)
    modes = [*_mode_findings("key file", key_file)]
    if passphrase_file is not None:
        modes += _mode_findings("passphrase's file", passphrase_file)
    return replace(certificate, findings=(*certificate.findings, *modes))


def parse_certificate(chain_file: Path, key_file: Path, chain_pem: bytes, key_pem: bytes) -> Certificate:
    """As load_certificate(), of files that somebody else has read."""
    try:
        return _parse(chain_file, key_file, chain_pem, key_pem)
    except CertificateError:
        raise
    except _NOT_UNDERSTOOD as error:
        raise CertificateError(
            f"{chain_file} holds a certificate that cannot be understood: {error}",
            "have it issued anew, or leave it out",
        ) from None


# What cryptography raises for what it does not know, each from another branch of the exceptions.
_NOT_UNDERSTOOD = (
    UnsupportedAlgorithm,
    ValueError,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def _parse(chain_file: Path, key_file: Path, chain_pem: bytes, key_pem: bytes) -> Certificate:
    certificates = _certificates(chain_file, chain_pem)
    key_spki = _public_key_of(key_file, key_pem, chain_file)
    leaf = _leaf(certificates, key_spki)
    if leaf is None:
        raise CertificateError(
            f"the key in {key_file} is not the key of the certificate in {chain_file}",
            "name the key that the certificate was issued for",
        )
    chain = _in_order(leaf, certificates)
    sent = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    return Certificate(
        chain_file=chain_file,
        key_file=key_file,
        chain=sent,
        key=key_pem,
        names=tuple(_names(leaf)),
        issuer=_short(leaf.issuer),
        key_type=_key_type(leaf),
        curve=_curve(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        chain_sha256=hashlib.sha256(sent).hexdigest(),
        leaf_der=leaf.public_bytes(Encoding.DER),
        findings=tuple(_findings(certificates, chain)),
        ocsp_responder=responder_of(leaf) if len(chain) > 1 else None,
    )


# Reading.


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


def _decrypted(key_file: Path, key_pem: bytes, passphrase_file: Path) -> bytes:
    """The key in PEM that anybody could read; as it is when it is not encrypted."""
    passphrase = _read(passphrase_file).split(b"\n", 1)[0].removesuffix(b"\r")
    if not passphrase:
        raise CertificateError(
            f"{passphrase_file} holds no passphrase", f"write that of {key_file} on its first line"
        )
    if b"ENCRYPTED" not in key_pem:
        return key_pem  # whatever else is wrong with it is told like that of any other
    try:
        key = load_pem_private_key(key_pem, passphrase, unsafe_skip_rsa_key_validation=True)
    except TypeError:  # it is not encrypted
        return key_pem
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            f"the key in {key_file} cannot be decrypted with the passphrase in {passphrase_file}",
            "compare them with `openssl pkey -in … -passin file:…`",
        ) from None
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key_file_of(chain_file: Path, chain_pem: bytes) -> Path:
    """The chain's own file when it holds a key, else the one beside it: site.crt and site.key."""
    if b"PRIVATE KEY-----" not in chain_pem:
        return next((file for file in key_files_beside(chain_file) if file.is_file()), chain_file)
    return chain_file


def key_files_beside(chain_file: Path) -> list[Path]:
    """Where the key of a chain may stand: site.key for site.crt, www.example.com.key for a bare name."""
    appended = [chain_file.with_name(chain_file.name + suffix) for suffix in KEY_SUFFIXES]
    return appended + [chain_file.with_suffix(suffix) for suffix in KEY_SUFFIXES]


def _certificates(file: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
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
        # OpenSSL checks the key when it is used: checking RSA's primes here, too, is work done twice.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise CertificateError(
            f"the key in {file} is encrypted",
            "write { chain = …, key = …, passphrase = FILE }, or decrypt it with `openssl pkey`",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            f"the private key in {file} cannot be read", "make it anew, or export it as PKCS#8 PEM"
        ) from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# The chain.


def _leaf(certificates: Sequence[x509.Certificate], key_spki: bytes) -> x509.Certificate | None:
    """The certificate that the key belongs to, wherever in the file it stands."""
    for certificate in certificates:
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if spki == key_spki:
            return certificate
    return None


def _in_order(
    leaf: x509.Certificate, certificates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """The leaf, its issuer, and so on, as far as `certificates` go (RFC 8446 §4.4.2)."""
    chain = [leaf]
    while len(chain) <= len(certificates):
        issuer = next((c for c in certificates if c not in chain and _issued(c, chain[-1])), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, UnsupportedAlgorithm):
        # Of another name, or signed with what cryptography verifies no more (SHA-1): the name decides.
        return certificate.issuer == issuer.subject and _is_signed_unverifiably(certificate)
    except (TypeError, InvalidSignature):
        return False
    return True


def _is_signed_unverifiably(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5)
    except UnsupportedAlgorithm:
        return True


def _names(leaf: x509.Certificate) -> Iterator[str]:
    """The DNS names among the subject alternative names; a common name is none (RFC 9525 §6.2)."""
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return
    for name in alternatives.get_values_for_type(x509.DNSName):
        wildcard, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
        try:
            host = host_name(rest.encode("ascii", "replace"))
        except BadServerName:
            continue  # no client can ask for it
        if host is not None:
            yield wildcard + host


def _short(name: x509.Name) -> str:
    """The common name, which says enough; all of it when there is none."""
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


_KEY_TYPES = {
    rsa.RSAPublicKey: "rsa",
    ec.EllipticCurvePublicKey: "ecdsa",
    ed25519.Ed25519PublicKey: "ed25519",
    ed448.Ed448PublicKey: "ed448",
    dsa.DSAPublicKey: "dsa",
}


@lru_cache(maxsize=1024)
def algorithms_of(der: bytes) -> tuple[str | None, str | None]:
    """What a certificate is signed with, as in "SHA256", and its key, as in "RSA2048" or "EC256"."""
    leaf = x509.load_der_x509_certificate(der)
    digest = leaf.signature_hash_algorithm
    key = leaf.public_key()
    kinds = {rsa.RSAPublicKey: "RSA", ec.EllipticCurvePublicKey: "EC"}
    kind = next((name for cls, name in kinds.items() if isinstance(key, cls)), None)
    size = getattr(key, "key_size", None)
    return None if digest is None else digest.name.upper(), kind and f"{kind}{size}"


def _key_type(leaf: x509.Certificate) -> str:
    public_key = leaf.public_key()
    return next((name for kind, name in _KEY_TYPES.items() if isinstance(public_key, kind)), "other")


def _curve(leaf: x509.Certificate) -> str | None:
    public_key = leaf.public_key()
    return public_key.curve.name if isinstance(public_key, ec.EllipticCurvePublicKey) else None


# What should not stay as it is.


def _findings(given: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    leaf = chain[0]
    if [*given[: len(chain)]] != [*chain]:
        yield Finding(
            "the certificates are not in the order of the chain", "repaired; put each before its issuer"
        )
    if len(given) > len(chain):
        extra = len(given) - len(chain)
        yield Finding(f"{extra} certificate(s) that are not of this chain", "left out; remove them")
    if len(chain) == 1 and leaf.issuer != leaf.subject:
        yield Finding(
            "no intermediate certificate, though it was issued by one or by a root",
            "append the issuer's chain, or some clients will not trust it",
        )
    yield from _weaknesses(chain)


def _mode_findings(what: str, secret: Path) -> Iterator[Finding]:
    try:
        mode = secret.stat().st_mode
    except OSError:
        return  # gone since it was read: the next look will tell
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everyone" if mode & stat.S_IROTH else "its group"
        yield Finding(f"the {what} {secret} can be read by {who}", f"chmod 600 {secret}")


def _weaknesses(chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    public_key = chain[0].public_key()
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size < RSA_BITS_MIN:
        yield Finding(f"an RSA key of {public_key.key_size} bits", "use 2048 bits, or ECDSA P-256")
    for certificate in chain:
        try:
            algorithm = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            continue
        if isinstance(algorithm, hashes.SHA1 | hashes.MD5) and certificate.issuer != certificate.subject:
            name = certificate.subject.rfc4514_string()
            yield Finding(f"{name} is signed with {algorithm.name.upper()}", "have it issued anew")
