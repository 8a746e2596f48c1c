"""A loop whose events the test fires by hand, and two ends that do what a script says."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from termproxy.outcome import DONE, SINK_FULL, WANT_READ
from termproxy.relay.pump import Pump, Ready, ToBackend, ToClient, relay

CLIENT_FD = 5
BACKEND_FD = 7


class FakeWatcher:
    def __init__(self, fd: int, events: int) -> None:
        self.fd = fd
        self.events = events
        self.callback: Callable[[], None] | None = None
        self.closed = False

    @property
    def active(self) -> bool:
        return self.callback is not None

    def start(self, callback: Callable[[], None]) -> None:
        assert not self.closed
        assert not self.active, "one watcher, one start"
        self.callback = callback

    def stop(self) -> None:
        self.callback = None

    def close(self) -> None:
        assert not self.active, "stop before close"
        self.closed = True


class FakeLoop:
    def __init__(self) -> None:
        self.watchers: list[FakeWatcher] = []
        self.callbacks: list[Callable[[], None]] = []

    def io(self, fd: int, events: int) -> FakeWatcher:
        watcher = FakeWatcher(fd, events)
        self.watchers.append(watcher)
        return watcher

    def run_callback(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def turn(self) -> int:
        """Run what was put off: how many."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        return len(callbacks)

    def fire(self, fd: int, events: int) -> bool:
        """An event; whether anybody waited for it."""
        waiting = [w for w in self.watchers if w.active and (w.fd, w.events) == (fd, events)]
        assert len(waiting) <= 1, "two watchers on one end"
        for watcher in waiting:
            assert watcher.callback is not None
            watcher.callback()
        return bool(waiting)

    @property
    def waits_for(self) -> set[tuple[int, int]]:
        return {(w.fd, w.events) for w in self.watchers if w.active}


class FakeScratch:
    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def take_rest(self) -> bytes:
        rest, self.rest = self.rest, b""
        return rest


Step = int | Exception


class FakeEnd:
    """Both the client's TLS and the backend's socket; each call takes the next step of its script."""

    def __init__(self) -> None:
        self.scratch = FakeScratch()
        self.decrypts: list[Step | bytes] = []
        self.encrypts: list[Step | bytes] = []
        self.writes: list[Step] = []
        self.sends: list[Step] = []
        self.shutdowns: list[Step] = []
        self.to_client = b""
        self.to_backend = b""
        self.log: list[str] = []

    # The binding's Connection.

    def decrypt_to(self, fd: int, scratch: FakeScratch) -> int:
        assert fd == BACKEND_FD
        return self._move("decrypt", self.decrypts, scratch)

    def encrypt_from(self, fd: int, scratch: FakeScratch) -> int:
        assert fd == BACKEND_FD
        return self._move("encrypt", self.encrypts, scratch)

    def write(self, buffer: memoryview) -> int:
        taken = self._step("write", self.writes)
        self.to_client += bytes(buffer[: max(taken, 0)])
        return taken

    def shutdown(self, how: int | None = None) -> int:
        """OpenSSL's without an argument, the socket's with one."""
        if how is not None:
            assert how == socket.SHUT_WR
            self.log.append("half-close")
            return self._step("half-close", self.shutdowns) if self.shutdowns else 0
        self.log.append("close_notify")
        return self._step("close_notify", self.shutdowns) if self.shutdowns else DONE

    # The backend's socket.

    def fileno(self) -> int:
        return BACKEND_FD

    def send(self, buffer: memoryview) -> int:
        taken = self._step("send", self.sends)
        self.to_backend += bytes(buffer[:taken])
        return taken

    def _move(self, name: str, script: list[Step | bytes], scratch: FakeScratch) -> int:
        self.log.append(name)
        step = script.pop(0) if script else int(WANT_READ)
        if isinstance(step, bytes):  # the sink is full: this is kept
            assert not scratch.rest, "the rest before this one was never taken"
            scratch.rest = step
            return SINK_FULL
        if isinstance(step, Exception):
            raise step
        return step

    def _step(self, name: str, script: list[Step]) -> int:
        assert script, f"{name} was not expected"
        step = script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class Play:
    """The two pumps of a connection, started, with all they touch."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.end = FakeEnd()
        self.ended: list[Pump] = []
        self.failed: list[tuple[Pump, Exception]] = []
        self.to_backend: ToBackend
        self.to_client: ToClient
        self.to_backend, self.to_client = relay(
            self.loop,
            self.end.scratch,
            (cast("Any", self.end), CLIENT_FD),
            cast("Any", self.end),
            (self.ended.append, lambda pump, error: self.failed.append((pump, error))),
        )
        self.to_backend.start(self.loop.io(CLIENT_FD, Ready.READABLE))
        self.to_client.start(self.loop.io(BACKEND_FD, Ready.READABLE))

    def client_sends(self, *steps: Step | bytes) -> None:
        """The client's socket is readable; what the binding says then, and to the calls after it."""
        self.end.decrypts += steps
        assert self.loop.fire(CLIENT_FD, Ready.READABLE), "nobody reads the client"

    def backend_sends(self, *steps: Step | bytes) -> None:
        self.end.encrypts += steps
        assert self.loop.fire(BACKEND_FD, Ready.READABLE), "nobody reads the backend"

    def client_takes(self, *steps: Step) -> None:
        """The client's socket is writable, and takes this much, each time it is tried."""
        self.end.writes += steps
        assert self.loop.fire(CLIENT_FD, Ready.WRITABLE), "nobody waits to write to the client"

    def backend_takes(self, *steps: Step) -> None:
        self.end.sends += steps
        assert self.loop.fire(BACKEND_FD, Ready.WRITABLE), "nobody waits to write to the backend"

    def nothing_is_left(self) -> bool:
        return not self.loop.waits_for and all(watcher.closed for watcher in self.loop.watchers)
