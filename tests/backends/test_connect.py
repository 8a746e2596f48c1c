"""Connect to the first server that accepts: real sockets, and the loop where it is asked."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from termproxy._sockets import Socket
from termproxy.address import Address, parse_address
from termproxy.backends.connect import Connecting
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault
from tests.relay.ends import until


class Attempt:
    """Connecting to some servers; what it said to its owner."""

    def __init__(self, *addresses: str) -> None:
        self.settled = 0
        self.failures: list[tuple[str, str]] = []
        self.connecting = Connecting(
            gevent.get_hub().loop,
            iter([Server(parse_address(address)) for address in addresses]),
            self._on_settled,
            lambda server, error: self.failures.append((str(server), error.reason)),
        )

    def _on_settled(self) -> None:
        self.settled += 1

    def connect(self) -> Socket:
        """Go on until it is decided."""
        while (sock := self.connecting.connect()) is None:
            before = self.settled
            until(lambda before=before: self.settled > before, "the kernel's word")  # type: ignore[misc]
        return sock

    def refusal(self) -> BackendError:
        with pytest.raises(BackendError) as refused:
            self.connect()
        return refused.value


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    gevent.get_hub().loop.io(0, 1).close()  # the loop's own are open already
    gevent.sleep(0.001)
    before = len(descriptors())
    yield
    assert len(descriptors()) == before


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A listener whose queue is full: connecting to it neither works nor fails."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def listen(family: socket.AddressFamily, where: Any) -> tuple[socket.socket, str]:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(where)
    listener.listen(8)
    name = listener.getsockname()
    return listener, str(Address(family, name if isinstance(name, str) else name[:2]))


@pytest.mark.parametrize(
    ("family", "where"),
    [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, "app.sock"),
    ],
    ids=["v4", "v6", "unix"],
)
def test_a_server_that_listens_is_connected_to(
    family: socket.AddressFamily, where: Any, tmp_path: Path
) -> None:
    listener, address = listen(family, str(tmp_path / where) if isinstance(where, str) else where)
    with listener:
        attempt = Attempt(address)
        sock = attempt.connect()
        accepted, _ = listener.accept()
        with accepted:
            assert sock.send(b"x") == 1
            assert accepted.recv(1) == b"x"
        assert not os.get_inheritable(sock.fileno())
        assert not os.get_blocking(sock.fileno())
        sock.close()
    assert str(attempt.connecting.server) == address
    assert attempt.failures == []


def test_servers_that_refuse_are_skipped_and_told(nowhere: str, tmp_path: Path) -> None:
    listener, address = listen(socket.AF_INET, ("127.0.0.1", 0))
    absent = f"unix:{tmp_path}/none.sock"
    with listener:
        attempt = Attempt(nowhere, absent, address)
        attempt.connect().close()

    assert attempt.failures == [(nowhere, "backend_refused"), (absent, "backend_absent")]
    assert str(attempt.connecting.server) == address


def test_when_all_refuse_the_last_one_s_reason_is_told(nowhere: str, tmp_path: Path) -> None:
    error = Attempt(nowhere, f"unix:{tmp_path}/none.sock").refusal()

    assert error.reason == "backend_absent"
    assert str(error) == f"backend_absent: unix:{tmp_path}/none.sock: No such file or directory"
    assert error.fault is Fault.BACKEND


def test_without_servers_there_is_nobody_to_ask() -> None:
    assert str(Attempt().refusal()) == "backend_refused: no server is left"


def test_a_socket_whose_queue_is_full_is_busy(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    listener.listen(0)
    with ExitStack() as stack:
        stack.enter_context(listener)
        for _ in range(2):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect_ex(str(tmp_path / "app.sock"))
        assert Attempt(f"unix:{tmp_path}/app.sock").refusal().reason == "backend_busy"


def test_a_server_that_does_not_answer_is_waited_for(black_hole: str) -> None:
    attempt = Attempt(black_hole)

    assert attempt.connecting.connect() is None
    assert attempt.connecting.connect() is None
    assert attempt.settled == 0
    attempt.connecting.close()
    attempt.connecting.close()


def test_after_a_time_out_the_next_server_is_tried(black_hole: str) -> None:
    listener, address = listen(socket.AF_INET, ("127.0.0.1", 0))
    with listener:
        attempt = Attempt(black_hole, address)
        assert attempt.connecting.connect() is None
        attempt.connecting.skip()
        attempt.connect().close()

    assert attempt.failures == [(black_hole, "backend_timeout")]


def test_a_time_out_of_the_last_server_is_what_is_told(black_hole: str) -> None:
    """connect() promises: BackendError, the last server's."""
    attempt = Attempt(black_hole)
    assert attempt.connecting.connect() is None
    attempt.connecting.skip()

    assert attempt.refusal().reason == "backend_timeout"


def test_a_lack_of_descriptors_is_what_is_told() -> None:
    """Not "refused": the operator would look for the fault at the backend."""
    attempt = Attempt("127.0.0.1:1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(BackendError) as refused:
            attempt.connecting.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert attempt.failures == [("127.0.0.1:1", "no_descriptors")]
    assert refused.value.reason == "no_descriptors"


def test_an_address_that_cannot_be_reached_is_told() -> None:
    error = Attempt("255.255.255.255:9").refusal()

    assert error.fault is Fault.BACKEND
    assert error.reason in ("backend_forbidden", "backend_unreachable", "backend_failed")
