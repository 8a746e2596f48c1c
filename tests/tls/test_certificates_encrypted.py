"""Encrypted keys: the passphrase opens them, stands in a file, and is shown to nobody."""

from __future__ import annotations

import functools
import subprocess
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from termproxy.tls.certificates import FILE_MAX, Certificate, CertificateError, load_certificate
from termproxy.tls.context import Policy, build_context
from tests.tls.pki import Issued, issue, write

SECRET = b"open sesame \xc3\xbc"

KINDS = ["rsa", "ecdsa", "ed25519"]


@functools.cache
def issued(kind: str) -> Issued:
    return issue("a", "a.test", key=kind)


def encrypted(kind: str, form: PrivateFormat, secret: bytes = SECRET) -> bytes:
    return issued(kind).key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(secret))


FORMS = [
    *((kind, PrivateFormat.PKCS8) for kind in KINDS),
    *((kind, PrivateFormat.TraditionalOpenSSL) for kind in ("rsa", "ecdsa")),
]


class Case:
    def __init__(self, folder: Path) -> None:
        self.chain = write(folder / "site.crt", issued("ecdsa").chain)
        self.key = folder / "site.key"
        self.passphrase = write(folder / "site.pass", SECRET + b"\n")
        self.encrypt()

    def encrypt(self, kind: str = "ecdsa", form: PrivateFormat = PrivateFormat.PKCS8) -> None:
        write(self.chain, issued(kind).chain)
        write(self.key, encrypted(kind, form))

    def load(self) -> Certificate:
        return load_certificate(self.chain, self.key, self.passphrase)

    def refusal(self) -> CertificateError:
        """Which shows neither the passphrase nor the key, and neither does its traceback."""
        with pytest.raises(CertificateError) as refused:
            self.load()
        told = "".join(traceback.format_exception(refused.value)) + refused.value.cure
        assert "sesame" not in told
        assert not any(line in told for line in self.key.read_text().splitlines()[1:-1] if line)
        return refused.value


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


# What opens.


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_key_is_decrypted_and_serves(case: Case, kind: str, form: PrivateFormat) -> None:
    case.encrypt(kind, form)
    certificate = case.load()
    assert b"ENCRYPTED" not in certificate.key
    given = issued(kind).key.public_key()
    assert load_pem_private_key(certificate.key, None).public_key() == given
    assert build_context([certificate], Policy())
    assert certificate.findings == ()


@pytest.mark.parametrize("cipher", ["-aes256", "-des3"])
@pytest.mark.parametrize("command", ["pkey", "pkcs8 -topk8 -v2prf hmacWithSHA256", "pkey -traditional"])
def test_what_openssl_encrypts_is_opened(case: Case, command: str, cipher: str) -> None:
    plain = write(case.key.with_name("plain"), issued("rsa").key_pem)
    write(case.chain, issued("rsa").chain)
    if command.startswith("pkcs8"):
        cipher = f"-v2 {cipher[1:]}"
    words = f"openssl {command} {cipher} -in {plain} -out {case.key} -passout file:{case.passphrase}"
    subprocess.run(words.split(), check=True, capture_output=True)
    assert b"ENCRYPTED" in case.key.read_bytes()
    assert case.load().key_type == "rsa"


def test_chain_and_key_may_be_in_one_file(case: Case) -> None:
    key = encrypted("ecdsa", PrivateFormat.PKCS8)
    for content in ([issued("ecdsa").chain, key], [key, issued("ecdsa").chain]):
        write(case.chain, *content)
        certificate = load_certificate(case.chain, None, case.passphrase)
        assert certificate.names == ("a.test",)
        assert b"ENCRYPTED" not in certificate.key


def test_a_key_beside_its_chain_is_found(case: Case) -> None:
    assert load_certificate(case.chain, None, case.passphrase).key_file == case.key


@pytest.mark.parametrize("after", [b"", b"\n", b"\r\n", b"\nanother line\n", b"\n\n"])
def test_the_passphrase_is_the_first_line(case: Case, after: bytes) -> None:
    write(case.passphrase, SECRET + after)
    assert case.load()


def test_blanks_belong_to_the_passphrase(case: Case) -> None:
    secret = b"  two words\t"
    write(case.key, encrypted("ecdsa", PrivateFormat.PKCS8, secret))
    write(case.passphrase, secret + b"\n")
    assert case.load()
    write(case.passphrase, secret.strip() + b"\n")
    assert "cannot be decrypted" in str(case.refusal())


def test_a_passphrase_may_be_any_bytes(case: Case) -> None:
    secret = bytes(byte for byte in range(256) if byte not in b"\n\r\0")
    write(case.key, encrypted("ecdsa", PrivateFormat.PKCS8, secret))
    write(case.passphrase, secret)
    assert case.load()


def test_a_key_that_is_not_encrypted_needs_no_passphrase_and_minds_none(case: Case) -> None:
    """While keys are replaced, both kinds may come."""
    write(case.key, issued("ecdsa").key_pem)
    assert case.load().key == issued("ecdsa").key_pem


