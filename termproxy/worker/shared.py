"""What all connections of one worker share: the loop, the buffer, the limits, the counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from termproxy.config.schema import Timeouts
from termproxy.observability.access_log import AccessLog
from termproxy.observability.logs import Throttle
from termproxy.tls._openssl import Scratch
from termproxy.worker.deadlines import DeadlineWheel

if TYPE_CHECKING:
    from termproxy.worker.connection import ClientConnection


@dataclass(slots=True)
class Shared:
    loop: Any
    scratch: Scratch
    timeouts: Timeouts
    row: memoryview  # this worker's row of the scoreboard
    access_log: AccessLog | None
    deadlines: DeadlineWheel = field(default_factory=DeadlineWheel)
    connections: set[ClientConnection] = field(default_factory=set)
    throttle: Throttle = field(default_factory=lambda: Throttle(interval=1.0))
    on_closed: Callable[[], None] = lambda: None  # a connection has made room
