"""Hold idle connections: how much memory do serving processes keep for each?

Each connection has finished its handshake and one request, and stays open: what
a browser or a pool leaves behind.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from comparison.clients import AnswerError, ask, connect
from comparison.metering import MeasurementError, proportional_bytes
from comparison.processes import Running

# For what a server does a little later: freeing buffers, its own housekeeping.
SETTLING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleConnections:
    path: str
    connections: int

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        del seconds  # as long as it takes
        at_start = proportional_bytes(subject.pid)
        with ExitStack() as stack:
            self.open_all(subject, stack)
            time.sleep(SETTLING_SECONDS)
            grown = proportional_bytes(subject.pid) - at_start
        return {"per_connection": grown / self.connections, "at_start": at_start}

    def open_all(self, subject: Running, stack: ExitStack) -> None:
        context = subject.tls_context()
        try:
            for _ in range(self.connections):
                connection = stack.enter_context(connect(subject.port, context))
                ask(connection, self.path)
        except (OSError, AnswerError) as error:
            raise MeasurementError(f"a connection could not be opened: {error}") from error
