"""Clients that come one after another, from a few threads, and keep a ledger of what went wrong."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from termproxy import clock
from tests.support.clients import connect, exchange, leave
from tests.support.waiting import wait_for_more


@dataclass(frozen=True, slots=True)
class Failure:
    kind: str  # as kind_of() says
    begun: float  # monotonic seconds
    failed: float
    detail: str


KINDS: list[tuple[tuple[type[Exception], ...], str]] = [
    ((ConnectionRefusedError,), "refused"),
    ((ConnectionResetError, BrokenPipeError), "reset"),
    ((TimeoutError,), "timeout"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError, EOFError), "cut short"),
    ((ssl.SSLError,), "alert"),
    ((AssertionError,), "wrong answer"),
]


def kind_of(error: Exception) -> str:
    """The first that it is; a name of Python's for what nobody thought of."""
    if getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING":
        return "cut short"  # which has no class of its own in every Python, see endings.py
    return next((kind for types, kind in KINDS if isinstance(error, types)), type(error).__name__)


class Visitors:
    """They come while this is entered.  `visit` raises what went wrong; `pause` is between two visits of
    the same thread, in seconds.
    """

    def __init__(self, visit: Callable[[], None], threads: int = 3, pause: float = 0.0) -> None:
        self.served = 0
        self.failures: list[Failure] = []
        self.seconds: list[float] = []  # that each visit took
        self._visit = visit
        self._pause = pause
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._come) for _ in range(threads)]

    def _come(self) -> None:
        while not self._over.is_set():
            begun = clock.monotonic()
            try:
                self._visit()
            except (OSError, EOFError, AssertionError) as error:
                failure = Failure(kind_of(error), begun, clock.monotonic(), str(error))
                with self._lock:
                    self.failures.append(failure)
            else:
                with self._lock:
                    self.served += 1
                    self.seconds.append(clock.monotonic() - begun)
            if self._pause:
                time.sleep(self._pause)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wait_for_more(lambda: self.served, count, f"{count} more visitors are served")

    def kinds(self) -> dict[str, int]:
        return dict(Counter(failure.kind for failure in self.failures))


def one_exchange(port: int, context: ssl.SSLContext) -> Callable[[], None]:
    """A new connection, a few bytes to an echoing backend and back, and the end that TLS demands."""

    def visit() -> None:
        with connect(port, context) as client:
            assert exchange(client) == b"ping", "another answer"
            leave(client)

    return visit
