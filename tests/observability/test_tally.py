"""Counting in words that others read."""

from __future__ import annotations

import array
import math

import pytest

from termproxy.observability._tally import Histogram, Tally


@pytest.fixture
def words() -> array.array[int]:
    return array.array("q", [0] * 10)


def test_what_is_counted_stands_in_the_memory_that_was_given(words: array.array[int]) -> None:
    tally = Tally(words)
    tally.add(3)
    tally.add(3, 41)

    assert words[3] == tally[3] == 42
    assert len(tally) == 10
    assert [tally[index] for index in range(10)] == list(words)


@pytest.mark.parametrize("index", [-1, 10, 1 << 40])
def test_a_word_that_is_none_is_refused(words: array.array[int], index: int) -> None:
    tally = Tally(words)
    with pytest.raises(IndexError):
        tally.add(index)
    with pytest.raises(IndexError):
        tally[index]

    assert set(words) == {0}


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (0.1, 0), (0.11, 1), (1.0, 1), (5.0, 2), (5.1, 3), (math.inf, 3), (-1.0, 0)],
)
def test_a_value_is_counted_where_its_bound_is(
    words: array.array[int], value: float, bucket: int
) -> None:
    Tally(words).observe(Histogram(2, (0.1, 1.0, 5.0), 9, 1000), value)

    assert [words[2 + at] for at in range(4)] == [at == bucket for at in range(4)]


def test_the_sum_is_in_the_parts_that_were_asked_for(words: array.array[int]) -> None:
    tally, histogram = Tally(words), Histogram(0, (1.0,), 2, 1000)
    for value in (0.25, 1.5, math.nan, -7.0):
        tally.observe(histogram, value)

    assert list(words)[:3] == [3, 1, 1750]


@pytest.mark.parametrize(("first", "total"), [(8, 0), (-1, 0), (0, 10), (0, -1)])
def test_a_histogram_that_does_not_fit_is_refused(
    words: array.array[int], first: int, total: int
) -> None:
    with pytest.raises(IndexError):
        Tally(words).observe(Histogram(first, (0.1, 1.0), total, 1), 7)

    assert set(words) == {0}


@pytest.mark.parametrize("memory", [bytes(80), bytearray(80), array.array("d", [0.0])])
def test_other_memory_is_refused(memory: bytes) -> None:
    with pytest.raises((ValueError, BufferError)):
        Tally(memory)


def test_too_many_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 32 bounds"):
        Histogram(0, tuple(map(float, range(33))), 0, 1)
