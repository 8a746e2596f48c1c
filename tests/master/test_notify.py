"""What systemd is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.master.notify import notify


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        yield sock


def test_a_state_goes_to_the_socket_that_was_named(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1\nMAINPID=5")

    assert listener.recv(100) == b"READY=1\nMAINPID=5"


def test_the_socket_may_be_an_abstract_one(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"termproxy-test-{os.getpid()}"
    listener.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify("STOPPING=1")

    assert listener.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("value", [None, "", "relative", "vsock:2:1234"])
def test_without_such_a_socket_nothing_is_said(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", value)

    notify("READY=1")


@pytest.mark.parametrize("name", ["nobody", "x" * 200])
def test_a_listener_that_has_gone_stops_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))

    notify("READY=1")


def test_a_listener_that_reads_nothing_holds_nobody_up(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master must not wait for anybody.  A datagram or two always fit."""
    listener.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for _ in range(5):
        notify("RELOADING=1")

    assert listener.recv(100) == b"RELOADING=1"
