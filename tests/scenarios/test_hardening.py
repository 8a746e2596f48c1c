"""What a worker cannot do, tried from inside one: whoever broke into it could not do it, either."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy.master import landlock
from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.processes import descriptors, session_members, status
from tests.support.server import Server
from tests.support.waiting import wait_until

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root has rights to give up")
USERS = [pytest.param("nobody", marks=as_root), pytest.param("", id="whoever started it")]

# Python runs this before termproxy: a worker tries it all where its first client would come.
TRIES = """
import ctypes, errno, json, os, resource, socket, sys
import termproxy.worker.main as main

asked = json.loads(os.environ["TRIES"])

def outcome(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags, 0o600))

def connects(port):
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", port))

def binds():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))

def runs_a_program():
    child = os.fork()
    if child == 0:
        try:
            os.execv("/bin/true", ["true"])
        finally:
            os._exit(99)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99:
        raise OSError(errno.EACCES, "")

def try_all():
    return {
        "read": {path: outcome(opens, path) for path in asked["read"]},
        "written": {path: outcome(opens, path, os.O_WRONLY | os.O_CREAT) for path in asked["written"]},
        "listed": outcome(os.listdir, "/"),
        "connected": {str(port): outcome(connects, port) for port in asked["connected"]},
        "bound": outcome(binds),
        "ran": outcome(runs_a_program),
        "root": outcome(os.setresuid, 0, 0, 0),
        "another user": outcome(os.setresuid, 12345, 12345, 12345) if os.getuid() == 0 else "EPERM",
        "root's group": outcome(os.setresgid, 0, 0, 0),
        "root's groups": outcome(os.setgroups, [0]),
        "signalled": outcome(os.kill, os.getppid(), 0),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
    }

run = main.Worker.run

def tried_run(self):
    os.write(2, b"TRIED " + json.dumps(try_all()).encode() + b"\\n")
    run(self)

