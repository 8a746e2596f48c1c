"""What is read about cores, and between two readings of them."""

import pytest

from comparison.machine import parse_cpu_list
from comparison.metering import MeasurementError, Reading, usage_between


def test_the_kernels_lists_of_cores_are_understood() -> None:
    assert parse_cpu_list("0\n") == {0}
    assert parse_cpu_list("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}


def test_usage_is_the_difference_of_two_readings() -> None:
    before = Reading(pids=(1, 2), wall=10.0, cpu=1.0, core_busy=5.0)
    after = Reading(pids=(1, 2), wall=12.0, cpu=2.5, core_busy=6.75)
    used = usage_between(before, after)
    assert (used.seconds, used.cpu_seconds, used.others) == (2.0, 1.5, 0.125)


def test_a_worker_replaced_meanwhile_makes_the_measurement_invalid() -> None:
    before = Reading(pids=(1, 2), wall=0.0, cpu=0.0, core_busy=0.0)
    after = Reading(pids=(1, 3), wall=1.0, cpu=0.0, core_busy=0.0)
    with pytest.raises(MeasurementError, match="serving processes changed"):
        usage_between(before, after)
