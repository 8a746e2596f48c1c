"""Each refusal says what is wrong and what would be right, and none shows what a file holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from termproxy.tls.certificates import FILE_MAX, Certificate, CertificateError, load_certificate
from termproxy.tls.context import Policy, build_context
from tests.support.tls import Pair, authority, client_context, site

CHAIN, KEY = site().chain, site().key
BROKEN_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAAc2VjcmV0\n-----END PRIVATE KEY-----\n"
BROKEN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def key_as(form: PrivateFormat, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return load_pem_private_key(KEY, None).private_bytes(Encoding.PEM, form, encryption)


def new_key(kind: type[ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey]) -> bytes:
    return kind.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


ENCRYPTED = [key_as(form, b"secret") for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)]


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    return tmp_path / "site.crt"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "site.key"


def serves(certificate: Certificate) -> bool:
    """Whether a client that verifies is content with it."""
    with Pair(build_context(certificate, Policy())) as pair:
        return pair.handshake().client.handshaken


def refusal(chain_file: Path, key_file: Path | None = None) -> CertificateError:
    with pytest.raises(CertificateError) as error:
        load_certificate(chain_file, key_file)
    return error.value


# What serves.


def test_the_key_may_stand_beside_the_chain(chain_file: Path, key_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(KEY)
    certificate = load_certificate(chain_file, key_file)
    assert (certificate.chain_file, certificate.key_file) == (chain_file, key_file)
    assert serves(certificate)


@pytest.mark.parametrize("content", [CHAIN + KEY, KEY + CHAIN])
def test_the_key_may_stand_in_the_chains_file(chain_file: Path, content: bytes) -> None:
    chain_file.write_bytes(content)
    certificate = load_certificate(chain_file)
    assert certificate.key_file == chain_file
    assert serves(certificate)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_the_key_may_be_of_either_form(chain_file: Path, key_file: Path, form: PrivateFormat) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(key_as(form))
    assert serves(load_certificate(chain_file, key_file))


def test_the_text_around_the_pem_is_passed_over(chain_file: Path) -> None:
    """As `openssl x509 -text` and Windows editors leave it."""
    chain_file.write_bytes(b"subject=CN = a.test\r\n" + (KEY + CHAIN).replace(b"\n", b"\r\n"))
    assert serves(load_certificate(chain_file))


def test_an_intermediate_is_shown_to_the_client(chain_file: Path) -> None:
    """The client knows the root only."""
    leaf = authority().create_child_ca().issue_cert("a.test", key_type=trustme.KeyType.ECDSA)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    assert chain.count(b"BEGIN CERTIFICATE") == 2
    chain_file.write_bytes(chain + leaf.private_key_pem.bytes())
    assert serves(load_certificate(chain_file))


# What does not.


@pytest.mark.parametrize("missing", ["site.crt", "site.key"])
def test_a_file_that_is_not_there(chain_file: Path, key_file: Path, missing: str) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(KEY)
    (chain_file.parent / missing).unlink()
    error = refusal(chain_file, key_file)
    assert str(error) == f"cannot read {chain_file.parent / missing}: No such file or directory"
    assert error.cure == "name a PEM file that the starting user may read"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert str(refusal(tmp_path)) == f"cannot read {tmp_path}: Is a directory"


def test_a_file_that_goes_on_and_on_is_not_read_to_its_end() -> None:
    error = refusal(Path("/dev/zero"))
    assert str(error) == f"/dev/zero is larger than {FILE_MAX} bytes"
    assert error.cure == "name a PEM file"


@pytest.mark.parametrize("content", [b"", b"hello", KEY, BROKEN_CERTIFICATE, CHAIN + BROKEN_CERTIFICATE])
def test_a_chain_without_a_whole_certificate(chain_file: Path, content: bytes) -> None:
    chain_file.write_bytes(content)
    error = refusal(chain_file)
    assert str(error) == f"{chain_file} holds no readable certificate"
    assert error.cure == 'expected PEM text with "-----BEGIN CERTIFICATE-----"'


def test_a_chain_without_a_key_beside_it(chain_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    error = refusal(chain_file)
    assert str(error) == f"{chain_file} holds no private key"
    assert error.cure.endswith("; name its key with --key, or { chain = …, key = … }")


def test_a_key_file_without_a_key(chain_file: Path, key_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(CHAIN)
    error = refusal(chain_file, key_file)
    assert str(error) == f"{key_file} holds no private key"
    assert error.cure == 'expected PEM text with "-----BEGIN PRIVATE KEY-----"'


@pytest.mark.parametrize("content", ENCRYPTED)
def test_an_encrypted_key(chain_file: Path, key_file: Path, content: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the key in {key_file} is encrypted"
    assert "openssl pkey" in error.cure


@pytest.mark.parametrize("content", [BROKEN_KEY, KEY[:-40], KEY[:60] + b"-----END PRIVATE KEY-----\n"])
def test_a_damaged_key(chain_file: Path, key_file: Path, content: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the private key in {key_file} cannot be read"
    assert error.cure == "make it anew, or export it as PKCS#8 PEM"


@pytest.mark.parametrize(
    "other",
    [
        site("b.test").key,
        site("b.test", trustme.KeyType.RSA).key,
        new_key(ed25519.Ed25519PrivateKey),
        new_key(x25519.X25519PrivateKey),
    ],
)
def test_a_key_of_another_certificate(chain_file: Path, key_file: Path, other: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(other)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the key in {key_file} is not the key of the certificate in {chain_file}"
    assert "comes first" in error.cure


def test_a_chain_in_the_wrong_order(chain_file: Path) -> None:
    """The first certificate is the site's own; here an intermediate stands before it."""
    leaf = authority().create_child_ca().issue_cert("a.test", key_type=trustme.KeyType.ECDSA)
    first, second = (pem.bytes() for pem in leaf.cert_chain_pems)
    chain_file.write_bytes(second + first + leaf.private_key_pem.bytes())
    error = refusal(chain_file)
    assert "is not the key of the certificate" in str(error)
    assert error.cure.endswith("the site's own certificate comes first")


