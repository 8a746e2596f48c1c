"""What is known of the servers of every cluster, in memory that all processes see.

    the master's line, the prober's     a number that grows with each change, so that one look tells
    for each server, three lines        what the prober found, what the operator wants, and, where it has
                                        a name, which of the name's addresses it is
    for each worker, a line             how often it has ejected a server
        and for each server, one        what the worker has to do with it

A line is eight words, 64 bytes: what different processes write stands on different cache lines.  A
word has one writer and so needs no lock.  A worker's words are its own until it has gone; then the
master adds up what it had counted.

A name has a row of servers (names.PLACES), with those addresses that the prober finds; some of them, or
all, are vacant.  Who keeps its address keeps its place.

Times are nanoseconds of the monotonic clock, 0 for never.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from termproxy.backends.health import Facts
from termproxy.backends.names import as_words, from_words
from termproxy.observability.scoreboard import NANOSECONDS
from termproxy.shm import SharedWords

LINE = 8  # words

Key = tuple[str, str]  # a cluster's name, and a server's


class Head(IntEnum):
    """The master's line and the prober's."""

    WISHES_CHANGED = 0
    PROBES_CHANGED = LINE
    PROBER_BEAT = LINE + 1


class ProbeWord(IntEnum):
    """Written by the prober."""

    HEALTH = 0  # health.Health
    SINCE = 1
    RISEN = 2  # when it came back, having been down
    CHECKED = 3  # when the last check ended
    RESULT = 4  # its result: an index of health.RESULTS
    STATUS = 5  # of the answer, if there was one
    CHECKS = 6
    FAILED = 7


class WishWord(IntEnum):
    """Written by the master."""

    WISH = 0  # health.Wish
    SINCE = 1
    PAST_TOTAL = 2  # counted by workers that have gone
    PAST_FAILURES = 3


class PlaceWord(IntEnum):
    """Written by the prober, for servers with a name."""

    SEQUENCE = 0  # odd while the address is being written
    ADDRESS = 1  # three words: names.as_words
    LOOK_UPS = 4  # of the name, that ended; in its first place


class UseWord(IntEnum):
    """Written by a worker."""

    ACTIVE = 0  # connections or exchanges, now
    TOTAL = 1
    FAILURES = 2
    IN_A_ROW = 3  # of these, since the last success
    EJECTED_AT = 4
    EJECTED_UNTIL = 5


_SERVERS = 2 * LINE  # where the servers' lines begin
_SERVER = 3 * LINE


class Board:
    """For these servers, with `room` for more, and so many workers; `is_shared` is False for one process
    alone.

    The places of a name have the same key, and follow each other.
    """

    def __init__(self, keys: Sequence[Key], rows: int, *, room: int = 0, is_shared: bool = True) -> None:
        self.keys: tuple[Key, ...] = ()
        self.places: dict[Key, range] = {}
        self.rows = rows
        self._most = len(keys) + room
        self._rows_at = _SERVERS + self._most * _SERVER
        self._row = LINE * (1 + self._most)
        size = self._rows_at + rows * self._row
        self._memory = SharedWords("termproxy-backends", size) if is_shared else None
        self.words = self._memory.words if self._memory else memoryview(bytearray(8 * size)).cast("q")
        self.add(keys)

    def add(self, keys: Sequence[Key]) -> bool:
        """Give places to servers that have none; False, and all stays as it was, when there is no room.

        A place is never another server's: who still has connections to one that is no more counts on.
        """
        fresh = [key for key in keys if key not in self.places]
        if len(self.keys) + len(fresh) > self._most:
            return False
        self.keys += tuple(fresh)
        for index in range(len(self.keys) - len(fresh), len(self.keys)):
            key = self.keys[index]
            self.places[key] = range(self.places.get(key, range(index, index)).start, index + 1)
        return True

    def probe(self, index: int) -> memoryview:
        return self._line(_SERVERS + index * _SERVER)

    def wish(self, index: int) -> memoryview:
        return self._line(_SERVERS + index * _SERVER + LINE)

    def place(self, index: int) -> memoryview:
        return self._line(_SERVERS + index * _SERVER + 2 * LINE)

    def address(self, index: int) -> tuple[int, str | None] | None:
        """What stands in a name's place, and when it was written, as a number that grows; None while it
        is being written.
        """
        place = self.place(index)
        sequence = place[PlaceWord.SEQUENCE]
        words = place[_ADDRESS].tolist()
        if sequence % 2 or sequence != place[PlaceWord.SEQUENCE]:
            return None
        return sequence, from_words(words)

    def set_address(self, index: int, address: str | None) -> None:
        """Said by the prober, and probes_changed() after it."""
        place = self.place(index)
        place[PlaceWord.SEQUENCE] |= 1  # it may be odd since a prober died
        place[_ADDRESS] = memoryview(array("q", as_words(address)))
        place[PlaceWord.SEQUENCE] += 1

    def use(self, row: int, index: int) -> memoryview:
        return self._line(self._rows_at + row * self._row + (1 + index) * LINE)

    def ejections(self, row: int) -> memoryview:
        """One word: how often this worker has ejected a server."""
        return self._line(self._rows_at + row * self._row)[:1]

    def all_ejections(self) -> memoryview:
        """The same of every worker."""
        return self.words[self._rows_at :: self._row]

    def of_all(self, use: UseWord, index: int) -> memoryview:
        """One word of a server's, of every worker."""
        return self.words[self._rows_at + (1 + index) * LINE + use :: self._row]

    def wishes_changed(self) -> None:
        """Said by the master."""
        self.words[Head.WISHES_CHANGED] += 1

    def probes_changed(self) -> None:
        """Said by the prober."""
        self.words[Head.PROBES_CHANGED] += 1

    def clear_row(self, row: int) -> None:
        """By the master, when the row's worker has gone: nothing of it is active any more."""
        for index in range(len(self.keys)):
            wish, use = self.wish(index), self.use(row, index)
            wish[WishWord.PAST_TOTAL] += use[UseWord.TOTAL]
            wish[WishWord.PAST_FAILURES] += use[UseWord.FAILURES]
            use[:] = _NOTHING

    def total(self, index: int) -> int:
        return int(self.wish(index)[WishWord.PAST_TOTAL]) + sum(self.of_all(UseWord.TOTAL, index))

    def failures(self, index: int) -> int:
        return int(self.wish(index)[WishWord.PAST_FAILURES]) + sum(self.of_all(UseWord.FAILURES, index))

    def active(self, index: int) -> int:
        return sum(self.of_all(UseWord.ACTIVE, index))

    def facts(self, index: int) -> Facts:
        """What decides a server's state."""
        return Facts(
            self.wish(index)[WishWord.WISH],
            self.probe(index)[ProbeWord.HEALTH],
            max(self.of_all(UseWord.EJECTED_UNTIL, index)) / NANOSECONDS,
        )

    def inherit(self, before: Board, checked: Container[int]) -> None:
        """By the master, while no prober is at work here: what is known of the servers that stay.

        What checks have found goes only to those that are `checked` here: it would never change.
        """
        for mine, theirs in self._shared_with(before):
            self.place(mine)[:] = before.place(theirs)
            if mine in checked:
                self.probe(mine)[:] = before.probe(theirs)
            self.wish(mine)[: WishWord.PAST_TOTAL] = before.wish(theirs)[: WishWord.PAST_TOTAL]
        self.wishes_changed()

    def forget(self, key: Key) -> None:
        """By the master: what checks have found of a server that nobody checks any more."""
        for index in self.places[key]:
            self.probe(index)[:] = _NOTHING

    def _shared_with(self, other: Board) -> Iterator[tuple[int, int]]:
        for key, mine in self.places.items():
            yield from zip(mine, other.places.get(key, ()), strict=False)

    # What a master tells the one after it.

    def as_plain(self, index: int) -> dict[str, Any]:
        """What is known of a server, each word by its name."""
        address = self.address(index)
        return {
            "probe": _named(ProbeWord, self.probe(index)),
            "wish": _named(WishWord, self.wish(index)),
            "address": None if address is None else address[1],
            "active": self.active(index),
            "total": self.total(index),
            "failures": self.failures(index),
        }

    def fill(self, index: int, plain: Mapping[str, Any]) -> None:
        """As another board's as_plain() has it: its workers count as one here, in row 0.  What it tells
        and has no word here is left out.
        """
        _put(ProbeWord, self.probe(index), plain["probe"])
        _put(WishWord, self.wish(index), plain["wish"])
        self.set_address(index, plain["address"])
        self.wish(index)[WishWord.PAST_TOTAL] = plain["total"]
        self.wish(index)[WishWord.PAST_FAILURES] = plain["failures"]
        self.use(0, index)[UseWord.ACTIVE] = plain["active"]

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()

    def _line(self, start: int) -> memoryview:
        return self.words[start : start + LINE]


def _named(names: type[IntEnum], words: memoryview) -> dict[str, int]:
    return {name.name: words[name] for name in names}


def _put(names: type[IntEnum], words: memoryview, plain: Mapping[str, int]) -> None:
    for name in names:
        words[name] = plain.get(name.name, 0)


_ADDRESS = slice(PlaceWord.ADDRESS, PlaceWord.ADDRESS + 3)
_NOTHING = memoryview(bytes(8 * LINE)).cast("q")
