"""A client that sends bytes over TLS, whatever they are, and reads HTTP responses.

Its TLS is in memory: so that it can say close_notify while answers are on their way, which Python's
SSLSocket.unwrap() cannot (it tries to read the proxy's, and what it reads instead is lost).
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterable
from enum import Enum
from types import TracebackType
from typing import Self

from tests.support.clients import NAME, PIECE, vanish
from tests.support.endings import CutError
from tests.support.http_messages import MessageReader, Response
from tests.support.processes import unread_bytes
from tests.support.waiting import PATIENCE, wait_until


class Ending(Enum):
    """How the proxy ended a connection."""

    CLEAN = "close_notify"
    CUT = "an end without close_notify"
    RESET = "a reset"


class HttpClient:
    """A connection, its handshake done and our name verified.  `ending` is None while it is open."""

    def __init__(
        self, port: int, context: ssl.SSLContext, *, name: str = NAME, timeout: float = PATIENCE
    ) -> None:
        self.ending: Ending | None = None
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port, self._own_port = port, self._sock.getsockname()[1]
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._early = bytearray()  # decrypted before anybody asked
        self._reader = MessageReader(self._receive)
        try:
            self._handshake()
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    # Sending.

    def send(self, data: bytes) -> bool:
        """Whether all of it could be sent: who refuses a request may close before its end."""
        self._tls.write(data)
        return self._flush()

    def send_pieces(self, data: bytes, at: Iterable[int], *, until_answered: bool = False) -> bool:
        """Send in records that are cut at these offsets, each once the proxy has read the one before.

        `until_answered`: no more than an answer was waited for, as who is refused should do.
        """
        start = 0
        for end in [*at, len(data)]:
            if (until_answered and self._is_answered()) or not self.send(data[start:end]):
                return False
            wait_until(self._is_read, "the proxy has read a piece", poll=0.001)
            start = end
        return True

    def half_close(self) -> None:
        """Say that this was all, and go on reading."""
        self._decrypt()
        with contextlib.suppress(ssl.SSLWantReadError, CutError):
            self._tls.unwrap()  # which writes ours, and waits for the proxy's in vain
        self._flush()

    def vanish(self) -> None:
        """Reset the connection."""
        vanish(self._sock)

    # Receiving.

    def read_response(self, method: bytes = b"GET") -> Response | None:
        """The answer to such a request; None when the connection ends before one begins.

        CutError when it ends inside.
        """
        return self._reader.response(method)

    def response(self, method: bytes = b"GET") -> Response:
        """The answer, which there has to be."""
        response = self.read_response(method)
        assert response is not None, f"{self.ending} instead of an answer"
        return response

    def ask(self, request: bytes, method: bytes = b"GET") -> Response:
        """Send a request, and read the answer to it."""
        assert self.send(request), "the connection is closed"
        return self.response(method)

    def wait_for_end(self) -> Ending:
        """How the connection ends; nothing else may come before."""
        rest = self._reader.rest
        while piece := self._receive():
            rest += piece
        assert not rest, f"more bytes came: {rest[:200]!r}"
        assert self.ending is not None
        return self.ending

    # TLS.

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fetch()
        self._flush()

    def _receive(self) -> bytes:
        """Some bytes; none at the end, which `ending` then tells of."""
        if early := bytes(self._early):
            self._early.clear()
            return early
        while self.ending is None:
            try:
                if piece := self._tls.read(PIECE):
                    return piece
                self.ending = Ending.CLEAN
            except ssl.SSLWantReadError:
                self._fetch()
            except ssl.SSLZeroReturnError:
                self.ending = Ending.CLEAN  # how Python tells it once we have sent ours
            except CutError:
                self.ending = Ending.CUT
        return b""

    def _fetch(self) -> None:
        """Records from the proxy, or its end.  Not more than one read can hold."""
        try:
            received = self._sock.recv(PIECE)
        except ConnectionError:
            self.ending = Ending.RESET
            received = b""
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    def _decrypt(self) -> None:
        """Read what has been fetched."""
        with contextlib.suppress(ssl.SSLWantReadError, CutError):
            while piece := self._tls.read(PIECE):
                self._early += piece

    def _is_answered(self) -> bool:
        """Whether an answer has begun to come, or the end has."""
        if select.select([self._sock], [], [], 0)[0]:
            self._fetch()
            self._decrypt()
        return bool(self._early) or self._incoming.eof

    def _flush(self) -> bool:
        try:
            self._sock.sendall(self._outgoing.read())
        except ConnectionError:
            return False
        return True

    def _is_read(self) -> bool:
        try:
            return unread_bytes(self._port, self._own_port) == 0
        except AssertionError:
            return True  # the connection is gone: nobody is left who could read it
