"""The one place that reads a clock."""

from __future__ import annotations

from datetime import timedelta

from termproxy import clock


def test_the_monotonic_clock_never_steps_back() -> None:
    readings = [clock.monotonic() for _ in range(1000)]

    assert readings == sorted(readings)


def test_the_date_is_in_utc() -> None:
    assert clock.utc_now().utcoffset() == timedelta(0)