# What is never shown.


@pytest.mark.parametrize("content", [*ENCRYPTED, BROKEN_KEY, KEY[:-40], site("b.test").key])
def test_no_error_shows_what_a_key_file_holds(chain_file: Path, key_file: Path, content: bytes) -> None:
    """Nor does a traceback: the library's own exception is not chained."""
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    told = f"{error} {error.cure} {error!r} {error.__dict__}"
    secrets = [line for line in content.decode().splitlines() if line and not line.startswith("-----")]
    assert not any(secret in told for secret in secrets)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


def test_the_repr_shows_the_files_and_not_what_they_hold(chain_file: Path) -> None:
    chain_file.write_bytes(CHAIN + KEY)
    shown = repr(load_certificate(chain_file))
    assert str(chain_file) in shown
    assert "BEGIN" not in shown


# Validity.

YEAR_2030 = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def of_january_2030(chain_file: Path) -> Certificate:
    leaf = authority().issue_cert(
        "a.test",
        key_type=trustme.KeyType.ECDSA,
        not_before=YEAR_2030,
        not_after=datetime(2030, 2, 1, tzinfo=UTC),
    )
    leaf.private_key_and_cert_chain_pem.write_to_path(chain_file)
    return load_certificate(chain_file)


def test_a_certificate_inside_its_time_gives_no_warning(of_january_2030: Certificate) -> None:
    assert of_january_2030.validity_warning(YEAR_2030) is None
    assert of_january_2030.validity_warning(datetime(2030, 1, 31, 23, 59, tzinfo=UTC)) is None


def test_an_expired_certificate_is_warned_of_and_not_refused(of_january_2030: Certificate) -> None:
    warning = of_january_2030.validity_warning(datetime(2030, 2, 1, tzinfo=UTC))
    file = of_january_2030.chain_file
    assert warning == f"{file}: the certificate expired on 2030-02-01 00:00 UTC"


def test_a_certificate_not_yet_valid_is_warned_of(of_january_2030: Certificate) -> None:
    warning = of_january_2030.validity_warning(YEAR_2030 - timedelta(seconds=1))
    file = of_january_2030.chain_file
    assert warning == f"{file}: the certificate is not valid before 2030-01-01 00:00 UTC"


def test_a_client_refuses_what_is_warned_of(of_january_2030: Certificate) -> None:
    with Pair(build_context(of_january_2030, Policy()), client_context()) as pair:
        pair.greet()
        pair.server.handshake()
        pair.client.advance()
        assert "not yet valid" in str(pair.client.error)
