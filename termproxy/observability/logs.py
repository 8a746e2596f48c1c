"""What termproxy says on standard error: one line a fact, in UTC, with the process that says it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s[%(process)d] %(message)s"


def set_up(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a log that cannot be written must not stop the server


@dataclass(slots=True)
class _Window:
    until: float
    admitted: int
    held: int


class Throttle(Generic[Key]):
    """Lets `burst` messages of a key through in `interval` seconds, and counts those held back.

    Bounded: beyond KEYS_MAX keys at a time the further ones are held back together, as None.
    """

    KEYS_MAX = 1000

    def __init__(self, interval: float, burst: int = 1) -> None:
        self.interval = interval
        self.burst = burst
        self._windows: dict[Key | None, _Window] = {}

    def admits(self, key: Key, now: float) -> bool:
        window = self._windows.get(key)
        if window is None and len(self._windows) < self.KEYS_MAX:
            window = self._windows[key] = _Window(now + self.interval, 0, 0)
        elif window is None:
            window = self._windows.setdefault(None, _Window(now + self.interval, self.burst, 0))
        if window.admitted < self.burst:
            window.admitted += 1
            return True
        window.held += 1
        return False

    def over(self, now: float) -> Iterator[tuple[Key | None, int]]:
        """The keys whose interval is over, with how many were held back; those with none are left out.

        To be called often: until then a key's interval goes on.
        """
        for key in [key for key, window in self._windows.items() if window.until <= now]:
            window = self._windows.pop(key)
            if window.held:
                yield key, window.held
