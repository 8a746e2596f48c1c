"""The live view: frames without a terminal, and once through a pipe and a terminal of 80x24."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from typing import Any

import pytest
from rich.console import Console

from termproxy.cli.top import Snapshot, frame, length, size
from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.command import TERMPROXY, termproxy
from tests.support.waiting import PATIENCE

UTC_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def worker(slot: int, **changes: Any) -> dict[str, Any]:
    return {
        "pid": 100 + slot,
        "slot": slot,
        "generation": 1,
        "state": "ready",
        "connections": 10,
        "accepted": 100,
        "handshakes_failed": 0,
        "heartbeat_age_seconds": 0.1,
    } | changes


def backend(number: int, **changes: Any) -> dict[str, Any]:
    address = f"127.0.0.1:{number}"
    return {
        "cluster": "app",
        "server": address,
        "address": address,
        "state": "up",
        "active": 1,
        "total": 10,
        "failures": 0,
    } | changes


def taken(at: float = 0.0, **changes: Any) -> Snapshot:
    """What a quiet server says; `changes` are to its status, or to its totals."""
    totals = dict.fromkeys(
        (
            *("accepted", "requests", "handshakes", "handshakes_resumed", "handshakes_failed"),
            *("bytes_from_clients", "bytes_from_backends"),
        ),
        1000,
    )
    status: dict[str, Any] = {
        "version": "9.9",
        "pid": 7,
        "state": "serving",
        "uptime_seconds": 90_061.0,
        "last_reload": None,
        "restarts": 0,
        "ticket_keys": [],
        "workers": [worker(0), worker(1)],
        "frontends": [{"totals": {"handshakes_failed": {}}}],
    }
    status |= {name: value for name, value in changes.items() if name in status}
    totals |= {name: value for name, value in changes.items() if name in totals}
    return Snapshot(at, UTC_NOW, status | {"totals": totals}, [], [backend(1)])


def seen(previous: Snapshot, now: Snapshot, *, width: int = 80) -> list[str]:
    console = Console(width=width, height=24, record=True, color_system=None)
    with console.capture() as capture:
        console.print(frame(previous, now))
    return capture.get().splitlines()


def line(lines: list[str], first_word: str) -> str:
    [found] = [each for each in lines if each.startswith(first_word)]
    return found.rstrip()


def test_rates_are_the_difference_of_two_answers() -> None:
    lines = seen(
        taken(0.0),
        taken(2.0, accepted=1100, requests=1001, handshakes=1080, handshakes_resumed=1060),
    )

    assert line(lines, "connections") == "connections  20 open, 50/s new; requests 0.5/s"
    assert line(lines, "handshakes") == "handshakes   10/s full, 30/s resumed (75%), 0.0/s failed"


def test_one_answer_has_no_rates() -> None:
    lines = seen(taken(), taken())

    assert line(lines, "handshakes") == "handshakes   -/s full, -/s resumed (-), -/s failed"


def test_what_fails_now_is_told_before_what_failed_once() -> None:
    def failed(**causes: int) -> Snapshot:
        return taken(1.0, frontends=[{"totals": {"handshakes_failed": causes}}] * 2)

    before, after = failed(scanner=50), failed(scanner=50, unknown_name=2)
    assert line(seen(before, after), "failures") == "failures     4 unknown_name"
    assert line(seen(before, before), "failures") == "failures     since the start: 100 scanner"
    assert line(seen(taken(), taken()), "failures") == "failures     none"


def test_generations_are_told_with_what_keeps_them_alive() -> None:
    workers = [worker(0, generation=2), worker(1, state="draining", connections=3)]
    lines = seen(taken(), taken(workers=workers, restarts=2))

    assert line(lines, "generations") == (
        "generations  2: 1 ready, 10 open; 1: 1 draining, 3 open; 2 workers died"
    )


def test_the_balance_of_workers_is_seen() -> None:
    lines = seen(taken(), taken(2.0, workers=[worker(0, connections=5), worker(1, accepted=140)]))
    rows = [each.split() for each in lines if each.strip().startswith(("100", "101"))]

    assert rows == [
        ["101", "1", "1", "ready", "10", "██████████", "20", "0.0", "0.1", "s"],
        ["100", "0", "1", "ready", "5", "█████", "0.0", "0.0", "0.1", "s"],
    ]


def test_a_backend_that_is_down_comes_first() -> None:
    backends = [backend(1, active=9), backend(2, state="down", failures=14)]
    now = replace(taken(2.0), backends=backends)
    before = replace(taken(0.0), backends=[backend(1), backend(2)])
    rows = [each.split() for each in seen(before, now) if each.startswith("app/")]

    assert rows == [
        ["app/127.0.0.1:2", "down", "1", "0.0", "7.0"],
        ["app/127.0.0.1:1", "up", "9", "0.0", "0.0"],
    ]


def test_certificates_count_down_and_keys_grow_old() -> None:
    def expires(**left: float) -> dict[str, Any]:
        when = (UTC_NOW + timedelta(**left)).isoformat()
        return {"not_after": when, "names": ["a.example"], "file": "f", "ocsp": None}

    keys = [
        {"role": "issuing", "age_seconds": 3700},
        {"role": "next", "age_seconds": 0},
        {"role": "redeeming", "age_seconds": 9},
    ]
    certificates = [expires(hours=-1), expires(days=30, hours=2)]
    now = replace(taken(ticket_keys=keys), certificates=certificates)
    lines = seen(now, now)

    assert [each.strip() for each in lines if each.startswith("certificate")] == [
        "certificate  HAS EXPIRED: a.example",
        "certificate  expires in 30 d 2 h: a.example",
    ]
    assert line(lines, "ticket keys") == "ticket keys  issuing for 1 h 1 min, 1 next, 1 redeeming"


def test_a_crowded_frame_fits_into_80_by_24() -> None:
    crowd = taken(workers=[worker(slot, pid=1_000_000 + slot, accepted=10**9) for slot in range(64)])
    certificates = [
        {
            "not_after": UTC_NOW.isoformat(),
            "names": [f"{'long' * 10}{number}.example" for number in range(9)],
            "file": "f",
            "ocsp": "good until tomorrow",
        }
    ] * 2
    crowd = replace(
        crowd,
        backends=[backend(number, address="very." * 30) for number in range(100)],
        certificates=certificates,
    )
    lines = seen(taken(), crowd)

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert sum("more" in each for each in lines) == 2


def test_a_server_that_has_just_begun_has_a_frame() -> None:
    empty = replace(taken(workers=[], frontends=[]), backends=[])

    assert line(seen(empty, empty), "generations") == "generations  none"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (61, "1 min 1 s"), (90_061, "1 d 1 h"), (-5, "0 s"), (3600, "1 h")]
)
def test_times_are_told_in_two_units(seconds: float, text: str) -> None:
    assert length(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [("-", "-"), ("512", "512 B"), ("2048", "2 KiB"), ("5368709120", "5.0 GiB")]
)
def test_bytes_are_told_shortly(count: str, text: str) -> None:
    assert size(count) == text


# With a server, and a terminal.


def test_once_prints_a_frame_and_no_escape_sequence(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        result = termproxy("top", "--once", "--interval", "0.2", "--control", str(server.control))

    assert result.returncode == 0
    assert f"process {server.pid}  serving" in result.stdout
    assert "connections  1 open, " in result.stdout
    assert "certificate  expires in " in result.stdout
    assert "\x1b" not in result.stdout


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_q_and_ctrl_c_end_it_and_leave_the_terminal_as_it_was(
    serve: Serve, terminal: tuple[int, int], key: bytes
) -> None:
    ours, theirs = terminal
    with serve("127.0.0.1:9") as server:
        before = termios.tcgetattr(theirs)
        command = [*TERMPROXY, "top", "--interval", "0.2", "--control", str(server.control)]
        with subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
        ) as process:
            said = b""
            until = time.perf_counter() + PATIENCE
            while b"ticket keys" not in said and time.perf_counter() < until:
                said += _read(ours)
            os.write(ours, key)
            while process.poll() is None and time.perf_counter() < until:
                said += _read(ours)
            assert process.wait(PATIENCE) == 0
        assert termios.tcgetattr(theirs) == before
    assert b"Traceback" not in said


def _read(fd: int) -> bytes:
    """What it has drawn; a terminal that nobody reads blocks who writes."""
    ready, _, _ = select.select([fd], [], [], 0.1)
    return os.read(fd, 1 << 16) if ready else b""
