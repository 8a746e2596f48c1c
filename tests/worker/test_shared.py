"""What the connections of one worker share."""

from __future__ import annotations

import gevent
import pytest

from termproxy.config.schema import Timeouts
from termproxy.observability.metrics import DROPPED, new_tally
from termproxy.tls._openssl import Scratch
from termproxy.worker.shared import Shared


def shared() -> Shared:
    return Shared(
        loop=gevent.get_hub().loop,
        scratch=Scratch(1 << 16),
        timeouts=Timeouts(),
        row=memoryview(bytearray(128)).cast("q"),
        access_log=None,
    )


def test_two_workers_share_nothing() -> None:
    one, other = shared(), shared()

    assert one.connections is not other.connections
    assert one.deadlines is not other.deadlines
    assert one.warnings is not other.warnings
    assert one.failures is not other.failures
    assert one.failure_lines is not other.failure_lines


def test_room_that_nobody_waits_for_is_no_event() -> None:
    shared().on_closed()


def test_a_line_about_one_server_comes_once_a_second() -> None:
    throttle = shared().warnings

    assert throttle.admits("127.0.0.1:1", 10.0)
    assert not throttle.admits("127.0.0.1:1", 10.9)
    assert list(throttle.over(11.0)) == [("127.0.0.1:1", 1)]
    assert throttle.admits("127.0.0.1:1", 11.0)


def test_clients_that_a_limit_turns_away_are_counted_each_and_told_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tally = new_tally()
    mine = shared()
    for client in ("192.0.2.1", "192.0.2.2", ""):
        mine.count_drop(tally, "handshake_queue", client)

    assert tally[DROPPED["handshake_queue"]] == 3
    assert sum(tally[index] for index in range(len(tally))) == 3
    assert caplog.messages == ["192.0.2.1 turned away by limits.handshake_queue"]
