"""Clients: Python's own TLS, and the words to end a connection in every way there is."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import select
import socket
import ssl

from tests.support.backends import RESET_ON_CLOSE
from tests.support.waiting import PATIENCE

PIECE = 1 << 16  # bytes that are sent or received at a time

NAME = "site.test"  # what the test's certificates are for


_strangers = itertools.count(1)


def stranger() -> tuple[str, int]:
    """An address of this machine that no client has had: one's failures fill few lines of the log."""
    number = next(_strangers)
    return f"127.1.{number // 250}.{1 + number % 250}", 0


def connect(
    port: int,
    context: ssl.SSLContext,
    *,
    host: str = "127.0.0.1",
    name: str = NAME,
    session: ssl.SSLSession | None = None,
    timeout: float = PATIENCE,
) -> ssl.SSLSocket:
    """A TLS connection, its handshake done and our name verified."""
    sock = socket.create_connection((host, port), timeout=timeout)
    try:
        return context.wrap_socket(
            sock, server_hostname=name, session=session, suppress_ragged_eofs=False
        )
    except BaseException:
        sock.close()
        raise


def exchange(client: ssl.SSLSocket, word: bytes = b"ping") -> bytes:
    """Send a word, and receive as many bytes."""
    client.sendall(word)
    received = b""
    while len(received) < len(word) and (piece := client.recv(len(word) - len(received))):
        received += piece
    return received


def half_close(client: ssl.SSLSocket) -> None:
    """Send close_notify, and go on reading.

    unwrap() reads as soon as it has written, and an answer that is already there would be an error
    to it.  So it does both on a socket with nothing to read, and what it wrote is sent from there.
    """
    stand_in, other = socket.socketpair()
    with socket.socket(fileno=os.dup(client.fileno())) as real, stand_in, other:
        client.setblocking(False)
        stand_in.setblocking(False)
        os.dup2(stand_in.fileno(), client.fileno())
        try:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
        finally:
            os.dup2(real.fileno(), client.fileno())
        client.settimeout(PATIENCE)
        real.settimeout(PATIENCE)
        real.sendall(other.recv(PIECE))


def read_to_end(client: ssl.SSLSocket) -> bytes:
    """Everything up to the proxy's close_notify; SSLEOFError when the socket ends without one."""
    pieces = []
    try:
        while piece := client.recv(1 << 18):
            pieces.append(piece)
    except ssl.SSLZeroReturnError:
        pass  # how Python tells a close_notify once we have sent ours
    return b"".join(pieces)


def leave(client: ssl.SSLSocket) -> None:
    """End as TLS wants it: close_notify both ways."""
    half_close(client)
    read_to_end(client)
    client.close()


def vanish(client: socket.socket) -> None:
    """Reset the connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()


def send_and_receive(client: ssl.SSLSocket, content: bytes, count: int) -> bytes:
    """Send all of `content` while receiving `count` bytes.

    In one thread: OpenSSL does not allow a read and a write of one connection at the same time.
    """
    client.setblocking(False)
    rest, received = memoryview(content), bytearray()
    while rest or len(received) < count:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while rest:
                rest = rest[client.send(rest[:PIECE]) :]
        with contextlib.suppress(ssl.SSLWantReadError):
            while len(received) < count:
                piece = client.recv(PIECE)
                assert piece, f"the end came after {len(received)} bytes"
                received += piece
        if rest or len(received) < count:
            readable, writable, _ = select.select([client], [client] if rest else [], [], PATIENCE)
            assert readable or writable, f"{len(rest)} bytes not sent, {len(received)} received"
    client.settimeout(PATIENCE)
    return bytes(received)


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
