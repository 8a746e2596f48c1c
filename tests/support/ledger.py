"""What a load asked for and what became of it, by kind: so that a loss has a name."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from dataclasses import dataclass, field

from termproxy import clock


class LostError(Exception):
    """An operation that failed, in a word: "short", "wrong hash", or a status."""


KINDS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "reset"),
    (BrokenPipeError, "reset"),
    (TimeoutError, "timeout"),
    (ssl.SSLEOFError, "short"),
    (ssl.SSLZeroReturnError, "short"),
)


def kind_of(error: Exception) -> str:
    """The class of a failure."""
    if isinstance(error, LostError):
        return str(error)
    if known := [kind for cls, kind in KINDS if isinstance(error, cls)]:
        return known[0]
    if isinstance(error, ssl.SSLError):
        return f"alert: {error.reason}"
    return f"{type(error).__name__}: {error}"


@dataclass
class Ledger:
    """Of one kind of client; any number of threads write in it."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    when: list[tuple[float, float]] = field(default_factory=list)
    """For each operation that was done: when it began, and how long it took."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, began: float, *, resumed: bool = False) -> None:
        with self._lock:
            self.done += 1
            self.resumed += resumed
            self.when.append((began, clock.monotonic() - began))

    def lose(self, error: Exception) -> None:
        with self._lock:
            self.failed[kind_of(error)] += 1

    def quantile(self, part: float, spans: list[tuple[float, float]] | None = None) -> float:
        """Seconds, of the operations that began in one of `spans`; 0 when there was none."""
        taken = sorted(
            seconds
            for began, seconds in self.when
            if spans is None or any(start <= began < end for start, end in spans)
        )
        return taken[min(int(part * len(taken)), len(taken) - 1)] if taken else 0.0
