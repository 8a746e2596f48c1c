"""Logs are rotated under load, and no line is lost; what does not take them holds up nobody."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.command import TERMPROXY, termproxy
from tests.support.server import Server
from tests.support.visitors import Visitors, one_exchange
from tests.support.waiting import wait_until


def lines(*files: Path) -> list[str]:
    """Whose the lines are; every one of them is whole."""
    return [json.loads(line)["client"] for file in files for line in file.read_bytes().splitlines()]


def ask_to_reopen(server: Server) -> str:
    done = termproxy("reopen", "--control", str(server.control))
    assert done.returncode == 0, done.stderr
    return done.stdout


def visit(server: Server, dial: Dial) -> None:
    with dial(server) as client:
        exchange(client)
        leave(client)


def test_no_line_is_lost_when_the_log_is_renamed_under_load(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        file = server.folder / "access.log"
        renamed = [server.folder / f"access.log.{number}" for number in range(4)]
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            for each in renamed:
                visitors.wait_for_more(30)
                file.rename(each)
                assert ask_to_reopen(server) == f"{file}: opened anew by 2 workers\n"
                assert all(str(each) not in open_files(pid) for pid in server.workers())
            visitors.wait_for_more(30)
        wait_until(lambda: len(lines(file, *renamed)) >= visitors.served, "every line is there")
        found = lines(file, *renamed)
    assert len(found) == visitors.served
    assert lines(file) != []


def open_files(pid: int) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(fd.readlink()))
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def test_usr1_does_the_same_and_a_worker_born_later_writes_there_too(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        file = server.folder / "access.log"
        file.rename(server.folder / "old")
        server.signal(signal.SIGUSR1)
        server.wait_for_words(f"opened anew: {file}")
        [worker] = server.workers()
        wait_until(lambda: str(file) in open_files(worker), "the worker writes there")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [worker]), "the worker is replaced")
        visit(server, dial)
        server.wait_for_access(1)
        assert lines(server.folder / "old") == []


def test_workers_that_still_drain_write_to_the_new_file(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        assert server.reload(new_workers=True)["ok"]
        file = server.folder / "access.log"
        file.rename(server.folder / "old")
        assert ask_to_reopen(server) == f"{file}: opened anew by 2 workers\n"
        leave(client)
        server.wait_for_access(1)


def test_what_must_not_be_written_to_is_refused_and_the_old_file_is_written_on(
    serve: Serve, dial: Dial
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        file = server.folder / "access.log"
        file.rename(server.folder / "old")
        file.symlink_to(server.folder / "victim")
        done = termproxy("reopen", "--control", str(server.control))
        assert done.returncode == 1
        assert "the old files are written on: log.access: cannot write" in done.stderr
        assert not (server.folder / "victim").exists()
        visit(server, dial)
        wait_until(lambda: lines(server.folder / "old"), "its line")


def test_a_worker_that_hangs_does_not_keep_the_others_from_the_new_file(serve: Serve) -> None:
    """It is aborted before the patience with it ends, and its successor has the new one."""
    with serve("127.0.0.1:9", workers=2) as server:
        hung, healthy = server.workers()
        file = server.folder / "access.log"
        file.rename(server.folder / "old")
        os.kill(hung, signal.SIGSTOP)
        assert ask_to_reopen(server) == f"{file}: opened anew by 2 workers\n"
        assert str(file) in open_files(healthy)
        wait_until(lambda: len(server.workers()) == 2, "the worker is replaced")
        assert all(str(file) in open_files(pid) for pid in server.workers())


def test_where_no_log_is_a_file_there_is_nothing_to_do(serve: Serve) -> None:
    with serve("127.0.0.1:9", log={"access": "off"}) as server:
        assert ask_to_reopen(server) == "no log is a file: there was nothing to open anew\n"


# What does not take lines.


def test_a_full_disk_costs_lines_that_are_counted_and_no_client(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, log={"access": "/dev/full"}) as server:
        for _ in range(5):
            visit(server, dial)
        wait_until(lambda: server.status()["totals"]["access_lines_lost"] == 5, "they are counted")


@pytest.mark.parametrize("reader", ["slow", "gone"])
def test_a_fifo_that_nobody_reads_costs_no_client(
    serve: Serve, dial: Dial, tmp_path: Path, reader: str
) -> None:
    """Its reader has 64 KiB waiting for it, we have a MiB; then lines are lost.  Or it went, and each
    write would be a SIGPIPE.
    """
    os.mkfifo(tmp_path / "fifo")
    read_fd = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with Backend() as backend, serve(backend.address, log={"access": "fifo"}) as server:
        if reader == "gone":
            os.close(read_fd)
        for _ in range(300):
            visit(server, dial)
        if reader == "gone":
            wait_until(lambda: server.status()["totals"]["access_lines_lost"] == 300, "all are counted")
        else:
            os.close(read_fd)


def test_a_standard_error_that_nobody_reads_holds_up_neither_workers_nor_master(
    serve: Serve, dial: Dial
) -> None:
    with Backend() as backend:
        server = serve(backend.address, workers=2)
        read_fd, write_fd = os.pipe()
        with server:
            pass  # to have its files
        with said_to(server, write_fd) as process:
            wait_until(server.is_answering, "it serves")
            for number in itertools.count():
                process.send_signal(signal.SIGUSR1)  # each is a line
                if server.status()["totals"]["log_lines_lost"] > 10:
                    break
                assert number < 5000
            visit(server, dial)
        os.close(read_fd)


@contextmanager
def said_to(server: Server, fd: int) -> Iterator[subprocess.Popen[bytes]]:
    """Have it say what it says to a pipe."""
    command = [*TERMPROXY, "run", "-c", str(server.file)]
    process = subprocess.Popen(command, stderr=fd, cwd=server.folder, start_new_session=True)
    os.close(fd)
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
