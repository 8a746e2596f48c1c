"""`termproxy tickets`: what it tells, and keys that leave the machine only sealed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from termproxy.cli.tickets import PASSPHRASE_MIN, lines, show
from termproxy.tls.sealing import KEY_SIZE
from tests.conftest import write_site
from tests.support.command import TERMPROXY, termproxy
from tests.support.server import Server, settings
from tests.support.waiting import PATIENCE

NOWHERE = "127.0.0.1:9"


# What is told.


def totals(**changes: Any) -> dict[str, dict[str, int]]:
    empty: dict[str, dict[str, int]] = {
        "handshakes": {},
        "resumption_misses": {},
        "handshake_cpu_microseconds": {},
        "ticket_age_seconds": {},
    }
    return empty | changes


def test_a_frontend_that_nobody_came_to_says_so() -> None:
    assert list(lines("web", totals())) == ["web: 0 handshakes: 0 full, 0 by ticket, 0 by session id"]


def test_the_share_of_resumed_handshakes_is_told() -> None:
    line, *_ = lines("web", totals(handshakes={"ticket": 2, "session_id": 1, "full": 1}))
    assert line == "web: 4 handshakes (75.0% resumed): 1 full, 2 by ticket, 1 by session id"


def test_why_sessions_were_not_resumed_is_told_but_not_that_none_was_offered() -> None:
    told = list(
        lines("web", totals(resumption_misses={"none_offered": 9, "other_group": 2, "expired": 1}))
    )
    assert told[1:] == ["    not resumed though offered: 2 other group, 1 expired"]
    assert list(lines("web", totals(resumption_misses={"none_offered": 9})))[1:] == []


def test_what_resuming_saves_is_told() -> None:
    told = list(
        lines(
            "web",
            totals(
                handshakes={"full": 10, "ticket": 3, "session_id": 1},
                handshake_cpu_microseconds={
                    "full": 10_000_000,
                    "ticket": 300_000,
                    "session_id": 100_000,
                },
            ),
        )
    )
    assert told[1] == (
        "    time in OpenSSL: 1000000 µs a full handshake, 100000 µs a resumed one; 3.6 s saved"
    )


def test_ages_are_told() -> None:
    told = list(lines("web", totals(ticket_age_seconds={"1": 5, "+Inf": 1})))
    assert told[1:] == ["    age of the sessions resumed: 5 up to 1 s, 1 up to +Inf s"]


def test_a_key_without_times_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    key = {"number": 3, "role": "issuing", "issue_until": None, "redeem_until": 0, "tickets_issued": 7}
    show({"keys": [key], "frontends": {}}, as_json=False)
    said = capsys.readouterr().out
    [row] = [line for line in said.splitlines() if "issuing" in line]
    assert row.replace("│", " ").split() == ["3", "issuing", "-", "1970-01-01", "00:00:00", "7"]


# With a server.


@pytest.fixture(scope="module")
def server(ca: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    site = write_site(ca, folder / "site.pem")
    with Server(folder, settings(site, [NOWHERE])) as server:
        yield server


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery\nand a second line\n")
    return file


def ask(server: Server, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return termproxy("tickets", verb, "--control", str(server.control), *map(str, arguments))


def keys(server: Server) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(ask(server, "status", "--json").stdout)["keys"]
    return told


def test_status_shows_the_keys(server: Server) -> None:
    result = ask(server, "status")
    assert result.returncode == 0
    assert "issuing" in result.stdout
    assert "next" in result.stdout
    assert "main: 0 handshakes" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_status_as_json_is_for_programs(server: Server) -> None:
    told = json.loads(ask(server, "status", "--json").stdout)
    assert [key["role"] for key in told["keys"]][-2:] == ["issuing", "next"]
    assert (told["lifetime"], told["rotate"]) == (43_200, 14_400)
    assert told["frontends"]["main"]["handshakes"] == {}


def test_rotating_shows_the_keys_after_it(server: Server) -> None:
    before = keys(server)
    result = ask(server, "rotate", "--json")
    after = json.loads(result.stdout)["keys"]
    assert [key["role"] for key in after][-3:] == ["redeeming", "issuing", "next"]
    assert after[-2]["id"] == before[-1]["id"]
    server.wait_for_words("ticket keys rotated, as asked for; the old ones still redeem")


def test_revoking_leaves_only_new_keys(server: Server) -> None:
    before = {key["id"] for key in keys(server)}
    assert ask(server, "rotate", "--revoke-old").returncode == 0
    after = keys(server)
    assert {key["role"] for key in after if key["id"] in before} == {"retired"}
    assert [key["role"] for key in after][-2:] == ["issuing", "next"]
    server.wait_for_words("ticket keys revoked, as asked for")


def test_an_export_is_sealed_and_ours_alone(server: Server, tmp_path: Path, passphrase: Path) -> None:
    target = tmp_path / "ring"
    result = ask(server, "export", "--passphrase-file", passphrase, target)
    assert result.returncode == 0, result.stderr
    assert target.stat().st_mode & 0o777 == 0o600
    content = target.read_bytes()
    assert content.startswith(b"termproxy sealed, version 1\n")
    for key in keys(server):
        assert key["id"].encode() not in content
        assert bytes.fromhex(key["id"]) not in content


def test_an_export_writes_over_nothing(server: Server, tmp_path: Path, passphrase: Path) -> None:
    target = tmp_path / "ring"
    target.write_text("precious")
    result = ask(server, "export", "--passphrase-file", passphrase, target)
    assert result.returncode == 1
    assert "File exists" in result.stderr
    assert target.read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert ask(server, "export", "--passphrase-file", passphrase, tmp_path / "link").returncode == 1
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_exported_can_be_imported(server: Server, tmp_path: Path, passphrase: Path) -> None:
    target = tmp_path / "ring"
    issuing = keys(server)[-2]["id"]
    ask(server, "export", "--passphrase-file", passphrase, target)
    ask(server, "rotate", "--revoke-old")
    assert keys(server)[-2]["id"] != issuing
    result = ask(server, "import", "--passphrase-file", passphrase, target)
    assert result.returncode == 0, result.stderr
    assert keys(server)[-2]["id"] == issuing
    server.wait_for_words("taken over from another machine")


def test_a_key_file_does_for_a_passphrase(server: Server, tmp_path: Path) -> None:
    key, target = tmp_path / "key", tmp_path / "ring"
    key.write_bytes(os.urandom(KEY_SIZE))
    assert ask(server, "export", "--key-file", key, target).returncode == 0
    assert ask(server, "import", "--key-file", key, target).returncode == 0
    key.write_bytes(os.urandom(KEY_SIZE))
    result = ask(server, "import", "--key-file", key, target)
    assert result.returncode == 1
    assert "sealed under another key" in result.stderr


@pytest.mark.parametrize("size", [0, 16, KEY_SIZE - 1, KEY_SIZE + 1])
def test_a_key_file_of_another_size_is_refused(server: Server, tmp_path: Path, size: int) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(size))
    result = ask(server, "export", "--key-file", key, tmp_path / "ring")
    assert result.returncode == 1
    assert str(key) in result.stderr
    assert not (tmp_path / "ring").exists()


@pytest.mark.parametrize(
    "content", ["", "\n", "x" * (PASSPHRASE_MIN - 1), "short\nand long enough below"]
)
def test_a_short_passphrase_is_refused(server: Server, tmp_path: Path, content: str) -> None:
    file = tmp_path / "passphrase"
    file.write_text(content)
    result = ask(server, "export", "--passphrase-file", file, tmp_path / "ring")
    assert result.returncode == 1
    assert "too short" in result.stderr


def test_a_passphrase_and_a_key_exclude_each_other(
    server: Server, tmp_path: Path, passphrase: Path
) -> None:
    result = ask(
        server, "export", "--passphrase-file", passphrase, "--key-file", passphrase, tmp_path / "ring"
    )
    assert result.returncode == 2
    assert "exclude each other" in result.stderr


def test_the_wrong_passphrase_opens_nothing(server: Server, tmp_path: Path, passphrase: Path) -> None:
    target = tmp_path / "ring"
    ask(server, "export", "--passphrase-file", passphrase, target)
    passphrase.write_text("another passphrase\n")
    before = keys(server)
    result = ask(server, "import", "--passphrase-file", passphrase, target)
    assert result.returncode == 1
    assert "damaged, or sealed under another key" in result.stderr
    assert [key["id"] for key in keys(server)] == [key["id"] for key in before]


def test_a_file_that_was_not_exported_is_told_before_the_passphrase_is_asked(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "ring"
    file.write_text("something else")
    result = ask(server, "import", file)
    assert result.returncode == 1
    assert "not a file that termproxy has sealed" in result.stderr
    file.write_bytes(bytes(1 << 16))
    assert "is it the right file?" in ask(server, "import", file).stderr
    assert "No such file" in ask(server, "import", tmp_path / "absent").stderr


def test_without_a_terminal_and_a_file_the_passphrase_is_not_waited_for(
    server: Server, tmp_path: Path
) -> None:
    result = ask(server, "export", tmp_path / "ring")
    assert result.returncode != 0
    assert not (tmp_path / "ring").exists()


def test_a_passphrase_that_is_typed_is_asked_twice_and_not_shown(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "ring"
    said = typed(["correct horse battery"] * 2, "export", server, target)
    assert target.exists(), said
    assert "correct horse" not in said
    said = typed(["correct horse battery"], "import", server, target)
    assert "issuing" in said
    assert "correct horse" not in said


def typed(answers: list[str], verb: str, server: Server, file: Path) -> str:
    """Run it on a terminal of its own, and answer what it asks for: all that the terminal showed."""
    ours, theirs = pty.openpty()
    command = [*TERMPROXY, "tickets", verb, "--control", str(server.control), str(file)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        for number, answer in enumerate(answers, 1):
            while shown.lower().count(b": ") < number:
                shown += os.read(ours, 4096)
            os.write(ours, f"{answer}\n".encode())
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:
            pass  # how Linux tells that the other end is closed
        process.wait(PATIENCE)
    os.close(ours)
    return shown.decode()


def test_no_server_is_told(tmp_path: Path) -> None:
    result = termproxy("tickets", "status", "--control", str(tmp_path / "control"))
    assert result.returncode == 1
    assert "no termproxy answers" in result.stderr
