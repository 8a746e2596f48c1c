"""2,000 connections open at once, all of them served; afterwards everything is as it was."""

from __future__ import annotations

import selectors
import socket
import ssl

from tests.conftest import Serve
from tests.support.backends import EchoForMany
from tests.support.clients import NAME
from tests.support.processes import descriptors, may_look_inside_workers
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

COUNT = 2000


def test_2000_connections_at_once_are_all_served(serve: Serve, trust: ssl.SSLContext) -> None:
    with (
        EchoForMany() as backend,
        serve(backend.address, workers=2, limits={"handshake_queue": 10}) as server,
    ):
        before = count_descriptors(server)
        clients = open_many(server.port, trust)
        try:
            assert server.open_connections() == COUNT
            for _ in range(2):
                for number, client in enumerate(clients):
                    client.sendall(b"%08d" % number)
                for number, client in enumerate(clients):
                    assert client.recv(8) == b"%08d" % number
            shares = [worker["connections"] for worker in server.status()["workers"]]
            assert min(shares) > COUNT / 5, f"one worker does nearly all: {shares}"
        finally:
            for client in clients:
                client.close()
        wait_until(lambda: server.open_connections() == 0, "all are closed")
        assert count_descriptors(server) == before
        assert server.status()["totals"]["accepted"] == COUNT


def open_many(port: int, context: ssl.SSLContext) -> list[ssl.SSLSocket]:
    """All of them connected before the first handshake begins, and the handshakes side by side."""
    clients = []
    for _ in range(COUNT):
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        sock.setblocking(False)
        clients.append(context.wrap_socket(sock, server_hostname=NAME, do_handshake_on_connect=False))
    with selectors.DefaultSelector() as selector:
        waiting = set(clients)
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
            _step(client, selector, waiting)
        while waiting:
            ready = selector.select(PATIENCE)
            assert ready, f"{len(waiting)} handshakes do not go on"
            for key, _ in ready:
                assert isinstance(key.fileobj, ssl.SSLSocket)
                _step(key.fileobj, selector, waiting)
    for client in clients:
        client.settimeout(PATIENCE)
    return clients


def _step(client: ssl.SSLSocket, selector: selectors.BaseSelector, waiting: set[ssl.SSLSocket]) -> None:
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return
    selector.unregister(client)
    waiting.discard(client)


def count_descriptors(server: Server) -> list[int]:
    """Those of each worker; nothing to compare when we may not look."""
    return [len(descriptors(pid)) for pid in server.workers()] if may_look_inside_workers() else []