main.Worker.run = tried_run
"""


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A port where somebody listens, who is none of our servers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield int(sock.getsockname()[1])


def tried(server: Server, folder: Path, **asked: list[Any]) -> dict[str, Any]:
    """What a worker of the server could do."""
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(TRIES)
    server.environment = {"PYTHONPATH": str(folder / "python"), "TRIES": json.dumps(asked)}
    with server:
        words = server.wait_for_words("TRIED ").partition("TRIED ")[2].splitlines()[0]
        found: dict[str, Any] = json.loads(words)
        return found


@pytest.mark.skipif(not landlock.restricts_ports(), reason=str(landlock.shortfall()))
@pytest.mark.parametrize("user", USERS)
def test_it_opens_no_file_and_connects_only_to_its_backends(
    serve: Serve, tmp_path: Path, backend: Backend, elsewhere: int, user: str
) -> None:
    port = int(backend.address.rpartition(":")[2])
    silent = elsewhere + 1 if elsewhere < 65535 else 1024
    server = serve(backend.address, f"[::1]:{silent}", user=user)
    (tmp_path / "shown").write_text("to everybody")
    tmp_path.chmod(0o755)
    [key] = server.values["frontend"][0]["certificates"]
    read = ["/etc/passwd", "/dev/urandom", "/proc/self/maps", key, str(server.file)]
    found = tried(
        server,
        tmp_path,
        read=[*read, str(tmp_path / "shown")],
        written=[str(tmp_path / "new"), str(server.folder / "access.log"), "/dev/null"],
        connected=[port, elsewhere, silent, 22, 80],
    )
    assert set(found["read"].values()) == set(found["written"].values()) == {"EACCES"}
    assert found["connected"][str(port)] == "done"
    # One of ours, that nobody listens on: it got as far as that.
    assert found["connected"][str(silent)] == "ECONNREFUSED"
    assert [found["connected"][str(other)] for other in (elsewhere, 22, 80)] == ["EACCES"] * 3
    assert found["listed"] == found["bound"] == found["ran"] == "EACCES"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("user", USERS)
def test_it_becomes_nobody_else_and_is_not_looked_into(
    serve: Serve, tmp_path: Path, backend: Backend, user: str
) -> None:
    found = tried(serve(backend.address, user=user), tmp_path, read=[], written=[], connected=[])
    if user:
        assert found["root"] == found["root's group"] == "EPERM"
    assert found["another user"] == found["root's groups"] == "EPERM"
    assert found["dumpable"] == 0
    assert found["core"] == [0, 0]
    if landlock.abi() >= 6:
        assert found["signalled"] == "EPERM"


def at_work(server: Server, count: int) -> list[int]:
    """The processes besides the master, once there are so many: the last thing that each does before it
    begins its work is to let signals through.
    """

    def look() -> list[int]:
        members = [pid for pid in session_members(server.pid) if pid != server.pid]
        ready = [pid for pid in members if int(status(pid)["SigBlk"], 16) == 0]
        return ready if len(ready) == count else []

    return wait_until(look, f"{count} processes are at work")


@as_root
@pytest.mark.parametrize("user", ["nobody", ""])
def test_no_process_but_the_master_has_a_capability(serve: Serve, backend: Backend, user: str) -> None:
    """Workers and the others, also as root; nor could a program that one of them becomes."""
    checked = {"servers": [backend.address], "health": {"kind": "tcp", "interval": 0.2}}
    with serve(backend.address, user=user, workers=2, cluster={"main": checked}) as server:
        members = at_work(server, 4)
        for pid in members:
            lines = status(pid)
            names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
            assert {int(lines[name], 16) for name in names} == {0}
            assert lines["NoNewPrivs"] == "1"
            assert lines["Groups"] == ""


@as_root
def test_another_process_of_its_user_does_not_see_its_memory(serve: Serve, backend: Backend) -> None:
    user = pwd.getpwnam("nobody")
    with serve(backend.address, user=user.pw_name) as server:
        [pid] = server.workers()
        for name in ("mem", "maps", "environ", "fd/3"):
            done = subprocess.run(
                ["/bin/cat", f"/proc/{pid}/{name}"],
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Permission denied" in done.stderr, (name, done)


@as_root
def test_the_prober_holds_the_descriptors_it_needs_and_no_other(serve: Serve, backend: Backend) -> None:
    """Standard streams, its pipe to the master, and the loop's."""
    checked = {"servers": [backend.address], "health": {"kind": "tcp", "interval": 0.2}}
    with serve(backend.address, user="nobody", cluster={"main": checked}) as server:
        at_work(server, 3)
        prober = server.status()["processes"]["prober"]
        found = {re.sub(r"[0-9]+", "N", target) for target in descriptors(prober).values()}
        known = {"/dev/null", "pipe:[N]", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"}
        assert (
            found - {"anon_inode:[timerfd]"} - {re.sub(r"[0-9]+", "N", str(server.said_file))} <= known
        )


def test_workers_of_a_reload_connect_to_its_new_ports(
    serve: Serve, dial: Dial, backend: Backend
) -> None:
    with Backend() as other, serve(backend.address) as server:
        with dial(server) as client:
            assert exchange(client) == b"ping"
        server.values["cluster"]["main"]["servers"] = [other.address]
        assert server.reload()["ok"]
        with dial(server) as client:
            assert exchange(client) == b"ping"


# The environment.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nobody_has_the_keys_of_sessions_logged(
    serve: Serve, dial: Dial, ca: trustme.CA, backend: Backend, version: ssl.TLSVersion
) -> None:
    with serve(backend.address, environment={"SSLKEYLOGFILE": "keys"}) as server:
        with dial(server, context=client_context(ca, version)) as client:
            assert exchange(client) == b"ping"
        assert "SSLKEYLOGFILE in the environment is ignored" in server.said()
        assert not (server.folder / "keys").exists()


@as_root
def test_root_s_openssl_is_not_configured_by_the_environment(
    serve: Serve, dial: Dial, tmp_path: Path, backend: Backend
) -> None:
    """Such a file may name modules to load.  Who opened this one would wait for its other end."""
    os.mkfifo(tmp_path / "openssl.cnf")
    with serve(backend.address, environment={"OPENSSL_CONF": str(tmp_path / "openssl.cnf")}) as server:
        with dial(server) as client:
            assert exchange(client) == b"ping"
        assert "OPENSSL_CONF in the environment is ignored" in server.said()
