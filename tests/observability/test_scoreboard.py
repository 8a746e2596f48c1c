"""The table of workers: one writer a row, and totals that never go backwards."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from termproxy.observability.scoreboard import (
    COUNTERS,
    NANOSECONDS,
    ROW_WORDS,
    ROWS,
    SLOTS,
    Column,
    Scoreboard,
)


def test_a_row_is_zero_when_taken() -> None:
    scoreboard = Scoreboard()
    number = scoreboard.take_row()
    assert number is not None

    assert list(scoreboard.row(number)) == [0] * ROW_WORDS


def test_there_are_as_many_rows_as_there_may_be_workers_and_then_none() -> None:
    scoreboard = Scoreboard()
    numbers = [scoreboard.take_row() for _ in range(ROWS)]

    assert sorted(number for number in numbers if number is not None) == list(range(ROWS))
    assert scoreboard.take_row() is None
    scoreboard.return_row(17)
    assert scoreboard.take_row() == 17


def test_rows_and_slots_do_not_overlap() -> None:
    scoreboard = Scoreboard()
    scoreboard.slot_beats[SLOTS - 1] = 5
    scoreboard.row(0)[0] = 6
    scoreboard.row(0)[ROW_WORDS - 1] = 7
    scoreboard.row(1)[0] = 8
    scoreboard.row(ROWS - 1)[ROW_WORDS - 1] = 9

    assert scoreboard.slot_beats[SLOTS - 1] == 5
    assert (scoreboard.row(0)[0], scoreboard.row(0)[ROW_WORDS - 1]) == (6, 7)
    assert len(scoreboard.slot_beats) == SLOTS


def test_every_column_has_its_word() -> None:
    assert max(Column) < ROW_WORDS
    assert Column.OPEN not in COUNTERS
    assert {Column.ACCEPTED, Column.ACCESS_LINES_LOST, Column.ORDERS} <= set(COUNTERS)


def test_a_worker_that_has_gone_still_counts() -> None:
    scoreboard = Scoreboard()
    number = scoreboard.take_row()
    assert number is not None
    scoreboard.row(number)[Column.ACCEPTED] = 5
    scoreboard.row(number)[Column.OPEN] = 2
    scoreboard.return_row(number)

    assert scoreboard.totals(iter(()))[Column.ACCEPTED] == 5
    assert list(scoreboard.row(number)) == [0] * ROW_WORDS


def test_a_beat_is_told_in_seconds() -> None:
    scoreboard = Scoreboard()
    assert scoreboard.beat(3) == 0
    scoreboard.row(3)[Column.HEARTBEAT] = int(12.5 * NANOSECONDS)

    assert scoreboard.beat(3) == 12.5


class Counting(RuleBasedStateMachine):
    """Workers come, count and go; nobody's count is lost, or counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scoreboard = Scoreboard()
        self.living: list[int] = []
        self.expected = 0

    @rule()
    def start(self) -> None:
        number = self.scoreboard.take_row()
        assert number is not None
        assert number not in self.living
        self.living.append(number)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), count=st.integers(1, 1000))
    def count(self, data: st.DataObject, count: int) -> None:
        number = data.draw(st.sampled_from(self.living))
        self.scoreboard.row(number)[Column.HANDSHAKES] += count
        self.expected += count

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.living))
        self.living.remove(number)
        self.scoreboard.return_row(number)

    @invariant()
    def totals_are_exact(self) -> None:
        assert self.scoreboard.totals(iter(self.living))[Column.HANDSHAKES] == self.expected


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
