"""Plain HTTP, which is answered with where HTTPS is: one request, one 308 (RFC 9110 §15.4.9), the end.

Nothing of it reaches a backend, and what is no request of HTTP/1.1 is refused as it would be there.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from termproxy import clock
from termproxy._sockets import shut_down_writing
from termproxy.errors import Fault
from termproxy.http._wire import HeadReader, MalformedError
from termproxy.http.answers import answer, redirect
from termproxy.http.head import RefusedRequestError, Request, read_request
from termproxy.observability.metrics import new_tally
from termproxy.observability.record import ExchangeRecord, Facts, printable, without_query
from termproxy.observability.scoreboard import Column
from termproxy.relay.pump import Ready
from termproxy.worker.connection import LINGER, LINGER_READ, Phase, name_of
from termproxy.worker.gate import Seat
from termproxy.worker.shared import Shared

log = logging.getLogger("worker")


class Redirection:
    """A frontend's other door: `port` is where its HTTPS is."""

    def __init__(self, name: str, requests: HeadReader, head_max: int, port: int) -> None:
        self.name = name
        self.requests = requests
        self.head_max = head_max  # bytes
        self.port = port
        self.tally = new_tally()
        """The frontend's; a worker puts its row's words here."""

    @property
    def destination(self) -> str:
        """Where its clients end up, in a word."""
        return "HTTPS"

    def read(self, data: bytes) -> Request | None:
        """The request that `data` begins with; None: its head has not all come yet.

        RefusedRequestError for what is none, or leaves open for which host it is.
        """
        try:
            head = self.requests.request(data, 0, len(data))
        except MalformedError as error:
            raise RefusedRequestError(error.reason) from None
        request = None if head is None else read_request(head)
        if request is not None and not request.host:
            raise RefusedRequestError("no_host")
        return request

    def location(self, request: Request) -> str:
        """Where the same is to be had over HTTPS."""
        host = f"[{request.host}]" if ":" in request.host else request.host
        port = "" if self.port == 443 else f":{self.port}"
        target = "/" if request.target == b"*" else request.target.decode()
        return f"https://{host}{port}{target}"


class RedirectedConnection:
    __slots__ = (
        "_begun",
        "_fd",
        "_input",
        "_peer",
        "_readable",
        "_redirection",
        "_shared",
        "bucket",
        "deadline",
        "own_port",
        "phase",
        "seat",
    )

    def __init__(self, shared: Shared, redirection: Redirection, fd: int, peer: Any) -> None:
        self._shared = shared
        self._redirection = redirection
        self._fd = fd
        self._peer = peer
        self._readable: Any = shared.loop.io(fd, Ready.READABLE)
        self._input = b""
        self._begun = clock.monotonic()
        self.phase = Phase.REQUEST
        self.own_port = 0
        self.seat: Seat | None = None
        self.deadline = 0.0
        self.bucket = 0

    @property
    def began(self) -> float:
        """When the client came."""
        return self._begun

    def start(self) -> None:
        shared = self._shared
        shared.connections.add(self)
        shared.counts.add(_OPEN)
        shared.counts.add(_ACCEPTED)
        shared.deadlines.set(self, self._begun + shared.timeouts.request_head)
        self._readable.start(self._on_readable)
        self._on_readable()

    def _on_readable(self) -> None:
        try:
            self._read()
        except OSError:  # it has gone
            self.close()
        except Exception:
            log.exception("a redirected connection failed; please report this")
            self.close()

    def _read(self) -> None:
        try:
            received = os.read(self._fd, LINGER_READ)
        except BlockingIOError:
            return
        if not received:
            self.close()
        elif self.phase == Phase.REQUEST:
            self._input += received
            if b"\n" in received or len(self._input) >= self._redirection.head_max:
                self._look()

    def _look(self) -> None:
        try:
            request = self._redirection.read(self._input)
        except RefusedRequestError as error:
            self._answer(answer(error.status, close=True), error.status, None, error.reason)
            return
        if request is not None:
            location = self._redirection.location(request)
            self._answer(redirect(location, with_body=request.method != b"HEAD"), 308, request, "done")

    def _answer(self, data: bytes, status: int, request: Request | None, ended: str) -> None:
        """Say it, and linger: what the client still sends must not destroy what it has not read."""
        os.write(self._fd, data)  # it fits into any socket's buffer
        self._report(status, len(data), request, ended)
        shut_down_writing(self._fd)
        self.phase = Phase.LINGERING
        self._shared.deadlines.set(self, clock.monotonic() + LINGER)

    def _report(self, status: int, sent: int, request: Request | None, ended: str) -> None:
        shared = self._shared
        shared.counts.add(_REQUESTS)
        if shared.access_log is None:
            return
        seconds = clock.monotonic() - self._begun
        record = ExchangeRecord(
            Facts({"client": name_of(self._peer), "frontend": self._redirection.name}),
            clock.wall() - seconds,
            seconds,
        )
        record.status, record.ended = status, ended
        record.bytes_from_client, record.bytes_to_client = len(self._input), sent
        if request is None:
            record.fault = Fault.CLIENT
        else:
            record.method, record.host = printable(request.method), request.host
            record.path = printable(without_query(request.target))
        shared.access_log.write(record)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002 - the wheel tells it
        """The worker's call: the time of this phase is over."""
        if self.phase == Phase.REQUEST and self._input:
            try:
                self._answer(answer(408, close=True), 408, None, "request_head_timeout")
            except OSError:
                self.close()
        else:
            self.close()

    def drain(self) -> None:
        """It ends soon by itself."""

    def drain_is_over(self) -> None:
        self.close()

    def close(self) -> None:
        if self.phase == Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        shared = self._shared
        self._readable.stop()
        self._readable.close()
        os.close(self._fd)
        if self.seat is not None:
            shared.gate.leave(self.seat)
        shared.deadlines.forget(self)
        shared.connections.discard(self)
        shared.counts.add(_OPEN, -1)
        shared.on_closed()


_OPEN = int(Column.OPEN)
_ACCEPTED = int(Column.ACCEPTED)
_REQUESTS = int(Column.REQUESTS)
