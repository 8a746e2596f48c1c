"""What the kernel tells of our processes: time of the CPU, memory, descriptors (proc(5)).

Workers are not dumpable, and so some of it is for root's eyes; what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

Place = tuple[str, str]  # what the process is, and its slot


@dataclass(frozen=True, slots=True)
class Stats:
    cpu_seconds: float  # user and system
    resident_bytes: int
    open_files: int | None


def read(pid: int) -> Stats | None:
    """None for a process that has gone, or is not to be looked at."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Stats(times.user + times.system, process.memory_info().rss, _open_files(process))
    except (psutil.Error, OSError):
        return None


def _open_files(process: psutil.Process) -> int | None:
    try:
        # Linux 6.2 tells the number as the folder's size; counting thousands of names takes its time.
        size = Path(f"/proc/{process.pid}/fd").stat().st_size
        return size or process.num_fds()
    except (psutil.Error, OSError):
        return None


class ProcessStats:
    """Adds up, by what processes are; the CPU's time of those that have gone stays in."""

    def __init__(self) -> None:
        self.past: dict[Place, float] = {}
        """Seconds of the CPU, of those that have gone."""
        self._seen: dict[int, tuple[Place, Stats]] = {}

    def look(self, processes: Mapping[int, Place]) -> dict[Place, Stats]:
        """For each place: time and memory of all its processes, and the most descriptors of one."""
        for pid, (place, stats) in list(self._seen.items()):
            if processes.get(pid) != place:
                self.past[place] = self.past.get(place, 0.0) + stats.cpu_seconds
                del self._seen[pid]
        for pid, place in processes.items():
            found = read(pid)
            if found is not None:
                self._seen[pid] = (place, found)
        told = {place: Stats(seconds, 0, None) for place, seconds in self.past.items()}
        for place, stats in self._seen.values():
            told[place] = _sum(told.get(place), stats)
        return told


def _sum(one: Stats | None, other: Stats) -> Stats:
    if one is None:
        return other
    files = [each for each in (one.open_files, other.open_files) if each is not None]
    return Stats(
        one.cpu_seconds + other.cpu_seconds,
        one.resident_bytes + other.resident_bytes,
        max(files, default=None),
    )
