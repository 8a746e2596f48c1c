"""What every worker counts, in memory that the master sees: who lives, in what state, and its counters.

    the scoreboard's words   when each slot's listeners were last watched (nanoseconds, monotonic)
    a row for each worker    the columns below, the tickets made with each key (KEY_WORDS), then
                             FRONTEND_WORDS for each of its frontends

A row has one writer, its worker, and so needs no lock.  When a worker has gone the master adds the
row's counters to the past: totals never go backwards.  Nor do they over an upgrade: what the master
before us and its workers have counted is part of the totals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import add
from typing import Any

from termproxy.observability.metrics import FRONTEND_WORDS, as_plain, from_plain
from termproxy.shm import SharedWords

SLOTS = 256  # as many workers as the setting allows
ROWS = 4 * SLOTS  # a reload's workers live beside the old ones until those have drained

NANOSECONDS = 1_000_000_000


class WorkerState(IntEnum):
    STARTING = 0
    ACCEPTING = 1
    DRAINING = 2


class Column(IntEnum):
    """A row's first words.  From ACCEPTED to REQUESTS they only grow while the worker lives."""

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
    REQUESTS = 12  # of HTTP, answered or not
    LOG_LINES_LOST = 13  # of standard error
    OLDEST = 14  # while draining: when the oldest connection came (nanoseconds, monotonic); 0: none


COUNTERS = tuple(column for column in Column if Column.ACCEPTED <= column < Column.OLDEST)


KEY_WORDS = 64  # as tls/_openssl.pyx writes them: a key's number and its tickets, 32 times


class Row:
    """A worker's words, all zero at first; `frontends` names those it will serve, in order."""

    def __init__(self, frontends: Sequence[str]) -> None:
        self.frontends = tuple(frontends)
        size = _FRONTENDS + len(frontends) * FRONTEND_WORDS
        self._memory = SharedWords("termproxy-row", size)
        self.words = self._memory.words[: len(Column)]
        """By Column."""
        self.keys = self._memory.words[len(Column) : _FRONTENDS]

    def tickets(self) -> Iterator[tuple[int, int]]:
        """For each key, by its number, how many tickets were made with it."""
        for at in range(0, KEY_WORDS, 2):
            if self.keys[at]:
                yield self.keys[at], self.keys[at + 1]

    def frontend(self, index: int) -> memoryview:
        """The words of a frontend, as observability/metrics.py numbers them."""
        start = _FRONTENDS + index * FRONTEND_WORDS
        return self._memory.words[start : start + FRONTEND_WORDS]

    def plain_totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """What this worker has counted for each frontend, by name."""
        return {name: as_plain(self.frontend(index)) for index, name in enumerate(self.frontends)}

    @property
    def beat(self) -> float:
        """When the worker last showed life, in seconds; 0 before its first beat."""
        return self.words[Column.HEARTBEAT] / NANOSECONDS

    def close(self) -> None:
        self.words.release()
        self.keys.release()
        self._memory.close()


_FRONTENDS = len(Column) + KEY_WORDS  # where theirs begin

_NOTHING: Sequence[int] = (0,) * FRONTEND_WORDS


@dataclass(slots=True)
class Counts:
    """What was counted by workers that are not in rows here."""

    counters: dict[Column, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    frontends: dict[str, Sequence[int]] = field(default_factory=dict)
    tickets: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        for column in COUNTERS:
            self.counters[column] += other.counters[column]
        for name, words in other.frontends.items():
            self.frontends[name] = list(map(add, self.frontends.get(name, _NOTHING), words))
        for number, tickets in other.tickets.items():
            self.tickets[number] = self.tickets.get(number, 0) + tickets


class Scoreboard:
    """Made by the master before it forks."""

    def __init__(self) -> None:
        self._memory = SharedWords("termproxy-slots", SLOTS)
        self.slot_beats = self._memory.words
        self._past = Counts()
        self._before = Counts()  # by the master before us, whose workers may still be at work
        self._rows: set[Row] = set()

    def take_row(self, frontends: Sequence[str]) -> Row | None:
        """A row for a worker about to be forked; None when as many are in use as there may be."""
        if len(self._rows) >= ROWS:
            return None
        row = Row(frontends)
        self._rows.add(row)
        return row

    def return_row(self, row: Row) -> None:
        """Keep what a worker that has gone had counted."""
        self._rows.remove(row)
        self._past.add(_counted(row))
        row.close()

    def count(self, column: Column, number: int) -> None:
        """Of the master's own."""
        self._past.counters[column] += number

    def totals(self) -> dict[Column, int]:
        """Every counter over all workers, living and gone."""
        past, before = self._past.counters, self._before.counters
        return {
            column: past[column] + before[column] + sum(row.words[column] for row in self._rows)
            for column in COUNTERS
        }

    def frontend_totals(self, names: Collection[str]) -> dict[str, list[int]]:
        """The words of each of these frontends over all workers, living and gone."""
        totals: dict[str, Sequence[int]] = dict.fromkeys(names, _NOTHING)
        for gone in (self._past, self._before):
            for name in gone.frontends.keys() & totals.keys():
                totals[name] = list(map(add, totals[name], gone.frontends[name]))
        for row in self._rows:
            for index, name in enumerate(row.frontends):
                if name in totals:
                    totals[name] = list(map(add, totals[name], row.frontend(index)))
        return {name: list(words) for name, words in totals.items()}

    def tickets(self, numbers: Collection[int]) -> dict[int, int]:
        """How many tickets were made with each of these keys; the past of others is forgotten."""
        past = self._past.tickets
        self._past.tickets = {n: count for n, count in past.items() if n in numbers}
        totals = dict.fromkeys(numbers, 0) | self._past.tickets
        for number in self._before.tickets.keys() & totals.keys():
            totals[number] += self._before.tickets[number]
        for row in self._rows:
            for number, tickets in row.tickets():
                if number in totals:
                    totals[number] += tickets
        return totals

    # From one master to the next.

    def as_plain(self) -> dict[str, Any]:
        """Everything that was counted, by its name."""
        counts = Counts()
        for each in (self._past, self._before, *map(_counted, self._rows)):
            counts.add(each)
        return {
            "counters": {column.name: count for column, count in counts.counters.items()},
            "frontends": {name: as_plain(words) for name, words in counts.frontends.items()},
            "tickets": {str(number): count for number, count in counts.tickets.items()},
        }

    def hear_before(self, plain: Mapping[str, Any]) -> None:
        """What the master before us has counted until now, as its as_plain() gave it."""
        self._before = Counts(
            {column: int(plain["counters"].get(column.name, 0)) for column in COUNTERS},
            {name: from_plain(families) for name, families in plain["frontends"].items()},
            {int(number): count for number, count in plain["tickets"].items()},
        )


def _counted(row: Row) -> Counts:
    return Counts(
        {column: row.words[column] for column in COUNTERS},
        {name: list(row.frontend(index)) for index, name in enumerate(row.frontends)},
        dict(row.tickets()),
    )
