"""What is read about cores, and between two readings of them."""

import pytest

from comparison.machine import parse_cpu_list
from comparison.metering import MeasurementError, Reading, usage_between


def test_the_kernels_lists_of_cores_are_understood() -> None:
    assert parse_cpu_list("0\n") == {0}
    assert parse_cpu_list("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}


def reading(*pids: int, wall: float = 0.0, cpu: float = 0.0, master: float = 0.0) -> Reading:
    """The serving core is busy while the processes are, and a quarter of the time besides."""
    return Reading(pids=pids, wall=wall, cpu=cpu, master_cpu=master, core_busy=cpu + wall / 4)


def test_usage_is_the_difference_of_two_readings() -> None:
    used = usage_between(reading(1, 2, wall=10.0, cpu=1.0), reading(1, 2, wall=12.0, cpu=2.5))
    assert (used.seconds, used.cpu_seconds, used.others) == (2.0, 1.5, 0.25)


def test_what_the_master_uses_is_not_the_workers() -> None:
    before, after = reading(1, 2, cpu=3.0, master=2.0), reading(1, 2, wall=1.0, cpu=5.0, master=2.5)
    used = usage_between(before, after)
    assert (used.cpu_seconds, used.worker_seconds) == (2.0, 1.5)


def test_a_worker_replaced_meanwhile_makes_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="serving processes changed"):
        usage_between(reading(1, 2), reading(1, 3, wall=1.0))
