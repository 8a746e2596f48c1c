"""Own what is known of the backends: a board for each generation, the operator's word, the checks.

A board (backends/board.py) is made before its generation's workers.  What an operator has said and what
checks have found stays with a server over a reload, and counts do not go backwards.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import add
from typing import Any

from termproxy.address import Name
from termproxy.backends.board import Board, Key, WishWord
from termproxy.backends.cluster import keys_of
from termproxy.backends.health import Wish
from termproxy.backends.prober import NameTarget, Target
from termproxy.backends.report import Counts, Place, table
from termproxy.config.schema import Config
from termproxy.master.probing import Fork, Probing
from termproxy.observability.scoreboard import NANOSECONDS, SLOTS

log = logging.getLogger("master")

PAST_MAX = 10_000  # servers that are no more, but may come back: their counts go on then

SPARE_SEATS = 2  # that are free when there are as many workers as may be

ROOM = 256  # places for servers that a reload adds to running workers; with no room, new ones come

TOLD = 10  # servers that an error names

WISHES = {"enable": Wish.ENABLED, "drain": Wish.DRAINING, "disable": Wish.DISABLED}
SAID = {Wish.ENABLED: "enabled", Wish.DRAINING: "draining", Wish.DISABLED: "disabled"}


def seats_for(workers: int) -> int:
    """How many rows there are for a generation's workers: a slot may have one, its successor, and others
    that still drain, and there may be more slots one day.
    """
    return 2 * workers + 4


class BackendRefusedError(ValueError):
    """What the operator asked for cannot be done; the text says why, and what could be."""


@dataclass(frozen=True, slots=True)
class Known:
    """What there is for a generation."""

    board: Board
    config: Config | None  # None: the master before us has it
    seats: list[int]  # that are free

    def targets(self) -> Iterator[Target | NameTarget]:
        """What the prober has to do."""
        assert self.config is not None  # noqa: S101 - this is one of ours
        for name, cluster in self.config.clusters.items():
            for server in cluster.servers:
                places = self.board.places[name, str(server)]
                if isinstance(server.address, Name):
                    yield NameTarget(name, places, server.address, cluster.health)
                elif cluster.health.kind != "off":
                    yield Target(name, places.start, server.address, cluster.health)

    def checked(self) -> Iterator[int]:
        """The numbers of the servers whose health is looked at."""
        assert self.config is not None  # noqa: S101 - this is one of ours
        for key in self.keys():
            if self.config.clusters[key[0]].health.kind != "off":
                yield from self.board.places[key]

    def keys(self) -> set[Key]:
        """The servers that there are; the board may know more, of before."""
        assert self.config is not None  # noqa: S101 - this is one of ours
        return {key for name, cluster in self.config.clusters.items() for key in keys_of(name, cluster)}


class BackendKeeper:
    def __init__(self, fork_helper: Fork) -> None:
        self.probing = Probing(fork_helper)
        self._generations: dict[int, Known] = {}
        self._in_force: int | None = None
        self._past: dict[Place, Counts] = {}  # counted in generations that are over
        self._before: int | None = None  # the generation that stands for the master before us

    # Generations.

    def begin(self, number: int, config: Config, workers: int) -> None:
        """Make a board, before a generation's first worker.  OSError when there is no memory for it."""
        seats = seats_for(workers)
        known = Known(Board(_keys(config), seats, room=ROOM), config, [*range(seats)])
        self._generations[number] = known
        self._inherit(known)

    def change(self, number: int, config: Config, now: float) -> bool:
        """Have a generation's servers be those of `config` from now on; False, and all stays as it was,
        when there is no room for them on its board.
        """
        before = self._generations[number]
        if not before.board.add(_keys(config)):
            return False
        known = self._generations[number] = replace(before, config=config)
        for key in known.keys() - before.keys():
            if config.clusters[key[0]].health.kind == "off":
                known.board.forget(key)
        assert before.config is not None  # noqa: S101 - this is one of ours
        if (list(known.targets()), config.dns) != (list(before.targets()), before.config.dns):
            self.probing.check(list(known.targets()), known.board, config.dns, now)
        return True

    def boards(self, number: int) -> tuple[Board, list[Board]]:
        """A generation's board, and those of older ones that are not over."""
        older = [known.board for other, known in self._generations.items() if other < number]
        return self._generations[number].board, older

    def put_in_force(self, number: int, now: float) -> None:
        """Have this generation's servers checked from now on, and no others."""
        self.probing.send_away()
        known = self._generations[number]
        self._inherit(known)
        self._in_force = number
        assert known.config is not None  # noqa: S101 - this is one of ours
        self.probing.check(list(known.targets()), known.board, known.config.dns, now)

    def workers_max(self, number: int) -> int:
        """How many workers a generation may have, when some drain besides."""
        return min(self._generations[number].board.rows - SPARE_SEATS, SLOTS)

    def take_seat(self, number: int) -> int | None:
        """A row of the generation's board, for a worker about to be forked; None when none is free."""
        free = self._generations[number].seats
        if not free:
            return None
        free.sort()
        return free.pop(0)

    def worker_has_gone(self, number: int, seat: int) -> None:
        known = self._generations[number]
        known.board.clear_row(seat)
        known.seats.append(seat)

    def end(self, number: int) -> None:
        """A generation's last worker has gone."""
        over = self._generations.pop(number)
        for key, places in over.board.places.items():
            for nth, index in enumerate(places):
                total, failures = self._past.get((*key, nth), (0, 0))
                total, failures = total + over.board.total(index), failures + over.board.failures(index)
                self._past[*key, nth] = total, failures
        over.board.close()
        left = {key for known in self._generations.values() for key in known.board.places}
        for place in [each for each in self._past if each[:2] not in left][:-PAST_MAX]:
            del self._past[place]

    def _inherit(self, known: Known) -> None:
        if self._in_force is not None:
            known.board.inherit(self._generations[self._in_force].board, set(known.checked()))

    # From one master to the next.

    def as_plain(self) -> list[dict[str, Any]]:
        """Every server that there is, with what is known of it and what was counted; places in order."""
        if self._in_force is None:
            return []
        known = self._generations[self._in_force].board
        others = [each.board for each in self._generations.values() if each.board is not known]
        told = []
        for key, places in known.places.items():
            for nth, index in enumerate(places):
                plain = known.as_plain(index)
                counts = self._past.get((*key, nth), (0, 0))
                counted = [each.as_plain(each.places[key][nth]) for each in others if key in each.places]
                plain["active"] += sum(each["active"] for each in counted)
                plain["total"] += counts[0] + sum(each["total"] for each in counted)
                plain["failures"] += counts[1] + sum(each["failures"] for each in counted)
                told.append({"cluster": key[0], "server": key[1]} | plain)
        return told

    def begin_after(self, number: int, servers: Sequence[Mapping[str, Any]]) -> None:
        """Begin with what the master before us knows, as its as_plain() gave it.  Its generations are
        one here, of this number.  OSError when there is no memory for it.
        """
        self._before = number
        keys = [(each["cluster"], each["server"]) for each in servers]
        self._generations[number] = Known(Board(keys, 1), None, [])
        self._in_force = number
        self.hear_before(servers)

    def hear_before(self, servers: Sequence[Mapping[str, Any]]) -> None:
        """What the master before us knows now, and what its workers have open."""
        if self._before is None:
            return
        board = self._generations[self._before].board
        seen: Counter[Key] = Counter()
        for each in servers:
            key = each["cluster"], each["server"]
            places = board.places.get(key, range(0))
            if seen[key] < len(places):
                board.fill(places[seen[key]], each)
            seen[key] += 1

    def before_has_gone(self) -> None:
        """The master before us, and all of its workers."""
        if self._before is not None:
            self.worker_has_gone(self._before, 0)
            self.end(self._before)
            self._before = None

    # The operator.

    def wish(self, verb: object, target: object, now: float, utc_now: datetime) -> dict[str, Any]:
        """Have a server drained, disabled or enabled: its row from then on, and what to be warned of."""
        wish = WISHES.get(str(verb))
        if wish is None:
            raise BackendRefusedError(f"backends: cannot do {verb!r}")
        key = self._key(str(target))
        for known in self._generations.values():
            _set(known.board, key, wish, now)
        log.info("cluster %s: server %s is %s, as asked for", *key, SAID[wish])
        cluster = [row for row in self.table(now, utc_now) if row["cluster"] == key[0]]
        warning = None if _has_one_up(cluster) else f"no server of cluster {key[0]} is up"
        return {"server": "/".join(key), "is": SAID[wish], "warning": warning}

    def table(self, now: float, utc_now: datetime) -> list[dict[str, Any]]:
        """What is known of every server."""
        if self._in_force is None:
            return []
        known = self._generations[self._in_force]
        if known.config is None:
            return []  # our own generation is not in force yet
        others = [each.board for each in self._generations.values() if each is not known]
        return list(table(known.config.clusters, [known.board, *others], self._past, now, utc_now))

    def totals(self) -> dict[Key, tuple[int, int, int]]:
        """For each server in force: what is active, and was in all, and failed, at all its addresses."""
        if self._in_force is None:
            return {}
        totals = {key: [0, 0, 0] for key in self._generations[self._in_force].board.places}
        for (cluster, server, _), (used, failures) in self._past.items():
            if (cluster, server) in totals:
                totals[cluster, server] = list(map(add, totals[cluster, server], (0, used, failures)))
        for known in self._generations.values():
            board = known.board
            for key in totals.keys() & board.places.keys():
                for index in board.places[key]:
                    counts = board.active(index), board.total(index), board.failures(index)
                    totals[key] = list(map(add, totals[key], counts))
        return {key: (told[0], told[1], told[2]) for key, told in totals.items()}

    def _key(self, target: str) -> Key:
        """The server that is written CLUSTER/SERVER."""
        known = () if self._in_force is None else sorted(self._generations[self._in_force].keys())
        keys = {"/".join(key): key for key in known}
        if target in keys:
            return keys[target]
        close = difflib.get_close_matches(target, keys, n=1)
        if close:
            cure = f"did you mean {close[0]}?"
        else:
            more = f" and {len(keys) - TOLD} more" if len(keys) > TOLD else ""
            cure = f"there are {', '.join(list(keys)[:TOLD])}{more}"
        raise BackendRefusedError(f"there is no server {target!r}; {cure}")


def _keys(config: Config) -> list[Key]:
    return [key for name, cluster in config.clusters.items() for key in keys_of(name, cluster)]


def _set(board: Board, key: Key, wish: Wish, now: float) -> None:
    """For all places of a name: addresses that come later are what was wished, too."""
    for index in board.places.get(key, ()):
        words = board.wish(index)
        if words[WishWord.WISH] != wish:
            words[WishWord.SINCE] = int(now * NANOSECONDS)
            words[WishWord.WISH] = wish
    board.wishes_changed()


def _has_one_up(rows: list[dict[str, Any]]) -> bool:
    return any(row["state"] == "up" for row in rows)
