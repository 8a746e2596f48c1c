"""Keys that are encrypted on disk: served, renewed in place, and their passphrase shown nowhere."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.scenarios.names.parties import client_of, serial_of, wait_until_all_serve
from tests.support.backends import Backend
from tests.support.clients import NAME, connect, exchange
from tests.support.command import termproxy
from tests.support.pki import Authority, Issued, replace_file, rsa_key
from tests.support.server import Server, settings

STAYS = "what was served before stays"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("the root")


class Case:
    def __init__(self, folder: Path, root: Authority) -> None:
        self.folder = folder
        self.root = root
        self.put(root.intermediate("an intermediate").issue(NAME), "sesame-1")
        self.put_passphrase("sesame-1")

    def put(self, issued: Issued, secret: str) -> None:
        scheme = BestAvailableEncryption(secret.encode())
        key = issued.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme)
        replace_file(self.folder / "site.key", key)
        replace_file(self.folder / "site.crt", issued.chain)
        self.issued = issued

    def put_passphrase(self, secret: str, mode: int = 0o600) -> None:
        replace_file(self.folder / "site.pass", f"{secret}\n".encode(), mode)

    def server(self, *servers: str) -> Server:
        values = settings(self.folder / "unused", servers or ["127.0.0.1:9"], workers=2)
        pair = {"chain": "site.crt", "key": "site.key", "passphrase": "site.pass"}
        values["frontend"][0]["certificates"] = [pair]
        return Server(self.folder, values)

    def told(self, *arguments: str, code: int = 0) -> str:
        """What a command says about the configuration; never the passphrase, nor a key."""
        server = self.server()
        server.write_config()
        result = termproxy(*arguments, "-c", str(server.file))
        assert result.returncode == code, result
        said = result.stdout + result.stderr
        assert "sesame" not in said
        assert "PRIVATE KEY-----\n" not in said
        assert "Traceback" not in said
        return said


@pytest.fixture
def case(tmp_path: Path, root: Authority) -> Case:
    return Case(tmp_path, root)


def trusting(case: Case) -> ssl.SSLContext:
    return client_of(case.root)


def test_an_encrypted_key_serves(case: Case) -> None:
    with (
        Backend() as backend,
        case.server(backend.address) as server,
        connect(server.port, trusting(case)) as client,
    ):
        assert serial_of(client) == case.issued.serial
        assert exchange(client) == b"ping"
        assert "sesame" not in server.said()


@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_a_renewed_pair_with_another_passphrase_is_served_by_the_same_workers(
    case: Case, key: str
) -> None:
    new = case.root.intermediate("another").issue(NAME, key=rsa_key() if key == "rsa" else None)
    with Backend() as backend, case.server(backend.address) as server:
        workers = server.workers()
        case.put(new, "sesame-2")
        server.wait_for_words(STAYS)
        with connect(server.port, trusting(case)) as client:
            assert serial_of(client) != new.serial
        case.put_passphrase("sesame-2")
        wait_until_all_serve(server, trusting(case), NAME, new.serial)
        assert server.workers() == workers
        assert "sesame" not in server.said()


def test_a_wrong_passphrase_refuses_the_start_and_a_reload(case: Case) -> None:
    with case.server() as server:
        case.put_passphrase("sesame-2")
        outcome = server.reload()
        assert not outcome["ok"]
        assert "cannot be decrypted" in outcome["detail"]
        assert "sesame" not in server.said()
    said = case.told("run", code=1)
    assert "site.key cannot be decrypted with the passphrase in" in said


def test_check_finds_nothing_to_say_of_what_is_as_it_should_be(case: Case) -> None:
    said = case.told("check", "--deep")
    assert [line for line in said.splitlines() if "run as root" not in line] == [
        f"{case.folder}/termproxy.toml: fine"
    ]


def test_a_deep_check_tells_of_a_passphrase_that_others_can_read(case: Case) -> None:
    case.put_passphrase("sesame-1", 0o644)
    said = case.told("check", "--deep")
    assert f"the passphrase's file {case.folder}/site.pass can be read by everyone" in said
    assert f"chmod 600 {case.folder}/site.pass" in said
    assert "can be read by" not in case.told("check")


@pytest.mark.parametrize("content", ["", "\n", "wrong"])
def test_a_check_refuses_a_passphrase_that_does_not_open_the_key(case: Case, content: str) -> None:
    replace_file(case.folder / "site.pass", content.encode())
    said = case.told("check", code=1)
    assert "certificates" in said
    assert "site.pass" in said


def test_the_dump_names_the_file_and_serves_again(case: Case) -> None:
    dumped = case.told("config", "dump")
    assert f'passphrase = "{case.folder}/site.pass"' in dumped
    elsewhere = case.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "dumped.toml").write_text(dumped)
    result = termproxy("check", "-c", str(elsewhere / "dumped.toml"))
    assert result.returncode == 0, result
