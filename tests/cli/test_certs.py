"""`termproxy certs` tells what a running server serves; `check --deep` what should not stay so."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.command import termproxy
from tests.support.pki import Authority, Issued, now, replace_file
from tests.support.server import Server, settings
from tests.support.waiting import wait_until

NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("the root")


class Case:
    """A folder with certificates, and a configuration that names all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []

    def add(self, file: str, content: bytes, mode: int = 0o600) -> Path:
        path = replace_file(self.folder / file, content, mode)
        self.files.append(str(path))
        return path

    def server(self) -> Server:
        values = settings(self.folder / "unused", [NOWHERE])
        values["frontend"][0]["certificates"] = self.files
        return Server(self.folder, values)

    def check(self) -> list[str]:
        """The findings of `check --deep`, which do not fail."""
        server = self.server()
        server.write_config()
        result = termproxy("check", "--deep", "-c", str(server.file))
        assert result.returncode == 0, result
        assert result.stdout == f"{server.file}: fine\n"
        assert "PRIVATE" not in result.stderr
        return [line for line in result.stderr.splitlines() if "run as root" not in line]

    def refusal(self) -> str:
        server = self.server()
        server.write_config()
        result = termproxy("check", "--deep", "-c", str(server.file))
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "PRIVATE KEY" not in result.stderr.replace('"-----BEGIN PRIVATE KEY-----"', "")
        return result.stderr


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def below(root: Authority) -> Issued:
    return root.intermediate("an intermediate").issue("site.test")


def test_nothing_is_said_of_what_is_as_it_should_be(case: Case, root: Authority) -> None:
    case.add("site.pem", below(root).pem)
    assert case.check() == []


def test_without_deep_only_the_urgent_is_said(case: Case, root: Authority) -> None:
    case.add("site.pem", root.issue("site.test").pem)
    server = case.server()
    server.write_config()
    assert "intermediate" not in termproxy("check", "-c", str(server.file)).stderr


def test_a_shuffled_chain_is_repaired_and_told(case: Case, root: Authority) -> None:
    second = root.intermediate("first").intermediate("second").issue("site.test")
    pieces = second.chain.split(b"-----END CERTIFICATE-----\n")[:-1]
    leaf, low, high = (piece + b"-----END CERTIFICATE-----\n" for piece in pieces)
    file = case.add("site.pem", high + leaf + low + second.key)
    [finding] = case.check()
    assert finding.startswith(f"warning: {file}: the certificates are not in the order of the chain; ")


def test_a_missing_intermediate_is_told(case: Case, root: Authority) -> None:
    issued = below(root)
    file = case.add("site.pem", issued.leaf + issued.key)
    [finding] = case.check()
    assert finding.startswith(f"warning: {file}: no intermediate certificate, ")


def test_a_stranger_among_the_chain_is_left_out_and_told(case: Case, root: Authority) -> None:
    issued = below(root)
    file = case.add("site.pem", issued.chain + Authority("a stranger").pem + issued.key)
    [finding] = case.check()
    assert finding.startswith(f"warning: {file}: 1 certificate(s) that are not of this chain; ")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"not_after": timedelta(days=-1)}, "the certificate expired on "),
        ({"not_before": timedelta(days=1)}, "the certificate is not valid before "),
    ],
)
def test_a_certificate_outside_its_time_is_told_without_deep_too(
    case: Case, root: Authority, times: dict[str, timedelta], words: str
) -> None:
    intermediate = root.intermediate("an intermediate")
    moments = {name: now() + delta for name, delta in times.items()}
    file = case.add("site.pem", intermediate.issue("site.test", **moments).pem)  # type: ignore[arg-type]
    [finding] = case.check()
    assert finding.startswith(f"warning: {file}: {words}")


def test_a_weak_signature_is_told_or_refused(case: Case, root: Authority) -> None:
    """Which of them is OpenSSL's security level to say."""
    intermediate = root.intermediate("an intermediate")
    issued = intermediate.issue("site.test")
    for file, content in [("ca", intermediate.pem + intermediate.key), ("key", issued.key)]:
        replace_file(case.folder / file, content)
    request = ["openssl", "req", "-new", "-key", "key", "-subj", "/CN=site.test"]
    sign = ["openssl", "x509", "-req", "-in", "csr", "-CA", "ca", "-set_serial", "1", "-sha1"]
    for command, file in ((request, "csr"), (sign, "leaf")):
        subprocess.run([*command, "-out", file], cwd=case.folder, check=True, capture_output=True)
    leaf = (case.folder / "leaf").read_bytes()
    path = case.add("site.pem", leaf + intermediate.pem + issued.key)
    server = case.server()
    server.write_config()
    result = termproxy("check", "--deep", "-c", str(server.file))
    assert str(path) in result.stderr
    if result.returncode == 0:
        assert "CN=site.test is signed with SHA1; have it issued anew" in result.stderr
    else:
        assert "md too weak" in result.stderr


def test_a_short_key_is_refused_by_its_file(case: Case, root: Authority) -> None:
    case.add("good.pem", root.issue("good.test").pem)
    file = case.add("weak.pem", root.issue("site.test", rsa_bits=1024).pem)
    said = case.refusal()
    assert str(file) in said
    assert "key too small" in said


