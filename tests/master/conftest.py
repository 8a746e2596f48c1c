"""Masters that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.masters import Master, Start


@pytest.fixture
def start(site: Path, tmp_path: Path) -> Iterator[Start]:
    masters: list[Master] = []

    def start(**changes: Any) -> Master:
        masters.append(Master(site, tmp_path, **changes))
        return masters[-1]

    yield start
    for master in masters:
        master.close()
