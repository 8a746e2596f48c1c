"""A backend that keeps every byte it gets, and answers as a script says: well, slowly, wrongly, never.

A script is a function of one connection, a `Visit`.  What comes after the script has returned is
recorded, too.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.backends import Backend, reset
from tests.support.http_messages import CutError, MalformedError, MessageReader, Request
from tests.support.waiting import PATIENCE, wait_until

Script = Callable[["Visit"], None]


class GoneError(Exception):
    """The proxy has ended the connection: the script has nobody to serve."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How much has arrived: whole requests, and bytes by connection."""

    requests: int
    received: Mapping[Visit, int]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has arrived: requests that came whole, and by connection what has come of others."""

    requests: list[Request]
    rests: Mapping[Visit, bytes]


class Visit:
    """One connection.  `received` is all that has come, `requests` what has come whole of it."""

    def __init__(self, backend: RecordingBackend, sock: socket.socket, number: int) -> None:
        self.number = number
        self.received = bytearray()
        self.requests: list[Request] = []
        self.fault: OSError | MalformedError | None = None
        self._backend = backend
        self._sock = sock
        self._reader = MessageReader(self._receive)
        self._is_closed = False
        self._is_over = threading.Event()

    def __repr__(self) -> str:
        targets = b" ".join(request.target for request in self.requests)
        return f"<Visit {self.number}: {targets!r}, {len(self.received)} bytes>"

    # For scripts: what is asked.

    def request(self) -> Request:
        """The next request, with its body."""
        request = self.head()
        self.read_body(request)
        return request

    def head(self) -> Request:
        """The next request without its body, for who answers early: read_body() takes that."""
        request = self._reader.request_head()
        if request is None:
            raise GoneError
        return request

    def read_body(self, request: Request) -> None:
        self._reader.request_body(request)
        self._backend.keep(self, request)

    def read_to_end(self) -> None:
        while self._receive():
            pass

    # For scripts: what is answered.

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, data: bytes, pause: float, *, size: int = 1) -> None:
        """Send in pieces, with pauses (in seconds) between them."""
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
            self._backend.pause(pause)

    def answer(self, request: Request) -> None:
        """Well: with what was asked."""
        body = request.method + b" " + request.target
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.send(head if request.method == b"HEAD" else head + body)

    def hang(self) -> None:
        """Neither read nor write, until the backend is left."""
        self._backend.pause(None)

    def end(self) -> None:
        """End our direction, and record the other."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Both directions: bytes that were not read, or come later, are answered by a reset."""
        self._is_closed = True
        self._sock.close()

    def reset(self) -> None:
        self._is_closed = True
        reset(self._sock)

    # For tests.

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended: nothing more will be received."""
        return self._is_over.is_set()

    @property
    def begun(self) -> bytes:
        """What has come of a request that has not come whole."""
        return bytes(self.received[sum(len(request.raw) for request in self.requests) :])

    def wait_until_over(self, seconds: float = PATIENCE) -> None:
        wait_until(lambda: self.is_over, f"{self} is over", seconds=seconds)

    # For the backend.

    def run(self, script: Script) -> None:
        try:
            script(self)
        except (GoneError, CutError):
            pass  # the proxy has the right to go; what came is recorded
        except MalformedError as error:
            self.fault = error
        except OSError as error:
            self.fault = error
        try:
            if not self._is_closed:
                self.read_to_end()
        except OSError as error:
            self.fault = self.fault or error
        finally:
            self._is_over.set()

    def _receive(self) -> bytes:
        piece = self._sock.recv(1 << 16)
        self.received += piece
        return piece


def answer_all(visit: Visit) -> None:
    """Answers every request well."""
    while True:
        visit.answer(visit.request())


def canned(*answers: bytes) -> Script:
    """Answers the first request of each connection with the first of these, and so on; then it ends."""

    def script(visit: Visit) -> None:
        for answer in answers:
            visit.request()
            visit.send(answer)
        visit.end()

    return script


class RecordingBackend(Backend):
    """Runs `script` for each connection; it may be replaced, for those to come.

    Leaving it ends all scripts.  It fails if the proxy has sent what no strict reader reads.
    """

    def __init__(
        self,
        script: Script = answer_all,
        *,
        family: socket.AddressFamily = socket.AF_INET,
        path: Path | None = None,
    ) -> None:
        super().__init__(self._visit, family=family, path=path)
        self.script = script
        self.visits: list[Visit] = []
        self.requests: list[tuple[Visit, Request]] = []
        self._numbers = itertools.count(1)
        self._is_left = threading.Event()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left.set()
        super().__exit__(kind, error, trace)
        if kind is None:
            malformed = [visit for visit in self.visits if isinstance(visit.fault, MalformedError)]
            assert not malformed, [(visit, visit.fault) for visit in malformed]

    @property
    def received(self) -> bytes:
        """Every byte, connection after connection."""
        return b"".join(visit.received for visit in list(self.visits))

    def targets(self) -> list[bytes]:
        """Of the requests that have come whole, in the order of their last bytes."""
        return [request.target for _, request in list(self.requests)]

    def mark(self) -> Mark:
        """What has arrived by now, for since()."""
        received = {visit: len(visit.received) for visit in list(self.visits)}
        return Mark(len(self.requests), received)

    def since(self, mark: Mark) -> Arrivals:
        """What has arrived after that.  It was taken between requests."""
        requests = list(self.requests)[mark.requests :]
        rests = {}
        for visit in list(self.visits):
            whole = sum(len(request.raw) for each, request in requests if each is visit)
            if rest := bytes(visit.received[mark.received.get(visit, 0) + whole :]):
                rests[visit] = rest
        return Arrivals([request for _, request in requests], rests)

    def wait_for_requests(self, count: int = 1) -> list[Request]:
        """All that have come whole, once there are so many."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests at the backend")
        return [request for _, request in list(self.requests)]

    def wait_for_bytes(self, count: int) -> bytes:
        """Every byte, once there are so many."""
        wait_until(lambda: len(self.received) >= count, f"{count} bytes at the backend")
        return self.received

    def wait_for_visits(self, count: int = 1) -> list[Visit]:
        wait_until(lambda: len(self.visits) >= count, f"{count} connections at the backend")
        return list(self.visits)

    def visits_with(self, target: bytes) -> list[Visit]:
        """The connections on which a request for this came whole."""
        return [visit for visit, request in list(self.requests) if request.target == target]

    # For visits.

    def keep(self, visit: Visit, request: Request) -> None:
        visit.requests.append(request)
        self.requests.append((visit, request))

    def pause(self, seconds: float | None) -> None:
        """Until then, or until the backend is left."""
        if self._is_left.wait(seconds):
            raise GoneError

    def _visit(self, sock: socket.socket) -> None:
        visit = Visit(self, sock, next(self._numbers))
        self.visits.append(visit)
        visit.run(self.script)
        if isinstance(visit.fault, OSError):
            raise visit.fault  # for `ended`
