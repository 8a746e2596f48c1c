"""One backend of a cluster, as one worker sees it: where it is, and what there is to do with it.

It is counted on the board (board.py), where all workers see each other's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized

from termproxy.address import Address
from termproxy.backends import board as words
from termproxy.backends.health import Wish


class Server:
    __slots__ = (
        "_actives",
        "_actives_before",
        "_in_a_row",
        "_on_failures",
        "_on_room",
        "_use",
        "_waiting",
        "_wish",
        "address",
        "family",
        "max_connections",
        "name",
        "packed_address",
        "weight",
    )

    def __init__(self, address: Address, weight: int = 1, max_connections: int = 0) -> None:
        self.address = address
        self.family, self.packed_address = int(address.family), address.packed  # as the kernel has it
        self.name = str(address)  # as logs have it
        self.weight = weight
        self.max_connections = max_connections
        self._in_a_row = 0
        self._use = self._wish = memoryview(bytearray(8 * words.LINE)).cast("q")
        self._actives = self._use[:1]
        self._actives_before: tuple[memoryview, ...] = ()
        self._waiting: Sized = ()
        self._on_failures: Callable[[Server, int, float], None] = lambda *_: None
        self._on_room: Callable[[], None] = lambda: None

    def attach(
        self,
        use: memoryview,
        wish: memoryview,
        actives: memoryview,
        actives_before: Sequence[memoryview] = (),
    ) -> None:
        """Count here from now on: a worker's line.  `actives` are the words of all workers that tell
        what is active; there may be more, of older generations.
        """
        self._use = use
        self._wish = wish
        self._actives = actives
        self._actives_before = tuple(actives_before)

    def tell(
        self,
        on_failures: Callable[[Server, int, float], None],
        waiting: Sized,
        on_room: Callable[[], None],
    ) -> None:
        """What hears how often it failed in a row, and that there is room, while some wait for it."""
        self._on_failures = on_failures
        self._waiting = waiting
        self._on_room = on_room

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Server {self}>"

    def begin(self) -> None:
        """A connection, or an exchange, uses it from now on."""
        use = self._use
        use[_ACTIVE] += 1
        use[_TOTAL] += 1

    def end(self) -> None:
        """One that has begun does so no more."""
        self._use[_ACTIVE] -= 1
        if self._waiting:
            self._on_room()

    def succeeded(self) -> None:
        """It accepted and answered."""
        if self._in_a_row:
            self._use[_IN_A_ROW] = self._in_a_row = 0

    def failed(self, now: float) -> None:
        """It refused, was too slow, reset before it answered, or answered garbage."""
        self._use[_FAILURES] += 1
        self._in_a_row += 1
        self._use[_IN_A_ROW] = self._in_a_row
        self._on_failures(self, self._in_a_row, now)

    def active(self) -> int:
        """What uses it now, over all workers."""
        active = sum(self._actives)
        for each in self._actives_before:
            active += sum(each)
        return active

    def has_room(self) -> bool:
        """Whether one more may use it.  Workers look without waiting for each other: when several take
        the last place in the same microseconds, so many are too many.
        """
        return not self.max_connections or self.active() < self.max_connections

    def is_disabled(self) -> bool:
        """Whether the operator wants not even idle connections to it to be used."""
        return bool(self._wish[_WISH] == Wish.DISABLED)


_ACTIVE = int(words.UseWord.ACTIVE)
_TOTAL = int(words.UseWord.TOTAL)
_FAILURES = int(words.UseWord.FAILURES)
_IN_A_ROW = int(words.UseWord.IN_A_ROW)
_WISH = int(words.WishWord.WISH)
