"""Ten thousand certificates, each for a name of its own and with a key of its own."""

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from comparison.site import Certificate, Site, make_site

NAMES = tuple(f"www.site-{number:05}.example" for number in range(10_000))
# Two deep: termproxy looks at all its files when anything changes in the folder or its parent, and
# loads leave files in the site's own directory.
FOLDER = "many/certificates"
# The site's certificates, as a load's setting names them.
ONE = "one-name"
MANY = "many-names"
DAY = timedelta(days=1)


def make_site_of_many(directory: Path) -> Site:
    """Make what `make_site` does, and NAMES' certificates: the first one, and a folder of them all."""
    site = make_site(directory)
    folder = directory / FOLDER
    folder.mkdir(parents=True)
    authority = Authority()
    trust = directory / "authority.crt"
    trust.write_bytes(authority.pem)
    first, *_ = [authority.write_certificate(folder, name) for name in NAMES]
    one = Certificate(chain=first, key=first, pem=first, authority=trust, names=NAMES[:1])
    many = replace(one, pem=folder, names=NAMES)
    return replace(site, certificates={**site.certificates, ONE: one, MANY: many})


class Authority:
    """Issues all of them, so that a client trusts one certificate and can verify ten thousand."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = subject("authority")
        self.now = datetime.now(UTC)
        basic = x509.BasicConstraints(ca=True, path_length=0)
        builder = self.builder("authority", self.key).add_extension(basic, critical=True)
        self.pem = self.sign(builder)

    def write_certificate(self, folder: Path, name: str) -> Path:
        """ECDSA P-256; the chain is one certificate long."""
        key = ec.generate_private_key(ec.SECP256R1())
        # The address is for our own clients, which ask for no name and verify.
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self.builder(name, key)
        chain = self.sign(builder.add_extension(x509.SubjectAlternativeName(names), critical=False))
        file = folder / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_bytes(chain + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return file

    def builder(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer_name=self.subject,
            subject_name=subject(name),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=self.now - DAY,
            not_valid_after=self.now + DAY,
        )

    def sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