def test_nothing_of_it_is_shown_in_a_repr(case: Case) -> None:
    certificate = case.load()
    shown = repr(certificate) + str(certificate)
    assert "sesame" not in shown
    assert "PRIVATE" not in shown
    assert certificate.key.splitlines()[1].decode() not in shown


# What does not.


@pytest.mark.parametrize(("kind", "form"), FORMS)
@pytest.mark.parametrize("wrong", [b"open", b"OPEN SESAME", b"x" * 5000, SECRET + b" ", b"\0", b"\xff"])
def test_a_wrong_passphrase_opens_nothing(
    case: Case, kind: str, form: PrivateFormat, wrong: bytes
) -> None:
    case.encrypt(kind, form)
    write(case.passphrase, wrong + b"\n")
    expected = f"the key in {case.key} cannot be decrypted with the passphrase in {case.passphrase}"
    refused = case.refusal()
    assert str(refused) == expected
    assert wrong.decode("latin-1") not in str(refused) or len(wrong) < 5


@pytest.mark.parametrize("empty", [b"", b"\n", b"\r\n", b"\n" + SECRET])
def test_an_empty_first_line_is_no_passphrase(case: Case, empty: bytes) -> None:
    write(case.passphrase, empty)
    refused = case.refusal()
    assert str(refused) == f"{case.passphrase} holds no passphrase"
    assert str(case.key) in refused.cure


def test_a_passphrase_file_that_is_not_there_is_named(case: Case) -> None:
    case.passphrase.unlink()
    assert str(case.refusal()) == f"cannot read {case.passphrase}: No such file or directory"


def test_a_passphrase_file_that_is_no_file_is_named(case: Case) -> None:
    case.passphrase.unlink()
    case.passphrase.mkdir()
    assert str(case.refusal()) == f"cannot read {case.passphrase}: Is a directory"


def test_a_passphrase_file_named_by_mistake_is_not_read_to_its_end(case: Case) -> None:
    case.passphrase.write_bytes(b"x" * (FILE_MAX + 1))
    assert "larger than" in str(case.refusal())


def test_without_a_passphrase_it_says_how_to_name_one(case: Case) -> None:
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        case.encrypt("rsa", form)
        with pytest.raises(CertificateError) as refused:
            load_certificate(case.chain, case.key)
        assert str(refused.value) == f"the key in {case.key} is encrypted"
        assert "passphrase = FILE" in refused.value.cure


def test_the_key_of_another_certificate_is_told_as_such(case: Case) -> None:
    other = issue("b", "b.test").key
    scheme = BestAvailableEncryption(SECRET)
    write(case.key, other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme))
    assert "is not the key of the certificate" in str(case.refusal())


def test_a_file_without_a_key_is_told_as_such(case: Case) -> None:
    """And not that the passphrase were wrong."""
    write(case.key, issued("ecdsa").chain)
    assert str(case.refusal()) == f"{case.key} holds no private key"


def test_a_damaged_key_that_is_not_encrypted_is_told_as_such(case: Case) -> None:
    lines = issued("ecdsa").key_pem.splitlines(keepends=True)
    write(case.key, lines[0], *lines[2:])
    assert str(case.refusal()) == f"the private key in {case.key} cannot be read"


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_damaged_key_is_refused_wherever_the_damage_is(
    case: Case, kind: str, form: PrivateFormat
) -> None:
    whole = encrypted(kind, form)
    write(case.chain, issued(kind).chain)
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        write(case.key, whole[:at] + b"~" + whole[at + 1 :])
        try:
            case.load()
        except CertificateError:
            continue  # nothing else may be raised


def test_a_cipher_that_nobody_knows_is_refused(case: Case) -> None:
    case.encrypt("rsa", PrivateFormat.TraditionalOpenSSL)
    text = case.key.read_bytes()
    write(case.key, text.replace(b"DEK-Info: AES-256-CBC", b"DEK-Info: ROT-13-CBC"))
    assert case.key.read_bytes() != text
    assert "cannot be decrypted" in str(case.refusal())


# Who may read it.


@pytest.mark.parametrize(
    ("mode", "who"), [(0o644, "everyone"), (0o640, "its group"), (0o604, "everyone")]
)
def test_a_passphrase_that_others_can_read_is_told(case: Case, mode: int, who: str) -> None:
    case.passphrase.chmod(mode)
    assert [str(finding) for finding in case.load().findings] == [
        f"the passphrase's file {case.passphrase} can be read by {who}; chmod 600 {case.passphrase}"
    ]


def test_the_key_file_is_told_of_as_well(case: Case) -> None:
    case.key.chmod(0o644)
    case.passphrase.chmod(0o644)
    told = [finding.what for finding in case.load().findings]
    assert [what.split()[1] for what in told] == ["key", "passphrase's"]