def test_a_key_that_others_may_read_is_told_with_the_cure(case: Case, root: Authority) -> None:
    everyone = case.add("everyone.pem", below(root).pem, mode=0o644)
    group = case.add("group.pem", root.intermediate("another").issue("b.test").pem)
    group.chmod(0o640)
    everyone.chmod(0o644)
    assert case.check() == [
        f"warning: {everyone}: the key file {everyone} can be read by everyone; chmod 600 {everyone}",
        f"warning: {group}: the key file {group} can be read by its group; chmod 600 {group}",
    ]


def test_of_two_for_a_name_the_choice_is_explained(case: Case, root: Authority) -> None:
    intermediate = root.intermediate("an intermediate")
    sooner = intermediate.issue("site.test", "both.test", not_after=now() + timedelta(days=20))
    later = intermediate.issue("both.test", "site.test", not_after=now() + timedelta(days=40))
    a, b = case.add("a.pem", sooner.pem), case.add("b.pem", later.pem)
    assert case.check() == [
        f"warning: {a}: {name} is served by {b}, which expires later"
        for name in ("site.test", "both.test")
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no private key"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds no readable certificate",
        ),
        (b"\x30\x82" + bytes(300), "holds no readable certificate"),
    ],
)
def test_what_is_no_certificate_is_refused_by_its_file(case: Case, content: bytes, words: str) -> None:
    file = case.add("site.pem", content)
    said = case.refusal()
    assert str(file) in said
    assert "holds no readable certificate" in said or words in said


def test_an_encrypted_key_is_refused_in_words(case: Case, root: Authority) -> None:
    issued = below(root)
    key = issued.key.replace(b"BEGIN PRIVATE KEY", b"BEGIN ENCRYPTED PRIVATE KEY")
    key = key.replace(b"END PRIVATE KEY", b"END ENCRYPTED PRIVATE KEY")
    file = case.add("site.pem", issued.chain + key)
    assert f"in {file} " in case.refusal()


# `termproxy certs`.


@pytest.fixture
def served(case: Case, root: Authority) -> Server:
    case.add(
        "a.pem", root.issue("a.test", "*.a.test", not_after=now() + timedelta(days=60, hours=1)).pem
    )
    case.add(
        "b.pem", root.issue("b.test", not_after=now() + timedelta(days=9, hours=1), rsa_bits=2048).pem
    )
    return case.server()


def test_certs_is_a_table_with_the_soonest_to_expire_first(served: Server) -> None:
    with served:
        result = termproxy("certs", "-c", str(served.file), environment={"COLUMNS": "200"})
        assert result.returncode == 0
        assert result.stderr == ""
        rows = [line.replace("│", " ").split() for line in result.stdout.splitlines() if ".test" in line]
        assert [row[0] for row in rows] == ["9", "60"]
        assert "b.test" in rows[0]
        assert "rsa" in rows[0]
        assert "ecdsa" in rows[1]
        assert all("main" in row for row in rows)
        assert "a.test," in rows[1]


def test_certs_loses_nothing_in_eighty_columns(served: Server) -> None:
    with served:
        result = termproxy("certs", "-c", str(served.file), environment={"COLUMNS": "80"})
        assert "…" not in result.stdout
        assert "\x1b" not in result.stdout


def test_certs_as_json_is_for_programs(served: Server) -> None:
    with served:
        first, second = json.loads(termproxy("certs", "--control", str(served.control), "--json").stdout)
        assert first["days_left"] == 9
        assert first["names"] == ["b.test"]
        assert first["key_type"] == "rsa"
        assert (first["frontend"], first["issuer"]) == ("main", "the root")
        assert first["file"] == str(served.folder / "b.pem")
        assert len(first["sha256"]) == 64
        assert second["names"] == ["a.test", "*.a.test"]
        assert second["not_after"].endswith("+00:00")


@pytest.mark.parametrize(("days", "code"), [(9, 0), (10, 1), (61, 1), (0, 0)])
def test_expiring_within_is_for_monitors(served: Server, days: int, code: int) -> None:
    """Nine days and an hour are left: within ten days it expires, within nine it does not."""
    with served:
        command = ["certs", "-c", str(served.file), "--expiring-within", str(days)]
        result = termproxy(*command)
        assert result.returncode == code
        assert ("expire within" in result.stderr) == bool(code)
        assert "b.test" in result.stdout
        assert termproxy(*command, "--json").returncode == code


def test_certs_tells_what_was_renewed(served: Server, root: Authority) -> None:
    with served:
        new = root.issue("b.test", not_after=now() + timedelta(days=90, hours=1))
        new.write(served.folder / "b.pem")

        def days_left() -> list[int]:
            result = termproxy("certs", "-c", str(served.file), "--json")
            return [each["days_left"] for each in json.loads(result.stdout)]

        wait_until(lambda: days_left() == [60, 90], "the renewal is told", seconds=5)
        assert termproxy("certs", "-c", str(served.file), "--expiring-within", "30").returncode == 0


def test_certs_where_nobody_listens_is_refused(tmp_path: Path) -> None:
    result = termproxy("certs", "--control", str(tmp_path / "absent"))
    assert result.returncode == 1
    assert result.stderr.startswith("termproxy: no termproxy answers at ")
