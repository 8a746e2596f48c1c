"""The access log's line of an exchange that went well, as C writes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.observability._line import plain_exchange

KNOWN: dict[str, Any] = {
    "time": 1795420800.25,
    "facts": '"client":"192.0.2.1:1","resumed":false',
    "method": "GET",
    "host": "example.com",
    "path": "/",
    "status": 200,
    "request_id": "ab" * 16,
    "backend": "127.0.0.1:80",
    "retries": 0,
    "bytes_from_client": 120,
    "bytes_to_client": 1500,
    "first_byte_seconds": 0.001234,
    "seconds": 1.5,
}


def line(**changes: Any) -> bytes | None:
    return plain_exchange(*(KNOWN | changes).values())


def read(**changes: Any) -> dict[str, Any]:
    written = line(**changes)
    assert written is not None
    assert written.endswith(b"}\n")
    read: dict[str, Any] = json.loads(written)
    return read


def test_a_line_tells_all() -> None:
    assert read() == {
        "time": "2026-11-23T08:00:00.250000Z",
        "client": "192.0.2.1:1",
        "resumed": False,
        "method": "GET",
        "host": "example.com",
        "path": "/",
        "status": 200,
        "request_id": "ab" * 16,
        "backend": "127.0.0.1:80",
        "retries": 0,
        "bytes_from_client": 120,
        "bytes_to_client": 1500,
        "first_byte_seconds": 0.001234,
        "seconds": 1.5,
        "ended": "done",
        "fault": "none",
    }


WORDS = ("method", "host", "path", "request_id", "backend")


@settings(deadline=None)
@given(name=st.sampled_from(WORDS), word=st.text(st.characters(max_codepoint=0x24F), max_size=40))
def test_a_word_is_written_as_it_is_or_not_at_all(name: str, word: str) -> None:
    written = line(**{name: word})

    if word.isascii() and min(word, default=" ") >= " ":
        assert written is not None
        assert json.loads(written)[name] == word
    else:
        assert written is None


@settings(deadline=None)
@given(count=st.integers(0, 2**64 - 1), status=st.integers(0, 2**31 - 1))
def test_numbers_are_written_to_the_last_digit(count: int, status: int) -> None:
    made = read(bytes_from_client=count, bytes_to_client=count, status=status, retries=status)

    assert (made["bytes_from_client"], made["bytes_to_client"]) == (count, count)
    assert (made["status"], made["retries"]) == (status, status)


@settings(deadline=None)
@given(seconds=st.floats(0, 1e6))
def test_durations_are_told_to_the_microsecond(seconds: float) -> None:
    made = read(first_byte_seconds=seconds, seconds=seconds)

    assert made["seconds"] == made["first_byte_seconds"] == pytest.approx(seconds, abs=0.6e-6)


@settings(deadline=None)
@given(moment=st.datetimes(datetime(1970, 1, 2), datetime(2105, 1, 1)))  # noqa: DTZ001 - hypothesis wants it
def test_the_time_is_in_utc(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 125_000 * 125_000, tzinfo=UTC)

    assert datetime.fromisoformat(read(time=moment.timestamp())["time"]) == moment


@pytest.mark.parametrize(
    "absurd",
    [
        {"time": -1.0},
        {"time": 1e12},
        {"time": float("nan")},
        {"seconds": -0.5},
        {"seconds": float("inf")},
        {"first_byte_seconds": float("nan")},
        {"status": -1},
        {"retries": -1},
    ],
)
def test_nothing_absurd_is_written(absurd: dict[str, Any]) -> None:
    assert line(**absurd) is None


@pytest.mark.parametrize("name", WORDS)
def test_a_line_that_may_not_fit_is_not_begun(name: str) -> None:
    """Every sign may want a backslash before it."""
    for size in range(1000, 5000):
        word = '"' * size
        written = line(**{name: word})
        assert written is None or (len(written) <= 4096 and json.loads(written)[name] == word)

    assert line(**{name: '"' * 1000}) is not None
    assert line(**{name: '"' * 5000}) is None


def test_facts_that_may_not_fit_are_not_begun() -> None:
    for size in range(1000, 5000):
        written = line(facts=f'"sni":"{"a" * size}"')
        assert written is None or (len(written) <= 4096 and len(json.loads(written)["sni"]) == size)

    assert line(facts=f'"sni":"{"a" * 5000}"') is None


@pytest.mark.parametrize("name", [*WORDS, "facts"])
def test_a_word_is_text(name: str) -> None:
    with pytest.raises(TypeError):
        line(**{name: None})
