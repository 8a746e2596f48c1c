"""What limits let in, as pure questions: time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.worker.admission import (
    BURST,
    CREDIT_MAX,
    DEBT_MAX,
    FULL,
    GRANT,
    RESUMED,
    SURCHARGE,
    Budget,
    TimeShare,
    Verdict,
    verdict,
)

NOW = 1000.0

# Connections.


@pytest.mark.parametrize(
    ("connections", "limit", "expected"),
    [
        (1, 1, Verdict.WELCOME),
        (2, 1, Verdict.TELL),
        (3, 1, Verdict.CLOSE),
        (100, 100, Verdict.WELCOME),
        (101, 100, Verdict.TELL),
        (125, 100, Verdict.TELL),
        (126, 100, Verdict.CLOSE),
        (1_000_000, 0, Verdict.WELCOME),
    ],
)
def test_a_client_a_little_over_its_limit_is_told_and_beyond_that_closed(
    connections: int, limit: int, expected: Verdict
) -> None:
    assert verdict(connections, limit, may_tell=True) is expected


def test_nobody_is_told_where_that_costs_too_much() -> None:
    assert verdict(10, 10, may_tell=False) is Verdict.WELCOME
    assert verdict(11, 10, may_tell=False) is Verdict.CLOSE


# The rate.


def begun(budget: Budget, now: float, *, resumes: bool) -> int:
    """How many may begin at once."""
    count = 0
    while budget.wait(now, resumes=resumes) <= 0.0:
        budget.take(resumes=resumes)
        count += 1
    return count


def test_a_second_brings_as_many_full_handshakes_as_the_limit_says() -> None:
    budget = Budget(100.0, NOW)
    begun(budget, NOW, resumes=False)

    assert sum(begun(budget, NOW + tick / 100, resumes=False) for tick in range(1, 101)) == 100


def test_three_resumed_ones_cost_as_much_as_a_full_one() -> None:
    budget = Budget(100.0, NOW)

    assert begun(budget, NOW, resumes=True) == 100 * FULL // RESUMED * BURST


def test_full_ones_leave_room_for_resumed_ones() -> None:
    budget = Budget(100.0, NOW)

    assert begun(budget, NOW, resumes=False) == 75
    assert begun(budget, NOW, resumes=True) == 75


def test_the_wait_is_as_long_as_it_takes_and_no_longer() -> None:
    budget = Budget(10.0, NOW)
    begun(budget, NOW, resumes=False)
    wait = budget.wait(NOW, resumes=False)

    assert 0.0 < wait <= 0.1
    assert budget.wait(NOW + wait * 0.9, resumes=False) > 0.0
    assert budget.wait(NOW + wait * 1.001, resumes=False) == 0.0


def test_a_small_share_of_a_small_limit_still_lets_one_begin() -> None:
    budget = Budget(1 / 16, NOW)
    assert begun(budget, NOW, resumes=False) == 1

    wait = budget.wait(NOW, resumes=False)
    assert budget.wait(NOW + wait + 0.001, resumes=False) == 0.0
    assert wait <= 16


def test_what_was_claimed_falsely_is_charged_afterwards() -> None:
    """Who shows a ticket of no worth goes first, but costs what it costs."""
    honest, lying = Budget(100.0, NOW), Budget(100.0, NOW)
    for _ in range(60):
        honest.take(resumes=False)
        lying.take(resumes=True)
        lying.take_rest()

    assert lying.wait(NOW, resumes=False) == honest.wait(NOW, resumes=False)


def test_lies_close_the_door_for_two_seconds_at_the_most() -> None:
    budget = Budget(100.0, NOW)
    for _ in range(begun(budget, NOW, resumes=True)):
        budget.take_rest()

    assert budget.wait(NOW, resumes=True) <= 1.01
    assert budget.wait(NOW, resumes=False) <= 2.0


def test_a_new_rate_holds_from_its_moment_on() -> None:
    budget = Budget(1000.0, NOW)
    budget.set_rate(10.0)

    assert begun(budget, NOW, resumes=True) == 10 * FULL
    budget.set_rate(1000.0)
    assert begun(budget, NOW, resumes=True) == 0, "a rate that grows gives nothing for the past"
    assert begun(budget, NOW + 0.1, resumes=True) == pytest.approx(300, abs=1)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.5), st.booleans()),
        min_size=1,
        max_size=200,
    )
)
def test_no_sequence_gets_more_than_rate_and_burst(arrivals: list[tuple[float, bool]]) -> None:
    budget, now, spent = Budget(20.0, NOW), NOW, 0
    for gap, resumes in arrivals:
        now += gap
        if budget.wait(now, resumes=resumes) <= 0.0:
            budget.take(resumes=resumes)
            spent += RESUMED if resumes else FULL

    assert spent <= 20.0 * FULL * (now - NOW + BURST) + 1e-6


# Time.

STEP = 0.0005  # of a handshake, in OpenSSL


class Clock:
    """A worker's time, and what of it went into handshakes."""

    def __init__(self) -> None:
        self.share = TimeShare(NOW)
        self.now, self.in_handshakes = NOW, 0.0

    def other_work(self, seconds: float) -> None:
        self.now += seconds

    def handshake(self, seconds: float = STEP) -> None:
        self.now += seconds
        self.in_handshakes += seconds

    def has_credit(self) -> bool:
        return self.share.has_credit(self.now, self.in_handshakes)


def test_a_worker_that_was_idle_begins_a_burst_at_once() -> None:
    clock = Clock()
    while clock.has_credit():
        clock.handshake()

    assert clock.in_handshakes == pytest.approx(CREDIT_MAX / SURCHARGE, abs=STEP)


def test_established_connections_keep_half_of_the_time() -> None:
    """They have 0.2 ms to do in each turn, and there are always handshakes, with work besides."""
    clock, established = Clock(), 0.0
    while clock.now < NOW + 10:
        clock.other_work(0.0002)
        established += 0.0002
        while clock.has_credit():
            clock.handshake()
            clock.other_work(STEP / 2)

    assert established / 10 == pytest.approx(0.5, abs=0.01)


def test_when_there_is_nothing_else_to_do_old_debts_are_forgotten() -> None:
    clock = Clock()
    clock.handshake(0.05)
    assert not clock.has_credit()
    assert clock.share.debt == pytest.approx(0.1 - CREDIT_MAX)
    clock.share.grant()
    assert clock.share.debt == 0.0
    assert clock.has_credit()
    clock.handshake(GRANT)
    assert not clock.has_credit()


def test_after_a_moment_without_anything_to_do_it_is_as_after_a_long_rest() -> None:
    clock = Clock()
    clock.handshake(0.05)
    assert not clock.has_credit()
    clock.share.restore()
    clock.handshake(0.9 * CREDIT_MAX / SURCHARGE)
    assert clock.has_credit()


def test_a_grant_takes_nothing_away() -> None:
    clock = Clock()
    clock.share.grant()
    clock.handshake(0.9 * CREDIT_MAX / SURCHARGE)
    assert clock.has_credit()


def test_what_is_done_for_handshakes_otherwise_is_charged() -> None:
    clock = Clock()
    clock.other_work(0.015)
    clock.share.charge(0.015)
    assert clock.has_credit()
    clock.other_work(0.015)
    clock.share.charge(0.015)
    assert not clock.has_credit()


def test_debts_have_an_end() -> None:
    """As after a minute for which the process was stopped in a handshake."""
    clock = Clock()
    clock.handshake(60.0)
    assert not clock.has_credit()
    assert clock.share.debt == DEBT_MAX
    clock.other_work(DEBT_MAX + 0.001)
    assert clock.has_credit()
