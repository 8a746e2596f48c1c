"""The relay over real sockets, a real loop and the real binding."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from termproxy.errors import TlsError
from termproxy.outcome import DONE
from termproxy.relay.pump import SCRATCH_SIZE, Pump, Ready, relay
from termproxy.tls._openssl import Connection, Scratch
from tests.relay.ends import TlsClient, receive, reset, send_all, server_context, tcp_pair, turns, until

BIG = random.Random(1).randbytes(8 << 20)


class Wire:
    """A client, the two pumps, a backend; the pumps' ends are ours to look at."""

    def __init__(self, site: Path, trust: ssl.SSLContext, version: ssl.TLSVersion) -> None:
        client, self.proxy_front = tcp_pair()
        self.proxy_back, self.backend = tcp_pair()
        self.client = TlsClient(trust, client)
        self.client.sock.context.maximum_version = version
        self.tls = Connection(server_context(site), self.proxy_front.fileno())
        self.ended: list[Pump] = []
        self.failed: list[tuple[Pump, Exception]] = []
        self.scratch = Scratch(SCRATCH_SIZE)

    def shake_hands(self) -> None:
        greenlet = gevent.spawn(self.client.handshake)
        until(lambda: self.tls.handshake() == DONE, "our handshake")
        until(greenlet.ready, "the client's handshake")
        greenlet.get()
        self.client.read_tickets()

    def start(self) -> None:
        loop = gevent.get_hub().loop
        self.to_backend, self.to_client = relay(
            loop,
            self.scratch,
            (self.tls, self.proxy_front.fileno()),
            self.proxy_back,
            (self.ended.append, self._on_failure),
        )
        self.to_client.start(loop.io(self.proxy_back.fileno(), Ready.READABLE))
        self.to_backend.start(loop.io(self.proxy_front.fileno(), Ready.READABLE))

    def _on_failure(self, pump: Pump, error: Exception) -> None:
        self.failed.append((pump, error))
        self.to_backend.close()
        self.to_client.close()

    def close(self) -> None:
        self.to_backend.close()
        self.to_client.close()
        self.tls.close()
        for sock in (self.client.sock, self.proxy_front, self.proxy_back, self.backend):
            sock.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def wire(site: Path, trust: ssl.SSLContext, request: pytest.FixtureRequest) -> Iterator[Wire]:
    before = trust.maximum_version
    trust.maximum_version = request.param
    wire = Wire(site, trust, request.param)
    try:
        wire.shake_hands()
        wire.start()
        yield wire
    finally:
        wire.close()
        trust.maximum_version = before


def read_slowly(read: socket.socket | TlsClient, count: int) -> bytes:
    """In small pieces, with a turn of the loop between them: the other side often finds no room."""
    received = bytearray()
    while len(received) < count:
        piece = read.receive(40_000) if isinstance(read, TlsClient) else receive(read, 40_000)
        assert piece, f"the end came after {len(received)} of {count} bytes"
        received += piece
        if len(received) % 5 == 0:
            gevent.sleep(0)
    return bytes(received)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small_buffers(*socks: socket.socket) -> None:
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)


def test_small_messages_go_both_ways(wire: Wire) -> None:
    for number in range(20):
        question, answer = b"question %d" % number, b"answer %d" % number
        wire.client.send(question)
        assert receive(wire.backend) == question
        send_all(wire.backend, answer)
        assert wire.client.receive() == answer


def test_much_arrives_whole_at_a_slow_backend(wire: Wire) -> None:
    small_buffers(wire.proxy_back, wire.backend)
    sending = gevent.spawn(wire.client.send, BIG)
    received = read_slowly(wire.backend, len(BIG))
    sending.get()

    assert digest(received) == digest(BIG)
    assert wire.tls.plaintext_read == len(BIG)
    assert wire.failed == []


def test_much_arrives_whole_at_a_slow_client(wire: Wire) -> None:
    small_buffers(wire.proxy_front, wire.client.sock)
    sending = gevent.spawn(send_all, wire.backend, BIG)
    received = read_slowly(wire.client, len(BIG))
    sending.get()

    assert digest(received) == digest(BIG)
    assert wire.tls.plaintext_written == len(BIG)
    assert wire.failed == []


