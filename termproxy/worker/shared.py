"""What all connections of one worker share: the loop, the buffer, the limits, the counters."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from termproxy.worker.client_table import Clients
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


@dataclass(slots=True)
class Shared:
    loop: Any
    scratch: Scratch
    timeouts: Timeouts
    row: memoryview  # this worker's row of the scoreboard
    access_log: AccessLog | None
    limits: Limits = field(default_factory=Limits)
    clients: Clients | None = None  # None: nobody is counted
    deadlines: DeadlineWheel = field(default_factory=DeadlineWheel)
    connections: set[Connection] = field(default_factory=set)
    warnings: Throttle[str] = field(default_factory=lambda: Throttle(WARNING_INTERVAL))
    failures: FailureBook = field(default_factory=FailureBook)
    failure_lines: Throttle[FailureLine] = field(
        default_factory=lambda: Throttle(FAILURE_LINES_INTERVAL, burst=FAILURE_LINES)
    )
    pool: Pool = field(default_factory=Pool)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(HEADROOM + SCRATCH_SIZE)))
    """For what is looked at while it passes; nothing stays in it from one event to the next."""
    draining: bool = False
    idle_until: float = inf
    """When clients between two requests are let go: while draining, at a moment that is near."""
    on_closed: Callable[[], None] = lambda: None  # a connection has made room
    gate: Gate = field(init=False)
    handshakes: HandshakeQueue = field(init=False)
    behind_headroom: memoryview = field(init=False)
    request_numbers: Iterator[int] = field(init=False, default_factory=count)
    request_prefix: bytes = field(init=False, default_factory=lambda: os.urandom(8).hex().encode())

    def __post_init__(self) -> None:
        self.behind_headroom = self.buffer[HEADROOM:]
        self.gate = Gate(self.clients, self.limits)
        self.handshakes = HandshakeQueue(self.loop, self.limits)

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
