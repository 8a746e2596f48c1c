"""Which servers may be used: decided without a clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.backends import connect
from termproxy.backends.health import (
    LEAST_SHARE,
    NEVER,
    RESULTS,
    Ejection,
    Facts,
    Health,
    RiseAndFall,
    State,
    Wish,
    next_ejection,
    share,
    states,
)

NOW = 1000.0


# Checks.


def changes(machine: RiseAndFall, results: str) -> str:
    """What each result (+ or -) makes of the health: U or D where it changes, else a dot."""
    return "".join(
        machine.health.name[0] if machine.on_result(passed=result == "+") else "." for result in results
    )


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+", "U"),
        ("-", "D"),
        ("+--+--+---", "U........D"),
        ("-+-++", "D...U"),
        ("+---++---++", "U..D.U..D.U"),
        ("+++++", "U...."),
        ("-----", "D...."),
    ],
)
def test_a_server_falls_and_rises_by_so_many_results_in_a_row(results: str, expected: str) -> None:
    assert changes(RiseAndFall(rise=2, fall=3), results) == expected


def test_what_was_known_before_a_reload_needs_as_many_results_to_change() -> None:
    assert changes(RiseAndFall(2, 3, Health.UP), "--+---") == ".....D"
    assert changes(RiseAndFall(2, 3, Health.DOWN), "+++") == ".U."


@given(rise=st.integers(1, 5), fall=st.integers(1, 5), results=st.lists(st.booleans(), min_size=1))
def test_health_never_contradicts_the_last_results(rise: int, fall: int, results: list[bool]) -> None:
    machine = RiseAndFall(rise, fall)
    for at, passed in enumerate(results):
        machine.on_result(passed=passed)
        if results[: at + 1][-max(rise, fall) :] == [passed] * max(rise, fall):
            assert machine.health is (Health.UP if passed else Health.DOWN)


def test_every_way_to_fail_to_connect_is_a_result() -> None:
    assert {*connect._REASONS.values(), "backend_failed"} <= set(RESULTS)
    assert len(set(RESULTS)) == len(RESULTS)


# States.


def facts(wish: Wish = Wish.ENABLED, health: Health = Health.UNKNOWN, ejected_until: float = 0) -> Facts:
    return Facts(wish, health, ejected_until)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (facts(), State.UP),
        (facts(health=Health.UP), State.UP),
        (facts(health=Health.DOWN), State.DOWN),
        (facts(ejected_until=NOW + 1), State.EJECTED),
        (facts(ejected_until=NOW), State.UP),
        (facts(health=Health.DOWN, ejected_until=NOW + 1), State.DOWN),
        (facts(Wish.DRAINING, Health.DOWN, NOW + 1), State.DRAINING),
        (facts(Wish.DISABLED, Health.UP), State.DISABLED),
    ],
)
def test_the_operator_s_word_is_before_the_checks_and_those_before_the_clients(
    known: Facts, expected: State
) -> None:
    assert states([known, facts()], NOW, eject_last=False)[0] is expected


def test_ejection_leaves_no_cluster_without_a_server() -> None:
    """Two workers may have ejected two servers at the same time."""
    both = [facts(ejected_until=NOW + 1), facts(ejected_until=NOW + 2), facts(health=Health.DOWN)]

    assert states(both, NOW, eject_last=False) == [State.UP, State.UP, State.DOWN]
    assert states(both, NOW, eject_last=True) == [State.EJECTED, State.EJECTED, State.DOWN]


def test_checks_and_operators_may_leave_none() -> None:
    assert states([facts(Wish.DRAINING), facts(health=Health.DOWN)], NOW, eject_last=False) == [
        State.DRAINING,
        State.DOWN,
    ]


# Ejections.


def lengths(*moments: float, first: float = 10, longest: float = 60) -> list[float]:
    """How long each ejection is, when the server fails again so long after the end of the one before."""
    last, now, found = NEVER, NOW, []
    for moment in moments:
        now = max(now, last.until) + moment
        last = next_ejection(now, last, first, longest)
        assert last.at == now
        found.append(last.until - last.at)
    return found


def test_ejections_grow_while_they_do_not_help() -> None:
    assert lengths(0, 1, 1, 1, 1, 1) == [10, 20, 40, 60, 60, 60]


def test_a_server_that_was_fine_for_as_long_as_it_was_ejected_begins_anew() -> None:
    assert lengths(0, 1, 19, 41) == [10, 20, 40, 10]
    assert lengths(0, 11) == [10, 10]


def test_the_first_ejection_ever_is_the_shortest_wherever_the_clock_stands() -> None:
    assert next_ejection(1.0, NEVER, 10, 60) == Ejection(1.0, 11.0)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20))
def test_an_ejection_is_never_shorter_than_the_first_nor_longer_than_the_longest(
    moments: list[float],
) -> None:
    assert all(10 - 1e-6 <= length <= 60 + 1e-6 for length in lengths(*moments))


# Slow start.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"back_since": 0.0, "slow_start": 10}, 1.0),
        ({"back_since": NOW, "slow_start": 0}, 1.0),
        ({"back_since": NOW, "slow_start": 10}, LEAST_SHARE),
        ({"back_since": NOW - 5, "slow_start": 10}, 0.5),
        ({"back_since": NOW - 10, "slow_start": 10}, 1.0),
        ({"back_since": NOW - 99, "slow_start": 10}, 1.0),
    ],
)
def test_a_server_that_comes_back_gets_more_and_more(options: Any, expected: float) -> None:
    assert share(NOW, **options) == expected
