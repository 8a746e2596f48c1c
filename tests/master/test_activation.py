"""What systemd passes, and how."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master import activation
from termproxy.master.activation import as_listeners, take_passed

PID = 4711


def environ(**changes: str) -> dict[str, str]:
    return {"PATH": "/bin", "LISTEN_PID": str(PID), "LISTEN_FDS": "2"} | changes


@pytest.fixture
def _from_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Descriptors of this test's process stand for those from 3 on."""
    first, second = (fcntl.fcntl(0, fcntl.F_DUPFD, number) for number in (200, 201))
    monkeypatch.setattr(activation, "FIRST", first)
    yield
    os.close(first)
    os.close(second)


@pytest.mark.usefixtures("_from_here")
def test_descriptors_have_the_names_of_their_units() -> None:
    given = environ(LISTEN_FDNAMES="web:web")
    passed = take_passed(given, PID)

    assert passed == {"web": [activation.FIRST, activation.FIRST + 1]}
    assert not os.get_inheritable(activation.FIRST)
    assert given == {"PATH": "/bin"}


@pytest.mark.usefixtures("_from_here")
def test_without_names_they_are_unknown() -> None:
    assert list(take_passed(environ(), PID)) == ["unknown"]


def test_what_is_meant_for_another_process_is_not_ours() -> None:
    given = environ()

    assert take_passed(given, PID + 1) == {}
    assert given == {"PATH": "/bin"}
    assert take_passed({}, PID) == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two', and should be a number"),
        ({"LISTEN_FDNAMES": "web"}, "LISTEN_FDNAMES has 1 names for LISTEN_FDS=2 sockets"),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "has 2 names for LISTEN_FDS=1"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(StartError, match=why):
        take_passed(environ(**changes), PID)


def test_descriptors_that_are_not_there_are_refused() -> None:
    code = (
        "from termproxy.master.activation import take_passed\n"
        "try: take_passed({'LISTEN_PID': '1', 'LISTEN_FDS': '9'}, 1)\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Bad file descriptor" in done.stdout


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_listening_socket_is_accepted_from(family: socket.AddressFamily) -> None:
    with socket.socket(family) as sock:
        if family != socket.AF_UNIX:
            sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        else:
            sock.bind("\0termproxy-test-activation")
        sock.listen()
        [listener] = as_listeners("web", [sock.fileno()])
        with listener:
            assert listener.fileno() != sock.fileno()
            assert not listener.getblocking()
            assert not listener.get_inheritable()


def test_what_is_no_listening_stream_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as silent:
        refused = "cannot listen on systemd:web: what systemd passes is"
        with pytest.raises(StartError, match=f"{refused} no stream socket; write ListenStream="):
            as_listeners("web", [datagrams.fileno()])
        with pytest.raises(StartError, match=f"{refused} a connection; write Accept=no"):
            as_listeners("web", [silent.fileno()])
    read, write = os.pipe()
    try:
        with pytest.raises(StartError, match=f"{refused} no socket; write ListenStream="):
            as_listeners("web", [read])
    finally:
        os.close(read)
        os.close(write)


def test_one_that_is_refused_leaves_none_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with socket.create_server(("127.0.0.1", 0)) as good, socket.socket() as bad:
        with pytest.raises(StartError):
            as_listeners("web", [good.fileno(), bad.fileno()])
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
