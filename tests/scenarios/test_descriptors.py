"""However a connection ends, its descriptors come back; and running out of them stops nobody."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from termproxy import clock
from tests.conftest import Dial, Serve
from tests.support.backends import Backend, Behaviour, FullBackend, echo, receive_exactly, reset
from tests.support.clients import connect, exchange, leave, vanish
from tests.support.hello import client_hello
from tests.support.ports import free_port
from tests.support.processes import descriptors, may_look_inside_workers
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(
    not may_look_inside_workers(), reason="only root sees the descriptors of workers"
)

ROUNDS = 20


def reset_before_the_hello(port: int, _: ssl.SSLContext) -> None:
    vanish(socket.create_connection(("127.0.0.1", port)))


def reset_in_the_hello(port: int, _: ssl.SSLContext) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(client_hello("site.test")[:80])
    vanish(sock)


def reset_after_the_hello(port: int, _: ssl.SSLContext) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(client_hello("site.test"))
    vanish(sock)


def reset_after_the_handshake(port: int, context: ssl.SSLContext) -> None:
    vanish(connect(port, context))


def reset_in_the_middle_of_an_upload(port: int, context: ssl.SSLContext) -> None:
    client = connect(port, context)
    client.sendall(bytes(300_000))
    vanish(client)


def close_without_close_notify(port: int, context: ssl.SSLContext) -> None:
    with connect(port, context) as client:
        exchange(client)


def speak_http(port: int, _: ssl.SSLContext) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")


def end_well(port: int, context: ssl.SSLContext) -> None:
    client = connect(port, context)
    exchange(client)
    leave(client)


@pytest.mark.parametrize(
    "behave",
    [
        reset_before_the_hello,
        reset_in_the_hello,
        reset_after_the_hello,
        reset_after_the_handshake,
        reset_in_the_middle_of_an_upload,
        close_without_close_notify,
        speak_http,
        end_well,
    ],
)
def test_no_client_leaks_a_descriptor(
    serve: Serve, trust: ssl.SSLContext, behave: Callable[[int, ssl.SSLContext], None]
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        before = steady_descriptors(server)
        for _ in range(ROUNDS):
            behave(server.port, trust)
        wait_until_back_at(server, before)


def reset_at_once(sock: socket.socket) -> None:
    reset(sock)


def reset_in_the_answer(sock: socket.socket) -> None:
    receive_exactly(sock, 1)
    sock.sendall(bytes(300_000))
    reset(sock)


def close_at_once(_: socket.socket) -> None:
    pass


@pytest.mark.parametrize("behave", [reset_at_once, reset_in_the_answer, close_at_once])
def test_no_backend_leaks_a_descriptor(serve: Serve, trust: ssl.SSLContext, behave: Behaviour) -> None:
    with Backend(behave) as backend, serve(backend.address) as server:
        before = steady_descriptors(server)
        for _ in range(ROUNDS):
            with connect(server.port, trust) as client:
                try:
                    client.sendall(b"1")
                    while client.recv(65536):
                        pass
                except OSError:
                    pass  # a reset, or an end without close_notify
        wait_until_back_at(server, before)


def test_no_backend_that_cannot_be_had_leaks_a_descriptor(serve: Serve, trust: ssl.SSLContext) -> None:
    with FullBackend() as full:
        servers = (full.address, f"127.0.0.1:{free_port()}", "unix:/nonexistent/app.sock")
        with serve(*servers, timeouts={"connect": 0.2}) as server:
            before = steady_descriptors(server)
            for _ in range(4):  # each takes as long as the deadline
                with connect(server.port, trust) as client:
                    assert client.recv(1) == b""
            wait_until_back_at(server, before)


def test_a_worker_out_of_descriptors_serves_on_and_recovers(
    serve: Serve, dial: Dial, trust: ssl.SSLContext
) -> None:
    with Backend(echo) as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        [pid] = server.workers()
        before = descriptors(pid)
        psutil.Process(pid).rlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for sock in held:
            sock.sendall(client_hello("site.test")[:50])
        server.wait_for_words("cannot accept clients: Too many open files; they wait")
        for _ in range(20):
            assert exchange(client) == b"ping"
        wait_until_it_rests(pid)
        for sock in held:
            sock.close()
        with dial(server) as another:
            assert exchange(another) == b"ping"
            leave(another)
        wait_until(lambda: len(descriptors(pid)) == len(before), "the descriptors are back")
        assert server.workers() == [pid]
        assert server.said().count("cannot accept clients") < 20
        leave(client)


def test_no_client_is_accepted_that_no_descriptor_is_left_for_at_the_backend(
    serve: Serve, dial: Dial, trust: ssl.SSLContext
) -> None:
    """R8, small: who is accepted is served, existing connections go on, and recovery is quick."""
    with Backend(echo) as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        [pid] = server.workers()
        before = descriptors(pid)
        psutil.Process(pid).rlimit(resource.RLIMIT_NOFILE, (128, 128))
        wait_for_ticks(server, 2)  # at each it looks at its limits
        served: list[ssl.SSLSocket] = []
        waiting: list[socket.socket] = []
        with ExitStack() as stack:
            for _ in range(200):
                sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
                waiting.append(stack.enter_context(sock))
                sock.sendall(client_hello("site.test"))
            server.wait_for_words("no descriptors for more (raise LimitNOFILE); new ones wait")
            assert exchange(client) == b"ping"
            wait_until_it_rests(pid)
            assert len(descriptors(pid)) < 128
            for sock in waiting:
                vanish(sock)
            began = clock.monotonic()
            for _ in range(20):
                served.append(stack.enter_context(connect(server.port, trust)))
                assert exchange(served[-1]) == b"ping"
            assert clock.monotonic() - began < 2
        assert "no_descriptors" not in server.said()
        assert "cannot accept" not in server.said()
        assert server.said().count("new ones wait") < 20
        leave(client)
        wait_until(lambda: len(descriptors(pid)) < len(before), "the descriptors are back")


def test_at_the_limit_of_connections_new_clients_wait_until_one_leaves(
    serve: Serve, dial: Dial, trust: ssl.SSLContext
) -> None:
    with Backend() as backend, serve(backend.address, limits={"connections": 2}) as server:
        clients = [dial(server), dial(server)]
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as waiting:
            waiting.sendall(client_hello("site.test"))
            server.wait_for_words("2 connections: the limit; new ones wait")
            assert server.open_connections() == 2
            leave(clients.pop())
            assert waiting.recv(1) == b"\x16", "a ServerHello has come"
        leave(clients.pop())
        with dial(server) as client:
            assert exchange(client) == b"ping"


def steady_descriptors(server: Server) -> int:
    """After a first connection: what is opened once and kept is open then."""
    [pid] = server.workers()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.recv(1)
    wait_until(lambda: server.open_connections() == 0, "the first connection is closed")
    return len(descriptors(pid))


def wait_until_back_at(server: Server, count: int) -> None:
    [pid] = server.workers()
    wait_until(
        lambda: server.open_connections() == 0 and len(descriptors(pid)) == count,
        f"{count} descriptors are open as at the start",
    )
    assert len(os.listdir(f"/proc/{pid}/fd")) == count  # noqa: PTH208


def wait_for_ticks(server: Server, count: int) -> None:
    """Of the only worker."""
    for _ in range(count):
        age = heartbeat_age(server)
        wait_until(lambda age=age: heartbeat_age(server) < age, "a tick", poll=0.001)  # type: ignore[misc]


def heartbeat_age(server: Server) -> float:
    age: float = server.status()["workers"][0]["heartbeat_age_seconds"]
    return age


def wait_until_it_rests(pid: int) -> None:
    """A worker that spins would use its whole CPU."""
    process = psutil.Process(pid)
    wait_until(lambda: process.cpu_percent(interval=0.5) < 50, "the worker does not spin")


def test_a_full_worker_leaves_its_queue_to_one_that_has_room(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    """Its clients would wait for as long as its own stay, beside a worker that has nothing to do."""
    with Backend() as backend, serve(backend.address, workers=2, limits={"connections": 3}) as server:
        clients = []
        try:
            for _ in range(6):  # as many as both together may have
                client = connect(server.port, trust)
                clients.append(client)
                assert exchange(client) == b"ping"
        finally:
            for client in clients:
                client.close()
