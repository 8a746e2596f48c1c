"""An HTTP client in the process that serves it: each of its waits runs the loop."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from tests.support.clients import half_close, vanish
from tests.support.endings import CutError
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import MessageReader


class LoopClient(HttpClient):
    """As support/http_client.py's HttpClient, around an end that does not block."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._end = tls
        self._end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = MessageReader(self._receive)
        self.ending: Ending | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()

    # Sending.

    def send(self, data: bytes) -> bool:
        """Whether all of it could be sent: who refuses a request may close before its end."""
        try:
            self._end.sendall(data)
        except (ConnectionError, CutError):
            return False
        return True

    def half_close(self) -> None:
        """Say that this was all, and go on reading."""
        half_close(self._end)

    def vanish(self) -> None:
        """Reset the connection."""
        vanish(self._end)

    def _receive(self) -> bytes:
        if self.ending is not None:
            return b""
        try:
            if piece := self._end.recv(1 << 16):
                return piece
            self.ending = Ending.CLEAN
        except ssl.SSLZeroReturnError:
            self.ending = Ending.CLEAN  # how Python tells it once we have sent ours
        except CutError:
            self.ending = Ending.CUT
        except ConnectionError:
            self.ending = Ending.RESET
        return b""
