"""Files that change while they are served: what is read again, what stays, and what is told, once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from termproxy.config.schema import CertificateFiles, Frontend, Host, Tls
from termproxy.master import certificate_store
from termproxy.master.certificate_store import CertificateStore
from tests.tls.pki import Issued, an_authority, crl_of, issue, write

A, B = issue("a", "a.test"), issue("b", "b.test")
CA = an_authority()


def store_of(
    *paths: Path | tuple[Path, Path], hosts: tuple[Host, ...] = (), **tls: Any
) -> CertificateStore:
    files = tuple(
        CertificateFiles(*path) if isinstance(path, tuple) else CertificateFiles(path, None)
        for path in paths
    )
    config = Frontend(
        name="web", listen=(), cluster="app", certificates=files, tls=Tls(**tls), hosts=hosts
    )
    return CertificateStore(config)


def pair(folder: Path, issued: Issued, name: str = "site") -> Path:
    """A new pair, by renames, as certbot and others do it."""
    for suffix, content in ((".key", issued.key_pem), (".crt", issued.chain)):
        replaced(folder / f"{name}{suffix}", content)
    return folder / f"{name}.crt"


def replaced(file: Path, content: bytes) -> Path:
    return write(file.with_name(f"{file.name}~"), content).replace(file)


def serials(store: CertificateStore) -> list[bytes]:
    return [certificate.leaf_der for certificate in store.certificates]


def told(store: CertificateStore) -> list[str]:
    return [f"{'.'.join(map(str, path))}: {what}" for path, what, cure in store.refresh() if cure]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    read: list[str] = []

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def load(file: Path, *more: Any) -> Any:
            read.append(file.name)
            return original(file, *more)

        return load

    for name in ("load_certificate", "read_authorities", "read_crls"):
        monkeypatch.setattr(certificate_store, name, counting(getattr(certificate_store, name)))
    return read


# Reading.


def test_what_is_there_is_read(tmp_path: Path) -> None:
    one, other = pair(tmp_path, A, "one"), write(tmp_path / "other.pem", B.chain, B.key_pem)
    ca, crl = write(tmp_path / "ca", CA.pem), write(tmp_path / "crl", crl_of(CA))
    block = Host(names=("a.test",), client_auth="required", client_ca=ca, client_crl=crl)
    store = store_of(one, other, hosts=(block,))
    assert store.refresh() == []
    assert serials(store) == [A.der, B.der]
    assert store.pem == {ca: CA.pem, crl: crl.read_bytes()}


def test_the_order_is_that_of_the_settings_and_in_a_folder_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pair(tmp_path, A if name == "a" else B, name)
    first = issue("first", "first.test")
    outside = tmp_path / "outside"
    outside.mkdir()
    store = store_of(pair(outside, first), tmp_path)
    assert store.refresh() == []
    assert serials(store) == [first.der, A.der, B.der]


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    ca = write(tmp_path / "ca", CA.pem)
    pair(tmp_path, A, "one")
    pair(tmp_path, B, "other")
    store = store_of(tmp_path, client_ca=ca)
    store.refresh()
    assert sorted(reads) == ["ca", "one.crt", "other.crt"]
    before = store.certificates
    for _ in range(3):
        store.refresh()
    assert len(reads) == 3
    assert [a is b for a, b in zip(before, store.certificates, strict=True)] == [True, True]


def test_one_that_has_changed_is_the_only_one_read(tmp_path: Path, reads: list[str]) -> None:
    pair(tmp_path, A, "one")
    pair(tmp_path, B, "other")
    store = store_of(tmp_path)
    store.refresh()
    reads.clear()
    renewed = issue("b", "b.test")
    pair(tmp_path, renewed, "other")
    assert store.refresh() == []
    assert reads == ["other.crt"]
    assert serials(store) == [A.der, renewed.der]


def test_a_file_that_was_written_in_place_has_changed(tmp_path: Path) -> None:
    file = write(tmp_path / "site.pem", A.chain, A.key_pem)
    store = store_of(file)
    store.refresh()
    file.write_bytes(B.chain + B.key_pem)
    os.utime(file, ns=(1, 1))
    assert store.refresh() == []
    assert serials(store) == [B.der]


# Pairs that do not belong together, for a moment or for long.


@pytest.mark.parametrize("first", ["site.key", "site.crt"])
def test_a_pair_that_is_replaced_one_after_the_other(tmp_path: Path, first: str) -> None:
    store = store_of(pair(tmp_path, A))
    store.refresh()
    contents = {"site.key": B.key_pem, "site.crt": B.chain}
    replaced(tmp_path / first, contents.pop(first))
    (problem,) = told(store)
    assert problem.startswith("certificates: the key in ")
    assert serials(store) == [A.der]
    assert told(store) == []
    ((second, content),) = contents.items()
    replaced(tmp_path / second, content)
    assert told(store) == []
    assert serials(store) == [B.der]


@pytest.mark.parametrize("content", [b"", b"garbage", B.chain, B.key_pem, A.chain[:-40]])
def test_a_bad_file_keeps_the_old_pair_and_is_told_once(tmp_path: Path, content: bytes) -> None:
    store = store_of(pair(tmp_path, A), (pair(tmp_path, B, "other"), tmp_path / "other.key"))
    store.refresh()
    replaced(tmp_path / "site.crt", content)
    assert len(told(store)) == 1
    for _ in range(3):
        assert told(store) == []
    assert serials(store) == [A.der, B.der]


def test_another_bad_file_is_told_again(tmp_path: Path) -> None:
    store = store_of(pair(tmp_path, A))
    store.refresh()
    for content in (b"bad", b"still bad"):
        replaced(tmp_path / "site.crt", content)
        assert len(told(store)) == 1


def test_a_good_file_after_a_bad_one_is_served(tmp_path: Path) -> None:
    store = store_of(pair(tmp_path, A))
    store.refresh()
    replaced(tmp_path / "site.crt", b"bad")
    store.refresh()
    pair(tmp_path, B)
    assert told(store) == []
    assert serials(store) == [B.der]


def test_a_pair_that_is_bad_from_the_beginning_is_told_and_may_get_good(tmp_path: Path) -> None:
    file = write(tmp_path / "site.crt", A.chain)
    store = store_of(file)
    assert len(told(store)) == 1
    assert told(store) == []
    assert serials(store) == []
    write(tmp_path / "site.key", A.key_pem)
    assert told(store) == []
    assert serials(store) == [A.der]


def test_a_file_that_is_gone_stays_served_and_is_told_once(tmp_path: Path) -> None:
    file = pair(tmp_path, A)
    store = store_of(file)
    store.refresh()
    file.unlink()
    assert len(told(store)) == 1
    assert told(store) == []
    assert serials(store) == [A.der]
    pair(tmp_path, B)
    assert told(store) == []
    assert serials(store) == [B.der]


def test_a_key_that_moves_from_beside_into_the_chain_is_found(tmp_path: Path) -> None:
    store = store_of(pair(tmp_path, A))
    store.refresh()
    (tmp_path / "site.key").unlink()
    replaced(tmp_path / "site.crt", B.chain + B.key_pem)
    assert told(store) == []
    assert serials(store) == [B.der]


def test_a_key_that_moves_out_of_the_chain_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "site.crt", A.chain, A.key_pem)
    store = store_of(file)
    store.refresh()
    replaced(file, B.chain)
    assert len(told(store)) == 1
    write(tmp_path / "site.key", B.key_pem)
    store.refresh()
    assert serials(store) == [B.der]


# Folders.


def test_a_new_file_in_a_folder_is_served(tmp_path: Path) -> None:
    pair(tmp_path, B, "b")
    store = store_of(tmp_path)
    store.refresh()
    pair(tmp_path, A, "a")
    assert told(store) == []
    assert serials(store) == [A.der, B.der]


def test_a_file_that_left_its_folder_is_not_served_any_more(tmp_path: Path) -> None:
    pair(tmp_path, A, "a")
    pair(tmp_path, B, "b")
    store = store_of(tmp_path / "*.crt")
    store.refresh()
    (tmp_path / "a.crt").unlink()
    assert told(store) == []
    assert serials(store) == [B.der]


def test_of_a_folder_that_is_empty_now_the_old_ones_stay(tmp_path: Path) -> None:
    store = store_of(pair(tmp_path, A).parent)
    store.refresh()
    for file in tmp_path.iterdir():
        file.unlink()
    assert any("no certificate in" in line for line in told(store))
    assert serials(store) == [A.der]
    pair(tmp_path, B)
    assert told(store) == []
    assert serials(store) == [B.der]


def test_an_empty_folder_is_told_once(tmp_path: Path) -> None:
    """Every poll would write an error line."""
    store = store_of(pair(tmp_path, A).parent)
    store.refresh()
    for file in tmp_path.iterdir():
        file.unlink()
    assert told(store) != []
    assert told(store) == []


def test_a_folder_that_is_empty_from_the_beginning_is_told_once(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    assert len(told(store)) == 1
    assert told(store) == []


def test_of_a_folder_that_is_gone_the_old_ones_stay(tmp_path: Path) -> None:
    """A network file system that is away for a moment must not take its names along."""
    folder = tmp_path / "certs"
    folder.mkdir()
    store = store_of(pair(folder, A).parent, pair(tmp_path, B))
    store.refresh()
    folder.rename(tmp_path / "away")
    assert told(store) != []
    assert serials(store) == [A.der, B.der]


def mounted(volume: Path, issued: Issued, version: str) -> None:
    """As Kubernetes shows a secret: a new folder, and one rename of a link."""
    (volume / version).mkdir(parents=True)
    write(volume / version / "tls.crt", issued.chain)
    write(volume / version / "tls.key", issued.key_pem)
    link = volume / "..data_tmp"
    link.symlink_to(version)
    link.replace(volume / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")


@pytest.mark.parametrize("setting", ["tls.crt", "", "*.crt"])
def test_a_secret_of_kubernetes_is_swapped_as_a_whole(tmp_path: Path, setting: str) -> None:
    volume = tmp_path / "volume"
    mounted(volume, A, "..2030_01")
    store = store_of(volume / setting)
    assert told(store) == []
    assert serials(store) == [A.der]
    mounted(volume, B, "..2030_02")
    assert told(store) == []
    assert serials(store) == [B.der]
    assert {volume, volume / "..2030_02"} <= store.directories()


# CAs and CRLs.


def test_a_changed_ca_is_read_and_a_bad_one_is_not(tmp_path: Path) -> None:
    ca = write(tmp_path / "ca", CA.pem)
    store = store_of(pair(tmp_path, A), client_ca=ca)
    store.refresh()
    replaced(ca, b"garbage")
    (problem,) = told(store)
    assert problem.startswith(f"tls.client_ca: {ca}: certificate 1 of the client CA")
    assert told(store) == []
    assert store.pem == {ca: CA.pem}
    other = an_authority("others").pem
    replaced(ca, other)
    assert told(store) == []
    assert store.pem == {ca: other}


def test_a_ca_that_is_gone_stays(tmp_path: Path) -> None:
    ca = write(tmp_path / "ca", CA.pem)
    store = store_of(pair(tmp_path, A), client_ca=ca)
    store.refresh()
    ca.unlink()
    assert len(told(store)) == 1
    assert store.pem == {ca: CA.pem}


def test_a_ca_that_never_was_is_told_and_missing(tmp_path: Path) -> None:
    store = store_of(pair(tmp_path, A), client_ca=tmp_path / "none")
    assert len(told(store)) == 1
    assert store.pem == {}


def test_a_host_s_ca_is_told_at_its_place(tmp_path: Path) -> None:
    block = Host(names=("a.test",), client_auth="required", client_ca=tmp_path / "none")
    store = store_of(pair(tmp_path, A), hosts=(block,))
    assert told(store)[0].startswith("host.0.client_ca")


# What to watch.


def test_the_folders_of_all_files_are_watched_and_of_what_they_link_to(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("chains", "keys", "real", "cas", "all", "globbed")}
    for folder in folders.values():
        folder.mkdir()
    real = write(folders["real"] / "a.crt", A.chain)
    (folders["chains"] / "a.crt").symlink_to(real)
    key = write(folders["keys"] / "a.key", A.key_pem)
    pair(folders["all"], B)
    pair(folders["globbed"], B)
    store = store_of(
        (folders["chains"] / "a.crt", key),
        folders["all"],
        folders["globbed"] / "*.crt",
        client_ca=write(folders["cas"] / "ca", CA.pem),
    )
    assert store.refresh() == []
    assert set(folders.values()) <= store.directories()


def test_the_folder_of_a_file_that_is_not_there_yet_is_watched(tmp_path: Path) -> None:
    store = store_of(tmp_path / "none" / "site.pem")
    store.refresh()
    assert tmp_path / "none" in store.directories()
