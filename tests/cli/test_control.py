"""`stop` and `status` ask a running master over its control socket."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from termproxy.cli.control import ask
from termproxy.errors import ControlError
from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.command import TERMPROXY, termproxy
from tests.support.waiting import PATIENCE

NOWHERE = "127.0.0.1:9"


def test_status_shows_the_server_its_frontends_and_its_workers(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server, dial(server) as client:
        exchange(client)
        result = termproxy("status", "-c", str(server.file))
        assert result.returncode == 0
        assert f"process {server.pid}, serving, generation 1, up " in result.stdout
        assert f"main: 127.0.0.1:{server.port} to main" in result.stdout
        for pid in server.workers():
            assert str(pid) in result.stdout
        assert "since the start: 1 accepted, 1 handshakes (0 resumed), 0 failed" in result.stdout


def test_status_is_readable_in_a_pipe(serve: Serve) -> None:
    """No terminal, no escape sequences, and no cell folded or cut off in eighty columns."""
    with serve(NOWHERE) as server:
        said = termproxy("status", "--control", str(server.control)).stdout
        assert "\x1b" not in said
        assert "…" not in said
        [pid] = server.workers()
        [row] = [line for line in said.splitlines() if str(pid) in line]
        assert row.replace("│", " ").split() == [str(pid), "0", "1", "ready", "0", "0", "0", "0"]
        assert max(map(len, said.splitlines()[2:-1])) <= 80


def test_status_as_json_is_for_programs(serve: Serve) -> None:
    with serve(NOWHERE, workers=2) as server:
        result = termproxy("status", "--control", str(server.control), "--json")
        answer = json.loads(result.stdout)
        assert (answer["pid"], answer["state"], answer["generation"]) == (server.pid, "serving", 1)
        assert [worker["slot"] for worker in answer["workers"]] == [0, 1]
        assert all(worker["heartbeat_age_seconds"] < PATIENCE for worker in answer["workers"])
        assert answer["totals"]["accepted"] == 0
        assert answer["last_reload"] is None


def test_status_tells_how_the_last_reload_went(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        server.values["workers"] = 0
        server.reload(new_workers=True)
        result = termproxy("status", "-c", str(server.file), "--control", str(server.control))
        assert ": refused; " in result.stdout
        assert "0 is out of bounds" in result.stdout


def test_stop_waits_until_open_connections_have_ended(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 60}) as server:
        with dial(server) as client:
            exchange(client)
            with running("stop", "-c", str(server.file)) as stopping:
                server.wait_for_words("draining")
                assert exchange(client) == b"ping"
                assert stopping.poll() is None
                leave(client)
                assert stopping.wait(PATIENCE) == 0
                assert stopping.stdout is not None
                assert stopping.stdout.read() == f"stopped (process {server.pid})\n"
        assert not server.control.exists()
        assert not (server.folder / "pid").exists()
        assert server.wait_until_gone() == 0


def test_stop_now_does_not_wait(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 600}) as server:
        with dial(server) as client:
            exchange(client)
            result = termproxy("stop", "--now", "--json", "--control", str(server.control))
            assert result.returncode == 0
            assert json.loads(result.stdout) == {"stopped": True, "pid": server.pid}
        assert server.wait_until_gone() == 0


def test_stop_now_ends_a_stop_that_waits(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 600}) as server:
        with dial(server) as client:
            exchange(client)
            with running("stop", "-c", str(server.file)) as stopping:
                server.wait_for_words("draining")
                assert termproxy("stop", "--now", "-c", str(server.file)).returncode == 0
                assert stopping.wait(PATIENCE) == 0
        assert server.wait_until_gone() == 0


def test_after_stop_the_same_server_can_be_started_at_once(serve: Serve) -> None:
    server = serve(NOWHERE)
    for _ in range(3):
        with server:
            assert termproxy("stop", "-c", str(server.file)).returncode == 0


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*TERMPROXY, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("verb", ["stop", "status"])
def test_where_nobody_listens_the_verb_is_refused(tmp_path: Path, verb: str) -> None:
    result = termproxy(verb, "--control", str(tmp_path / "absent"))
    assert result.returncode == 1
    assert result.stderr == (
        f"termproxy: no termproxy answers at {tmp_path}/absent: No such file or directory\n"
    )


def test_a_configuration_without_a_control_socket_is_told_apart(serve: Serve) -> None:
    server = serve(NOWHERE, control="")
    server.write_config()
    result = termproxy("status", "-c", str(server.file))
    assert result.returncode == 1
    assert "sets no control socket" in result.stderr


def test_without_control_or_file_the_verb_says_what_to_give(tmp_path: Path) -> None:
    result = termproxy("status", "-c", str(tmp_path / "absent.toml"))
    assert result.returncode == 1
    assert "does not exist; give --control PATH or -c FILE" in result.stderr


def test_an_answer_that_is_not_a_masters_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Some other program's socket, named by mistake."""
    path = tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b"220 mail.example ESMTP\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = termproxy("status", "--control", str(path))
        thread.join()
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert str(path) in result.stderr


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError):
        ask(tmp_path / ("x" * 200), {"verb": "status"}, timeout=1)


def test_a_verb_for_an_unknown_thing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="unknown verb 'dance'"):
        ask(tmp_path, {"verb": "dance"}, timeout=PATIENCE)
