"""The table of workers: one writer a row, and totals that never go backwards."""

from __future__ import annotations

from array import array
from pathlib import Path

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from termproxy.observability.metrics import FRONTEND_WORDS, as_plain
from termproxy.observability.scoreboard import (
    COUNTERS,
    NANOSECONDS,
    ROWS,
    SLOTS,
    Column,
    Row,
    Scoreboard,
)


def taken(scoreboard: Scoreboard, *frontends: str) -> Row:
    row = scoreboard.take_row(frontends)
    assert row is not None
    return row


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_row_is_zero_when_taken() -> None:
    row = taken(Scoreboard(), "web", "api")

    assert list(row.words) == [0] * len(Column)
    for index in range(2):
        assert list(row.frontend(index)) == [0] * FRONTEND_WORDS


def test_there_are_as_many_rows_as_there_may_be_workers_and_then_none() -> None:
    scoreboard = Scoreboard()
    rows = [taken(scoreboard) for _ in range(ROWS)]

    assert scoreboard.take_row([]) is None
    scoreboard.return_row(rows[17])
    another = taken(scoreboard)
    assert scoreboard.take_row([]) is None
    for row in {*rows, another} - {rows[17]}:
        scoreboard.return_row(row)


def test_words_do_not_overlap() -> None:
    scoreboard = Scoreboard()
    one, other = taken(scoreboard, "web", "api"), taken(scoreboard, "web")
    places = [scoreboard.slot_beats, one.words, one.frontend(0), one.frontend(1)]
    places += [other.words, other.frontend(0)]
    for number, words in enumerate(places):
        words[0] = words[-1] = number + 1

    assert [(words[0], words[-1]) for words in places] == [(n, n) for n in range(1, 7)]
    assert len(scoreboard.slot_beats) == SLOTS


def test_every_counter_has_its_word() -> None:
    assert Column.OPEN not in COUNTERS
    assert {Column.ACCEPTED, Column.ACCESS_LINES_LOST, Column.ORDERS} <= set(COUNTERS)


def test_a_worker_that_has_gone_still_counts() -> None:
    scoreboard = Scoreboard()
    row = taken(scoreboard, "web")
    row.words[Column.ACCEPTED] = 5
    row.words[Column.OPEN] = 2
    row.frontend(0)[3] = 4
    scoreboard.return_row(row)

    assert scoreboard.totals()[Column.ACCEPTED] == 5
    assert scoreboard.frontend_totals(["web"])["web"][3] == 4


def test_a_frontend_is_counted_by_its_name_wherever_it_stands() -> None:
    """A reload may change the order."""
    scoreboard = Scoreboard()
    before, now = taken(scoreboard, "web", "api"), taken(scoreboard, "api", "web")
    before.frontend(0)[1] = 10
    before.frontend(1)[1] = 200
    now.frontend(0)[1] = 1000
    now.frontend(1)[1] = 5
    scoreboard.return_row(before)

    totals = scoreboard.frontend_totals(["web", "api", "new"])
    assert {name: words[1] for name, words in totals.items()} == {"web": 15, "api": 1200, "new": 0}


def test_asking_for_totals_changes_none() -> None:
    scoreboard = Scoreboard()
    row = taken(scoreboard, "web")
    row.frontend(0)[0] = 1
    gone = taken(scoreboard, "web")
    gone.frontend(0)[0] = 2
    scoreboard.return_row(gone)

    for _ in range(3):
        assert scoreboard.frontend_totals(["web"])["web"][0] == 3


def test_a_beat_is_told_in_seconds() -> None:
    row = taken(Scoreboard())
    assert row.beat == 0
    row.words[Column.HEARTBEAT] = int(12.5 * NANOSECONDS)

    assert row.beat == 12.5


def test_a_row_that_was_given_back_holds_no_descriptor() -> None:
    scoreboard = Scoreboard()
    before = open_descriptors()
    row = taken(scoreboard, "web")
    assert open_descriptors() > before
    scoreboard.return_row(row)

    assert open_descriptors() == before


class Counting(RuleBasedStateMachine):
    """Workers come, count and go; nobody's count is lost, or counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scoreboard = Scoreboard()
        self.living: list[Row] = []
        self.expected = 0

    @rule()
    def start(self) -> None:
        row = self.scoreboard.take_row(["web"])
        assert row is not None
        assert row not in self.living
        self.living.append(row)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), count=st.integers(1, 1000))
    def count(self, data: st.DataObject, count: int) -> None:
        row = data.draw(st.sampled_from(self.living))
        row.words[Column.HANDSHAKES] += count
        row.frontend(0)[7] += count
        self.expected += count

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.living))
        self.living.remove(row)
        self.scoreboard.return_row(row)

    @invariant()
    def totals_are_exact(self) -> None:
        assert self.scoreboard.totals()[Column.HANDSHAKES] == self.expected
        assert self.scoreboard.frontend_totals(["web"])["web"][7] == self.expected

    def teardown(self) -> None:
        for row in self.living:
            self.scoreboard.return_row(row)


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_the_next_master_goes_on_from_all_that_was_counted() -> None:
    """What is counted while the old one drains, too; its as_plain() has gone through JSON."""
    old, new = Scoreboard(), Scoreboard()
    gone, living = taken(old, "a"), taken(old, "a", "b")
    gone.words[Column.ACCEPTED], living.words[Column.ACCEPTED] = 3, 4
    gone.frontend(0)[0], living.frontend(0)[0], living.frontend(1)[1] = 1, 2, 5
    living.keys[0:2] = memoryview(array("q", [7, 9]))
    old.return_row(gone)
    new.hear_before(orjson.loads(orjson.dumps(old.as_plain())))
    row = taken(new, "b")
    row.words[Column.ACCEPTED], row.frontend(0)[1] = 10, 20

    assert new.totals()[Column.ACCEPTED] == 17
    assert new.frontend_totals(["a"])["a"][0] == 3
    assert new.frontend_totals(["b"])["b"][1] == 25
    assert new.tickets([7, 8]) == {7: 9, 8: 0}

    living.words[Column.ACCEPTED] += 100
    new.hear_before(old.as_plain())
    assert new.totals()[Column.ACCEPTED] == 117
    third = Scoreboard()
    third.hear_before(new.as_plain())
    assert third.totals() == new.totals()
    old.return_row(living)
    new.return_row(row)


def test_what_another_version_counts_does_not_matter() -> None:
    board = Scoreboard()
    board.hear_before(
        {
            "counters": {"ACCEPTED": 1, "MOONS": 2},
            "frontends": {"a": {"handshakes": {"full": 3, "half": 4}, "moons": {"full": 5}}},
            "tickets": {},
        }
    )

    assert board.totals()[Column.ACCEPTED] == 1
    assert as_plain(board.frontend_totals(["a"])["a"])["handshakes"] == {"full": 3}
