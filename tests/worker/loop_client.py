"""An HTTP client in the process that serves it: each of its waits runs the loop."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from tests.support.clients import half_close, vanish
from tests.support.http_client import Ending
from tests.support.http_messages import MessageReader, Response


class LoopClient:
    """As support/http_client.py's HttpClient, around an end that does not block."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = MessageReader(self._receive)
        self.ending: Ending | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tls.close()

    # Sending.

    def send(self, data: bytes) -> bool:
        """Whether all of it could be sent: who refuses a request may close before its end."""
        try:
            self._tls.sendall(data)
        except (ConnectionError, ssl.SSLEOFError):
            return False
        return True

    def half_close(self) -> None:
        """Say that this was all, and go on reading."""
        half_close(self._tls)

    def vanish(self) -> None:
        """Reset the connection."""
        vanish(self._tls)

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

    def _receive(self) -> bytes:
        if self.ending is not None:
            return b""
        try:
            if piece := self._tls.recv(1 << 16):
                return piece
            self.ending = Ending.CLEAN
        except ssl.SSLZeroReturnError:
            self.ending = Ending.CLEAN  # how Python tells it once we have sent ours
        except ssl.SSLEOFError:
            self.ending = Ending.CUT
        except ConnectionError:
            self.ending = Ending.RESET
        return b""
