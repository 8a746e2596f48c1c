"""How rounds become medians, ratios and verdicts."""

import pytest

from comparison.loads import CPU, Load, Target
from comparison.rounds import Measurement, rotated
from comparison.summary import Spread, ratios, rows, verdicts
from comparison.wrk import Wrk

LOAD = Load(
    name="keepalive",
    title="keep-alive",
    tool=Wrk(path="/", connections=1),
    shows=(CPU,),
    target=Target(ratio=1.15),
)
SERVERS = ["ours", "quick", "slow"]


def measured(*cpu_by_server: tuple[float | None, ...]) -> list[Measurement]:
    """One tuple per round, in the order of SERVERS; None is an invalid measurement."""
    return [
        Measurement(round=number, load="keepalive", server=server, problem="wrk: 1 error")
        if cpu is None
        else Measurement(round=number, load="keepalive", server=server, figures={"cpu": cpu})
        for number, figures in enumerate(cpu_by_server)
        for server, cpu in zip(SERVERS, figures, strict=True)
    ]


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, least=1.0, most=3.0)
    assert Spread.of([]) is None


def test_a_ratio_is_taken_within_a_round_so_a_slow_round_does_not_count() -> None:
    assert ratios({0: 11.0, 1: 22.0}, {0: 10.0, 1: 20.0}) == pytest.approx([1.1, 1.1])


def test_a_round_that_one_side_lacks_gives_no_ratio() -> None:
    assert ratios({0: 11.0, 1: 22.0}, {1: 20.0, 2: 30.0}) == pytest.approx([1.1])


def test_the_best_peer_is_the_one_our_ratio_is_highest_to() -> None:
    [verdict] = verdicts(rows(measured((12, 10, 20), (12, 10, 20)), [LOAD], SERVERS))
    assert (verdict.best_peer, verdict.ratio, verdict.is_met) == ("quick", 1.2, False)


def test_an_invalid_measurement_is_no_figure() -> None:
    [row] = rows(measured((11, 10, None), (11, None, None)), [LOAD], SERVERS)
    assert row.figures["quick"] == Spread(10, 10, 10)
    assert row.figures["slow"] is None
    assert row.ratios["slow"] is None


def test_without_any_peer_there_is_no_verdict() -> None:
    assert verdicts(rows(measured((11, None, None)), [LOAD], SERVERS)) == []


def test_a_target_may_limit_the_figure_itself_too() -> None:
    target = Target(ratio=1.0, at_most=16.0)
    assert target.is_met(ratio=0.9, value=16.0)
    assert not target.is_met(ratio=0.9, value=16.1)
    assert not target.is_met(ratio=1.1, value=12.0)


def test_the_order_turns_with_the_round() -> None:
    assert [rotated("abc", turns) for turns in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
