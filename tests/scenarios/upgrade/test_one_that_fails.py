"""When the new executable does not come up, the old master goes on, untouched, and says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from termproxy.errors import ControlError
from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.ports import free_port
from tests.support.processes import descriptors, session_members
from tests.support.server import Server
from tests.support.waiting import wait_until

# Python runs this first, in whatever is started anew: a test lets its installation break so.
SPELL = """
import os, pathlib, sys, time
spell = pathlib.Path(__file__).with_name("spell")
if spell.exists():
    exec(spell.read_text())
"""


@pytest.fixture
def spell(tmp_path: Path) -> Path:
    folder = tmp_path / "installation"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPELL)
    return folder / "spell"


def refused(server: Server) -> str:
    with pytest.raises(ControlError) as error:
        server.upgrade()
    return str(error.value)


Everything = tuple[int, list[int], list[str]]


def everything(server: Server) -> Everything:
    """What must not change: the master, its workers, and what it has open, our questions apart."""

    def look() -> Everything:
        return server.master, server.workers(), sorted(descriptors(server.pid).values())

    return wait_until(lambda: seen if (seen := look()) == look() else None, "nothing goes on") or look()


def is_as_before(server: Server, before: Everything) -> bool:
    wait_until(lambda: everything(server) == before, "all is as before")
    return True


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('it is broken', flush=True); os._exit(7)", "the new executable exited with status 7"),
        ("os.kill(os.getpid(), 11)", "the new executable was killed by SIGSEGV"),
        ("os._exit(0)", "the new executable exited with status 0"),
    ],
)
def test_a_broken_installation(code: str, why: str, serve: Serve, dial: Dial, spell: Path) -> None:
    environment = {"PYTHONPATH": str(spell.parent)}
    with (
        Backend() as backend,
        serve(backend.address, workers=2, environment=environment) as server,
        dial(server) as old,
    ):
        exchange(old)
        before = everything(server)
        spell.write_text(code)
        assert f"not upgraded: {why}" in refused(server)
        assert is_as_before(server, before)
        assert not server.status()["last_upgrade"]["ok"]
        assert why in server.status()["last_upgrade"]["detail"]
        assert len(session_members(server.pid)) == 4  # master, workers, the admin process
        with dial(server) as new:
            assert exchange(old) == exchange(new) == b"ping"
        spell.unlink()
        assert server.upgrade()["old"]["pid"] == server.pid


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"workers": "many"}, "termproxy.toml:1: workers: unknown value 'many'"),
        ({"log": {"access": "/nowhere/log"}}, "cannot write"),
        ({"user": "no-such-user-here"}, "there is no user"),
        ({"state_dir": "/proc/termproxy"}, "state_dir"),
        ({"control": "elsewhere/control"}, "No such file"),
    ],
)
def test_a_configuration_that_is_refused(
    change: dict[str, object], why: str, serve: Serve, dial: Dial
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        good, before = dict(server.values), everything(server)
        server.values |= change
        server.write_config()
        assert why in refused(server)
        assert is_as_before(server, before)
        assert sorted(path.name for path in server.folder.iterdir() if path.suffix == ".new") == []
        server.values = good
        server.write_config()
        with dial(server) as client:
            assert exchange(client) == b"ping"
        server.upgrade()


def test_a_port_that_cannot_be_had(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        before = everything(server)
        added = free_port()
        server.values["frontend"][0]["listen"] += [f"127.0.0.1:{added}", "192.0.2.1:443"]
        server.write_config()
        assert "this machine does not have the address" in refused(server)
        assert is_as_before(server, before)
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_one_that_is_killed_while_it_starts(serve: Serve, dial: Dial, spell: Path) -> None:
    environment = {"PYTHONPATH": str(spell.parent)}
    with Backend() as backend, serve(backend.address, environment=environment) as server:
        before, members = everything(server), session_members(server.pid)
        spell.write_text("time.sleep(60)")
        server.signal(signal.SIGUSR2)
        server.wait_for_words("upgrading: process")
        assert "an upgrade is under way already" in refused(server)
        count = server.said().count("not reloaded: an upgrade is under way")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.said().count("not reloaded: an upgrade is under") > count, "no reload")
        [new] = set(session_members(server.pid)) - set(members)
        os.kill(new, signal.SIGKILL)
        server.wait_for_words(
            "not upgraded, this master goes on: the new executable was killed by SIGKI"
        )
        assert is_as_before(server, before)
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_stopping_calls_it_off(serve: Serve, spell: Path) -> None:
    environment = {"PYTHONPATH": str(spell.parent)}
    with Backend() as backend, serve(backend.address, environment=environment) as server:
        spell.write_text("time.sleep(2)")
        server.signal(signal.SIGUSR2)
        server.wait_for_words("upgrading: process")
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0
        assert not (server.folder / "pid").exists()


def test_the_verb_exits_with_the_reason(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.values["workers"] = 0
        server.write_config()
        command = [sys.executable, "-m", "termproxy", "upgrade", "--control", str(server.control)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "not upgraded: " in done.stderr
        assert "workers: 0 is out of bounds" in done.stderr
