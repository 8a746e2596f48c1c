"""The few calls on sockets that every connection makes."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from termproxy._sockets import Socket, accept, peek, reset_on_close, shut_down_writing
from termproxy.address import Address, parse_address
from tests.relay.ends import backend_pair, received, tcp_pair

FAMILIES = (
    pytest.param("127.0.0.1:0", id="IPv4"),
    pytest.param("[::1]:0", id="IPv6"),
    pytest.param("unix:{folder}/s", id="Unix"),
)


@pytest.fixture
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    text = request.param.format(folder=tmp_path)
    if text.startswith("unix:"):
        address = parse_address(text)
    else:
        host = text.rpartition(":")[0].strip("[]")
        address = Address(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, 0))
    with socket.socket(address.family) as sock:
        sock.bind(address.sockaddr)
        sock.listen()
        sock.setblocking(False)
        yield sock


def where(listener: socket.socket) -> Address:
    name = listener.getsockname()
    return Address(listener.family, name if isinstance(name, str) else name[:2])


def connected(listener: socket.socket) -> Socket:
    sock = Socket(listener.family)
    while sock.connect(where(listener).packed):
        pass
    return sock


@pytest.mark.parametrize("listener", FAMILIES, indirect=True)
def test_clients_come_with_their_addresses(listener: socket.socket) -> None:
    with socket.socket(listener.family) as client:
        client.connect(listener.getsockname())
        accepted = accept(listener.fileno())
        assert accepted is not None
        with socket.socket(fileno=accepted[0]) as ours:
            assert accepted[1] == (ours.getpeername() or None)
            assert not os.get_inheritable(ours.fileno())
            assert not os.get_blocking(ours.fileno())
            ours.send(b"hello")
            assert client.recv(5) == b"hello"


@pytest.mark.parametrize("listener", FAMILIES, indirect=True)
def test_when_nobody_comes_nobody_is_waited_for(listener: socket.socket) -> None:
    assert accept(listener.fileno()) is None


def test_what_cannot_accept_says_so() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
        accept(sock.fileno())


@pytest.mark.parametrize("listener", FAMILIES, indirect=True)
def test_a_backend_is_connected_to(listener: socket.socket) -> None:
    with closing(connected(listener)) as sock:
        accepted, _ = listener.accept()
        with accepted:
            assert sock.send(memoryview(b"question")) == 8
            assert accepted.recv(100) == b"question"
            accepted.send(b"answer")
            assert received(sock) == b"answer"
            assert not os.get_inheritable(sock.fileno())
            assert not os.get_blocking(sock.fileno())


def test_how_connecting_went_is_a_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = where(gone).packed
    with closing(Socket(socket.AF_INET)) as sock:
        outcomes = [sock.connect(nowhere), sock.connect(nowhere)]

    assert errno.ECONNREFUSED in outcomes
    assert set(outcomes) <= {errno.ECONNREFUSED, errno.EINPROGRESS, errno.ECONNABORTED}


def test_small_messages_to_a_backend_are_not_held_back() -> None:
    """Nagle's algorithm and delayed acknowledgements make 40 ms of every answer."""
    ours, other = backend_pair()
    with other, socket.socket(fileno=os.dup(ours.fileno())) as twin:
        assert twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def fill(sock: Socket) -> None:
    while True:
        sock.send(bytes(1 << 16))


def test_nothing_is_waited_for() -> None:
    ours, other = backend_pair()
    with other, closing(ours):
        with pytest.raises(BlockingIOError):
            received(ours)
        with pytest.raises(BlockingIOError):
            fill(ours)


def test_the_end_of_a_backend_is_told_by_no_bytes() -> None:
    ours, other = backend_pair()
    other.close()
    with closing(ours):
        select.select([ours], [], [], 10)

        assert received(ours) == b""


def test_writing_to_a_backend_that_has_gone_is_an_error_and_no_signal() -> None:
    ours, other = backend_pair()
    with closing(ours):
        reset_on_close(other.fileno())
        other.close()
        select.select([ours], [], [], 10)
        with pytest.raises(ConnectionResetError):
            ours.send(b"x")
        with pytest.raises(BrokenPipeError):
            ours.send(b"x")


def test_a_half_close_leaves_the_other_half() -> None:
    ours, other = backend_pair()
    with other, closing(ours):
        ours.shutdown(socket.SHUT_WR)
        other.setblocking(True)
        assert other.recv(1) == b""
        other.send(b"still")

        assert received(ours) == b"still"


def test_a_socket_that_is_closed_is_no_descriptor_any_more() -> None:
    ours, other = backend_pair()
    fd = ours.fileno()
    ours.close()
    ours.close()

    assert ours.fileno() == -1
    with other, pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.send(b"x")


def test_a_socket_that_is_forgotten_is_closed() -> None:
    ours, other = backend_pair()
    del ours
    gc.collect()
    other.setblocking(True)
    with other:
        assert other.recv(1) == b""


def test_only_bytes_go_out_and_only_into_what_may_be_written_they_come() -> None:
    ours, other = backend_pair()
    with other, closing(ours):
        with pytest.raises(TypeError):
            ours.send("text")  # type: ignore[arg-type]
        with pytest.raises(BufferError):
            ours.recv_into(b"fixed")


def test_a_peek_leaves_what_is_there() -> None:
    one, other = tcp_pair()
    with one, other:
        with pytest.raises(BlockingIOError):
            peek(one.fileno(), 10)
        other.send(b"hello")
        select.select([one], [], [], 10)
        assert peek(one.fileno(), 3) == b"hel"
        assert one.recv(10) == b"hello"
        shut_down_writing(other.fileno())
        select.select([one], [], [], 10)
        assert peek(one.fileno(), 1) == b""


def test_a_reset_leaves_nothing_behind() -> None:
    client, accepted = tcp_pair()
    fd = accepted.detach()
    reset_on_close(fd)
    os.close(fd)
    client.setblocking(True)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
