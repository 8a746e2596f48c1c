"""Clients that go on and on, each kind with its ledger: what they lose, nobody hides by trying again.

Each is a thread with one connection at a time; `Load` has several of each kind.
"""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from termproxy import clock
from tests.support.clients import NAME
from tests.support.http_client import HttpClient
from tests.support.ledger import Ledger, LostError
from tests.support.recording_backend import Visit

NOTHING = hashlib.sha256(b"").hexdigest().encode()

TIMEOUT = 20.0  # seconds for one operation


def hashes(visit: Visit) -> None:
    """The backend: answers each request with the SHA-256 of the body that came."""
    while True:
        body = hashlib.sha256(visit.request().body).hexdigest().encode()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Client(threading.Thread):
    """One that goes on until it is stopped.  `gap` gives the seconds from one operation to the next."""

    def __init__(
        self, port: int, trust: ssl.SSLContext, ledger: Ledger, gap: Callable[[], float]
    ) -> None:
        super().__init__(daemon=True)
        self.port, self.trust, self.ledger, self.gap = port, trust, ledger, gap
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.is_set():
            try:
                self.go_on()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a loss
                self.ledger.lose(error)
                self.is_over.wait(0.05)

    def go_on(self) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        self.is_over.wait(self.gap())

    def stop(self) -> None:
        self.is_over.set()
        self.join()


class NewConnections(Client):
    """A TLS connection for each request."""

    def go_on(self) -> None:
        began = clock.monotonic()
        with HttpClient(self.port, self.trust, timeout=TIMEOUT) as client:
            _ask(client, b"GET", b"")
        self.ledger.record(began)
        self.pause()


class KeepAlive(Client):
    """GET and POST in turn, on a connection that lives as long as the server says: after an answer
    without "close" the next request is sent there, and is lost when it is not answered.
    """

    def go_on(self) -> None:
        with HttpClient(self.port, self.trust, timeout=TIMEOUT) as client:
            number = 0
            while not self.is_over.is_set():
                began = clock.monotonic()
                method, body = (b"POST", random.randbytes(2000)) if number % 2 else (b"GET", b"")
                is_last = _ask(client, method, body)
                self.ledger.record(began)
                if is_last:
                    return
                number += 1
                self.pause()


class Relays(Client):
    """A TCP relay that stays open, and echoes."""

    def go_on(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as raw,
            self.trust.wrap_socket(raw, server_hostname=NAME) as client,
        ):
            while not self.is_over.is_set():
                began, content = clock.monotonic(), random.randbytes(5000)
                client.sendall(content)
                received = b""
                while len(received) < len(content):
                    piece = client.recv(65536)
                    if not piece:
                        raise LostError("short")
                    received += piece
                if received != content:
                    raise LostError("wrong hash")
                self.ledger.record(began)
                self.pause()


class Resuming(Client):
    """A TLS connection for each request, with the session of the one before."""

    session: ssl.SSLSession | None = None

    def go_on(self) -> None:
        began = clock.monotonic()
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as raw,
            self.trust.wrap_socket(raw, server_hostname=NAME, session=self.session) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            received = b""
            while piece := client.recv(65536):
                received += piece
            if not received.endswith(NOTHING):
                raise LostError("short")
            is_resumed = bool(client.session_reused)
            if self.session is not None and not is_resumed:
                raise LostError("not resumed")
            self.session = client.session
        self.ledger.record(began, resumed=is_resumed)
        self.pause()


def _ask(client: HttpClient, method: bytes, body: bytes) -> bool:
    """One request, and whether its answer says that it is the last; LostError for any other."""
    digest = hashlib.sha256(body).hexdigest().encode()
    head = b"%b / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % (method, len(body))
    client.send(head + body)
    answer = client.read_response(method)
    if answer is None:
        raise LostError(f"{client.ending} instead of an answer")
    if answer.status != 200:
        raise LostError(f"status {answer.status}")
    if answer.body != digest:
        raise LostError("wrong hash")
    return b"close" in answer.options()


class Load:
    """Entering starts it; leaving stops it.  `ledgers` are by the clients' kind."""

    def __init__(self) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self._clients: list[Client] = []

    def add(
        self,
        kind: type[Client],
        count: int,
        port: int,
        trust: ssl.SSLContext,
        gap: Callable[[], float] = lambda: 0.0,
    ) -> Self:
        ledger = self.ledgers.setdefault(kind.__name__, Ledger())
        self._clients += [kind(port, trust, ledger, gap) for _ in range(count)]
        return self

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.is_over.set()
        for client in self._clients:
            client.join()

    def done(self) -> int:
        return sum(ledger.done for ledger in self.ledgers.values())

    def failed(self) -> dict[str, dict[str, int]]:
        """The losses of each kind of client that has any."""
        return {name: dict(each.failed) for name, each in self.ledgers.items() if each.failed}
