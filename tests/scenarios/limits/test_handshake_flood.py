"""In a flood of handshakes established connections go on, and who resumes gets in (R14, small).

How the time is shared is measured by tests/worker/test_handshake_queue.py, and, on a machine that has
nothing else to do, from outside by perf/handshake_flood.py.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from termproxy import clock
from tests.conftest import Dial, Serve
from tests.scenarios.limits.clients import dropped
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave, vanish
from tests.support.hello import client_hello
from tests.support.processes import descriptors, may_look_inside_workers
from tests.support.server import Server
from tests.support.waiting import wait_until

AT_A_TIME = 300


def flood(port: int, stop: threading.Event) -> None:
    """Clients that ask for a handshake, wait until they are answered or cut off, and come again."""
    hello, selector = client_hello("site.test"), selectors.DefaultSelector()
    socks: set[socket.socket] = set()
    while not stop.is_set():
        while len(socks) < AT_A_TIME:
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(hello)
            selector.register(sock, selectors.EVENT_READ)
            socks.add(sock)
        for key, _ in selector.select(0.1):
            sock = key.fileobj  # type: ignore[assignment]
            selector.unregister(sock)
            socks.discard(sock)
            vanish(sock)
    for sock in socks:
        sock.close()


@contextmanager
def flooded(server: Server) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=flood, args=(server.port, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_established_connections_go_on_in_a_flood_and_it_leaves_nothing_behind(
    serve: Serve, dial: Dial, trust: ssl.SSLContext
) -> None:
    with (
        Backend() as backend,
        serve(backend.address, limits={"handshake_queue": 0.2}) as server,
        dial(server) as client,
    ):
        assert exchange(client) == b"ping"
        [pid] = server.workers()
        before = len(descriptors(pid)) if may_look_inside_workers() else 0
        with flooded(server):
            wait_until(
                lambda: server.status()["totals"]["handshakes_failed"] > AT_A_TIME, "the flood is there"
            )
            for _ in range(50):
                assert exchange(client) == b"ping"
        began = clock.monotonic()
        with connect(server.port, trust) as another:
            assert exchange(another) == b"ping"
            assert clock.monotonic() - began < 2
            leave(another)
        wait_until(lambda: server.open_connections() == 1, "the flood is forgotten")
        assert server.workers() == [pid]
        if before:
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == before, "all is given back")  # noqa: PTH208
        leave(client)


def test_in_a_flood_above_the_rate_who_resumes_gets_in(serve: Serve, trust: ssl.SSLContext) -> None:
    limits = {"handshakes_per_second": 50, "handshake_queue": 0.2}
    with Backend() as backend, serve(backend.address, limits=limits) as server:
        with connect(server.port, trust) as client:
            exchange(client)
            session = client.session
        with flooded(server):
            wait_until(
                lambda: dropped(server).get("handshakes_per_second", 0) > 50, "full ones are cut off"
            )
            for _ in range(5):
                with connect(server.port, trust, session=session) as client:
                    assert client.session_reused
                    assert exchange(client) == b"ping"
                    session = client.session
