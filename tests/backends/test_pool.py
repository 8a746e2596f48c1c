"""Connections that are kept: who gets them, and how they end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from termproxy.address import parse_address
from termproxy.backends.board import Board, WishWord
from termproxy.backends.health import Wish
from termproxy.backends.pool import BackendConnection, Pool
from termproxy.backends.server import Server
from tests.relay.ends import backend_pair, receive, received, reset, turns

READABLE = 1


class Kept:
    """A pool, a server, and the other ends of connections to it."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.server = Server(parse_address("127.0.0.1:1"))
        self.others: dict[BackendConnection, socket.socket] = {}

    def connection(self, server: Server | None = None) -> BackendConnection:
        ours, other = backend_pair()
        watcher = gevent.get_hub().loop.io(ours.fileno(), READABLE)
        watcher.start(lambda: None)  # as whoever used it has left it
        connection = BackendConnection(ours, server or self.server, watcher)
        self.others[connection] = other
        return connection

    def give(self, count: int = 1, *, most: int = 10, now: float = 0.0) -> list[BackendConnection]:
        connections = [self.connection() for _ in range(count)]
        for connection in connections:
            self.pool.give(connection, most, now)
        return connections

    def is_closed(self, connection: BackendConnection) -> bool:
        """As the other end sees it."""
        turns(2)
        try:
            return self.others[connection].recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


@pytest.fixture
def kept() -> Iterator[Kept]:
    gevent.get_hub().loop.io(0, 1).close()  # the loop's own descriptors are open already
    gevent.sleep(0.001)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    kept = Kept()
    yield kept
    kept.pool.close()
    for connection, other in kept.others.items():
        if connection.sock.fileno() >= 0:
            connection.close()
        other.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counted, not opened


def test_a_pool_that_was_given_nothing_has_nothing(kept: Kept) -> None:
    assert kept.pool.take(kept.server) is None
    kept.pool.sweep(kept.server, 100.0, 10.0)
    assert len(kept.pool) == 0


def test_the_last_one_given_is_the_first_one_taken(kept: Kept) -> None:
    first, second = kept.give(2)

    assert kept.pool.take(kept.server) is second
    assert kept.pool.take(kept.server) is first
    assert kept.pool.take(kept.server) is None


def test_a_server_s_connections_are_not_another_s(kept: Kept) -> None:
    """Though it may be at the same address: clusters keep theirs apart."""
    kept.give()

    assert kept.pool.take(Server(parse_address("127.0.0.1:1"))) is None
    assert len(kept.pool) == 1


def test_no_more_are_kept_than_may_be(kept: Kept) -> None:
    first, second, third = kept.give(3, most=2)

    assert kept.is_closed(third)
    assert not kept.is_closed(first)
    assert not kept.is_closed(second)
    assert len(kept.pool) == 2


def test_none_are_kept_when_none_may_be(kept: Kept) -> None:
    (connection,) = kept.give(most=0)

    assert kept.is_closed(connection)


def test_old_ones_are_swept_out(kept: Kept) -> None:
    (old,) = kept.give(now=0.0)
    (young,) = kept.give(now=5.0)
    kept.pool.sweep(kept.server, 9.9, 10.0)
    assert len(kept.pool) == 2
    kept.pool.sweep(kept.server, 10.0, 10.0)

    assert kept.is_closed(old)
    assert kept.pool.take(kept.server) is young
    kept.pool.give(young, 10, now=14.0)
    kept.pool.sweep(kept.server, 15.0, 10.0)
    assert len(kept.pool) == 1


def test_those_of_a_disabled_server_are_closed_at_once(kept: Kept) -> None:
    board = Board([("app", "127.0.0.1:1")], 1, is_shared=False)
    kept.server.attach(board.use(0, 0), board.wish(0), board.use(0, 0)[:1])
    (connection,) = kept.give(now=0.0)
    kept.pool.sweep(kept.server, 0.1, 10.0)
    assert len(kept.pool) == 1
    board.wish(0)[WishWord.WISH] = Wish.DISABLED
    kept.pool.sweep(kept.server, 0.1, 10.0)

    assert kept.is_closed(connection)


@pytest.mark.parametrize("how", ["it ends", "it resets", "it speaks"])
def test_one_on_which_anything_happens_is_closed(kept: Kept, how: str) -> None:
    first, second = kept.give(2)
    match how:
        case "it ends":
            kept.others[first].shutdown(socket.SHUT_WR)
        case "it resets":
            reset(kept.others.pop(first))
        case _:
            kept.others[first].send(b"HTTP/1.1 408 Request Timeout\r\n")
    turns()

    assert len(kept.pool) == 1
    assert first.sock.fileno() == -1
    assert kept.pool.take(kept.server) is second


def test_what_happens_on_one_that_was_taken_is_not_the_pool_s_business(kept: Kept) -> None:
    (connection,) = kept.give()
    assert kept.pool.take(kept.server) is connection
    kept.others[connection].send(b"an answer")
    turns()

    assert received(connection.sock) == b"an answer"


def test_one_that_was_taken_tells_its_new_owner_what_comes(kept: Kept) -> None:
    (connection,) = kept.give()
    heard: list[bytes] = []
    kept.pool.take(kept.server)
    connection.watcher.callback = lambda: heard.append(received(connection.sock))
    kept.others[connection].send(b"an answer")
    turns()

    assert heard == [b"an answer"]


def test_an_idle_connection_is_alive_until_something_speaks_against_it(kept: Kept) -> None:
    quiet, ended, cut, chatty = (kept.connection() for _ in range(4))
    assert quiet.is_alive()
    kept.others[ended].close()
    reset(kept.others[cut])
    kept.others[chatty].send(b"x")

    assert [each.is_alive() for each in (quiet, ended, cut, chatty)] == [True, False, False, False]


def test_a_pool_that_closes_keeps_nothing(kept: Kept) -> None:
    connections = kept.give(3)
    kept.pool.close()

    assert all(map(kept.is_closed, connections))
    assert len(kept.pool) == 0
    assert kept.pool.take(kept.server) is None


def test_a_connection_may_go_back_and_forth(kept: Kept) -> None:
    (connection,) = kept.give()
    for number in range(5):
        assert kept.pool.take(kept.server) is connection
        connection.sock.send(b"%d" % number)
        assert receive(kept.others[connection]) == b"%d" % number
        kept.pool.give(connection, 1, now=float(number))
    assert len(kept.pool) == 1


def test_what_is_kept_for_servers_that_are_no_more_is_closed() -> None:
    class Idle:
        closed = False

        def close(self) -> None:
            self.closed = True

    address = parse_address("127.0.0.1:1")
    pool, gone, stays = Pool(), Server(address), Server(address)
    kept: dict[Server, Any] = {gone: Idle(), stays: Idle()}
    pool._idle = {server: [connection] for server, connection in kept.items()}
    pool.sweep_others({stays})

    assert (kept[gone].closed, kept[stays].closed) == (True, False)
    assert len(pool) == 1
