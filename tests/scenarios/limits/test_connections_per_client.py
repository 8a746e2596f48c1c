"""One client gets so many connections and no more, over all workers, whatever becomes of those."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from termproxy.relay.proxy_protocol import header_v1
from tests.conftest import Serve
from tests.scenarios.limits.clients import connect_from, dropped, is_turned_away
from tests.support.backends import Backend
from tests.support.clients import NAME, exchange, leave, read_to_end
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

ONE, OTHER = "127.2.0.1", "127.2.0.2"
LIMIT = 6

GET = b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n"


@pytest.fixture
def open_() -> Iterator[Callable[[Server, ssl.SSLContext, str], ssl.SSLSocket]]:
    """Connections that work, until the test ends."""
    with ExitStack() as stack:

        def open_(server: Server, trust: ssl.SSLContext, host: str) -> ssl.SSLSocket:
            client = stack.enter_context(connect_from(host, server, trust))
            assert exchange(client) == b"ping"
            return client

        yield open_


Open = Callable[[Server, ssl.SSLContext, str], ssl.SSLSocket]


def test_a_client_at_its_limit_is_closed_before_its_handshake_and_others_are_not(
    serve: Serve, trust: ssl.SSLContext, open_: Open
) -> None:
    limits = {"connections_per_client": LIMIT}
    with Backend() as backend, serve(backend.address, workers=3, limits=limits) as server:
        clients = [open_(server, trust, ONE) for _ in range(LIMIT)]
        assert all(is_turned_away(ONE, server, trust) for _ in range(20))
        open_(server, trust, OTHER)
        assert dropped(server) == {"connections_per_client": 20}
        assert server.said().count("turned away by limits.connections_per_client") <= 4
        assert f"{ONE} turned away by limits.connections_per_client" in server.said()
        assert server.status()["totals"]["handshakes"] == LIMIT + 1
        for client in clients:
            assert exchange(client) == b"ping"
        leave(clients[0])
        wait_until(lambda: not is_turned_away(ONE, server, trust), "there is room for one again")


def is_replaced(server: Server, pid: int) -> bool:
    workers = server.workers()
    return pid not in workers and len(workers) == 2


def test_what_a_killed_worker_had_open_is_not_counted_any_more(
    serve: Serve, trust: ssl.SSLContext, open_: Open
) -> None:
    limits = {"connections_per_client": LIMIT}
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        for _ in range(LIMIT):
            open_(server, trust, ONE)
        assert is_turned_away(ONE, server, trust)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(is_replaced, server, pid), "another one accepts")
        for _ in range(LIMIT):
            open_(server, trust, ONE)
        assert is_turned_away(ONE, server, trust)


def test_connections_of_before_a_reload_count_until_they_end(
    serve: Serve, trust: ssl.SSLContext, open_: Open
) -> None:
    limits = {"connections_per_client": LIMIT}
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        old = [open_(server, trust, ONE) for _ in range(LIMIT)]
        server.values["workers"] = 3
        assert server.reload()["ok"]
        assert is_turned_away(ONE, server, trust)
        assert exchange(old[0]) == b"ping"
        for client in old:
            leave(client)
        wait_until(lambda: len(server.status()["workers"]) == 3, "the old generation has ended")
        for _ in range(LIMIT):
            open_(server, trust, ONE)
        assert is_turned_away(ONE, server, trust)


def test_a_limit_that_a_reload_brings_holds_and_one_that_it_takes_does_not(
    serve: Serve, trust: ssl.SSLContext, open_: Open
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.values["limits"] |= {"connections_per_client": 1}
        assert server.reload()["ok"]
        open_(server, trust, ONE)
        assert is_turned_away(ONE, server, trust)
        server.values["limits"] |= {"connections_per_client": 0}
        assert server.reload()["ok"]
        open_(server, trust, ONE)


def test_an_ipv6_client_is_its_network(serve: Serve, trust: ssl.SSLContext) -> None:
    """Through a balancer, whose own address does not count; here it has the same for all."""
    with Backend() as backend:
        server = serve(backend.address, limits={"connections_per_client": 2})
        server.values["frontend"][0]["accept_proxy_from"] = ["127.0.0.0/8"]
        with server, ExitStack() as stack:

            def knock(client: str) -> socket.socket:
                sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
                stack.callback(sock.close)
                sock.sendall(header_v1((client, 4711), ("2001:db8::99", 443)))
                return sock

            def arrive(client: str) -> ssl.SSLSocket:
                return stack.enter_context(trust.wrap_socket(knock(client), server_hostname=NAME))

            for client in ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", "2001:db8:1:2::1"):
                assert exchange(arrive(client)) == b"ping"
            with pytest.raises(ConnectionError):
                knock("2001:db8:1:1::1").recv(1)
            assert dropped(server) == {"connections_per_client": 1}
            assert exchange(arrive("2001:db8:1:2::1")) == b"ping"


def answer_requests(sock: socket.socket) -> None:
    while received := sock.recv(1 << 16):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * received.count(b"\r\n\r\n"))


def test_in_mode_http_a_client_a_little_over_its_limit_is_told_so(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    with Backend(answer_requests) as backend:
        server = serve(backend.address, limits={"connections_per_client": 4})
        server.values["frontend"][0]["mode"] = "http"
        with server, ExitStack() as stack:
            clients = [stack.enter_context(connect_from(ONE, server, trust)) for _ in range(4)]
            told = stack.enter_context(connect_from(ONE, server, trust))
            told.sendall(GET)
            answer = read_to_end(told)
            assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"\r\nRetry-After: 1\r\n" in answer
            assert b"\r\nConnection: close\r\n" in answer
            told.close()
            wait_until(lambda: server.open_connections() == 4, "it has gone")
            [line] = server.wait_for_access(that=lambda line: line.get("status") == 429)
            assert (line["ended"], line["fault"]) == ("too_many_connections", "client")
            # The one that is told, and the next: before any crypto.
            silent = stack.enter_context(connect_from(ONE, server, trust))
            assert is_turned_away(ONE, server, trust)
            silent.close()
            clients[0].sendall(GET)
            assert clients[0].recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert dropped(server)["connections_per_client"] == 2
