"""Tell an operator what is known of the servers.  No I/O: the boards and the time are arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from termproxy.address import Address
from termproxy.backends.board import Board, Key, ProbeWord, UseWord, WishWord
from termproxy.backends.health import RESULTS, Health, State, states
from termproxy.config.schema import Cluster, Server
from termproxy.observability.scoreboard import NANOSECONDS

Counts = tuple[int, int]  # connections, failures
Place = tuple[str, str, int]  # a cluster's name, a server's, and which of its places


def table(
    clusters: Mapping[str, Cluster],
    boards: Sequence[Board],
    past: Mapping[Place, Counts],
    now: float,
    utc_now: datetime,
) -> Iterator[dict[str, Any]]:
    """A row for each server; the first board is that of the generation in force, `past` is what was
    counted on boards that are no more.
    """
    board = boards[0]
    for name, cluster in clusters.items():
        places = list(_places(name, cluster, board))
        there = [index for _, _, index in places if index is not None]
        facts = [board.facts(index) for index in there]
        found = states(facts, now, eject_last=cluster.passive.eject_last)
        state_of = dict(zip(there, found, strict=True))
        for server, address, index in places:
            row: dict[str, Any] = {
                "cluster": name,
                "server": str(server),
                "address": address,
                "weight": server.weight,
                "max_connections": server.max_connections,
            }
            if index is None:  # no address of the name is known
                yield row | _NOTHING | {"state": State.DOWN.value}
                continue
            key = (name, str(server))
            number = index - board.places[key].start
            since = _since(board, index, state_of[index], now)
            probe = board.probe(index)
            yield row | {
                "state": state_of[index].value,
                "since": since and _moment(since, now, utc_now),
                **_counts(boards, key, number, past.get((*key, number), (0, 0))),
                "checks": probe[ProbeWord.CHECKS],
                "checks_failed": probe[ProbeWord.FAILED],
                "last_check": _last_check(probe, now),
            }


_NOTHING: dict[str, Any] = {
    "since": None,
    "active": 0,
    "total": 0,
    "failures": 0,
    "checks": 0,
    "checks_failed": 0,
    "last_check": None,
}


def _places(
    name: str, cluster: Cluster, board: Board
) -> Iterator[tuple[Server, str | None, int | None]]:
    """The servers of a cluster, each with its address and where it stands; a name may have several."""
    for server in cluster.servers:
        places = board.places[name, str(server)]
        if isinstance(server.address, Address):
            yield server, str(server.address), places.start
            continue
        read = ((index, board.address(index)) for index in places)
        found = [(index, each[1]) for index, each in read if each is not None and each[1] is not None]
        for index, ip in found:
            yield server, str(server.address.at(str(ip))), index
        if not found:
            yield server, None, None


def _counts(boards: Sequence[Board], key: Key, number: int, past: Counts) -> dict[str, int]:
    active, (total, failures) = 0, past
    for board in boards:
        places = board.places.get(key, range(0))
        if number < len(places):
            active += board.active(places[number])
            total += board.total(places[number])
            failures += board.failures(places[number])
    return {"active": active, "total": total, "failures": failures}


def _since(board: Board, index: int, state: State, now: float) -> float | None:
    """When the state began; None: it has been so from the start."""
    probe, wish = board.probe(index), board.wish(index)
    checked = probe[ProbeWord.SINCE] if probe[ProbeWord.HEALTH] != Health.UNKNOWN else 0
    wished = wish[WishWord.SINCE]
    match state:
        case State.DOWN:
            began = checked
        case State.DRAINING | State.DISABLED:
            began = wished
        case State.EJECTED:
            began = max(board.of_all(UseWord.EJECTED_AT, index))
        case State.UP:
            ends = board.of_all(UseWord.EJECTED_UNTIL, index)
            began = max(checked, wished, *(end for end in ends if end <= now * NANOSECONDS))
    return began / NANOSECONDS if began else None


def _moment(then: float, now: float, utc_now: datetime) -> str:
    return (utc_now - timedelta(seconds=now - then)).isoformat(timespec="seconds")


def _last_check(probe: memoryview, now: float) -> dict[str, Any] | None:
    if not probe[ProbeWord.CHECKS]:
        return None
    return {
        "result": RESULTS[probe[ProbeWord.RESULT]],
        "status": probe[ProbeWord.STATUS] or None,
        "seconds_ago": round(max(0.0, now - probe[ProbeWord.CHECKED] / NANOSECONDS), 1),
    }
