"""What is said on standard error, and how often."""

from __future__ import annotations

import re
import subprocess
import sys

from termproxy.observability.logs import Throttle


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


def test_a_key_is_let_through_once_in_its_interval() -> None:
    throttle = Throttle(1.0)

    assert [throttle.admits("a", now) for now in (5.0, 5.1, 5.9, 6.0, 6.5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_keys_do_not_hold_back_each_other() -> None:
    throttle = Throttle(1.0)

    assert throttle.admits("a", 5.0)
    assert throttle.admits("b", 5.0)


def test_those_held_back_are_counted_once() -> None:
    throttle = Throttle(1.0)
    for now in (5.0, 5.1, 5.2):
        throttle.admits("a", now)

    assert throttle.held_back("a") == 2
    assert throttle.held_back("a") == 0
    assert throttle.held_back("b") == 0


def test_many_keys_take_bounded_room() -> None:
    throttle = Throttle(1.0)
    for number in range(5 * Throttle.KEYS_MAX):
        throttle.admits(f"key {number}", 5.0)

    assert len(throttle._next) <= Throttle.KEYS_MAX


def test_many_keys_that_were_held_back_take_bounded_room() -> None:
    throttle = Throttle(1.0)
    for number in range(5 * Throttle.KEYS_MAX):
        throttle.admits(f"key {number}", 5.0)
        throttle.admits(f"key {number}", 5.0)

    assert len(throttle._held) <= Throttle.KEYS_MAX
