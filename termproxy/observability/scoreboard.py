"""The table of workers in shared memory: who lives, in what state, and what each has counted.

    word 0..SLOTS-1         when a slot's listeners were last watched (nanoseconds, monotonic)
    then one row a worker   heartbeat, state, and the counters below

A row has one writer, its worker, and so needs no lock.  When a worker has gone the master adds the
row's counters to the past before it gives the row to another: totals never go backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from termproxy.shm import SharedWords

SLOTS = 256  # as many workers as the setting allows
ROWS = 4 * SLOTS  # a reload's workers live beside the old ones until those have drained

NANOSECONDS = 1_000_000_000


class WorkerState(IntEnum):
    STARTING = 0
    ACCEPTING = 1
    DRAINING = 2


class Column(IntEnum):
    """A row's words.  From ACCEPTED on they only grow while the worker lives, but for OPEN."""

    HEARTBEAT = 0  # nanoseconds, monotonic
    STATE = 1
    OPEN = 2  # connections now
    ACCEPTED = 3
    HANDSHAKES = 4  # finished
    HANDSHAKES_RESUMED = 5
    HANDSHAKES_FAILED = 6
    BACKEND_FAILURES = 7  # a connect that was refused, timed out or broke
    BYTES_FROM_CLIENTS = 8
    BYTES_FROM_BACKENDS = 9
    ACCESS_LINES_LOST = 10
    ORDERS = 11  # from the master, carried out or refused


COUNTERS = tuple(column for column in Column if column >= Column.ACCEPTED)
ROW_WORDS = 16  # two cache lines, so that workers do not share one


class Scoreboard:
    """Made by the master before it forks."""

    def __init__(self) -> None:
        self._memory = SharedWords("termproxy-scoreboard", SLOTS + ROWS * ROW_WORDS)
        self.slot_beats = self._memory.words[:SLOTS]
        self.past = dict.fromkeys(COUNTERS, 0)
        self._free = list(range(ROWS - 1, -1, -1))

    def row(self, number: int) -> memoryview:
        """The words of a row, by Column."""
        start = SLOTS + number * ROW_WORDS
        return self._memory.words[start : start + ROW_WORDS]

    def take_row(self) -> int | None:
        """A zeroed row for a worker about to be forked; None when all are in use."""
        return self._free.pop() if self._free else None

    def return_row(self, number: int) -> None:
        """Keep what a worker that has gone had counted, and free its row."""
        row = self.row(number)
        for column in COUNTERS:
            self.past[column] += row[column]
        for index in range(ROW_WORDS):
            row[index] = 0
        self._free.append(number)

    def totals(self, living: Iterator[int]) -> dict[Column, int]:
        """Every counter over all workers, living rows and past ones."""
        totals = dict(self.past)
        for number in living:
            row = self.row(number)
            for column in COUNTERS:
                totals[column] += row[column]
        return totals

    def beat(self, number: int) -> float:
        """When the worker of this row last showed life, in seconds; 0 before its first beat."""
        return self.row(number)[Column.HEARTBEAT] / NANOSECONDS
