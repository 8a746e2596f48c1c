"""Forking a worker: real forks, in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import json, os, pwd, signal, socket, sys, threading, time
from pathlib import Path
from termproxy.backends.cluster import Cluster
from termproxy.config.schema import Limits, Timeouts
from termproxy.master import spawn as module
from termproxy.master.generation import User
from termproxy.master.landlock import Reach
from termproxy.master.signals import SignalInbox
from termproxy.master.spawn import CANNOT_START, READY, spawn
from termproxy.observability.scoreboard import Scoreboard
from termproxy.backends.server import Server
from termproxy.address import parse_address
from termproxy.tls.certificates import load_certificate
from termproxy.worker.main import Assignment
from termproxy import clock
from termproxy.config.schema import Frontend
from termproxy.worker.assembly import Assembly
from termproxy.tls.context import Resumption, Stores

sock = socket.create_server(("127.0.0.1", 0))
sock.setblocking(False)
board = Scoreboard()
settings = Frontend(name="web", listen=(), cluster="app", certificates=())
cluster = Cluster("app", [Server(parse_address("127.0.0.1:1"))])
assembly = Assembly(settings, {"app": cluster}, {}, Resumption(Stores()))
assembly.serve([load_certificate(Path(sys.argv[1]))], {}, clock.utc_now())
row = board.take_row(["web"])
work = Assignment(slot=0, row=row, slot_beats=board.slot_beats,
    listeners=[(assembly.frontend, sock, 0)], assemblies=[assembly], stores=Stores(),
    timeouts=Timeouts(), limits=Limits(), access_log=None)

REACH = Reach(frozenset())
talks = []  # an end that is closed sends its worker away
def pid_and_fd(spawned):
    talks.append(spawned.talk)
    return spawned.pid, spawned.startup_fd

def word(fd):
    os.set_blocking(fd, True)
    said = os.read(fd, 4096)
    os.close(fd)
    return said

def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)

def descriptors(pid="self"):
    return sorted(os.listdir(f"/proc/{pid}/fd"))

def end(pid, signum=signal.SIGINT):
    os.kill(pid, signum)
    return os.waitpid(pid, 0)[1]
"""


def run(site: Path, code: str, *, check: bool = True) -> Any:
    """What the code prints last, as JSON."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_worker_says_that_it_is_ready_and_ends_when_told(site: Path) -> None:
    assert run(
        site,
        """
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        print(json.dumps([word(fd).decode(), row.beat > 0, end(pid)]))
    """,
    ) == ["\0", True, 0]


def test_a_worker_that_cannot_start_says_why(site: Path) -> None:
    said, status = run(
        site,
        """
        from termproxy.errors import StartError
        def leave():
            raise StartError("no room at the inn")
        pid, fd = pid_and_fd(spawn(work, None, leave, REACH))
        print(json.dumps([word(fd).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]))
    """,
    )

    assert (said, status) == ("no room at the inn", 3)


def test_a_bug_before_it_is_ready_is_told_too(site: Path) -> None:
    assert run(
        site,
        """
        pid, fd = pid_and_fd(spawn(work, None, lambda: 1 / 0, REACH))
        print(json.dumps([word(fd).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]))
    """,
    ) == ["ZeroDivisionError: division by zero", 3]


def test_a_worker_keeps_no_descriptor_but_its_own(site: Path) -> None:
    """The master's, and those of whoever started it."""
    kept = run(
        site,
        """
        inherited = os.open("/etc/passwd", os.O_RDONLY)
        left = []
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        word(fd)
        names = [os.readlink(f"/proc/{pid}/fd/{n}") for n in descriptors(pid)]
        end(pid)
        print(json.dumps(names))
    """,
    )

    assert not any("passwd" in name or "memfd" in name for name in kept)
    assert sum(name.startswith("socket:") for name in kept) == 2  # the listener, and its orders


def test_a_worker_has_given_up_what_it_does_not_need(site: Path) -> None:
    status = run(
        site,
        """
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        word(fd)
        found = status_of(pid)
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        found["core"] = next(line for line in limits if "core" in line)
        found["owner"] = os.stat(f"/proc/{pid}/mem").st_uid
        end(pid)
        print(json.dumps(found))
    """,
    )

    assert status["NoNewPrivs"] == "1"
    assert status["core"].split()[4:6] == ["0", "0"]
    assert status["owner"] == 0, "another process of its user may read it"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_root_s_worker_is_another_user_for_good(site: Path) -> None:
    status = run(
        site,
        """
        nobody = pwd.getpwnam("nobody")
        user = User("nobody", nobody.pw_uid, nobody.pw_gid)
        pid, fd = pid_and_fd(spawn(work, user, lambda: None, REACH))
        said = word(fd)
        found = status_of(pid)
        end(pid)
        print(json.dumps({"said": said.decode(), "nobody": nobody.pw_uid, **found}))
    """,
    )

    assert status["said"] == "\0"
    assert set(status["Uid"].split()) == {str(status["nobody"])}
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


