"""Choose the order in which the servers of a cluster are tried.  No I/O: see connect.py.

A balancing is told which servers there are to choose from, and with which weights, whenever that
changes; `order` gives each of them once, the one to try first at the front.  Orders are lazy: mostly
only their first server is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from operator import attrgetter
from random import random
from typing import Any, Generic, Protocol, TypeVar


class Loaded(Protocol):
    """What is chosen from; its text names it, the same in every process and after a restart."""

    def active(self) -> int:
        """How much it has to do: connections or exchanges, of all workers."""


S = TypeVar("S", bound=Loaded)

CLIENTS_REMEMBERED = 4096


class Balancing(Protocol[S]):
    def use(self, servers: Sequence[S], weights: Sequence[float]) -> None:
        """Choose from these from now on.  Weights are above 0; only their proportions count."""

    def order(self, client: bytes) -> Iterator[S]:
        """Every server once.  `client` is who asks: what is the same for the same client."""


class _Turn(Generic[S]):
    """A server's place in the smooth round."""

    __slots__ = ("credit", "server", "weight")

    def __init__(self, server: S, weight: float, credit: float) -> None:
        self.server = server
        self.weight = weight
        self.credit = credit


class RoundRobin(Generic[S]):
    """In turn, each as often as its weight says, spread evenly: a a b a c rather than a a a b c.

    Each turn gives every server its weight as credit; the one with the most has its turn, and pays for
    it with the weights of all.
    """

    def __init__(self, begin: int = 0) -> None:
        self._servers: tuple[S, ...] = ()
        self._next = begin
        self._begin = begin
        self._turns: list[_Turn[S]] | None = None  # None: all weights are the same

    def use(self, servers: Sequence[S], weights: Sequence[float]) -> None:
        self._servers = tuple(servers)
        if len(set(weights)) <= 1:
            self._turns = None
            return
        before = {turn.server: turn.credit for turn in self._turns or ()}
        self._turns = [
            _Turn(server, weight, before.get(server, 0.0))
            for server, weight in zip(servers, weights, strict=True)
        ]
        if not before:
            for _ in range(self._begin):
                self._take_turn(self._turns)

    def order(self, client: bytes) -> Iterator[S]:  # noqa: ARG002 - it is the same for all
        servers, turns = self._servers, self._turns
        if turns is not None:
            return self._by_weight(turns)
        count = len(servers)
        if count <= 1:
            return iter(servers)
        first = self._next % count
        self._next = first + 1
        return iter(servers[first:] + servers[:first])

    def _by_weight(self, turns: list[_Turn[S]]) -> Iterator[S]:
        chosen = self._take_turn(turns)
        yield chosen.server
        for turn in sorted(turns, key=attrgetter("credit"), reverse=True):
            if turn is not chosen:
                yield turn.server

    @staticmethod
    def _take_turn(turns: list[_Turn[S]]) -> _Turn[S]:
        most, total = turns[0], 0.0
        for turn in turns:
            turn.credit += turn.weight
            total += turn.weight
            if turn.credit > most.credit:
                most = turn
        most.credit -= total
        return most


class LeastConnections(Generic[S]):
    """The one with the least to do for its weight; those with the same in turn."""

    def __init__(self, begin: int = 0) -> None:
        self._weighted: tuple[tuple[S, float], ...] = ()
        self._next = begin

    def use(self, servers: Sequence[S], weights: Sequence[float]) -> None:
        self._weighted = tuple(zip(servers, weights, strict=True))

    def order(self, client: bytes) -> Iterator[S]:  # noqa: ARG002 - it is the same for all
        weighted = self._weighted
        if len(weighted) <= 1:
            return (server for server, _ in weighted)
        first = self._next % len(weighted)
        self._next = first + 1
        return _least_first(weighted[first:] + weighted[:first])


class RandomTwo(Generic[S]):
    """Of two drawn at random, by their weights, the one with less to do: nearly as even as looking at
    all, and workers that do not talk to each other do not all run to the same one.
    """

    def __init__(self, random: Callable[[], float] = random) -> None:
        self._random = random
        self._weighted: tuple[tuple[S, float], ...] = ()
        self._sums: list[float] = []

    def use(self, servers: Sequence[S], weights: Sequence[float]) -> None:
        self._weighted = tuple(zip(servers, weights, strict=True))
        self._sums = list(accumulate(weights))

    def order(self, client: bytes) -> Iterator[S]:  # noqa: ARG002 - it is the same for all
        weighted = self._weighted
        if len(weighted) <= 2:
            yield from _least_first(weighted)
            return
        one, other = self._draw_two()
        yield from _least_first((weighted[one], weighted[other]))
        rest = [each for at, each in enumerate(weighted) if at not in (one, other)]
        while rest:
            server, _ = rest.pop(self._draw(list(accumulate(weight for _, weight in rest))))
            yield server

    def _draw_two(self) -> tuple[int, int]:
        sums = self._sums
        one = self._draw(sums)
        weight = self._weighted[one][1]
        # The other, from what the first leaves: as if its own part of the line were cut out.
        mark = self._random() * (sums[-1] - weight)
        if mark >= sums[one] - weight:
            mark += weight
        other = min(bisect_right(sums, mark), len(sums) - 1)
        return one, other if other != one else (one + 1) % len(sums)  # by rounding it may be the first

    def _draw(self, sums: list[float]) -> int:
        return min(bisect_right(sums, self._random() * sums[-1]), len(sums) - 1)


class ClientHash(Generic[S]):
    """Each client to a server of its own, which stays the same: every server draws a number for the
    client, by its weight, and the highest wins (rendezvous hashing).

    When a server goes only its own clients move, and they spread over all others by their weights.
    """

    def __init__(self) -> None:
        self._weighted: tuple[tuple[S, float, int], ...] = ()
        self._known: dict[bytes, S] = {}

    def use(self, servers: Sequence[S], weights: Sequence[float]) -> None:
        self._weighted = tuple(
            (server, weight, _hash(str(server).encode()))
            for server, weight in zip(servers, weights, strict=True)
        )
        self._known = {}

    def order(self, client: bytes) -> Iterator[S]:
        if not self._weighted:
            return
        first = self._known.get(client)
        if first is None:
            if len(self._known) >= CLIENTS_REMEMBERED:
                self._known.clear()
            _, _, first = max(self._drawn(client))
            self._known[client] = first
        yield first
        for _, _, server in sorted(self._drawn(client), reverse=True):
            if server is not first:
                yield server

    def _drawn(self, client: bytes) -> list[tuple[float, int, S]]:
        """What each server draws; its place decides between the same numbers."""
        number = _hash(client)
        return [
            (-weight / math.log((_mixed(number ^ seed) + 0.5) / _RANGE), place, server)
            for place, (server, weight, seed) in enumerate(self._weighted)
        ]


def _least_first(weighted: Sequence[tuple[S, float]]) -> Iterator[S]:
    if not weighted:
        return
    loads = [((server.active() + 1) / weight, at) for at, (server, weight) in enumerate(weighted)]
    least = min(loads)
    yield weighted[least[1]][0]
    loads.remove(least)
    for _, at in sorted(loads):
        yield weighted[at][0]


_RANGE = 1 << 64
_MASK = _RANGE - 1


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest())


def _mixed(number: int) -> int:
    """Every bit of the result hangs on every bit of `number` (the finish of SplitMix64)."""
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK
    return number ^ number >> 31


BALANCINGS: Mapping[str, Callable[[int], Balancing[Any]]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "random_two": lambda _: RandomTwo(),
    "client_hash": lambda _: ClientHash(),
}
"""By the word in the configuration; workers begin their turns at different numbers."""
