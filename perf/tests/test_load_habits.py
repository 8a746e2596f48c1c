"""What people draw is bounded, and on average what it says."""

from random import Random
from statistics import mean, median

import pytest

from loading.habits import Habits, size_between

DRAWS = 20_000


def test_connections_have_as_many_requests_as_said_on_average_and_one_at_least() -> None:
    random, habits = Random(1), Habits(requests=6, requests_max=1000)
    drawn = [habits.request_count(random) for _ in range(DRAWS)]
    assert mean(drawn) == pytest.approx(6, rel=0.03)
    assert min(drawn) == 1
    assert median(drawn) < mean(drawn)


def test_no_connection_has_more_requests_than_the_most() -> None:
    random, habits = Random(1), Habits(requests=50, requests_max=60)
    assert max(habits.request_count(random) for _ in range(DRAWS)) == 60


def test_who_asks_once_always_asks_once() -> None:
    assert {Habits(requests=1).request_count(Random(each)) for each in range(100)} == {1}


def test_sizes_keep_to_their_bounds_and_each_doubling_is_as_likely() -> None:
    random = Random(1)
    drawn = [size_between((64, 4096), random) for _ in range(DRAWS)]
    assert min(drawn) >= 64
    assert max(drawn) <= 4096
    assert sum(each < 512 for each in drawn) / DRAWS == pytest.approx(0.5, abs=0.02)


def test_shares_are_kept() -> None:
    random, habits = Random(1), Habits(resumed=0.7, tls12=0.2, rude=0.0)
    assert sum(habits.offers_session(random) for _ in range(DRAWS)) / DRAWS == pytest.approx(
        0.7, abs=0.02
    )
    assert sum(habits.offers_tls12(random) for _ in range(DRAWS)) / DRAWS == pytest.approx(0.2, abs=0.02)
    assert not any(habits.is_rude(random) for _ in range(1000))


def test_nobody_thinks_for_ever() -> None:
    random = Random(1)
    drawn = [Habits(think=0.2).think_time(random) for _ in range(DRAWS)]
    assert mean(drawn) == pytest.approx(0.2, rel=0.05)
    assert max(drawn) <= 7.01 * 0.2
    assert Habits(think=0).think_time(random) == 0
