"""Each direction ends by itself; and an abort is never passed on as an end.

TLS says "that was all" by close_notify, TCP by FIN.  Either is translated into the other.  A connection
that breaks without its word breaks the other side, too: nobody takes a part for the whole.
"""

from __future__ import annotations

import random
import select
import socket
import ssl

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend, echo, receive_all, receive_exactly, reset
from tests.support.clients import exchange, half_close, read_to_end, sha256, vanish
from tests.support.endings import CutError
from tests.support.processes import unread_bytes
from tests.support.waiting import PATIENCE, Unchanged, wait_until

CONTENT = random.Random(4).randbytes(8 << 20)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def answer_at_the_end(sock: socket.socket) -> None:
    """Reads until the client has ended, and only then speaks."""
    asked = receive_all(sock)
    sock.sendall(asked + CONTENT)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_has_ended_still_gets_the_whole_answer(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = client_context(ca, version)
    with Backend(answer_at_the_end) as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            client.sendall(b"asked")
            half_close(client)
            assert sha256(read_to_end(client)) == sha256(b"asked" + CONTENT)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("done", "none")
        assert server.open_connections() == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_is_there_before_the_client_ends_is_read_after_it(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = client_context(ca, version)
    with Backend(echo) as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            client.sendall(b"asked")
            readable, _, _ = select.select([client], [], [], PATIENCE)
            assert readable
            half_close(client)
            assert read_to_end(client) == b"asked"
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("done", "none")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_backend_that_has_ended_still_gets_the_whole_upload(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    """The client sees close_notify, not a closed socket, and goes on sending."""
    received: list[bytes] = []

    def end_first(sock: socket.socket) -> None:
        sock.sendall(b"that was all")
        sock.shutdown(socket.SHUT_WR)
        received.append(receive_all(sock))

    context = client_context(ca, version)
    with Backend(end_first) as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            assert read_to_end(client) == b"that was all"
            client.sendall(CONTENT)
            half_close(client)
            assert backend.wait_for_ends() == [None]
        [line] = server.wait_for_access()
        assert (line["ended"], line["bytes_from_client"]) == ("done", len(CONTENT))
    assert sha256(received[0]) == sha256(CONTENT)


def test_a_client_that_vanishes_resets_its_backend(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with dial(server) as client:
            exchange(client)
            vanish(client)
        [end] = backend.wait_for_ends()
        assert isinstance(end, ConnectionResetError)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("client_reset", "client")


def test_a_client_that_ends_without_close_notify_resets_its_backend(serve: Serve, dial: Dial) -> None:
    """Truncation: a FIN can be anybody's, a close_notify is the client's own (RFC 8446 §6.1)."""
    with Backend() as backend, serve(backend.address) as server:
        with dial(server) as client:
            exchange(client)
            client.shutdown(socket.SHUT_WR)  # of the TCP socket
            [end] = backend.wait_for_ends()
            assert isinstance(end, ConnectionResetError)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("client_closed", "client")


def test_a_backend_that_resets_leaves_its_client_without_close_notify(serve: Serve, dial: Dial) -> None:
    def break_off(sock: socket.socket) -> None:
        receive_exactly(sock, 4)
        sock.sendall(b"half of the ans")
        receive_exactly(sock, 1)  # the client has the half
        reset(sock)

    with Backend(break_off) as backend, serve(backend.address) as server:
        with dial(server) as client:
            assert exchange(client, b"four") == b"half"
            assert client.recv(100) == b" of the ans"
            client.sendall(b"1")
            with pytest.raises((CutError, ConnectionResetError)):
                read_to_end(client)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("backend_reset", "backend")
        assert line["backend"] == backend.address


def test_an_answer_that_a_reset_cut_short_has_no_close_notify_though_the_upload_met_it(
    serve: Serve, dial: Dial
) -> None:
    """The reset is told once, to whoever asks first; here that is the sending side.

    The client is slow, so what the backend sent waits in the proxy.  Then the backend resets.  The
    upload's send() takes the error, and reading the rest of the answer ends with an innocent zero.
    """
    sent = 0

    def push_and_break_off(sock: socket.socket) -> None:
        nonlocal sent
        sock.settimeout(0.5)
        try:
            while sent < 1 << 30:
                sent += sock.send(bytes(1 << 16))
        except TimeoutError:  # every buffer on the way is full
            reset(sock)

    with Backend(push_and_break_off) as backend, serve(backend.address) as server:
        with dial(server) as client:
            assert backend.wait_for_ends() == [None]
            client.sendall(b"more")
            port = client.getsockname()[1]
            wait_until(lambda: unread_bytes(server.port, port) == 0, "the upload has met the reset")
            with pytest.raises((CutError, ConnectionResetError)):
                read_to_end(client)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("backend_reset", "backend")
        assert line["bytes_from_backend"] < sent


def test_an_answer_given_before_the_upload_has_ended_arrives_whole(serve: Serve, dial: Dial) -> None:
    """As in "413 Content Too Large": the backend answers, reads no more and closes."""

    def refuse(sock: socket.socket) -> None:
        receive_exactly(sock, 1)
        sock.sendall(CONTENT[: 1 << 20])
        sock.shutdown(socket.SHUT_WR)

    with Backend(refuse) as backend, serve(backend.address) as server, dial(server) as client:
        client.sendall(b"1")
        backend.wait_for_ends()
        sent = 0
        client.settimeout(0.2)
        try:
            while sent < 1 << 26:
                sent += client.send(bytes(1 << 14))
        except OSError:
            pass  # full, or refused: both may be
        wait_until(Unchanged(lambda: sent), "nothing more can be sent")
        client.settimeout(10)
        assert sha256(read_to_end(client)) == sha256(CONTENT[: 1 << 20])
