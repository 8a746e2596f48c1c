"""Bytes arrive as they were sent: all of them, in order, both ways at once."""

from __future__ import annotations

import random
import socket
import ssl

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend, digest, echo
from tests.support.clients import (
    exchange,
    half_close,
    leave,
    read_to_end,
    send_and_receive,
    sha256,
)
from tests.support.waiting import Unchanged, wait_until

MIB = 1 << 20


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_64_mib_each_way_at_once_come_back_unchanged(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    content = random.Random(1).randbytes(64 * MIB)
    context = client_context(ca, version)
    with Backend(echo) as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            received = send_and_receive(client, content, len(content))
            half_close(client)
            assert read_to_end(client) == b""
        [line] = server.wait_for_access()
    assert sha256(received) == sha256(content)
    assert (line["bytes_from_client"], line["bytes_from_backend"]) == (64 * MIB, 64 * MIB)
    assert (line["ended"], line["fault"]) == ("done", "none")


@pytest.mark.parametrize(("size", "piece"), [(4096, 1), (256 * 1024, 7919), (256 * 1024, 16385)])
def test_writes_of_odd_sizes_arrive_whole(serve: Serve, dial: Dial, size: int, piece: int) -> None:
    content = random.Random(2).randbytes(size)
    with Backend(digest) as backend, serve(backend.address) as server, dial(server) as client:
        for start in range(0, size, piece):
            client.sendall(content[start : start + piece])
        half_close(client)
        assert read_to_end(client) == sha256(content)


def test_each_of_200_questions_gets_its_answer_on_one_connection(serve: Serve, dial: Dial) -> None:
    with Backend(echo) as backend, serve(backend.address) as server, dial(server) as client:
        for number in range(200):
            question = b"question %d" % number
            assert exchange(client, question) == question
        leave(client)


def test_a_reader_that_pauses_loses_nothing(serve: Serve, dial: Dial) -> None:
    """While the client's socket is full the backend is not read; nor is more than a buffer held."""
    content = random.Random(3).randbytes(64 * MIB)
    sent = 0

    def push(sock: socket.socket) -> None:
        nonlocal sent
        for start in range(0, len(content), MIB):
            sock.sendall(content[start : start + MIB])
            sent += MIB
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    with Backend(push) as backend, serve(backend.address) as server, dial(server) as client:
        first = client.recv(1)
        wait_until(Unchanged(lambda: sent), "the backend can send no more")
        assert sent < len(content)
        assert sha256(first + read_to_end(client)) == sha256(content)
