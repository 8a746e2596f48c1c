"""What all connections of one worker share: the loop, the buffer, the limits, the counters."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from itertools import count
from math import inf
from typing import Any, NamedTuple, Protocol

from termproxy import clock
from termproxy.backends.pool import Pool
from termproxy.config.schema import Limits, Timeouts
from termproxy.errors import Fault
from termproxy.observability._tally import Tally
from termproxy.observability.access_log import AccessLog
from termproxy.observability.failure_book import FailureBook
from termproxy.observability.logs import Throttle
from termproxy.observability.metrics import DROPPED
from termproxy.relay.pump import SCRATCH_SIZE
from termproxy.tls._openssl import Scratch
from termproxy.worker._client_table import Clients
from termproxy.worker.deadlines import DeadlineWheel
from termproxy.worker.gate import Gate, Seat
from termproxy.worker.handshake_queue import HandshakeQueue

log = logging.getLogger("worker")

WARNING_INTERVAL = 1.0  # seconds

# Of the failed handshakes of one client for one reason, so many have a line of their own in the access
# log within so many seconds; what comes more is one line, with their count.
FAILURE_LINES = 10
FAILURE_LINES_INTERVAL = 10.0


class FailureLine(NamedTuple):
    """What the failures in one line have in common."""

    client: str
    frontend: str
    reason: str
    fault: Fault


# Answers are received behind so much room, in which the head that the client gets is written.
HEADROOM = 8192  # bytes


class Connection(Protocol):
    """What the worker asks of a client's connection, whatever it is made of."""

    deadline: float
    bucket: int
    own_port: int
    seat: Seat | None

    @property
    def began(self) -> float: ...
    def start(self) -> None: ...
    def on_deadline(self, now: float, /) -> None: ...
    def drain(self) -> None: ...
    def drain_is_over(self) -> None: ...
    def close(self) -> None: ...


class Shared:
    __slots__ = (
        "access_log",
        "behind_headroom",
        "buffer",
        "clients",
        "connections",
        "counts",
        "deadlines",
        "draining",
        "failure_lines",
        "failures",
        "gate",
        "handshakes",
        "idle_until",
        "limits",
        "loop",
        "on_closed",
        "pool",
        "request_numbers",
        "request_prefix",
        "row",
        "scratch",
        "timeouts",
        "warnings",
    )

    def __init__(  # noqa: PLR0913 - one is made for each worker
        self,
        *,
        loop: Any,
        scratch: Scratch,
        timeouts: Timeouts,
        row: memoryview,
        access_log: AccessLog | None,
        limits: Limits | None = None,
        clients: Clients | None = None,
    ) -> None:
        """`row` is this worker's of the scoreboard; without `clients` nobody is counted."""
        self.loop = loop
        self.scratch = scratch
        self.timeouts = timeouts
        self.row = row
        self.counts = Tally(row)
        """The row's words, to be added to."""
        self.access_log = access_log
        self.limits = limits or Limits()
        self.clients = clients
        self.deadlines = DeadlineWheel()
        self.connections: set[Connection] = set()
        self.warnings: Throttle[str] = Throttle(WARNING_INTERVAL)
        self.failures = FailureBook()
        self.failure_lines: Throttle[FailureLine] = Throttle(FAILURE_LINES_INTERVAL, burst=FAILURE_LINES)
        self.pool = Pool()
        self.buffer = memoryview(bytearray(HEADROOM + SCRATCH_SIZE))
        """For what is looked at while it passes; nothing stays in it from one event to the next."""
        self.behind_headroom = self.buffer[HEADROOM:]
        self.draining = False
        self.idle_until = inf
        """When clients between two requests are let go: while draining, at a moment that is near."""
        self.on_closed: Callable[[], None] = _do_nothing
        """A connection has made room."""
        self.gate = Gate(clients, self.limits)
        self.handshakes = HandshakeQueue(loop, self.limits)
        self.request_numbers: Iterator[int] = count()
        self.request_prefix = os.urandom(8).hex().encode()

    def count_drop(self, tally: Tally, limit: str, client: str) -> None:
        """A limit has turned a client away."""
        tally.add(DROPPED[limit])
        if self.warnings.admits(f"clients turned away by limits.{limit}", clock.monotonic()):
            log.warning("%s turned away by limits.%s", client or "a client", limit)

    def next_request_id(self) -> bytes:
        """Another one than any other request's, on any machine: 32 hexadecimal digits."""
        return self.request_id(next(self.request_numbers))

    def request_id(self, number: int) -> bytes:
        """The id that has this number here."""
        return b"%b%016x" % (self.request_prefix, number)


def _do_nothing() -> None:
    pass
