"""What is read from wrk's report, and what is refused."""

import pytest

from comparison.metering import MeasurementError
from comparison.wrk import check_handshakes, parse

REPORT = """\
Running 1s test @ https://127.0.0.1:8443/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.85ms    0.92ms  14.66ms   99.00%
    Req/Sec    77.1k   193.71     78.2k    63.64%
  Latency Distribution
     50%  774.00us
     75%    1.25ms
     90%    1.45ms
     99%    3.73ms
  84832 requests in 1.10s, 13.21MB read
Requests/sec:  77079.10
Transfer/sec:     12.01MB
"""


def test_requests_duration_and_latencies_are_read_in_seconds() -> None:
    report = parse(REPORT)
    assert (report.requests, report.seconds) == (84832, 1.10)
    assert (report.p50, report.p99) == pytest.approx((774e-6, 3.73e-3))


def test_the_percentage_within_one_deviation_is_not_taken_for_the_99th_percentile() -> None:
    assert parse(REPORT).p99 == pytest.approx(3.73e-3)


def test_a_long_run_is_told_in_minutes() -> None:
    assert parse(REPORT.replace("in 1.10s", "in 1.50m")).seconds == 90.0


@pytest.mark.parametrize(
    "complaint",
    [
        "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 5\n",
    ],
)
def test_an_error_makes_the_measurement_invalid(complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint.strip()):
        parse(REPORT.replace("Requests/sec", complaint + "Requests/sec"))


def test_no_requests_at_all_make_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="did not report any requests"):
        parse(REPORT.replace("84832 requests", "0 requests"))
    with pytest.raises(MeasurementError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:8443 Connection refused\n")


def test_as_many_full_handshakes_as_requests_are_right_but_for_the_last_connections() -> None:
    check_handshakes("full", "handshakes: 4800 resumed: 0\n", requests=4819, connections=32)


def test_resumed_handshakes_are_resumed_but_for_the_first_of_each_connection() -> None:
    check_handshakes("resumed", "handshakes: 4800 resumed: 4768\n", requests=4819, connections=32)
    with pytest.raises(MeasurementError, match="33 of 4800 handshakes were full"):
        check_handshakes("resumed", "handshakes: 4800 resumed: 4767\n", requests=4819, connections=32)


def test_one_resumed_handshake_makes_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="1 of 4819 handshakes were resumed"):
        check_handshakes("full", "handshakes: 4819 resumed: 1\n", requests=4819, connections=32)


def test_requests_without_a_handshake_each_make_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="64 handshakes for 4819 requests"):
        check_handshakes("full", "handshakes: 64 resumed: 0\n", requests=4819, connections=32)


def test_handshakes_that_nobody_counted_make_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="did not tell"):
        check_handshakes("full", "", requests=4819, connections=32)
