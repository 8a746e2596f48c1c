"""What termproxy says on standard error: one line a fact, in UTC, with the process that says it."""

from __future__ import annotations

import logging
import sys
import time

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


class Throttle:
    """Let a message through once in `interval` seconds for each key, and count those held back."""

    KEYS_MAX = 1000

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def admits(self, key: str, now: float) -> bool:
        if now < self._next.get(key, now):
            self._held[key] = self._held.get(key, 0) + 1
            return False
        if len(self._next) >= self.KEYS_MAX:
            self._next.clear()
            self._held.clear()
        self._next[key] = now + self.interval
        return True

    def held_back(self, key: str) -> int:
        """How many were held back since the last that was let through; forgets them."""
        return self._held.pop(key, 0)
