"""Relay bytes between a client and a backend until both are done.

A connection is two one-way streams that end separately.  Each is a `Pump`: it copies until its source
says "no more", passes that on, and stops; the relay is over when both have.

    client ──decrypt──▶ ToBackend ──▶ backend        (request direction)
    client ◀──encrypt── ToClient  ◀── backend        (response direction)

TLS has no half-close at the socket level: "no more" to the client is a close_notify alert.  Shutting
the TCP socket instead would also kill the other, still living, direction.

Reading and writing at once is one call into the binding, through a buffer that all connections of the
worker share.  Only what the sink would not take is kept, and until it is gone the source is not read:
at most one buffer per direction is ever held.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from termproxy.errors import TruncatedError
from termproxy.outcome import DONE, MORE, SINK_FULL, TRUNCATED, WANT_READ, WANT_WRITE

SCRATCH_SIZE = 256 * 1024  # bytes: what one event moves at most, and one slow reader makes us hold


class Ready:
    """libev's numbers for what a watcher waits for."""

    READABLE: Final = 1
    WRITABLE: Final = 2


class Scratch(Protocol):
    def take_rest(self) -> bytes: ...


class TlsEnd(Protocol):
    """The client's end, as the binding's Connection has it."""

    def decrypt_to(self, fd: int, scratch: Any, /) -> int: ...
    def encrypt_from(self, fd: int, scratch: Any, /) -> int: ...
    def write(self, buffer: memoryview, /) -> int: ...
    def shutdown(self) -> int: ...


