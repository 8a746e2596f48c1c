"""What is counted of handshakes: full or resumed, why not, how long it took and how old it was."""

from __future__ import annotations

from itertools import pairwise

import pytest

from termproxy.observability import metrics
from termproxy.observability._tally import Tally
from termproxy.observability.metrics import (
    FAMILIES,
    FRONTEND_WORDS,
    HANDSHAKE_BOUNDS,
    MISSES,
    TICKET_AGE_BOUNDS,
    as_plain,
    count_full,
    count_resumed,
    new_tally,
)
from termproxy.observability.scoreboard import KEY_WORDS, Row, Scoreboard
from termproxy.outcome import Miss
from termproxy.tls._openssl import RING_TALLY
from termproxy.tls.tickets import KEYS_MAX


@pytest.fixture
def tally() -> Tally:
    return new_tally()


# The table.


def test_every_label_has_a_word_of_its_own() -> None:
    words = [index for labels in FAMILIES.values() for index in labels.values()]
    assert sorted(words) == list(range(FRONTEND_WORDS))


def test_the_reasons_are_those_of_the_binding_in_its_order() -> None:
    assert [Miss[word.upper()] for word in MISSES] == list(Miss)
    assert [int(miss) for miss in Miss] == list(range(len(Miss)))


@pytest.mark.parametrize("bounds", [TICKET_AGE_BOUNDS, HANDSHAKE_BOUNDS])
def test_bounds_grow(bounds: tuple[float, ...]) -> None:
    assert all(lower < upper for lower, upper in pairwise(bounds))


def test_no_age_that_a_session_may_have_is_beyond_the_last_bound() -> None:
    assert TICKET_AGE_BOUNDS[-1] == 604_800


# Counting.


def test_nothing_is_told_of_what_did_not_happen(tally: Tally) -> None:
    assert all(labels == {} for labels in as_plain(tally).values())


@pytest.mark.parametrize("miss", Miss)
def test_a_full_handshake_tells_why(tally: Tally, miss: Miss) -> None:
    count_full(tally, 0.003, 1_500_000, miss)
    told = as_plain(tally)
    assert told["handshakes"] == {"full": 1}
    assert told["resumption_misses"] == {miss.name.lower(): 1}
    assert told["handshake_cpu_microseconds"] == {"full": 1500}
    assert told["handshake_seconds_full"] == {"0.005": 1}
    assert told["handshake_seconds_resumed"] == {}
    assert told["ticket_age_seconds"] == {}


@pytest.mark.parametrize(("from_cache", "word"), [(False, "ticket"), (True, "session_id")])
def test_a_resumed_one_tells_from_what_and_how_old(tally: Tally, word: str, *, from_cache: bool) -> None:
    count_resumed(tally, 0.0004, 200_000, 61, from_cache=from_cache)
    told = as_plain(tally)
    assert told["handshakes"] == {word: 1}
    assert told["handshake_cpu_microseconds"] == {word: 200}
    assert told["handshake_seconds_resumed"] == {"0.001": 1}
    assert told["handshake_seconds_full"] == {}
    assert told["ticket_age_seconds"] == {"300": 1}
    assert told["resumption_misses"] == {}


@pytest.mark.parametrize(
    ("age", "bucket"),
    [(0, "1"), (1, "1"), (2, "10"), (604_800, "604800"), (604_801, "+Inf"), (2**40, "+Inf")],
)
def test_an_age_falls_into_the_bucket_that_it_does_not_exceed(
    tally: Tally, age: int, bucket: str
) -> None:
    count_resumed(tally, 0.0, 0, age, from_cache=False)
    assert as_plain(tally)["ticket_age_seconds"] == {bucket: 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.002"), (5.0, "5.0"), (9.0, "+Inf")],
)
def test_a_duration_falls_into_the_bucket_that_it_does_not_exceed(
    tally: Tally, seconds: float, bucket: str
) -> None:
    count_full(tally, seconds, 0, Miss.NONE_OFFERED)
    count_resumed(tally, seconds, 0, 0, from_cache=True)
    told = as_plain(tally)
    assert told["handshake_seconds_full"] == told["handshake_seconds_resumed"] == {bucket: 1}


def test_every_handshake_is_in_one_bucket_of_each_kind(tally: Tally) -> None:
    for number in range(100):
        count_full(tally, number / 10, number, Miss(number % len(Miss)))
        count_resumed(tally, number / 10, number, number * 100, from_cache=number % 3 == 0)
    told = as_plain(tally)
    assert sum(told["handshakes"].values()) == 200
    assert sum(told["resumption_misses"].values()) == 100
    assert sum(told["handshake_seconds_full"].values()) == 100
    assert sum(told["handshake_seconds_resumed"].values()) == 100
    assert sum(told["ticket_age_seconds"].values()) == 100


# Over workers.


def test_a_worker_tells_how_many_tickets_each_key_has_made() -> None:
    assert KEY_WORDS == RING_TALLY == 2 * KEYS_MAX
    row = Row(["web"])
    row.keys[0], row.keys[1] = 32, 7
    row.keys[10], row.keys[11] = 5, 9
    assert dict(row.tickets()) == {32: 7, 5: 9}
    row.close()


def test_the_tickets_of_a_key_are_those_of_all_workers_living_and_gone() -> None:
    scoreboard = Scoreboard()
    rows = [scoreboard.take_row(["web"]) for _ in range(3)]
    for number, row in enumerate(rows):
        assert row is not None
        row.keys[2], row.keys[3] = 1, 10 + number
        row.keys[4], row.keys[5] = 2, 1
    assert scoreboard.tickets([1, 2, 3]) == {1: 33, 2: 3, 3: 0}
    assert rows[0] is not None
    scoreboard.return_row(rows[0])
    assert scoreboard.tickets([1, 2, 3]) == {1: 33, 2: 3, 3: 0}
    assert scoreboard.tickets([2]) == {2: 3}
    assert scoreboard.tickets([1, 2]) == {1: 23, 2: 3}, "the past of a key that has gone is forgotten"


def test_a_frontends_counters_survive_the_worker_and_a_reload() -> None:
    scoreboard = Scoreboard()
    first = scoreboard.take_row(["web", "api"])
    assert first is not None
    count_full(Tally(first.frontend(0)), 0.1, 5000, Miss.NONE_OFFERED)
    count_resumed(Tally(first.frontend(1)), 0.1, 5000, 3, from_cache=False)
    scoreboard.return_row(first)
    second = scoreboard.take_row(["api", "web"])  # a reload has turned them round
    assert second is not None
    count_full(Tally(second.frontend(1)), 0.1, 5000, Miss.EXPIRED)
    totals = {
        name: as_plain(words) for name, words in scoreboard.frontend_totals(["web", "api"]).items()
    }
    assert totals["web"]["handshakes"] == {"full": 2}
    assert totals["web"]["resumption_misses"] == {"none_offered": 1, "expired": 1}
    assert totals["api"]["handshakes"] == {"ticket": 1}
    assert scoreboard.frontend_totals(["new"]) == {"new": [0] * FRONTEND_WORDS}
    assert metrics.as_plain(scoreboard.frontend_totals(["new"])["new"])["handshakes"] == {}
