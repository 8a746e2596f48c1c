"""What is said on standard error, and how often."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.observability.logs import Throttle
from tests.support.waiting import PATIENCE


def lines(level: str, *calls: str, close: str = "") -> list[str]:
    code = "\n".join(
        [
            "import logging, os",
            "from termproxy.observability import logs",
            f"logs.set_up({level!r})",
            "log = logging.getLogger('master')",
            close,
            *calls,
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_says_when_in_utc_how_grave_who_and_what() -> None:
    (line,) = lines("info", "log.warning('%d %s', 3, 'workers')")

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING master\[\d+\] 3 workers", line)


def test_a_level_holds_back_what_is_below_it() -> None:
    said = lines("warning", "log.info('a')", "log.warning('b')", "log.error('c')")

    assert [line[-1] for line in said] == ["b", "c"]


def test_setting_up_again_changes_the_level_and_doubles_nothing() -> None:
    assert len(lines("error", "logs.set_up('info')", "log.info('once')")) == 1


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """Standard error may be a pipe whose reader has gone, or a full disk."""
    assert (
        lines("info", "log.error('lost')", close="os.close(2); os.open('/dev/full', os.O_WRONLY)") == []
    )


TALK = """
import logging, sys
from termproxy.observability import logs
logs.set_up("info")
log = logging.getLogger("master")
for number in range(5000):
    log.info("line %d", number)
sys.stdout.write(f"{logs.take_lost()} {logs.take_lost()}\\n")
sys.stdout.flush()
sys.stdin.readline()
log.info("at last")
"""


@contextmanager
def talking(stderr: int) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", TALK]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True) as process:
        yield process


def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_how_many_lines_it_missed() -> None:
    read_fd, write_fd = os.pipe()
    with talking(write_fd) as process:
        os.close(write_fd)
        assert process.stdout is not None
        lost, again = map(int, process.stdout.readline().split())
        assert 0 < lost < 5000
        assert again == 0
        said = os.read(read_fd, 1 << 20)
        process.communicate("go on\n", timeout=PATIENCE)
        said += os.read(read_fd, 1 << 20)
    os.close(read_fd)
    told = said.decode().splitlines()
    whole = [line for line in told if re.search(r"master\[\d+\] (line \d+|at last)$", line)]

    assert [line for line in told if line not in whole] == [
        f"({lost} lines were lost: standard error did not take them)"
    ]
    assert len(whole) == 5000 - lost + 1


def test_a_pipe_stays_blocking_for_others_who_have_it() -> None:
    read_fd, write_fd = os.pipe()
    with talking(write_fd) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert os.get_blocking(write_fd)
        os.close(write_fd)
        process.communicate("go on\n", timeout=PATIENCE)
    os.close(read_fd)


def test_a_journal_that_stands_still_holds_up_nobody() -> None:
    """With systemd standard error is a socket."""
    ours, its = socket.socketpair()
    with ours, talking(its.fileno()) as process:
        its.close()
        assert process.stdout is not None
        assert int(process.stdout.readline().split()[0]) > 0
        process.communicate("go on\n", timeout=PATIENCE)


def test_a_reader_that_has_gone_ends_nobody() -> None:
    """SIGPIPE's default would."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with talking(write_fd) as process:
        os.close(write_fd)
        assert process.stdout is not None
        assert int(process.stdout.readline().split()[0]) == 5000
        process.communicate("go on\n", timeout=PATIENCE)
        assert process.returncode == 0


# Often the same.


def throttle(burst: int = 1) -> Throttle[str]:
    return Throttle(1.0, burst)


@pytest.mark.parametrize("burst", [1, 3])
def test_so_many_are_let_through_in_an_interval(burst: int) -> None:
    door = throttle(burst)

    assert [door.admits("a", 5.0 + at / 10) for at in range(5)] == [at < burst for at in range(5)]


def test_an_interval_that_is_over_begins_anew() -> None:
    door = throttle()
    assert door.admits("a", 5.0)
    assert list(door.over(5.9)) == []
    assert not door.admits("a", 5.95)
    assert list(door.over(6.0)) == [("a", 1)]
    assert door.admits("a", 6.0)


def test_an_interval_goes_on_until_somebody_asks() -> None:
    """So nothing is held back without being told of."""
    door = throttle()
    door.admits("a", 5.0)

    assert not door.admits("a", 60.0)
    assert list(door.over(60.0)) == [("a", 1)]


def test_keys_do_not_hold_back_each_other() -> None:
    door = throttle()

    assert door.admits("a", 5.0)
    assert door.admits("b", 5.0)


def test_those_held_back_are_counted_once() -> None:
    door = throttle()
    for now in (5.0, 5.1, 5.2):
        door.admits("a", now)
    door.admits("b", 5.0)

    assert list(door.over(7.0)) == [("a", 2)]
    assert list(door.over(7.0)) == []


def test_only_what_is_over_is_told() -> None:
    door = throttle()
    for key, now in (("a", 5.0), ("a", 5.1), ("b", 5.5), ("b", 5.6)):
        door.admits(key, now)

    assert list(door.over(6.2)) == [("a", 1)]
    assert list(door.over(6.6)) == [("b", 1)]


def test_all_of_it_is_told_at_the_end() -> None:
    door = throttle()
    for key in "aabb":
        door.admits(key, 5.0)

    assert list(door.over(float("inf"))) == [("a", 1), ("b", 1)]


def test_many_keys_take_bounded_room_and_are_counted_together() -> None:
    door = throttle(burst=2)
    admitted = sum(door.admits(f"key {number}", 5.0) for number in range(5 * Throttle.KEYS_MAX))

    assert admitted == Throttle.KEYS_MAX
    assert len(door._windows) <= Throttle.KEYS_MAX + 1
    assert list(door.over(6.0)) == [(None, 4 * Throttle.KEYS_MAX)]
    assert door.admits("another", 6.0)


class Few(Throttle[str]):
    KEYS_MAX = 3


@given(
    burst=st.integers(1, 3),
    events=st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 0.6), st.booleans()), max_size=60),
)
def test_nothing_is_lost_between_let_through_and_held_back(
    burst: int, events: list[tuple[str, float, bool]]
) -> None:
    door = Few(1.0, burst)
    now, let_through, held = 0.0, 0, 0
    for key, later, asks in events:
        now += later
        let_through += door.admits(key, now)
        if asks:
            held += sum(count for _, count in door.over(now))
    held += sum(count for _, count in door.over(float("inf")))

    assert let_through + held == len(events)
