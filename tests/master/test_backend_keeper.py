"""Boards over generations, and the operator's word."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from termproxy.address import Name, parse_address
from termproxy.backends.board import ProbeWord, UseWord, WishWord
from termproxy.backends.health import Health, Wish
from termproxy.backends.names import PLACES
from termproxy.backends.prober import NameTarget, Target
from termproxy.config import schema
from termproxy.master.backend_keeper import BackendKeeper, BackendRefusedError
from termproxy.master.spawn import Helper

UTC_NOW = datetime(2026, 11, 23, tzinfo=UTC)


def config(*servers: str, kind: str = "off", **others: schema.Cluster) -> schema.Config:
    """With a cluster `app` of these."""
    addresses = tuple(
        schema.Server(NAME if each == str(NAME) else parse_address(each)) for each in servers
    )
    app = schema.Cluster(servers=addresses, health=schema.Health(kind=kind))
    return schema.Config(clusters={"app": app, **others})


NAME = Name("app.internal", 80)
ONE, TWO, THREE = (f"127.0.0.1:{port}" for port in (1, 2, 3))


@pytest.fixture
def keeper() -> BackendKeeper:
    """With a generation in force, and no process of its own."""

    def fork(*_: object) -> Helper:
        raise OSError(11, "no process in this test")

    keeper = BackendKeeper(fork)
    keeper.begin(1, config(ONE, TWO, kind="tcp"), workers=2)
    keeper.put_in_force(1, now=1.0)
    return keeper


def table(keeper: BackendKeeper, now: float = 10.0) -> dict[str, dict[str, Any]]:
    return {row["server"]: row for row in keeper.table(now, UTC_NOW)}


def wish(keeper: BackendKeeper, verb: str, target: str, now: float = 5.0) -> dict[str, Any]:
    return keeper.wish(verb, target, now, UTC_NOW)


def refusal(keeper: BackendKeeper, verb: object, target: object) -> str:
    with pytest.raises(BackendRefusedError) as refused:
        keeper.wish(verb, target, 1.0, UTC_NOW)
    return str(refused.value)


def count(keeper: BackendKeeper, row: int, *, active: int, total: int, failures: int) -> None:
    """As a worker of the first generation does, for the second server."""
    use = keeper.boards(1)[0].use(row, 1)
    use[UseWord.ACTIVE], use[UseWord.TOTAL], use[UseWord.FAILURES] = active, total, failures


def test_before_a_generation_is_in_force_there_is_nothing_to_tell() -> None:
    keeper = BackendKeeper(lambda *_: Helper(0, 0))
    keeper.begin(1, config(ONE), workers=1)

    assert keeper.table(1.0, UTC_NOW) == []
    assert "there is no server 'app/127.0.0.1:1'" in refusal(keeper, "drain", f"app/{ONE}")


def test_a_worker_s_board_is_its_generation_s(keeper: BackendKeeper) -> None:
    keeper.begin(2, config(TWO, THREE), workers=3)
    first, _ = keeper.boards(1)
    second, older = keeper.boards(2)

    assert (second.rows, second.keys) == (10, (("app", TWO), ("app", THREE)))
    assert older == [first]
    assert keeper.boards(1) == (first, [])


def test_no_two_workers_have_a_seat_and_who_has_gone_leaves_it(keeper: BackendKeeper) -> None:
    """A worker, its successor in the same slot, and some that drain count beside each other."""
    keeper.begin(2, config(TWO), workers=1)
    board, _ = keeper.boards(2)
    seats = [keeper.take_seat(2) for _ in range(board.rows)]
    assert sorted(seat for seat in seats if seat is not None) == [*range(board.rows)]
    assert keeper.take_seat(2) is None
    board.use(3, 0)[UseWord.ACTIVE] = 7
    keeper.worker_has_gone(2, 3)

    assert board.active(0) == 0
    assert (keeper.take_seat(2), keeper.take_seat(2)) == (3, None)


@pytest.mark.parametrize(("configured", "most"), [(1, 4), (4, 10), (200, 256), (256, 256)])
def test_there_may_be_more_workers_than_are_configured_but_not_any_number(
    keeper: BackendKeeper, configured: int, most: int
) -> None:
    keeper.begin(2, config(TWO), workers=configured)

    assert keeper.workers_max(2) == most


def test_what_is_known_stays_over_a_reload(keeper: BackendKeeper) -> None:
    board, _ = keeper.boards(1)
    wish(keeper, "drain", f"app/{TWO}")
    board.probe(1)[ProbeWord.HEALTH] = Health.UP
    keeper.begin(2, config(TWO, THREE, kind="tcp"), workers=1)
    new, _ = keeper.boards(2)
    assert new.wish(0)[WishWord.WISH] == Wish.DRAINING
    assert new.probe(0)[ProbeWord.HEALTH] == Health.UP

    # What is found until the new one is in force is not lost.
    board.probe(1)[ProbeWord.HEALTH] = Health.DOWN
    wish(keeper, "disable", f"app/{TWO}")
    keeper.put_in_force(2, now=8.0)

    assert new.probe(0)[ProbeWord.HEALTH] == Health.DOWN
    assert table(keeper)[TWO]["state"] == "disabled"
    assert set(table(keeper)) == {TWO, THREE}


def test_counts_do_not_go_backwards_over_workers_and_reloads(keeper: BackendKeeper) -> None:
    for row in (0, 1):
        count(keeper, row, active=1, total=10, failures=2)
    keeper.worker_has_gone(1, 0)
    assert [table(keeper)[TWO][name] for name in ("active", "total", "failures")] == [1, 20, 4]
    keeper.begin(2, config(TWO), workers=1)
    keeper.put_in_force(2, now=8.0)
    keeper.boards(2)[0].use(0, 0)[UseWord.TOTAL] = 5
    assert [table(keeper)[TWO][name] for name in ("active", "total", "failures")] == [1, 25, 4]
    keeper.worker_has_gone(1, 1)
    keeper.end(1)

    assert [table(keeper)[TWO][name] for name in ("active", "total", "failures")] == [0, 25, 4]


def test_a_server_that_comes_back_goes_on_with_its_counts(keeper: BackendKeeper) -> None:
    """Counters never go back."""
    keeper.boards(1)[0].use(0, 0)[UseWord.TOTAL] = 7
    for number, servers in ((2, (TWO,)), (3, (ONE, TWO))):
        keeper.begin(number, config(*servers), workers=1)
        keeper.put_in_force(number, now=8.0)
        keeper.end(number - 1)

    assert keeper.totals()["app", ONE] == (0, 7, 0)
    assert table(keeper)[ONE]["total"] == 7


def test_what_servers_had_counted_that_are_no_more_is_forgotten_in_the_end(
    keeper: BackendKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termproxy.master.backend_keeper.PAST_MAX", 2)
    for number in range(2, 8):
        keeper.begin(number, config(f"127.0.0.1:{number * 100}"), workers=1)
        keeper.put_in_force(number, now=8.0)
        keeper.end(number - 1)

    assert len(keeper._past) == 2
    assert ("app", "127.0.0.1:500", 0) in keeper._past


def test_totals_are_of_every_generation_and_the_past(keeper: BackendKeeper) -> None:
    count(keeper, 0, active=1, total=10, failures=2)
    keeper.begin(2, config(TWO), workers=1)
    keeper.put_in_force(2, now=8.0)
    keeper.boards(2)[0].use(0, 0)[UseWord.TOTAL] = 5
    assert keeper.totals() == {("app", TWO): (1, 15, 2)}
    keeper.worker_has_gone(1, 0)
    keeper.end(1)

    assert keeper.totals() == {("app", TWO): (0, 15, 2)}


def test_a_generation_that_was_dropped_leaves_the_one_before_as_it_was(keeper: BackendKeeper) -> None:
    keeper.begin(2, config(THREE), workers=1)
    keeper.end(2)

    assert set(table(keeper)) == {ONE, TWO}


# The operator's word.


def test_a_server_is_drained_disabled_and_enabled_and_that_is_said(
    keeper: BackendKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    for verb, said in (("drain", "draining"), ("disable", "disabled"), ("enable", "enabled")):
        with caplog.at_level(logging.INFO):
            answer = wish(keeper, verb, f"app/{ONE}")
        assert answer == {"server": f"app/{ONE}", "is": said, "warning": None}
        assert caplog.messages[-1] == f"cluster app: server {ONE} is {said}, as asked for"
    assert table(keeper)[ONE]["state"] == "up"


def test_the_word_holds_in_every_generation(keeper: BackendKeeper) -> None:
    keeper.begin(2, config(ONE, THREE), workers=1)
    wish(keeper, "drain", f"app/{ONE}")

    for number in (1, 2):
        assert keeper.boards(number)[0].wish(0)[WishWord.WISH] == Wish.DRAINING


def test_saying_the_same_again_does_not_change_since_when(keeper: BackendKeeper) -> None:
    wish(keeper, "drain", f"app/{ONE}", now=5.0)
    wish(keeper, "drain", f"app/{ONE}", now=9.0)

    assert keeper.boards(1)[0].wish(0)[WishWord.SINCE] == 5e9


def test_taking_the_last_one_away_is_warned_of(keeper: BackendKeeper) -> None:
    assert wish(keeper, "drain", f"app/{ONE}")["warning"] is None
    assert wish(keeper, "drain", f"app/{TWO}")["warning"] == "no server of cluster app is up"


def test_a_server_nearly_right_is_guessed(keeper: BackendKeeper) -> None:
    assert refusal(keeper, "drain", "app/127.0.0.1:11") == (
        f"there is no server 'app/127.0.0.1:11'; did you mean app/{ONE}?"
    )


def test_for_any_other_those_that_there_are_are_named(keeper: BackendKeeper) -> None:
    assert refusal(keeper, "drain", "x") == (f"there is no server 'x'; there are app/{ONE}, app/{TWO}")
    many = [f"127.0.0.1:{port}" for port in range(1, 16)]
    keeper.begin(2, config(*many), workers=1)
    keeper.put_in_force(2, now=1.0)
    assert refusal(keeper, "drain", "x").endswith("and 5 more")


def test_a_cluster_s_name_may_have_a_slash() -> None:
    keeper = BackendKeeper(lambda *_: Helper(0, 0))
    servers = (schema.Server(parse_address("unix:/run/a.sock")),)
    clusters = {"a/b": schema.Cluster(servers=servers)}
    keeper.begin(1, schema.Config(clusters=clusters), workers=1)
    keeper.put_in_force(1, now=1.0)

    assert wish(keeper, "drain", "a/b/unix:/run/a.sock")["is"] == "draining"


@pytest.mark.parametrize("verb", ["destroy", None, 1, ["drain"]])
def test_other_verbs_are_refused(keeper: BackendKeeper, verb: object) -> None:
    assert "cannot do" in refusal(keeper, verb, f"app/{ONE}")


def test_other_targets_are_refused(keeper: BackendKeeper) -> None:
    targets: list[object] = [None, 1, ["app"], {}]
    for target in targets:
        assert "there is no server" in refusal(keeper, "drain", target)


def test_only_servers_whose_health_is_wanted_are_checked() -> None:
    """The others would see connections that nobody asked for."""
    keeper = BackendKeeper(lambda *_: Helper(0, 0))
    spare = schema.Cluster(servers=(schema.Server(parse_address(THREE)),))
    keeper.begin(1, config(ONE, TWO, kind="tcp", spare=spare), workers=1)

    targets = [each for each in keeper._generations[1].targets() if isinstance(each, Target)]
    assert [(target.cluster, str(target.address), target.index) for target in targets] == [
        ("app", ONE, 0),
        ("app", TWO, 1),
    ]


# Names.


def test_a_name_is_looked_up_whether_it_is_checked_or_not() -> None:
    keeper = BackendKeeper(lambda *_: Helper(0, 0))
    keeper.begin(1, config(ONE, str(NAME)), workers=1)

    [target] = keeper._generations[1].targets()
    assert isinstance(target, NameTarget)
    assert (target.name, target.places) == (NAME, range(1, 1 + PLACES))


def test_the_word_on_a_name_is_for_all_its_addresses_and_those_to_come() -> None:
    def fork(*_: object) -> Helper:
        raise OSError(11, "no process in this test")

    keeper = BackendKeeper(fork)
    keeper.begin(1, config(str(NAME)), workers=1)
    keeper.put_in_force(1, now=1.0)
    board, _ = keeper.boards(1)
    board.set_address(3, "192.0.2.1")
    assert wish(keeper, "drain", f"app/{NAME}")["warning"] == "no server of cluster app is up"
    board.set_address(4, "192.0.2.2")

    rows = keeper.table(10.0, UTC_NOW)
    assert [(row["address"], row["state"]) for row in rows] == [
        ("192.0.2.1:80", "draining"),
        ("192.0.2.2:80", "draining"),
    ]


def test_addresses_stay_over_a_reload_with_what_was_counted() -> None:
    keeper = BackendKeeper(lambda *_: Helper(0, 0))
    keeper.begin(1, config(str(NAME)), workers=1)
    keeper._in_force = 1
    keeper.boards(1)[0].set_address(5, "2001:db8::1")
    keeper.boards(1)[0].use(0, 5)[UseWord.TOTAL] = 3
    keeper.begin(2, config(ONE, str(NAME)), workers=1)
    keeper._in_force = 2
    keeper.end(1)

    [_, row] = keeper.table(10.0, UTC_NOW)
    assert (row["server"], row["address"], row["total"]) == (str(NAME), "[2001:db8::1]:80", 3)


# Servers that change while their generation serves.


def test_other_servers_are_told_of_and_the_old_keep_their_places(keeper: BackendKeeper) -> None:
    board, _ = keeper.boards(1)
    wish(keeper, "drain", f"app/{TWO}")
    before = board.places["app", TWO]

    assert keeper.change(1, config(TWO, THREE, kind="tcp"), 20.0)
    assert keeper.boards(1)[0] is board
    assert board.places["app", TWO] == before
    assert list(table(keeper)) == [TWO, THREE]
    assert table(keeper)[TWO]["state"] == "draining"
    assert f"there is no server 'app/{ONE}'" in refusal(keeper, "drain", f"app/{ONE}")


def test_without_room_all_stays_as_it_was(keeper: BackendKeeper) -> None:
    many = [f"127.0.0.1:{port}" for port in range(10_000, 10_300)]

    assert not keeper.change(1, config(*many), 20.0)
    assert list(table(keeper)) == [ONE, TWO]


def test_a_server_that_comes_back_without_checks_is_not_down_for_ever(keeper: BackendKeeper) -> None:
    board, _ = keeper.boards(1)
    place = board.places["app", ONE].start
    board.probe(place)[ProbeWord.HEALTH] = Health.DOWN
    board.probes_changed()
    assert keeper.change(1, config(TWO, kind="tcp"), 20.0)
    assert keeper.change(1, config(ONE, TWO), 30.0)

    assert table(keeper)[ONE]["state"] == "up"


def test_the_next_generation_inherits_what_is_there_then(keeper: BackendKeeper) -> None:
    assert keeper.change(1, config(TWO, THREE, kind="tcp"), 20.0)
    wish(keeper, "disable", f"app/{THREE}")
    keeper.begin(2, config(ONE, THREE, kind="tcp"), workers=1)
    keeper.put_in_force(2, 30.0)

    assert table(keeper)[THREE]["state"] == "disabled"
    assert table(keeper)[ONE]["state"] == "up"


def follower(keeper: BackendKeeper, number: int = 1) -> BackendKeeper:
    """The keeper of the master that takes over, before anything of its own is in force."""

    def fork(*_: object) -> Helper:
        raise OSError(11, "no process in this test")

    new = BackendKeeper(fork)
    new.begin_after(number, orjson.loads(orjson.dumps(keeper.as_plain())))
    return new


def test_the_next_master_knows_what_was_wished_and_what_was_found(keeper: BackendKeeper) -> None:
    keeper.boards(1)[0].probe(0)[ProbeWord.HEALTH] = Health.DOWN
    wish(keeper, "drain", f"app/{TWO}")
    new = follower(keeper)
    assert new.table(1.0, UTC_NOW) == []
    new.begin(2, config(THREE, TWO, ONE, kind="tcp"), workers=1)
    new.put_in_force(2, now=2.0)

    assert {name: row["state"] for name, row in table(new).items()} == {
        THREE: "up",
        TWO: "draining",
        ONE: "down",
    }


def test_a_wish_of_the_last_moment_counts_too(keeper: BackendKeeper) -> None:
    new = follower(keeper)
    new.begin(2, config(ONE, TWO), workers=1)
    wish(keeper, "disable", f"app/{ONE}")
    new.hear_before(keeper.as_plain())
    new.put_in_force(2, now=2.0)

    assert table(new)[ONE]["state"] == "disabled"


def test_what_the_old_master_s_workers_have_open_counts_until_it_has_gone(
    keeper: BackendKeeper,
) -> None:
    count(keeper, 0, active=1, total=5, failures=2)
    count(keeper, 1, active=2, total=6, failures=0)
    new = follower(keeper)
    new.begin(2, config(ONE, TWO), workers=1)
    new.put_in_force(2, now=2.0)
    _, before = new.boards(2)
    assert [board.active(1) for board in before] == [3]
    row = table(new)[TWO]
    assert (row["active"], row["total"], row["failures"]) == (3, 11, 2)

    count(keeper, 0, active=0, total=7, failures=2)
    keeper.worker_has_gone(1, 1)
    new.hear_before(keeper.as_plain())
    row = table(new)[TWO]
    assert (row["active"], row["total"], row["failures"]) == (0, 13, 2)

    new.before_has_gone()
    new.before_has_gone()
    new.hear_before(keeper.as_plain())  # said before it went, heard after it
    row = table(new)[TWO]
    assert (row["active"], row["total"], row["failures"]) == (0, 13, 2)
    assert new.boards(2)[1] == []


def test_a_chain_of_masters_loses_no_count(keeper: BackendKeeper) -> None:
    count(keeper, 0, active=0, total=5, failures=0)
    keeper.worker_has_gone(1, 0)
    second = follower(keeper)
    second.begin(2, config(ONE, TWO), workers=1)
    second.put_in_force(2, now=2.0)
    second.before_has_gone()
    second.boards(2)[0].use(0, 1)[UseWord.TOTAL] = 10
    third = follower(second, 2)
    third.begin(3, config(ONE, TWO), workers=1)
    third.put_in_force(3, now=3.0)

    assert table(third)[TWO]["total"] == 15


def test_a_server_that_only_one_of_them_has_does_no_harm(keeper: BackendKeeper) -> None:
    told = keeper.as_plain()
    new = follower(keeper)
    told.append(told[0] | {"server": "127.0.0.1:99"})
    new.hear_before(told)
    new.begin(2, config(THREE), workers=1)
    new.put_in_force(2, now=2.0)

    assert list(table(new)) == [THREE]
