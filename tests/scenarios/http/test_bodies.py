"""Bodies pass both ways as they come, whole, and without being gathered."""

from __future__ import annotations

import functools
import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import Dial, Serve
from tests.scenarios.http.web import CHUNKED, CONTENT, GET, MIB, OK, accepted, big_post, chunks, web
from tests.support.backends import Backend
from tests.support.http_client import Ending, HttpClient
from tests.support.processes import status
from tests.support.recording_backend import RecordingBackend, Visit, canned
from tests.support.server import Server
from tests.support.waiting import PATIENCE, Unchanged, wait_until

PIECE = random.Random(9).randbytes(MIB)
TIMES = 100

# What a worker may grow by, whatever passes: the buffers of a connection, and the allocator's ways.
GROWTH = 8  # MiB


@functools.cache
def digest() -> bytes:
    """Of PIECE, so many times."""
    sha = hashlib.sha256()
    for _ in range(TIMES):
        sha.update(PIECE)
    return sha.hexdigest().encode()


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A message's head, and what came of its body with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(1 << 16)
        assert piece, "the end"
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def store(sock: socket.socket) -> None:
    """A backend that answers an upload of a known length with its digest."""
    head, rest = read_head(sock)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    sha, count = hashlib.sha256(rest), len(rest)
    while count < length:
        piece = sock.recv(1 << 18)
        assert piece, "the end"
        sha.update(piece)
        count += len(piece)
    answer = sha.hexdigest().encode()
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


