"""What all connections of one worker share: the loop, the buffer, the limits, the counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from termproxy.config.schema import Timeouts
from termproxy.errors import Fault
from termproxy.observability.access_log import AccessLog
from termproxy.observability.failure_book import FailureBook
from termproxy.observability.logs import Throttle
from termproxy.tls._openssl import Scratch
from termproxy.worker.deadlines import DeadlineWheel

if TYPE_CHECKING:
    from termproxy.worker.connection import ClientConnection


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


@dataclass(slots=True)
class Shared:
    loop: Any
    scratch: Scratch
    timeouts: Timeouts
    row: memoryview  # this worker's row of the scoreboard
    access_log: AccessLog | None
    deadlines: DeadlineWheel = field(default_factory=DeadlineWheel)
    connections: set[ClientConnection] = field(default_factory=set)
    warnings: Throttle[str] = field(default_factory=lambda: Throttle(WARNING_INTERVAL))
    failures: FailureBook = field(default_factory=FailureBook)
    failure_lines: Throttle[FailureLine] = field(
        default_factory=lambda: Throttle(FAILURE_LINES_INTERVAL, burst=FAILURE_LINES)
    )
    on_closed: Callable[[], None] = lambda: None  # a connection has made room
