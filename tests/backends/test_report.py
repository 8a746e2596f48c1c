"""What an operator is told of the servers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from termproxy.address import Name, parse_address
from termproxy.backends.board import Board, ProbeWord, UseWord, WishWord
from termproxy.backends.cluster import keys_of
from termproxy.backends.health import RESULTS, Health, Wish
from termproxy.backends.report import table
from termproxy.config import schema

NOW = 1000.0
UTC_NOW = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)

SERVERS = (
    schema.Server(parse_address("127.0.0.1:1"), 3, 10),
    schema.Server(parse_address("unix:/run/app.sock")),
)
CLUSTERS = {"app": schema.Cluster(servers=SERVERS), "web": schema.Cluster(servers=SERVERS[:1])}
KEYS = [("app", "127.0.0.1:1"), ("app", "unix:/run/app.sock"), ("web", "127.0.0.1:1")]


@pytest.fixture
def board() -> Board:
    return Board(KEYS, rows=2, is_shared=False)


def rows(*boards: Board, past: Any = None, clusters: Any = None) -> list[dict[str, Any]]:
    return list(table(clusters or CLUSTERS, boards, past or {}, NOW, UTC_NOW))


def ns(seconds: float) -> int:
    return int(seconds * 1e9)


def test_at_the_start_every_server_is_up_and_nothing_is_known(board: Board) -> None:
    first, second, third = rows(board)

    assert first == {
        "cluster": "app",
        "server": "127.0.0.1:1",
        "address": "127.0.0.1:1",
        "state": "up",
        "since": None,
        "weight": 3,
        "max_connections": 10,
        "active": 0,
        "total": 0,
        "failures": 0,
        "checks": 0,
        "checks_failed": 0,
        "last_check": None,
    }
    assert (second["cluster"], second["server"]) == ("app", "unix:/run/app.sock")
    assert (third["cluster"], third["server"]) == ("web", "127.0.0.1:1")


def test_what_all_workers_of_all_generations_count_is_added_up(board: Board) -> None:
    older = Board(KEYS[1:], rows=1, is_shared=False)
    for each, index in ((board, 1), (older, 0)):
        use = each.use(0, index)
        use[UseWord.ACTIVE], use[UseWord.TOTAL], use[UseWord.FAILURES] = 2, 30, 4
    board.use(1, 1)[UseWord.TOTAL] = 100
    row = rows(board, older, past={(*KEYS[1], 0): (1000, 50)})[1]

    assert (row["active"], row["total"], row["failures"]) == (4, 1160, 58)


def test_a_check_is_told_with_its_result_and_age(board: Board) -> None:
    probe = board.probe(0)
    probe[ProbeWord.HEALTH], probe[ProbeWord.SINCE] = Health.DOWN, ns(NOW - 60)
    probe[ProbeWord.CHECKED] = ns(NOW - 1.5)
    probe[ProbeWord.RESULT], probe[ProbeWord.STATUS] = RESULTS.index("wrong_status"), 503
    probe[ProbeWord.CHECKS], probe[ProbeWord.FAILED] = 9, 4
    row = rows(board)[0]

    assert (row["state"], row["since"]) == ("down", "2026-11-23T07:59:00+00:00")
    assert (row["checks"], row["checks_failed"]) == (9, 4)
    assert row["last_check"] == {"result": "wrong_status", "status": 503, "seconds_ago": 1.5}


@pytest.mark.parametrize(("wish", "state"), [(Wish.DRAINING, "draining"), (Wish.DISABLED, "disabled")])
def test_the_operator_s_word_is_told_with_its_time(board: Board, wish: Wish, state: str) -> None:
    words = board.wish(0)
    words[WishWord.WISH], words[WishWord.SINCE] = wish, ns(NOW - 3600)
    board.probe(0)[ProbeWord.HEALTH] = Health.DOWN

    assert (rows(board)[0]["state"], rows(board)[0]["since"]) == (state, "2026-11-23T07:00:00+00:00")


def test_an_ejection_by_any_worker_is_told(board: Board) -> None:
    use = board.use(1, 0)
    use[UseWord.EJECTED_AT], use[UseWord.EJECTED_UNTIL] = ns(NOW - 5), ns(NOW + 5)
    row = rows(board)[0]

    assert (row["state"], row["since"]) == ("ejected", "2026-11-23T07:59:55+00:00")


def test_the_last_one_is_not_called_ejected_when_it_is_used_all_the_same(board: Board) -> None:
    for index in (0, 1):
        board.use(0, index)[UseWord.EJECTED_UNTIL] = ns(NOW + 5)
    assert [row["state"] for row in rows(board)] == ["up", "up", "up"]

    strict = {"app": schema.Cluster(servers=SERVERS, passive=schema.Passive(eject_last=True))}
    assert [row["state"] for row in rows(board, clusters=strict)] == ["ejected", "ejected"]


@pytest.mark.parametrize("what", ["checked", "enabled", "ejected"])
def test_a_server_is_up_since_it_came_back(board: Board, what: str) -> None:
    then = ns(NOW - 10)
    if what == "checked":
        board.probe(0)[ProbeWord.HEALTH], board.probe(0)[ProbeWord.SINCE] = Health.UP, then
    elif what == "enabled":
        board.wish(0)[WishWord.SINCE] = then
    else:
        board.use(0, 0)[UseWord.EJECTED_UNTIL] = then
    row = rows(board)[0]

    assert (row["state"], row["since"]) == ("up", "2026-11-23T07:59:50+00:00")


# Names.

NAME = Name("app.internal", 80)
NAMED = {"app": schema.Cluster(servers=(schema.Server(NAME, 5), *SERVERS[:1]))}


def test_each_address_of_a_name_is_a_row() -> None:
    board = Board(keys_of("app", NAMED["app"]), rows=1, is_shared=False)
    board.set_address(2, "192.0.2.1")
    board.set_address(7, "2001:db8::1")
    board.use(0, 7)[UseWord.TOTAL] = 9
    board.probe(2)[ProbeWord.HEALTH] = Health.DOWN
    found = rows(board, clusters=NAMED, past={("app", str(NAME), 7): (100, 0)})

    assert [(r["server"], r["address"], r["state"], r["total"], r["weight"]) for r in found] == [
        ("app.internal:80", "192.0.2.1:80", "down", 0, 5),
        ("app.internal:80", "[2001:db8::1]:80", "up", 109, 5),
        ("127.0.0.1:1", "127.0.0.1:1", "up", 0, 3),
    ]


def test_a_name_without_an_address_is_down() -> None:
    board = Board(keys_of("app", NAMED["app"]), rows=1, is_shared=False)
    row, _ = rows(board, clusters=NAMED)

    assert (row["server"], row["address"], row["state"], row["active"]) == (str(NAME), None, "down", 0)
