"""What the kernel tells of processes: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from termproxy.observability import process_stats
from termproxy.observability.process_stats import ProcessStats, Stats, read
from tests.support.waiting import wait_until

WORKER = ("worker", "0")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    code = "import signal; [None for _ in range(3_000_000)]; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        yield process
        process.kill()


def test_a_process_of_ours_has_time_memory_and_descriptors() -> None:
    stats = read(os.getpid())
    assert stats is not None

    assert stats.cpu_seconds > 0
    assert stats.resident_bytes > 1 << 20
    # Listing them takes one more.
    assert stats.open_files in {len(os.listdir("/proc/self/fd")) - more for more in (0, 1)}  # noqa: PTH208


def test_a_process_that_has_gone_is_told_as_such(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()

    assert read(process.pid) is None


def test_the_time_of_one_that_died_stays_in(process: subprocess.Popen[bytes]) -> None:
    stats = ProcessStats()

    def seconds() -> float:
        return stats.look({process.pid: WORKER})[WORKER].cpu_seconds

    before = wait_until(lambda: seconds() if seconds() > 0.02 else 0, "it has used the CPU")
    process.kill()
    process.wait()
    # It is still looked at, until it is reaped here, and then no more.
    assert seconds() >= before
    after = stats.look({os.getpid(): WORKER})[WORKER]
    mine = read(os.getpid())
    assert mine is not None
    assert after.cpu_seconds >= before
    assert stats.look({})[WORKER].cpu_seconds >= after.cpu_seconds
    assert stats.look({})[WORKER].resident_bytes == 0


def test_two_at_one_place_are_added_up_and_the_fuller_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a generation drains, a slot has two workers."""
    known = {1: Stats(1.0, 10, 100), 2: Stats(2.0, 20, 7), 3: Stats(4.0, 40, None)}
    monkeypatch.setattr(process_stats, "read", known.get)

    assert ProcessStats().look(dict.fromkeys(known, WORKER)) == {WORKER: Stats(7.0, 70, 100)}
