"""What systemd is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.master.notify import STATUS_EVERY, Notifier

PID = 4711


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def told(systemd: socket.socket) -> list[str]:
    """Every message until now."""
    messages = []
    systemd.setblocking(False)
    try:
        while True:
            messages.append(systemd.recv(1000).decode())
    except BlockingIOError:
        return messages


def notifier(folder: Path, **environ: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": str(folder / "notify"), **environ}, PID)


def test_facts_go_to_the_socket_that_was_named(systemd: socket.socket, tmp_path: Path) -> None:
    notifier(tmp_path).tell("READY=1", "MAINPID=5")

    assert told(systemd) == ["READY=1\nMAINPID=5"]


def test_the_socket_may_be_an_abstract_one() -> None:
    name = f"termproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, PID).tell("STOPPING=1")

        assert told(systemd) == ["STOPPING=1"]


@pytest.mark.parametrize("value", [None, "", "relative", "vsock:2:1234"])
def test_without_such_a_socket_nothing_is_said(value: str | None) -> None:
    environ = {} if value is None else {"NOTIFY_SOCKET": value}

    Notifier(environ, PID).tell("READY=1")


@pytest.mark.parametrize("name", ["nobody", "x" * 200])
def test_a_listener_that_has_gone_stops_nothing(name: str, tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / name)}, PID).tell("READY=1")


def test_a_listener_that_reads_nothing_holds_nobody_up_for_long(
    systemd: socket.socket, tmp_path: Path
) -> None:
    one = notifier(tmp_path)
    systemd.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(15):  # more than its queue holds (net.unix.max_dgram_qlen)
        one.tell("READY=1")

    assert told(systemd)[0] == "READY=1"


def test_children_are_not_asked(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin",
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(PID),
    }
    one = Notifier(environ, PID)

    assert environ == {"PATH": "/bin"}
    # Its process is not known yet: without WATCHDOG_PID whoever is the main one is meant.
    assert one.for_successor() == {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000"}
    assert Notifier({}, PID).for_successor() == {}


def test_a_reload_tells_when_it_began(systemd: socket.socket, tmp_path: Path) -> None:
    notifier(tmp_path).tell_reloading(12.5)

    assert told(systemd) == ["RELOADING=1\nMONOTONIC_USEC=12500000"]


def test_the_watchdog_hears_us_twice_in_its_time(systemd: socket.socket, tmp_path: Path) -> None:
    one = notifier(tmp_path, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(PID))
    beats = []
    for quarter in range(17):
        one.tick(100 + quarter / 4, lambda: "", is_healthy=True)
        beats += [quarter / 4] * told(systemd).count("WATCHDOG=1")

    assert beats == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(PID + 1)},
    ],
)
def test_one_that_does_not_ask_or_asks_another_hears_nothing(
    asked: dict[str, str], systemd: socket.socket, tmp_path: Path
) -> None:
    notifier(tmp_path, **asked).tick(0, lambda: "", is_healthy=True)

    assert "WATCHDOG=1" not in told(systemd)


def test_nor_does_it_when_we_are_ill(systemd: socket.socket, tmp_path: Path) -> None:
    one = notifier(tmp_path, WATCHDOG_USEC="2000000")
    one.tick(0, lambda: "", is_healthy=False)
    assert told(systemd) == []
    one.tick(0.25, lambda: "", is_healthy=True)
    assert told(systemd) == ["WATCHDOG=1"]


def test_the_status_is_told_when_it_has_changed(systemd: socket.socket, tmp_path: Path) -> None:
    one = notifier(tmp_path)
    one.tick(0, lambda: "one", is_healthy=True)
    one.tick(0.25, lambda: "two", is_healthy=True)
    one.tick(STATUS_EVERY, lambda: "one", is_healthy=True)
    one.tick(2 * STATUS_EVERY, lambda: "two", is_healthy=True)

    assert told(systemd) == ["STATUS=one", "STATUS=two"]


def test_who_waits_for_a_place_says_nothing(systemd: socket.socket, tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    one = Notifier(environ, PID, is_held=True)
    one.tell("READY=1")
    one.tick(0, lambda: "here", is_healthy=True)
    assert told(systemd) == []

    one.is_held = False
    one.tick(1, lambda: "here", is_healthy=True)
    assert told(systemd) == ["WATCHDOG=1", "STATUS=here"]
