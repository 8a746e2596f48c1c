"""Every phase of a connection has an absolute deadline."""

from __future__ import annotations

import socket
import ssl

import pytest

from termproxy import clock
from tests.conftest import Dial, Serve
from tests.support.backends import Backend, FullBackend, greeting, receive_exactly
from tests.support.clients import exchange, leave, read_to_end
from tests.support.hello import client_hello
from tests.support.waiting import wait_until


def wait_for_end(sock: socket.socket) -> bytes:
    """What the proxy still says; it may close with a reset."""
    received = b""
    try:
        while piece := sock.recv(4096):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("what", ["nothing", "half a ClientHello", "one byte"])
def test_a_client_that_does_not_finish_its_handshake_is_closed(serve: Serve, what: str) -> None:
    hello = client_hello("site.test")
    begin = {"nothing": b"", "half a ClientHello": hello[: len(hello) // 2], "one byte": hello[:1]}[what]
    with Backend() as backend, serve(backend.address, timeouts={"handshake": 0.5}) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(begin)
            assert wait_for_end(sock) == b""
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("handshake_timeout", "client")
        assert line["detail"] == "the client sent no whole ClientHello within 0.5 s"
        assert 0.5 <= line["seconds"] < 5
        assert backend.accepted == 0


def test_bytes_that_drip_in_do_not_move_the_handshakes_deadline(serve: Serve) -> None:
    """Slowloris: the deadline is for the handshake as a whole, not for each wait in it."""
    hello = client_hello("site.test")
    with Backend() as backend, serve(backend.address, timeouts={"handshake": 1}) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(hello[:5])
            begun = clock.monotonic()
            sock.settimeout(0.1)
            for byte in hello[5:-1]:
                try:
                    sock.sendall(bytes([byte]))
                    if not sock.recv(1):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert clock.monotonic() - begun < 5
        [line] = server.wait_for_access()
        assert line["ended"] == "handshake_timeout"


def test_a_silent_client_holds_nobody_up(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for sock in silent:
            sock.sendall(client_hello("site.test")[:50])
        with dial(server) as client:
            assert exchange(client) == b"ping"
            leave(client)
        for sock in silent:
            sock.close()


def test_a_backend_that_does_not_accept_is_given_up_at_the_connect_deadline(
    serve: Serve, dial: Dial
) -> None:
    with FullBackend() as backend, serve(backend.address, timeouts={"connect": 0.5}) as server:
        with dial(server) as client:
            assert read_to_end(client) == b""
        [line] = server.wait_for_access()
        assert line["fault"] == "backend"
        assert 0.5 <= line["seconds"] < 5
        assert "backend_timeout" in server.said()


def test_the_access_log_says_that_it_was_a_timeout(serve: Serve, dial: Dial) -> None:
    with FullBackend() as backend, serve(backend.address, timeouts={"connect": 0.5}) as server:
        with dial(server) as client:
            read_to_end(client)
        [line] = server.wait_for_access()
        assert (line["ended"], line["backend"]) == ("backend_timeout", backend.address)
        assert backend.address in line["detail"]


def test_after_the_connect_deadline_the_next_server_is_tried(serve: Serve, dial: Dial) -> None:
    with (
        FullBackend() as full,
        Backend(greeting(b"here")) as backend,
        serve(full.address, backend.address, timeouts={"connect": 0.5}) as server,
    ):
        with dial(server) as client:
            assert read_to_end(client) == b"here"
        [line] = server.wait_for_access()
        assert line["backend"] == backend.address
        assert line["connect_seconds"] >= 0.5


def test_a_connection_without_bytes_ends_at_the_idle_deadline_with_close_notify(
    serve: Serve, dial: Dial
) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"idle": 1}) as server:
        with dial(server) as client:
            assert exchange(client) == b"ping"
            assert read_to_end(client) == b""  # and no SSLEOFError
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("idle_timeout", "none")
        assert line["seconds"] >= 1
        wait_until(lambda: server.open_connections() == 0, "the connection is closed")


def test_bytes_in_one_direction_keep_a_connection_alive(serve: Serve, dial: Dial) -> None:
    def trickle(sock: socket.socket) -> None:
        sock.settimeout(0.3)
        for _ in range(10):
            sock.sendall(b".")
            try:
                receive_exactly(sock, 1)
            except TimeoutError:
                continue

    with Backend(trickle) as backend, serve(backend.address, timeouts={"idle": 1}) as server:
        with dial(server) as client:
            assert read_to_end(client) == b"." * 10
            leave(client)
        [line] = server.wait_for_access()
        assert line["ended"] == "done"
        assert line["seconds"] > 2


def test_idleness_counts_from_the_last_byte_after_one_end_was_told_too(serve: Serve, dial: Dial) -> None:
    """A client that never ends, though its backend has, is closed as idle."""
    with (
        Backend(greeting(b"bye")) as backend,
        serve(backend.address, timeouts={"idle": 1}) as server,
        dial(server) as client,
    ):
        assert read_to_end(client) == b"bye"
        [line] = server.wait_for_access()
        assert line["ended"] == "idle_timeout"
        assert isinstance(client, ssl.SSLSocket)
