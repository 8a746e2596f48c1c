"""The one place that reads a clock; everything else takes `now` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic = time.monotonic  # noqa: TID251 - the place that the ban points to
"""Seconds since some fixed moment; never steps, the same in every process of this machine."""

wall = time.time  # noqa: TID251 - as above
"""Seconds since 1970; steps when somebody sets the clock."""


def utc_now() -> datetime:
    return datetime.now(UTC)
