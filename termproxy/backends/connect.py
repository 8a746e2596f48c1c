"""Connect to the first of some servers that accepts, without ever blocking.

    advance() ──▶ a connected socket
              ──▶ None: one is on its way; `settled` is called when that has been decided, and
                  advance() then tells how it went, or goes on to the next server
              ──▶ BackendError: none is left

A server on the same machine has mostly accepted before connect() returns, though the kernel says "in
progress" all the same; asking a second time saves a watcher and a turn of the loop.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault

WRITABLE = 2  # libev's EV_WRITE

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

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
        candidates: Iterator[Server],
        settled: Callable[[], None],
        on_failure: Callable[[Server, BackendError], None],
    ) -> None:
        self._loop = loop
        self._candidates = candidates
        self._settled = settled
        self._on_failure = on_failure
        self._sock: socket.SocketType | None = None
        self._watcher: Any = None
        self._last: BackendError | None = None
        self.server: Server | None = None
        """The one being tried, or connected to."""

    def advance(self) -> socket.SocketType | None:
        """A connected socket, now the caller's; None while one is on its way.

        BackendError, the last server's, when no server accepts.
        """
        while True:
            sock = self._sock or self._open_next()
            if sock is None:
                raise self._last or BackendError("backend_refused", "no server is left")
            try:
                if self._is_connected(sock):
                    self._stop_watching()
                    self._sock = None
                    return sock
            except OSError as error:
                self._failed(error.errno or 0)
                continue
            if self._watcher is None:
                self._watcher = self._loop.io(sock.fileno(), WRITABLE)
                self._watcher.start(self._settled)
            return None

    def time_out(self) -> None:
        """The server on its way took too long; advance() goes on to the next one."""
        self._failed(errno.ETIMEDOUT)

    def close(self) -> None:
        self._stop_watching()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _open_next(self) -> socket.SocketType | None:
        for server in self._candidates:
            self.server = server
            try:
                self._sock = socket.SocketType(server.address.family, _STREAM)
                if not server.address.is_unix:
                    self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                self._failed(error.errno or 0)
                continue
            return self._sock
        return None

    def _is_connected(self, sock: socket.SocketType) -> bool:
        """Ask the kernel, by connect() itself; OSError when the answer is no."""
        assert self.server is not None  # noqa: S101 - set with the socket
        sockaddr = self.server.address.sockaddr
        outcome = sock.connect_ex(sockaddr)
        if outcome == errno.EINPROGRESS:
            outcome = sock.connect_ex(sockaddr)
        if outcome in (0, errno.EISCONN):
            return True
        if outcome in _UNDECIDED:
            return False
        raise OSError(outcome, os.strerror(outcome))

    def _failed(self, number: int) -> None:
        self.close()
        reason = _REASONS.get(number, "backend_failed")
        fault = Fault.PROXY if number in _OURS else Fault.BACKEND
        error = BackendError(reason, f"{self.server}: {os.strerror(number)}", fault)
        if self.server is not None:
            self._on_failure(self.server, error)
        self._last = error

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
