"""Encrypted keys that change while they are served: key and passphrase come one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from termproxy.config.schema import CertificateFiles, Frontend
from termproxy.master.certificate_store import CertificateStore
from tests.tls.pki import Issued, issue, write

OLD, NEW = issue("a", "a.test"), issue("a", "a.test")


class Case:
    def __init__(self, folder: Path) -> None:
        self.chain, self.key = folder / "pairs" / "site.crt", folder / "keys" / "site.key"
        self.passphrase = folder / "secrets" / "pass"
        for file in (self.chain, self.key, self.passphrase):
            file.parent.mkdir(exist_ok=True)
        self.put_chain(OLD)
        self.put_key(OLD, b"sesame-1")
        self.put_passphrase(b"sesame-1")
        files = CertificateFiles(self.chain, self.key, self.passphrase)
        config = Frontend(name="web", listen=(), cluster="app", certificates=(files,))
        self.store = CertificateStore(config)

    def put_chain(self, issued: Issued) -> None:
        self._replace(self.chain, issued.chain)

    def put_key(self, issued: Issued, secret: bytes) -> None:
        scheme = BestAvailableEncryption(secret)
        content = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme)
        self._replace(self.key, content)

    def put_passphrase(self, secret: bytes) -> None:
        self._replace(self.passphrase, secret + b"\n")

    def _replace(self, file: Path, content: bytes) -> None:
        write(file.with_name(f"{file.name}~"), content).replace(file)

    def told(self) -> list[str]:
        problems = self.store.refresh()
        assert not any("sesame" in str(each) for each in problems)
        return [what for _, what, _ in problems]

    def serves(self, issued: Issued) -> bool:
        [certificate] = self.store.certificates
        return certificate.leaf_der == issued.der


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case(tmp_path)
    assert case.told() == []
    assert case.serves(OLD)
    return case


def test_a_key_encrypted_anew_waits_for_its_passphrase(case: Case) -> None:
    key = case.store.certificates[0].key
    case.put_key(OLD, b"sesame-2")
    assert ["cannot be decrypted" in what for what in case.told()] == [True]
    assert case.told() == [], "it is told once"
    assert case.serves(OLD)
    case.put_passphrase(b"sesame-2")
    assert case.told() == []
    assert case.store.certificates[0].key == key


def test_a_passphrase_may_come_before_its_key(case: Case) -> None:
    case.put_passphrase(b"sesame-2")
    assert len(case.told()) == 1
    assert case.serves(OLD)
    case.put_key(NEW, b"sesame-2")
    case.put_chain(NEW)
    assert case.told() == []
    assert case.serves(NEW)


def test_all_three_may_change_one_after_the_other(case: Case) -> None:
    case.put_chain(NEW)
    assert len(case.told()) == 1
    case.put_key(NEW, b"sesame-2")
    assert len(case.told()) == 1
    assert case.serves(OLD)
    case.put_passphrase(b"sesame-2")
    assert case.told() == []
    assert case.serves(NEW)


def test_a_passphrase_that_goes_leaves_what_was_served(case: Case) -> None:
    case.passphrase.unlink()
    assert case.told() == [f"cannot read {case.passphrase}: No such file or directory"]
    assert case.serves(OLD)
    case.put_passphrase(b"sesame-1")
    assert case.told() == []


def test_the_folder_of_the_passphrase_is_watched(case: Case) -> None:
    folders = {case.chain.parent, case.key.parent, case.passphrase.parent}
    assert folders <= case.store.directories()


def test_a_folder_of_keys_may_have_one_passphrase(tmp_path: Path) -> None:
    write(tmp_path / "pass", b"sesame-1")
    scheme = BestAvailableEncryption(b"sesame-1")
    for name, issued in (("a", OLD), ("b", NEW)):
        write(tmp_path / f"{name}.crt", issued.chain)
        key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme)
        write(tmp_path / f"{name}.key", key)
    for chain in (tmp_path, tmp_path / "*.crt"):
        files = CertificateFiles(chain, None, tmp_path / "pass")
        config = Frontend(name="web", listen=(), cluster="app", certificates=(files,))
        store = CertificateStore(config)
        assert store.refresh() == []
        assert [each.leaf_der for each in store.certificates] == [OLD.der, NEW.der]
