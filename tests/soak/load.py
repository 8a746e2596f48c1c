"""What every row is measured under: clients that come and go, some that stay, and some that resume."""

from __future__ import annotations

import contextlib
import os
import ssl
import statistics
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from termproxy import clock
from tests.support.clients import connect, exchange, leave
from tests.support.visitors import Visitors, one_exchange

PUMP_LIFE = 20.0  # seconds
PIECE = 16_384  # bytes
PACE = 0.02  # seconds between two: the load is there to notice, not to fill the machine


def pumping(port: int, context: ssl.SSLContext) -> Callable[[], None]:
    """One long connection, whose every piece comes back as it was; then it leaves as TLS wants it."""

    def visit() -> None:
        until = clock.monotonic() + PUMP_LIFE
        with connect(port, context) as client:
            while clock.monotonic() < until:
                piece = os.urandom(PIECE)
                assert exchange(client, piece) == piece, "another answer"
                time.sleep(PACE)
            leave(client)

    return visit


class Resuming:
    """A visit that resumes the session of the one before it, and how often that went as it should."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port, self.context = port, context
        self.tried = self.resumed = 0
        self._session: ssl.SSLSession | None = None

    def __call__(self) -> None:
        session, self._session = self._session, None
        with connect(self.port, self.context, session=session) as client:
            assert exchange(client) == b"ping", "another answer"
            if session is not None:
                self.tried += 1
                self.resumed += bool(client.session_reused)
            self._session = client.session
            leave(client)


class Load:
    """Two threads with a connection for each exchange, four with long ones, one that resumes."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.resuming = Resuming(port, context)
        self.short = Visitors(one_exchange(port, context), threads=2, pause=0.005)
        self.long = Visitors(pumping(port, context), threads=4)
        self.again = Visitors(self.resuming, threads=1, pause=0.02)
        self._all = (self.short, self.long, self.again)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for each in self._all:
                stack.enter_context(each)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def served(self) -> int:
        return sum(each.served for each in self._all)

    def lost(self) -> Counter[str]:
        """What failed, by kind."""
        return sum((Counter(each.kinds()) for each in self._all), Counter())

    def p99(self) -> float:
        """Of the short ones, in milliseconds."""
        seconds = self.short.seconds
        return 1000 * statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else 0.0
