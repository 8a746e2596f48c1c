"""A client's side of one connection: TLS with certificate checks, HTTP/1.1 and WebSocket on it.

It is written against Python's own `ssl` and `socket`, blocking.  locust replaces both with gevent's;
nothing here knows.  Traps:

* A session belongs to the SSLContext that it was made with: each process has one for each version.
* In TLS 1.3 the server's ticket comes after the handshake, and is there once something was read.
* `suppress_ragged_eofs` is True by default, and makes a cut look like an end; Python 3.11.2 (Debian 12)
  does so anyway.  Whether an answer is whole is therefore told by its framing alone.
"""

import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loading.ledger import Loss, WrongError
from loading.websocket import Decoder, Frame, FrameError, Opcode, accept_for, encode
from tests.support.http_messages import CutError, MalformedError, MessageReader, Response

# For an operation as a whole: longer than the slow ones take, and than any wait that termproxy allows
# a client that does nothing wrong.
PATIENCE = 25.0
GOODBYE = 2.0

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to load.  The certificate has to be for `host`, by the CA of the contexts."""

    host: str
    port: int
    family: socket.AddressFamily
    address: tuple[Any, ...]

    @classmethod
    @cache
    def of(cls, url: str) -> "Target":
        """Look the name up once: gevent asks a thread each time."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"{url!r}: an address as in https://localhost:8443 is needed")
        port = parts.port or 443
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        # IPv4 if there is a choice: a termproxy that perf/load has started listens there alone.
        family, _, _, _, address = min(found, key=lambda it: it[0] is not socket.AF_INET)
        return cls(parts.hostname, port, family, address)


def make_contexts(ca: Path | None) -> dict[str, ssl.SSLContext]:
    """Return one for each version, which trust this CA alone, or without one the system's."""
    contexts = {}
    for name, version in VERSIONS.items():
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = context.maximum_version = version
        contexts[name] = context
    return contexts


class Connection:
    """Opened without TLS at first: `name` has to be known when a handshake fails."""

    def __init__(self, target: Target, *, receive_buffer: int = 0) -> None:
        self.opened = time.perf_counter()
        self.answers = 0
        self.is_kept = True
        # Whether a byte came since the last request.
        self.is_answered = False
        self._early = b""
        self._deadline = self.opened + PATIENCE
        self._target = target
        self._sock: socket.socket | ssl.SSLSocket = connect(target, receive_buffer)
        self._reader = MessageReader(self._receive)
        self.pause = 0.0
        """Before each read, in seconds: slow readers have it."""
        self.name = ":".join(map(str, self._sock.getsockname()[:2]))

    def shake_hands(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
        """Return whether the session was resumed."""
        plain = self._sock
        self._sock = context.wrap_socket(
            plain,
            server_hostname=self._target.host,
            session=session,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self._sock.settimeout(PATIENCE)
        self._sock.do_handshake()
        return bool(self._sock.session_reused)

    # HTTP.

    def begin(self) -> None:
        """Have the operation that follows take PATIENCE at most."""
        self.is_answered = False
        self._deadline = time.perf_counter() + PATIENCE

    def send(self, data: bytes) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def response(self) -> Response:
        """Return the answer, of any status, or raise what classify() knows."""
        response = self._reader.response()
        if response is None:
            raise WrongError(Loss.CLOSED, "the connection ended before an answer")
        if response.until_end:
            raise MalformedError("an answer that lasts until the end")
        self.answers += 1
        self.is_kept = b"close" not in response.options()
        return response

    def has_ended(self) -> bool:
        """Whether the server has closed it since the last answer."""
        self._sock.settimeout(0)
        try:
            self._early = self._sock.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True  # a reset, or an end without close_notify
        # Bytes that nobody asked for are read as the next answer, which they will be found to be not.
        return not self._early

    # WebSocket.

    def upgrade(self, path: str) -> "Talk":
        key = b64encode(os.urandom(16))
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {self._target.host}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n"
        )
        self.send(head.encode())
        response = self.response()
        if response.status != 101:
            raise WrongError(Loss.STATUS, str(response.status))
        if response.values(b"sec-websocket-accept") != [accept_for(key)]:
            raise MalformedError("a wrong Sec-WebSocket-Accept")
        return Talk(self, self._reader.rest)

    def receive(self) -> bytes:
        """Return bytes as they come: after an upgrade only."""
        if piece := self._receive():
            return piece
        raise CutError("in a WebSocket")

    # The end.

    def session(self) -> ssl.SSLSession | None:
        """Return what the next connection can resume."""
        session = self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None
        return session if session is not None and session.has_ticket else None

    def close(self) -> None:
        """With close_notify, and wait for the server's.  Nothing is lost any more, whatever happens."""
        with suppress(OSError, ValueError):
            self._sock.settimeout(GOODBYE)
            if isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()
        self.abandon()

    def abandon(self) -> None:
        self._sock.close()

    def _receive(self) -> bytes:
        if self.pause:
            time.sleep(self.pause)
        if self._early:
            piece, self._early = self._early, b""
            return piece
        self._sock.settimeout(self._left())
        try:
            piece = self._sock.recv(1 << 16)
        except ssl.SSLEOFError:  # the end without close_notify: an end, too, and no better
            return b""
        self.is_answered = self.is_answered or bool(piece)
        return piece

    def _left(self) -> float:
        left = self._deadline - time.perf_counter()
        if left <= 0:
            raise TimeoutError(f"no answer in {PATIENCE:g} s")
        return left


def connect(target: Target, receive_buffer: int) -> socket.socket:
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:  # before it connects, since the window is agreed on then
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect(target.address)
    except BaseException:
        sock.close()
        raise
    return sock


class Talk:
    """A WebSocket, client's side; the server echoes."""

    def __init__(self, connection: Connection, rest: bytes) -> None:
        self._connection = connection
        self._decoder = Decoder(masked=False)
        self._frames: Iterator[Frame] = self._decoder.feed(rest)

    def echo(self, opcode: Opcode, payload: bytes) -> None:
        """Send a message, and see the same come back (a PONG for a PING)."""
        self._send(opcode, payload)
        expected = Opcode.PONG if opcode is Opcode.PING else opcode
        frame = self._next()
        if frame.opcode is not expected:
            raise MalformedError(f"{frame.opcode.name} for {opcode.name}")
        if frame.payload != payload:
            raise WrongError(Loss.HASH, f"another message of {len(frame.payload)} bytes")

    def close(self) -> int:
        """Say goodbye (§7.1.2), and wait for the other's; return how many bytes that was."""
        goodbye = (1000).to_bytes(2)
        self.echo(Opcode.CLOSE, goodbye)
        return 2 * len(goodbye)

    def _send(self, opcode: Opcode, payload: bytes) -> None:
        self._connection.send(encode(opcode, payload, os.urandom(4)))

    def _next(self) -> Frame:
        try:
            while True:
                for frame in self._frames:
                    return frame
                self._frames = self._decoder.feed(self._connection.receive())
        except FrameError as error:
            raise MalformedError(str(error)) from error
