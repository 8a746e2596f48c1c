"""A coarse wheel of deadlines: one timer for all connections of a worker.

A deadline that moves later is only assigned; when its old moment comes the wheel looks again and waits
on.  One that moves earlier is put in its new place at once.  Nothing is closed before its deadline, nor
later than a tick after it.
"""

from __future__ import annotations

import math
from typing import Protocol

TICK = 0.25  # seconds: "at its deadline" to within what an operator can see


class Timed(Protocol):
    deadline: float  # absolute, seconds; the wheel's to write
    bucket: int  # the wheel's own; 0 when it is in none

    def on_deadline(self, now: float, /) -> None: ...


class DeadlineWheel:
    __slots__ = ("_buckets", "_done", "_tick")

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._buckets: dict[int, set[Timed]] = {}
        self._done = 0  # every bucket up to this one has been emptied

    def set(self, item: Timed, deadline: float) -> None:
        """`item` is due at `deadline`, whatever it was before."""
        item.deadline = deadline
        ticks = deadline / self._tick
        bucket = int(ticks)
        if bucket < ticks:
            bucket += 1  # up: nothing is due early
        bucket = max(bucket, self._done + 1)
        if item.bucket == 0 or bucket < item.bucket:
            if item.bucket != 0:
                self.forget(item)
            item.bucket = bucket
            items = self._buckets.get(bucket)
            if items is None:
                items = self._buckets[bucket] = set()
            items.add(item)

    def forget(self, item: Timed) -> None:
        """`item` is due no more; does nothing when it never was."""
        bucket = self._buckets.get(item.bucket)
        if bucket is not None:
            bucket.discard(item)
        item.bucket = 0

    def due(self, now: float) -> list[Timed]:
        """The items whose deadline has passed; the wheel forgets them."""
        current = math.floor(now / self._tick)
        due: list[Timed] = []
        for number in self._passed(current):
            for item in self._buckets.pop(number):
                item.bucket = 0
                if item.deadline <= now:
                    due.append(item)
                else:
                    self.set(item, item.deadline)
        return due

    def _passed(self, current: int) -> list[int]:
        """The buckets to empty, oldest first; from here on none of them is filled."""
        previous, self._done = self._done, max(self._done, current)
        if current - previous > len(self._buckets):
            return sorted(number for number in self._buckets if number <= current)
        return [n for n in range(previous + 1, current + 1) if n in self._buckets]