def test_much_goes_both_ways_at_once(wire: Wire) -> None:
    there, back = BIG[: 2 << 20], BIG[3 << 20 : 5 << 20]
    jobs = [
        gevent.spawn(wire.client.send, there),
        gevent.spawn(send_all, wire.backend, back),
        gevent.spawn(read_slowly, wire.backend, len(there)),
        gevent.spawn(read_slowly, wire.client, len(back)),
    ]
    results = [job.get() for job in jobs]

    assert digest(results[2]) == digest(there)
    assert digest(results[3]) == digest(back)


def test_a_reader_that_stands_still_makes_us_hold_one_buffer_and_no_more(wire: Wire) -> None:
    """Back-pressure: the backend is not read faster than the client reads."""
    small_buffers(wire.proxy_front, wire.client.sock, wire.proxy_back, wire.backend)
    sending = gevent.spawn(send_all, wire.backend, BIG)
    until(lambda: wire.to_client._rest is not None, "the client's socket to be full")
    turns(50)

    assert len(wire.to_client._rest or b"") <= SCRATCH_SIZE
    assert wire.tls.plaintext_written < 2 << 20
    assert not sending.ready()
    sending.kill()


def test_a_request_ends_and_the_answer_still_comes(wire: Wire) -> None:
    wire.client.send(b"all of it")
    wire.client.say_goodbye()

    assert receive(wire.backend) == b"all of it"
    assert receive(wire.backend) == b""
    send_all(wire.backend, b"thanks")
    wire.backend.shutdown(socket.SHUT_WR)
    until(lambda: len(wire.ended) == 2, "both ends")
    assert wire.ended == [wire.to_backend, wire.to_client]
    assert wire.failed == []


def test_an_answer_ends_with_close_notify_and_the_request_lives_on(wire: Wire) -> None:
    send_all(wire.backend, b"bye")
    wire.backend.shutdown(socket.SHUT_WR)

    assert wire.client.receive_all() == b"bye"
    wire.client.send(b"still here")
    assert receive(wire.backend) == b"still here"
    wire.client.vanish()
    until(lambda: len(wire.ended) == 2, "both ends")
    assert wire.failed == []


def test_the_end_of_a_big_answer_comes_after_all_of_it(wire: Wire) -> None:
    small_buffers(wire.proxy_front, wire.client.sock)

    def answer() -> None:
        send_all(wire.backend, BIG[: 1 << 20])
        wire.backend.shutdown(socket.SHUT_WR)

    sending = gevent.spawn(answer)

    assert digest(wire.client.receive_all()) == digest(BIG[: 1 << 20])
    sending.get()


def test_a_client_that_vanishes_is_a_failure_and_no_end(wire: Wire) -> None:
    wire.client.send(b"half of")
    assert receive(wire.backend) == b"half of"
    wire.client.vanish()
    until(lambda: wire.failed, "the failure")

    ((pump, error),) = wire.failed
    assert pump is wire.to_backend
    assert isinstance(error, TlsError)
    assert error.reason == "unexpected eof"


def test_what_came_before_a_client_vanished_is_passed_on_first(wire: Wire) -> None:
    wire.client.send(BIG[:100_000])
    wire.client.vanish()

    received = b""
    while len(received) < 100_000:
        received += receive(wire.backend)
    assert digest(received) == digest(BIG[:100_000])
    until(lambda: wire.failed, "the failure")


def test_a_client_that_resets_is_the_client_s_failure(wire: Wire) -> None:
    wire.client.reset()
    until(lambda: wire.failed, "the failure")

    ((pump, error),) = wire.failed
    assert pump is wire.to_backend
    assert isinstance(error, TlsError)


def test_a_backend_that_resets_is_the_backend_s_failure(wire: Wire) -> None:
    reset(wire.backend)
    until(lambda: wire.failed, "the failure")

    ((pump, error),) = wire.failed
    assert pump is wire.to_client
    assert isinstance(error, ConnectionResetError)


def test_after_close_nothing_is_read_any_more(wire: Wire) -> None:
    wire.client.send(BIG[:200_000])
    wire.to_backend.close()
    wire.to_client.close()
    turns()

    assert wire.tls.plaintext_read == 0
    with pytest.raises(BlockingIOError):
        wire.backend.recv(1)
