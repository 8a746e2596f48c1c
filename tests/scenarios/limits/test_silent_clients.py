"""Clients that say nothing, or not enough, hold no slot longer than their deadline (R13, small)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from termproxy import clock
from tests.conftest import Serve
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave
from tests.support.hello import client_hello
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

SLOTS = 40
SILENT = SLOTS  # all of them, so that nobody gets in while they may stay
HANDSHAKE = 1.0  # seconds
HEAD = 1.0

Silence = Callable[[Server, ssl.SSLContext], socket.socket]


def half_a_head(server: Server, trust: ssl.SSLContext) -> socket.socket:
    client = connect(server.port, trust)
    client.sendall(b"GET / HTTP/1.1\r\nHost: si")
    return client


def nothing(server: Server, _: ssl.SSLContext) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def half_a_hello(server: Server, trust: ssl.SSLContext) -> socket.socket:
    sock = nothing(server, trust)
    sock.sendall(client_hello("site.test")[:60])
    return sock


def nothing_after_the_handshake(server: Server, trust: ssl.SSLContext) -> socket.socket:
    return connect(server.port, trust)


@pytest.mark.parametrize(
    ("mode", "silence", "deadline"),
    [
        ("tcp", nothing, HANDSHAKE),
        ("tcp", half_a_hello, HANDSHAKE),
        ("http", half_a_hello, HANDSHAKE),
        ("http", nothing_after_the_handshake, HEAD),
        ("http", half_a_head, HEAD),
    ],
)
def test_silent_clients_give_their_slots_back_at_their_deadline(
    serve: Serve,
    trust: ssl.SSLContext,
    mode: str,
    silence: Silence,
    deadline: float,
) -> None:
    with Backend() as backend:
        server = serve(
            backend.address,
            limits={"connections": SLOTS},
            timeouts={"handshake": HANDSHAKE, "request_head": HEAD},
        )
        server.values["frontend"][0]["mode"] = mode
        with server, ExitStack() as stack:
            begun = clock.monotonic()
            held = [stack.enter_context(silence(server, trust)) for _ in range(SILENT)]
            wait_until(lambda: server.open_connections() == SLOTS, "all slots are taken", poll=0.05)
            with connect(server.port, trust) as client:  # it waits in the kernel's queue meanwhile
                assert clock.monotonic() - begun >= deadline
                client.close()
            wait_until(lambda: server.open_connections() == 0, "all slots are free", poll=0.05)
            took = clock.monotonic() - begun
            assert took < deadline + 6
            assert len(held) == SILENT


def test_a_fifth_of_the_slots_held_by_silent_clients_leaves_the_others_to_those_that_speak(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    with (
        Backend() as backend,
        serve(backend.address, limits={"connections": SLOTS}, timeouts={"handshake": 2}) as server,
        ExitStack() as stack,
    ):
        for number in range(SLOTS // 5):
            stack.enter_context((nothing, half_a_hello)[number % 2](server, trust))
        speaking = [stack.enter_context(connect(server.port, trust)) for _ in range(SLOTS * 4 // 5)]
        for client in speaking:
            assert exchange(client) == b"ping"
        lines = server.wait_for_access(SLOTS // 5)
        assert {line["ended"] for line in lines} == {"handshake_timeout"}
        assert all(2 <= line["seconds"] < 3.5 for line in lines)
        more = [stack.enter_context(connect(server.port, trust)) for _ in range(SLOTS // 5)]
        for client in speaking + more:
            assert exchange(client) == b"ping"
        for client in speaking + more:
            leave(client)
