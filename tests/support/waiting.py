"""Wait for what must come true, and no longer: tests never sleep for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from termproxy import clock

# Generous, for a machine that has other work: a test that passes never waits this long.
PATIENCE = 20.0  # seconds

T = TypeVar("T")

_LOOK_EVERY = 0.01  # seconds


def wait_until(
    condition: Callable[[], T], what: str, *, seconds: float = PATIENCE, poll: float = _LOOK_EVERY
) -> T:
    """The first true answer of `condition`; AssertionError when none came in time."""
    deadline = clock.monotonic() + seconds
    while not (answer := condition()):
        assert clock.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(poll)
    return answer


def wait_for_more(number: Callable[[], int], by: int, what: str) -> None:
    """Wait until a number that grows has grown by so much."""
    target = number() + by
    wait_until(lambda: number() >= target, what)


class Unchanged:
    """A condition: a number is above zero, and has stayed the same for half a second."""

    FOR = 0.5  # seconds

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._last = 0
        self._since = clock.monotonic()

    def __call__(self) -> bool:
        number, now = self._number(), clock.monotonic()
        if number != self._last:
            self._last, self._since = number, now
        return number > 0 and now - self._since >= self.FOR
