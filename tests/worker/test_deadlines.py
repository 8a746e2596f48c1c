"""Nothing is due before its deadline, and everything within a tick after it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from termproxy.worker.deadlines import TICK, DeadlineWheel


class Item:
    def __init__(self) -> None:
        self.deadline = 0.0
        self.bucket = 0

    def on_deadline(self, now: float) -> None: ...


def test_an_item_is_due_at_its_deadline_and_not_before() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.due(100.0)
    wheel.set(item, 101.1)

    assert wheel.due(101.0) == []
    assert wheel.due(101.1) == []  # its tick has not ended
    assert wheel.due(101.25) == [item]
    assert wheel.due(200.0) == []


def test_a_deadline_on_a_tick_s_edge_is_met_there() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.set(item, 101.0)

    assert wheel.due(100.99) == []
    assert wheel.due(101.0) == [item]


def test_a_deadline_that_moves_later_is_looked_at_again_when_its_old_moment_comes() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.set(item, 101.0)
    first_bucket = item.bucket
    wheel.set(item, 105.0)

    assert item.bucket == first_bucket, "moving later costs an assignment"
    assert wheel.due(101.0) == []
    assert item.bucket > first_bucket
    assert wheel.due(104.99) == []
    assert wheel.due(105.0) == [item]


def test_a_deadline_that_moves_earlier_is_met_at_the_earlier_moment() -> None:
    """A connection enters the short linger while its long handshake deadline still runs."""
    wheel, item = DeadlineWheel(), Item()
    wheel.set(item, 160.0)
    wheel.set(item, 101.0)

    assert wheel.due(101.0) == [item]
    assert wheel.due(160.0) == []


def test_what_is_forgotten_is_never_due() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.set(item, 101.0)
    wheel.forget(item)
    wheel.forget(item)
    wheel.forget(Item())

    assert item.bucket == 0
    assert wheel.due(1000.0) == []


def test_what_was_due_may_be_set_again() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.set(item, 101.0)
    assert wheel.due(101.0) == [item]
    wheel.set(item, 102.0)

    assert wheel.due(102.0) == [item]


def test_a_deadline_in_the_past_is_due_at_the_next_tick() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.due(100.0)
    wheel.set(item, 3.0)

    assert wheel.due(100.1) == []
    assert wheel.due(100.25) == [item]


def test_a_jump_over_many_ticks_passes_over_nothing() -> None:
    """A machine that slept: every deadline of the night is due in the morning."""
    wheel, items = DeadlineWheel(), [Item() for _ in range(50)]
    wheel.due(100.0)
    for number, item in enumerate(items):
        wheel.set(item, 101.0 + number * 0.1)

    assert sorted(map(id, wheel.due(50_000.0))) == sorted(map(id, items))


def test_time_that_stands_still_or_steps_back_makes_nothing_due() -> None:
    wheel, item = DeadlineWheel(), Item()
    wheel.due(100.0)
    wheel.set(item, 100.5)

    assert wheel.due(99.0) == []
    assert wheel.due(100.4) == []
    assert wheel.due(100.5) == [item]


def test_an_idle_wheel_holds_nothing() -> None:
    wheel = DeadlineWheel()
    for number in range(1000):
        item = Item()
        wheel.set(item, 100.0 + number / 100)
        wheel.set(item, 200.0 + number / 100)
    wheel.due(1e6)

    assert wheel._buckets == {}


@settings(deadline=None)
@given(
    start=st.floats(0, 1e7),
    tick=st.sampled_from([0.25, 0.1, 1.0, 0.3]),
    deadlines=st.lists(st.floats(0, 100), min_size=1, max_size=10),
    steps=st.lists(st.floats(0.001, 30), min_size=1, max_size=40),
)
def test_due_is_never_early_and_at_most_a_tick_late(
    start: float, tick: float, deadlines: list[float], steps: list[float]
) -> None:
    wheel = DeadlineWheel(tick)
    wheel.due(start)
    waiting = {Item(): start + deadline for deadline in deadlines}
    for item, deadline in waiting.items():
        wheel.set(item, deadline)
    now = start
    for step in [*steps, 200.0]:
        now += step
        for due in wheel.due(now):
            assert isinstance(due, Item)
            assert waiting.pop(due) <= now
        late = [deadline for deadline in waiting.values() if now >= deadline + tick * 1.001]
        assert late == []
    assert waiting == {}


class Wheel(RuleBasedStateMachine):
    """Sets, moves and forgets in any order, against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel = DeadlineWheel()
        self.now = 5000.0
        self.wheel.due(self.now)
        self.items = [Item() for _ in range(5)]
        self.expected: dict[Item, float] = {}

    @rule(number=st.integers(0, 4), after=st.floats(-5, 20))
    def set(self, number: int, after: float) -> None:
        item, deadline = self.items[number], self.now + after
        self.wheel.set(item, deadline)
        self.expected[item] = max(deadline, self.now)

    @rule(number=st.integers(0, 4))
    def forget(self, number: int) -> None:
        self.wheel.forget(self.items[number])
        self.expected.pop(self.items[number], None)

    @rule(step=st.sampled_from([0.01, 0.25, 0.5, 3.0, 60.0]))
    def tick(self, step: float) -> None:
        self.now += step
        for item in self.wheel.due(self.now):
            assert isinstance(item, Item)
            assert self.expected.pop(item) <= self.now

    @precondition(lambda self: self.expected)
    @invariant()
    def nobody_waits_longer_than_a_tick(self) -> None:
        assert min(self.expected.values()) + TICK * 1.001 > self.now

    @invariant()
    def a_bucket_says_who_is_in_the_wheel(self) -> None:
        for item in self.items:
            assert (item.bucket != 0) == (item in self.expected)


TestWheel = Wheel.TestCase
TestWheel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("tick", [0.1, 0.25, 0.3])
def test_rounding_makes_nothing_early(tick: float) -> None:
    """0.3 / 0.1 is 2.9999…: whichever way a division rounds, the deadline is looked at itself."""
    wheel = DeadlineWheel(tick)
    for number in range(1, 400):
        item, deadline = Item(), number * tick
        wheel.set(item, deadline)
        assert wheel.due(math.nextafter(deadline, 0)) == []
        wheel.forget(item)
