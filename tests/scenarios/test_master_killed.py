"""When the master is killed its workers drain and go, and a new master starts at once."""

from __future__ import annotations

import os
import random
import signal
import socket
from pathlib import Path

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange, leave, read_to_end, sha256
from tests.support.processes import session_members
from tests.support.server import Server
from tests.support.waiting import wait_until

CONTENT = random.Random(6).randbytes(64 << 20)


def send_content(sock: socket.socket) -> None:
    sock.recv(1)
    sock.sendall(CONTENT)


def no_longer_listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_its_workers_finish_what_is_open_and_go(serve: Serve, dial: Dial) -> None:
    with Backend(send_content) as backend:
        with serve(backend.address, workers=2, timeouts={"drain": 30}) as server:
            with dial(server) as client:
                client.sendall(b"1")
                begin = client.recv(1 << 20)
                os.kill(server.pid, signal.SIGKILL)
                wait_until(lambda: no_longer_listens(server.port), "the workers have closed the port")
                assert sha256(begin + read_to_end(client)) == sha256(CONTENT)
                leave(client)
            assert server.wait_until_gone() == -signal.SIGKILL
        ends = [line["ended"] for line in server.access_lines() if line["bytes_from_client"]]
        assert ends == ["done"]


def test_its_workers_do_not_outlive_the_drain(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve(backend.address, workers=2, timeouts={"drain": 1}) as server,
        dial(server) as client,
    ):
        exchange(client)
        os.kill(server.pid, signal.SIGKILL)
        server.wait_until_gone()


def test_a_new_master_serves_on_the_same_port_while_old_workers_still_drain(
    serve: Serve, dial: Dial, tmp_path: Path
) -> None:
    """The port, the pidfile and the control socket of the dead master are in nobody's way."""
    with Backend() as backend, serve(backend.address, workers=2) as first, dial(first) as old:
        exchange(old)
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: no_longer_listens(first.port), "the old workers have closed the port")
        with Server(tmp_path, first.values) as second:
            assert int((tmp_path / "pid").read_text()) == second.pid
            with dial(second) as new:
                assert exchange(new) == exchange(old) == b"ping"
                leave(new)
            assert session_members(first.pid) != []
            leave(old)
        first.wait_until_gone()
