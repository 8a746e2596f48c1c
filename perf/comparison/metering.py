"""What serving processes use: CPU time and memory, read from the kernel.

CPU time is user plus system time of every serving process, master and workers,
by each one's own CPU clock (clock_getcpuclockid(3)): nanoseconds, all threads,
those that have ended too.  The hundredths of a second in /proc/PID/stat would be
one percent of a measurement of a second.
"""

import ctypes
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LIBC = ctypes.CDLL(None)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasurementError(Exception):
    """Something went wrong meanwhile, so the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two readings."""

    seconds: float
    cpu_seconds: float
    # Of these, all but the started process's own.
    worker_seconds: float
    # The time on the serving cores that went to processes not measured, per second.
    others: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Clocks read together at one moment."""

    pids: tuple[int, ...]
    wall: float
    cpu: float
    master_cpu: float
    core_busy: float


def serving_pids(root: int) -> tuple[int, ...]:
    """Return the started process and all its descendants."""
    master = psutil.Process(root)
    return (root, *sorted(child.pid for child in master.children(recursive=True)))


def read(root: int, cores: Iterable[int]) -> Reading:
    try:
        pids = serving_pids(root)
        master_cpu, *others = map(cpu_seconds, pids)
    except (psutil.Error, ProcessLookupError) as error:
        raise MeasurementError(f"a serving process has ended: {error}") from error
    cpu = master_cpu + sum(others)
    busy = sum(map(core_busy_seconds, cores))
    return Reading(pids, time.perf_counter(), cpu, master_cpu, busy)


def usage_between(before: Reading, after: Reading) -> Usage:
    if before.pids != after.pids:
        raise MeasurementError(f"serving processes changed: {before.pids}, {after.pids}")
    seconds = after.wall - before.wall
    cpu = after.cpu - before.cpu
    workers = cpu - (after.master_cpu - before.master_cpu)
    busy = after.core_busy - before.core_busy
    return Usage(seconds, cpu, workers, max(0.0, (busy - cpu) / seconds))


def cpu_seconds(pid: int) -> float:
    clock = ctypes.c_int()
    if problem := LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(problem, os.strerror(problem))
    try:
        return time.clock_gettime(clock.value)
    except OSError as error:
        raise ProcessLookupError(*error.args) from error


def cpu_with_ended(root: int) -> float:
    """Return the CPU seconds of the started process and its descendants, of those that have ended, too.

    What has ended is known to its parent in ticks, once that has waited for it.
    """
    living = 0.0
    try:
        for pid in serving_pids(root):
            with suppress(ProcessLookupError):  # ended since: its parent will know
                living += cpu_seconds(pid)
        ended = psutil.Process(root).cpu_times()
    except psutil.Error as error:
        raise MeasurementError(f"the server has ended: {error}") from error
    return living + ended.children_user + ended.children_system


def core_busy_seconds(core: int) -> float:
    """Return how long a core has not been idle since boot; stolen time counts."""
    lines = Path("/proc/stat").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def proportional_bytes(root: int) -> int:
    """Return the PSS of the serving processes: shared pages count once in all."""
    try:
        return sum(psutil.Process(pid).memory_full_info().pss for pid in serving_pids(root))
    except psutil.Error as error:
        raise MeasurementError(f"a serving process has ended: {error}") from error
