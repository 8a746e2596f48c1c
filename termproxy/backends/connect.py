"""Connect to the first of some servers that accepts, without ever blocking.

    connect() ──▶ a connected socket
              ──▶ None: one is on its way; `settled` is called when that has been decided, and
                  connect() then tells how it went, or goes on to the next server
              ──▶ BackendError: none is left

A server on the same machine has mostly accepted before connect(2) returns, though the kernel says "in
progress" all the same; asking a second time saves a watcher and a turn of the loop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

from termproxy._sockets import Socket
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault

WRITABLE = 2  # libev's EV_WRITE

_IN_PROGRESS = errno.EINPROGRESS
_UNDECIDED = (errno.EINPROGRESS, errno.EALREADY)

_REASONS = {
    errno.ECONNREFUSED: "backend_refused",
    errno.ECONNRESET: "backend_reset",  # it accepted, and changed its mind before we asked again
    errno.ETIMEDOUT: "backend_timeout",
    errno.EAGAIN: "backend_busy",  # a Unix socket whose queue is full
    errno.ENOENT: "backend_absent",  # a Unix socket that is not there
    errno.EACCES: "backend_forbidden",
    errno.ENETUNREACH: "backend_unreachable",
    errno.EHOSTUNREACH: "backend_unreachable",
    errno.EADDRNOTAVAIL: "no_local_port",
    errno.EMFILE: "no_descriptors",
    errno.ENFILE: "no_descriptors",
}


# What we ran out of, which says nothing about the server.
_OURS = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE)


class Connecting:
    """One client's way to a backend.  `on_failure(server, error)` hears of each server that failed."""

    __slots__ = (
        "_candidates",
        "_last",
        "_loop",
        "_on_failure",
        "_settled",
        "_sock",
        "_watcher",
        "server",
    )

    def __init__(
        self,
        loop: Any,
        candidates: Iterator[Server] | None,
        settled: Callable[[], None],
        on_failure: Callable[[Server, BackendError], None],
    ) -> None:
        self._loop = loop
        self._candidates = candidates
        self._settled = settled
        self._on_failure = on_failure
        self._sock: Socket | None = None
        self._watcher: Any = None
        self._last: BackendError | None = None
        self.server: Server | None = None
        """The last one that was tried, or the one connected to."""

    def connect(self) -> Socket | None:
        """A connected socket, now the caller's; None while one is on its way.

        BackendError, the last server's, when no server accepts.
        """
        while True:
            if self._sock is None and not self._open_next():
                raise self._last or BackendError("backend_refused", "no server is left")
            sock, server = self._sock, self.server
            assert sock is not None  # noqa: S101 - it is open
            assert server is not None  # noqa: S101 - it is the socket's
            outcome = sock.connect(server.packed_address)
            if outcome == _IN_PROGRESS:
                outcome = sock.connect(server.packed_address)
            if outcome == 0:
                self._stop_watching()
                self._sock = None
                return sock
            if outcome in _UNDECIDED:
                if self._watcher is None:
                    self._watcher = self._loop.io(sock.fileno(), WRITABLE)
                    self._watcher.start(self._settled)
                return None
            self._failed(outcome)

    def skip(self) -> None:
        """The server on its way took too long; connect() goes on to the next one."""
        self._failed(errno.ETIMEDOUT)

    def close(self) -> None:
        self._drop()

    def _next_server(self) -> Server | None:
        return None if self._candidates is None else next(self._candidates, None)

    def _open_next(self) -> bool:
        """Make a socket to the next server; False: there is none."""
        while (server := self._next_server()) is not None:
            self.server = server
            try:
                self._sock = Socket(server.family)
            except OSError as error:
                self._failed(error.errno or 0)
            else:
                return True
        return False

    def _failed(self, number: int) -> None:
        self._drop()
        reason = _REASONS.get(number, "backend_failed")
        fault = Fault.PROXY if number in _OURS else Fault.BACKEND
        error = BackendError(reason, f"{self.server}: {os.strerror(number)}", fault)
        if self.server is not None:
            self._tell(self.server, error)
        self._last = error

    def _tell(self, server: Server, error: BackendError) -> None:
        self._on_failure(server, error)

    def _drop(self) -> None:
        self._stop_watching()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
