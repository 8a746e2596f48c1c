"""Real ends in one process: pairs of sockets, and a TLS client that runs the loop while it waits."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import gevent

from termproxy._sockets import Socket
from termproxy.address import Address
from termproxy.tls._openssl import Context
from termproxy.tls.certificates import load_certificate
from termproxy.tls.context import Policy, build_context
from tests.support.clients import NAME

PATIENCE = 10.0  # seconds until a test that waits in vain fails

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def server_context(site: Path) -> Context:
    return build_context([load_certificate(site)], Policy())


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection, neither of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def backend_pair() -> tuple[Socket, socket.socket]:
    """As tcp_pair(), with an end as it is to a backend."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        one = Socket(socket.AF_INET)
        one.connect(Address(socket.AF_INET, (host, port)).packed)
        other, _ = listener.accept()
    other.setblocking(False)
    return one, other


def received(sock: Socket) -> bytes:
    """What is there on one to a backend."""
    buffer = bytearray(1 << 16)
    return bytes(buffer[: sock.recv_into(buffer)])


def until(condition: Callable[[], object], what: str) -> None:
    """Run the loop until the condition holds."""
    give_up = time.perf_counter() + PATIENCE
    while not condition():
        assert time.perf_counter() < give_up, f"waited in vain for {what}"
        gevent.sleep(0.001)


def turns(count: int = 10) -> None:
    """Let the loop do all that it can do without anybody's help."""
    for _ in range(count):
        gevent.sleep(0.001)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def receive(sock: socket.socket, count: int = 1 << 16) -> bytes:
    """What is there, run the loop until something is; b"" at the end."""
    give_up = time.perf_counter() + PATIENCE
    while True:
        try:
            return sock.recv(count)
        except ssl.SSLZeroReturnError:
            return b""
        except (BlockingIOError, ssl.SSLWantReadError):
            assert time.perf_counter() < give_up, "nothing comes"
            gevent.sleep(0.001)


def send_all(sock: socket.socket, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[sock.send(view[: 1 << 17]) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            gevent.sleep(0.001)


class TlsClient:
    """Python's own TLS over one end of a pair; every wait runs the loop."""

    def __init__(self, trust: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = trust.wrap_socket(
            sock, server_hostname=NAME, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def handshake(self) -> None:
        give_up = time.perf_counter() + PATIENCE
        while True:
            try:
                return self.sock.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                assert time.perf_counter() < give_up, "the handshake hangs"
                gevent.sleep(0.001)

    def read_tickets(self) -> None:
        """TLS 1.3's come after the handshake; a client that closes with them unread resets."""
        try:
            unexpected = self.sock.recv(1)
        except ssl.SSLWantReadError:
            return
        raise AssertionError(f"{unexpected!r} before anybody spoke")

    def send(self, content: bytes) -> None:
        send_all(self.sock, content)

    def receive(self, count: int = 1 << 16) -> bytes:
        """Plaintext; b"" after the proxy's close_notify, ssl.SSLEOFError when it ended without one."""
        return receive(self.sock, count)

    def receive_all(self) -> bytes:
        pieces = []
        while piece := self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    def say_goodbye(self) -> None:
        """Send close_notify, and go on reading."""
        try:
            self.sock.unwrap()
        except ssl.SSLWantReadError:
            pass  # it waits for the other's, which comes when it comes
        except ssl.SSLError as error:
            # The other's came first, with bytes before it that nobody has read yet.
            if error.reason != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise

    def vanish(self) -> None:
        """Close without close_notify."""
        self.sock.close()

    def reset(self) -> None:
        reset(self.sock)