def give(
    head: bytes, framed: Callable[[bytes], bytes], end: bytes = b""
) -> Callable[[socket.socket], None]:
    """A backend that sends PIECE so many times."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head)
        piece = framed(PIECE)
        for _ in range(TIMES):
            sock.sendall(piece)
        sock.sendall(end)
        sock.shutdown(socket.SHUT_WR)

    return serve


class Memory:
    """How much more than at first the worker has had."""

    def __init__(self, server: Server) -> None:
        (self._worker,) = server.workers()
        self._before = self._peak()

    def _peak(self) -> int:
        return int(status(self._worker)["VmHWM"].split()[0])

    def growth(self) -> float:
        """In MiB."""
        return (self._peak() - self._before) / 1024


def test_an_upload_of_100_mib_arrives_whole_and_is_not_gathered(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        Backend(store) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        memory = Memory(server)
        assert client.send(big_post(TIMES * MIB))
        for _ in range(TIMES):
            assert client.send(PIECE)
        assert client.response().body == digest()
        assert memory.growth() < GROWTH
        [line] = server.wait_for_access()
        assert line["bytes_from_client"] == TIMES * MIB + len(big_post(TIMES * MIB))


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_a_download_of_100_mib_arrives_whole_and_is_not_gathered(
    serve: Serve, dial: Dial, site: Path, framing: str
) -> None:
    length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (TIMES * MIB)
    script = {
        "length": give(length, bytes),
        "chunks": give(CHUNKED, lambda piece: chunks(piece)[:-5], b"0\r\n\r\n"),
        "end": give(b"HTTP/1.1 200 OK\r\n\r\n", bytes),
    }[framing]
    with Backend(script) as backend, web(serve, site, backend.address) as server:
        memory = Memory(server)
        with dial(server) as client:
            client.sendall(GET % 1)
            assert digest_of_answer(client, framing) == digest()
        assert memory.growth() < GROWTH
        assert server.wait_for_access()[0]["ended"] == "done"


def digest_of_answer(client: ssl.SSLSocket, framing: str) -> bytes:
    _, rest = read_head(client)
    sha = hashlib.sha256()
    for piece in data_of(pieces(client, rest), framing):
        sha.update(piece)
    return sha.hexdigest().encode()


def pieces(client: ssl.SSLSocket, first: bytes) -> Iterator[bytes]:
    yield first
    while piece := client.recv(1 << 18):
        yield piece


def data_of(stream: Iterator[bytes], framing: str) -> Iterator[bytes]:
    """Without the chunks' framing, up to the body's end."""
    left = TIMES * MIB
    if framing != "chunks":
        for piece in stream:
            yield piece
            left -= len(piece)
            if framing == "length" and not left:
                return
        assert not left
        return
    held = bytearray()
    while True:
        while b"\r\n" not in held:
            held += next(stream)
        line, _, held = held.partition(b"\r\n")
        size = int(line, 16)
        while len(held) < size + 2:
            held += next(stream)
        yield bytes(held[:size])
        del held[: size + 2]
        if not size:
            return


def test_an_upload_in_chunks_arrives_whole(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        head = b"POST /%d HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        for number, size in enumerate((1, 7, 16_384, 500_000), 1):
            body = CONTENT[: 3000 * number * min(size, 100)]
            assert client.send(head % number + chunks(body, size))
            assert client.response().status == 200
            assert backend.requests[-1][1].body == body
        assert accepted(backend) == 1


def test_a_backend_that_reads_slowly_holds_its_client_back(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    go_on = threading.Event()

    def reads_late(visit: Visit) -> None:
        request = visit.head()
        go_on.wait(PATIENCE)
        visit.read_body(request)
        visit.send(OK)

    with (
        RecordingBackend(reads_late) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        memory = Memory(server)
        sent = Counting(client, big_post(len(CONTENT)) + CONTENT)
        with sent:
            wait_until(Unchanged(lambda: sent.count), "the client is held back")
            assert sent.count < len(CONTENT)
            assert memory.growth() < GROWTH
            go_on.set()
        assert client.response().body == b"ok"
        assert backend.requests[0][1].body == CONTENT


class Counting:
    """Sends in a thread, and counts."""

    def __init__(self, client: HttpClient, data: bytes) -> None:
        self.count = 0
        self._client, self._data = client, data
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)

    def _send(self) -> None:
        for start in range(0, len(self._data), 1 << 16):
            piece = self._data[start : start + (1 << 16)]
            self._client.send(piece)
            self.count += len(piece)


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_a_client_that_reads_slowly_holds_its_backend_back(
    serve: Serve, dial: Dial, site: Path, framing: str
) -> None:
    sent: list[int] = []
    answer = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(CONTENT), CONTENT),
        "chunks": CHUNKED + chunks(CONTENT),
        "end": b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT,
    }[framing]

    def sends(visit: Visit) -> None:
        visit.request()
        for start in range(0, len(answer), 1 << 16):
            visit.send(answer[start : start + (1 << 16)])
            sent.append(1 << 16)
        visit.end()

    with RecordingBackend(sends) as backend, web(serve, site, backend.address) as server:
        memory = Memory(server)
        with dial(server) as client:
            client.sendall(GET % 1)
            wait_until(Unchanged(lambda: sum(sent)), "the backend is held back")
            assert sum(sent) < len(answer)
            assert memory.growth() < GROWTH
            _, rest = read_head(client)
            received = bytearray()
            for piece in pieces(client, rest):
                received += piece
                if framing == "length" and len(received) == len(CONTENT):
                    break
                if framing == "chunks" and received.endswith(b"\r\n0\r\n\r\n"):
                    break
        assert bytes(received) == answer.partition(b"\r\n\r\n")[2]


def test_a_body_without_a_length_lasts_until_the_end_and_ends_cleanly(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def script(visit: Visit) -> None:
        visit.request()
        visit.drip(b"HTTP/1.1 200 OK\r\n\r\nslowly", 0.02)
        visit.end()

    with (
        RecordingBackend(script) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        answer = client.ask(GET % 1)
        assert (answer.body, answer.until_end, answer.options()) == (b"slowly", True, {b"close"})
        assert client.ending is Ending.CLEAN


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: a\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_answers_without_a_body_leave_both_connections_usable(
    serve: Serve, trust: ssl.SSLContext, site: Path, method: bytes, answer: bytes
) -> None:
    with (
        RecordingBackend(canned(*[answer] * 5)) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        for _ in range(5):
            response = client.ask(method + b" / HTTP/1.1\r\nHost: site.test\r\n\r\n", method)
            assert (response.body, response.options()) == (b"", set())
        assert accepted(backend) == 1