class BackendEnd(Protocol):
    def fileno(self) -> int: ...
    def send(self, data: memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...


class _Over:
    """What is opposite to a pump when both have ended."""

    __slots__ = ("opposite",)

    ended = True
    opposite: Any

    def read_ahead(self) -> None:
        """There is nothing to read."""


_OVER = _Over()


class Pump:
    """Copy one way.  `on_end(self)` is called when the source has ended and the sink was told;
    `on_failure(self, error)` when a side failed: TlsError is the client's, OSError the backend's, all
    else our bug.  After close() neither is called, and no watcher is left.
    """

    __slots__ = (
        "_backend",
        "_backend_fd",
        "_blocked",
        "_client_fd",
        "_loop",
        "_move",
        "_on_end",
        "_on_failure",
        "_rest",
        "_scratch",
        "_source",
        "_tls",
        "ended",
        "opposite",
        "source_was_cut",
    )

    def __init__(
        self,
        loop: Any,
        scratch: Scratch,
        client: tuple[TlsEnd, int],
        backend: BackendEnd,
        callbacks: tuple[Callable[[Pump], None], Callable[[Pump, Exception], None]],
    ) -> None:
        self._loop = loop
        self._scratch = scratch
        self._tls, self._client_fd = client
        self._backend = backend
        self._backend_fd = backend.fileno()
        self._on_end, self._on_failure = callbacks
        self.opposite: Pump | _Over
        self._source: Any = None  # the watcher of what we read from
        self._blocked: Any = None  # the watcher of what would not take more
        self._rest: memoryview | None = None
        self._move: Callable[[int, Scratch], int]
        self.ended = False
        self.source_was_cut = False
        """The source failed before its end: the sink must not be told that it has all."""

    def start(self, source: Any, ahead: bytes = b"") -> None:
        """Begin, on a stopped watcher of the source that the pump owns from now on.

        `ahead` has been read from the source before, and goes first.
        """
        self._source = source
        source.start(self.on_readable)
        if ahead:
            self._rest = memoryview(ahead)
            self._wait_until_writable(self._sink_fd())

    def on_readable(self) -> None:
        try:
            moved = self._move(self._backend_fd, self._scratch)
            if moved <= 0 and moved != WANT_READ:
                self._not_moved(moved)
        except Exception as error:  # noqa: BLE001 - the one guard around a connection's callbacks
            self._on_failure(self, error)

    def read_ahead(self) -> None:
        """Read before the event comes that there is something to read."""
        if self._blocked is None:
            self.on_readable()

    def close(self) -> None:
        """Stop for good.  The sockets are the caller's to close, after this."""
        self.ended = True
        self._rest = None
        if self._source is not None:
            self._source.stop()
            self._source.close()
        if self._blocked is not None:
            self._blocked.stop()
            self._blocked.close()
        self._source = self._blocked = None
        if self.opposite.ended:  # no cycle is left for the garbage collector
            self.opposite.opposite = self.opposite = _OVER

    def _not_moved(self, outcome: int) -> None:
        if outcome == MORE:
            self._loop.run_callback(self._on_more)
        elif outcome == SINK_FULL:
            self._rest = memoryview(self._scratch.take_rest())
            self._wait_until_writable(self._sink_fd())
        elif outcome == WANT_WRITE:
            # Reading needs to write first (a key update's answer), and the client's socket is full.
            self._wait_until_writable(self._client_fd)
        elif outcome == TRUNCATED and not self.opposite.ended:
            self._on_failure(self, TruncatedError())
        else:
            # Once the client has our "that was all", leaving without its own is no loss: many do.
            self._end()

    def _on_more(self) -> None:
        # Meanwhile an event may have brought us here already, and found the sink full.
        if not self.ended and self._blocked is None:
            self.on_readable()

    def _wait_until_writable(self, fd: int) -> None:
        self._source.stop()
        if self._blocked is None:
            self._blocked = self._loop.io(fd, Ready.WRITABLE)
            self._blocked.start(self._on_writable)

    def _on_writable(self) -> None:
        try:
            if self._rest is not None and not self._push_rest():
                return
            self._blocked.stop()
            self._blocked.close()
            self._blocked = None
            self._source.start(self.on_readable)
            self.on_readable()  # OpenSSL may hold bytes that no event announces
        except Exception as error:  # noqa: BLE001 - as in on_readable
            self._on_failure(self, error)

    def _push_rest(self) -> bool:
        """Send what was kept; whether all of it has gone."""
        while self._rest:
            taken = self._push(self._rest)
            if taken < 0:
                return False
            self._rest = self._rest[taken:]
        self._rest = None
        return True

    def _end(self) -> None:
        if self._end_sink() == WANT_WRITE:
            # Not even the alert fits: when it does, the source will tell its end again.
            self._wait_until_writable(self._sink_fd())
            return
        if self.ended:  # the opposite failed, and all is over
            return
        self.close()
        self._on_end(self)

    def _sink_fd(self) -> int:
        raise NotImplementedError

    def _push(self, rest: memoryview) -> int:
        """Send to the sink: how many bytes it took, or a negative outcome."""
        raise NotImplementedError

    def _end_sink(self) -> int:
        """Pass the source's end on: DONE or WANT_WRITE."""
        raise NotImplementedError


class ToBackend(Pump):
    __slots__ = ()

    def start(self, source: Any, ahead: bytes = b"") -> None:
        self._move = self._tls.decrypt_to
        super().start(source, ahead)

    def _sink_fd(self) -> int:
        return self._backend_fd

    def _push(self, rest: memoryview) -> int:
        try:
            return self._backend.send(rest)
        except BlockingIOError:
            return WANT_WRITE

    def _end_sink(self) -> int:
        # When the backend has ended, too, both sockets are closed next, which says it for less.  Mostly
        # it has, but the loop has not come to it yet.
        if not self.opposite.ended:
            self.opposite.read_ahead()
        if not (self.opposite.ended or self.ended):
            self._backend.shutdown(socket.SHUT_WR)
        return DONE


class ToClient(Pump):
    __slots__ = ()

    def start(self, source: Any, ahead: bytes = b"") -> None:
        self._move = self._tls.encrypt_from
        super().start(source, ahead)

    def _sink_fd(self) -> int:
        return self._client_fd

    def _push(self, rest: memoryview) -> int:
        return self._tls.write(rest)

    def _end_sink(self) -> int:
        return DONE if self.source_was_cut else self._tls.shutdown()


def relay(
    loop: Any,
    scratch: Scratch,
    client: tuple[TlsEnd, int],
    backend: BackendEnd,
    callbacks: tuple[Callable[[Pump], None], Callable[[Pump, Exception], None]],
) -> tuple[ToBackend, ToClient]:
    """The two pumps of a connection, not started yet."""
    to_backend = ToBackend(loop, scratch, client, backend, callbacks)
    to_client = ToClient(loop, scratch, client, backend, callbacks)
    to_backend.opposite, to_client.opposite = to_client, to_backend
    return to_backend, to_client
