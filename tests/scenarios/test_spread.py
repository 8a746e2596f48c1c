"""Every worker gets its share of clients, and nobody's clients wait for a worker that hangs."""

from __future__ import annotations

import os
import signal
import socket
import ssl

from termproxy import clock
from tests.conftest import Serve
from tests.scenarios.test_many_connections import open_many
from tests.support.backends import EchoForMany
from tests.support.clients import connect
from tests.support.processes import state
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

WORKERS = 4
RATIO = 1.5  # between the busiest and the laziest


def of_each(server: Server, what: str) -> list[int]:
    return [int(worker[what]) for worker in server.status()["workers"]]


def test_idle_connections_are_spread(serve: Serve, trust: ssl.SSLContext) -> None:
    """From the first moment on, in which none of the others has shown yet that it is there."""
    with EchoForMany() as backend, serve(backend.address, workers=WORKERS) as server:
        clients = open_many(server.port, trust)
        shares = of_each(server, "connections")
        for client in clients:
            client.close()
        assert max(shares) <= RATIO * min(shares), shares


def test_a_thousand_new_connections_a_second_are_spread(serve: Serve) -> None:
    with serve("127.0.0.1:9", workers=WORKERS, log={"access": "off"}) as server:
        begun = clock.monotonic()
        for number in range(2000):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
                client.sendall(b"\x16")  # the kernel keeps back those who say nothing
            while clock.monotonic() - begun < number / 1000:
                pass
        wait_until(lambda: sum(of_each(server, "accepted")) == 2000, "all are accepted")
        shares = of_each(server, "accepted")
        assert max(shares) <= RATIO * min(shares), shares


def test_the_queue_of_a_worker_that_hangs_is_served_within_two_seconds(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    with EchoForMany() as backend, serve(backend.address, workers=WORKERS) as server:
        hung = server.workers()[1]
        os.kill(hung, signal.SIGSTOP)
        slowest = 0.0
        for _ in range(60):
            begun = clock.monotonic()
            connect(server.port, trust).close()
            slowest = max(slowest, clock.monotonic() - begun)
        assert state(hung) == "T"
        assert slowest < 2.0