def test_a_worker_drains_when_its_master_dies(site: Path) -> None:
    """It must not serve on without anybody who looks after it."""
    pid = run(
        site,
        """
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        word(fd)
        print(json.dumps(pid), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """,
        check=False,
    )
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail("it lives on")


def test_signals_are_not_lost_at_a_fork(site: Path) -> None:
    """The master's mask is as before; the worker's handlers are its own."""
    assert run(
        site,
        """
        inbox = SignalInbox()
        pid, fd = pid_and_fd(spawn(work, None, inbox.close, REACH))
        word(fd)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        signal.raise_signal(signal.SIGHUP)
        mine = [s.name for s in inbox.read()]
        blocked = int(status_of(pid)["SigBlk"], 16)
        os.kill(pid, signal.SIGINT)  # the terminal's; the master decides
        os.kill(pid, signal.SIGTERM)
        print(json.dumps([sorted(mask), mine, blocked, os.waitpid(pid, 0)[1]]))
    """,
    ) == [[], ["SIGHUP"], 0, 0]


@pytest.mark.parametrize(
    "spoil",
    [
        "import gevent; gevent.get_hub()",
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
    ],
)
def test_a_master_with_a_hub_or_a_thread_does_not_fork(site: Path, spoil: str) -> None:
    assert "forking is not safe" in run(
        site,
        f"""
        {spoil}
        try:
            spawn(work, None, lambda: None, REACH)
        except RuntimeError as error:
            print(json.dumps(str(error)))
    """,
    )


def test_a_fork_that_fails_leaves_no_descriptor(site: Path) -> None:
    """It is tried again and again: each time two more."""
    before, after, reason = run(
        site,
        """
        import resource
        os.setresuid(54321, 54321, 54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = len(descriptors())
        try:
            spawn(work, None, lambda: None, REACH)
            reason = "forked"
        except OSError as error:
            reason = error.strerror
        print(json.dumps([before, len(descriptors()), reason]))
    """
        if os.getuid() == 0
        else """
        import resource
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = len(descriptors())
        try:
            spawn(work, None, lambda: None, REACH)
            reason = "forked"
        except OSError as error:
            reason = error.strerror
        print(json.dumps([before, len(descriptors()), reason]))
    """,
    )

    assert reason == "Resource temporarily unavailable"
    assert after == before


def test_a_bug_s_text_goes_to_nobody_s_connection(site: Path) -> None:
    """A worker that fails late must not write to whoever has the startup pipe's number now."""
    assert run(
        site,
        """
        from termproxy.worker import main
        def held():  # a worker cannot look into /proc
            return {fd for fd in range(100) if is_open(fd)}
        def is_open(fd):
            try:
                return bool(os.fstat(fd))
            except OSError:
                return False
        ours, theirs = socket.socketpair()
        class Unlucky(main.Worker):
            def run(self):
                startup = held()
                self._report_ready()
                freed = startup - held()
                # A backend's connection gets the lowest free number, as any new descriptor does.
                os.dup2(work.listeners[1][1].fileno(), int(freed.pop()))
                raise RuntimeError("late")
        module.Worker = Unlucky
        import dataclasses
        work = dataclasses.replace(work, listeners=[*work.listeners, (assembly.frontend, theirs, 0)])
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        said = word(fd)
        os.waitpid(pid, 0)
        theirs.close()
        ours.setblocking(False)
        print(json.dumps([said.decode(), ours.recv(100).decode()]))
    """,
    ) == ["\0", ""]


def test_a_confined_worker_s_bugs_are_told_with_file_and_line(site: Path) -> None:
    """Source lines are not: it may not open the source.  Nothing that telling takes is imported late."""
    told = run(
        site,
        """
        from termproxy.worker import main
        class Unlucky(main.Worker):
            def run(self):
                self._loop.run_callback(lambda: {}["in a callback"])
                main.gevent.spawn(lambda: {}["in a greenlet"])
                main.gevent.sleep(0.01)
                main.log.error("still there")
                {}["in itself"]
        module.Worker = Unlucky
        read, write = os.pipe()
        os.dup2(write, 2)
        pid, fd = pid_and_fd(spawn(work, None, lambda: None, REACH))
        os.waitpid(pid, 0)
        print(json.dumps(os.read(read, 1 << 16).decode()))
    """,
    )
    for words in ("KeyError: 'in a callback'", "KeyError: 'in a greenlet'", "KeyError: 'in itself'"):
        assert words in told
    assert re.search(r'File ".*/spawn\.py", line \d+, in _become_worker', told)
    assert "still there" in told
    assert "ImportError" not in told
    assert "PermissionError" not in told
