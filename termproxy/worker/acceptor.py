"""Accept clients from the listeners of this worker's slot, and of slots that nobody watches.

Each slot has its own listening socket per address, and the kernel spreads clients over them.  So one
worker wakes for one client; but a slot whose worker hangs, or has gone, still gets its share.  Every
worker holds every slot's socket, and the next living slot adopts one that has fallen silent, until its
own worker is back: nobody waits in a queue that nobody reads.

Unix sockets and those that systemd binds are one for all slots: every worker watches them.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Any

from termproxy import clock
from termproxy._sockets import accept, reset_on_close
from termproxy.address import UNIX_CLIENT, is_in
from termproxy.observability.scoreboard import NANOSECONDS
from termproxy.relay.pump import Ready
from termproxy.worker.frontend import Frontend
from termproxy.worker.gate import Seat
from termproxy.worker.http_connection import HttpConnection
from termproxy.worker.redirection import RedirectedConnection, Redirection
from termproxy.worker.relaying import RelayingConnection
from termproxy.worker.shared import Connection, Shared

log = logging.getLogger("worker")

# Clients taken in one go, at most, before those already here get their turn again.
BATCH = 16

# Mostly there is one, and to ask whether there are more costs a system call: that is done after so many
# events that brought as many as were asked for; then twice as many are.
EVENTS_EACH = 4

# A slot is silent when its listeners have not been watched for this long: four ticks missed.
SILENT_AFTER = 1.0  # seconds

# Left for what a worker opens besides connections of clients and to backends.
DESCRIPTORS_SPARE = 16

# With no descriptor or memory left, accepting again at once would spin: the client stays in the queue.
PAUSE = 0.1  # seconds

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# The client's own doing, before we came to it (accept(2) lists more; all mean "try the next").
_CLIENT_GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH)


def slots_to_watch(own: int, beats: Sequence[float], now: float) -> set[int]:
    """Which slots' listeners the worker of slot `own` watches.  `beats` tells when each last was.

    Silent slots are dealt out to the others in turn: when there are fewer workers than there were, each
    has its part of what they leave.
    """
    count = len(beats)
    alive = [slot for slot in range(count) if now - beats[slot] < SILENT_AFTER or slot == own]
    silent = sorted(set(range(count)).difference(alive))
    watched = {slot for index, slot in enumerate(silent) if alive and alive[index % len(alive)] == own}
    return watched | ({own} if own < count else set())


class Listener:
    """One listening socket, and the watcher on it; `slot` is None for one that all slots share."""

    __slots__ = (
        "_acceptor",
        "_fd",
        "_frontend",
        "_full_batches",
        "_kind",
        "_port",
        "_sock",
        "_watcher",
        "_watching",
        "slot",
    )

    def __init__(
        self, acceptor: Acceptor, frontend: Frontend | Redirection, sock: socket.socket, slot: int | None
    ) -> None:
        self.slot = slot
        self._acceptor = acceptor
        self._frontend = frontend
        self._sock = sock
        self._fd = sock.fileno()
        self._watcher: Any = acceptor.shared.loop.io(self._fd, Ready.READABLE)
        self._watching = False
        self._full_batches = 0  # in a row
        self._kind = _kind_of(frontend)
        self._port: int = 0 if sock.family is socket.AF_UNIX else sock.getsockname()[1]

    def watch(self, wanted: bool) -> None:  # noqa: FBT001 - reads as what it sets
        if wanted and not self._watching:
            self._watcher.start(self._on_clients)
        elif self._watching and not wanted:
            self._watcher.stop()
        self._watching = wanted

    def close(self) -> None:
        """Take who is waiting already, then let go; others may go on with the same socket."""
        if self._watching:
            while self._accept_some(BATCH):
                pass
        self.watch(False)
        self._watcher.close()
        self._sock.close()

    def _on_clients(self) -> None:
        handshakes = self._acceptor.shared.handshakes
        if not handshakes.is_awaited:
            self._accept_batch()
            return
        begun = clock.monotonic()
        self._accept_batch()
        ended = clock.monotonic()
        if rest := handshakes.charge_accepting(ended - begun, ended):
            self._acceptor.pause(rest, ended)

    def _accept_batch(self) -> None:
        is_full = self._accept_some(min(1 << self._full_batches // EVENTS_EACH, BATCH))
        self._full_batches = self._full_batches + 1 if is_full else 0

    def _accept_some(self, most: int) -> bool:
        """Accept up to so many; whether more may be waiting, and may be taken."""
        for _ in range(most):
            if not self._acceptor.has_room():
                return False
            try:
                accepted = accept(self._fd)
            except OSError as error:
                if error.errno in _CLIENT_GONE:
                    continue
                self._acceptor.lacks(error)
                return False
            if accepted is None:
                return False
            fd, peer = accepted
            self._take(fd, peer or UNIX_CLIENT)
        return True

    def _take(self, fd: int, peer: Any) -> None:
        shared = self._acceptor.shared
        seat: Seat | None = None
        try:
            if shared.gate.is_on and peer and not self._is_balancer(peer):
                entered = self._ask_gate(peer[0])
                if isinstance(entered, str):
                    shared.count_drop(self._frontend.tally, entered, peer[0])
                    reset_on_close(fd)
                    os.close(fd)
                    return
                seat = entered
            connection = self._kind(shared, self._frontend, fd, peer)
            connection.own_port = self._port
            connection.seat = seat
        except Exception:
            # Nothing of this client may stop the next one.
            log.exception("a connection could not begin; please report this")
            os.close(fd)
            if seat is not None:
                shared.gate.leave(seat)
            return
        connection.start()

    def _ask_gate(self, host: str) -> Seat | str | None:
        shared, now = self._acceptor.shared, clock.monotonic()
        may_tell = self._kind is HttpConnection and not shared.handshakes.is_busy(now)
        return shared.gate.enter(host, now, may_tell=may_tell)

    def _is_balancer(self, peer: Any) -> bool:
        """Whether it will say first whom it speaks for."""
        frontend = self._frontend
        if isinstance(frontend, Redirection) or not frontend.proxies:
            return False
        return is_in(peer[0], frontend.proxies)


def _kind_of(frontend: Frontend | Redirection) -> Callable[..., Connection]:
    """What is made of each client."""
    if isinstance(frontend, Redirection):
        return RedirectedConnection
    return RelayingConnection if frontend.gateway is None else HttpConnection


class Acceptor:
    """All listeners of a worker: which are watched, and when none is."""

    __slots__ = (
        "_beat",
        "_beats",
        "_descriptors",
        "_full",
        "_listeners",
        "_paused_until",
        "_room",
        "_slot",
        "_stopped",
        "shared",
    )

    def __init__(self, shared: Shared, slot: int, beats: memoryview, descriptors: int) -> None:
        """`descriptors` are the worker's own, open before any client came."""
        self.shared = shared
        self._slot = slot
        self._beats = beats
        self._beat = 0  # our last one
        self._descriptors = descriptors
        self._room = self._count_room()
        self._listeners: list[Listener] = []
        self._full = False
        self._paused_until = 0.0
        self._stopped = False
        shared.on_closed = self._on_closed

    def add(self, frontend: Frontend | Redirection, sock: socket.socket, slot: int | None) -> None:
        """Accept from it, too, from the next tick on, when that is for us to do."""
        if self._stopped:
            sock.close()
            return
        self._listeners.append(Listener(self, frontend, sock, slot))

    def limit_has_changed(self) -> None:
        """Of connections; what is open stays."""
        self._room = self._count_room()
        self._full = False
        self._watch(clock.monotonic())

    def tick(self, now: float) -> None:
        """Say that our slot is watched, when it is, and look after those that are not."""
        if self._stopped:
            return
        self._room = self._count_room()
        if not self._full and now >= self._paused_until:
            self._beat = self._beats[self._slot] = int(now * NANOSECONDS)
        self._watch(now)

    def stop(self) -> None:
        """Accept no more, for good.  The next generation, if there is one, goes on with the queues."""
        self._stopped = True
        if self._beats[self._slot] == self._beat:  # and not the next generation's
            self._beats[self._slot] = 0  # others look after it from their next tick on
        for listener in self._listeners:
            listener.close()

    def has_room(self) -> bool:
        """Whether one more connection may be accepted; with none, the watching ends."""
        if len(self.shared.connections) < self._room:
            return True
        if not self._full:
            self._full = True
            now = clock.monotonic()
            if self.shared.warnings.admits("times that the limit of connections was reached", now):
                log.warning("%d connections: %s; new ones wait", self._room, self._why_no_more())
            self._watch(now)
        return False

    def _count_room(self) -> int:
        """How many connections there may be: `limits.connections`, if a backend's descriptor is left for
        each of them, and what the worker needs for itself.
        """
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return self.shared.limits.connections
        free = descriptors - self._descriptors - len(self.shared.pool) - DESCRIPTORS_SPARE
        return max(min(self.shared.limits.connections, free // 2), 1)

    def _why_no_more(self) -> str:
        if self._room == self.shared.limits.connections:
            return "the limit"
        return "no descriptors for more (raise LimitNOFILE)"

    def lacks(self, error: OSError) -> None:
        """Accepting failed for lack of something: leave the clients in their queue for a while."""
        now = clock.monotonic()
        if self.shared.warnings.admits("times that clients could not be accepted", now):
            log.error("cannot accept clients: %s; they wait", os.strerror(error.errno or 0))
        self.pause(PAUSE, now)

    def pause(self, seconds: float, now: float) -> None:
        """Leave the clients in their queue for so long."""
        self._paused_until = now + seconds
        self._watch(now)
        self.shared.loop.timer(seconds).start(self._on_pause_over)

    def _on_pause_over(self) -> None:
        self._paused_until = 0.0
        self._watch(clock.monotonic())

    def _on_closed(self) -> None:
        if self._full:
            self._full = False
            self._watch(clock.monotonic())

    def _equal_share(self, now: float) -> float:
        """Of what all living workers do, when they share every socket."""
        living = sum(now - beat / NANOSECONDS < SILENT_AFTER for beat in self._beats)
        return 1 / max(1, living)

    def _watch(self, now: float) -> None:
        slots: set[int] = set()
        accepts = not (self._stopped or self._full or now < self._paused_until)
        if accepts:
            count = 1 + max((each.slot for each in self._listeners if each.slot is not None), default=-1)
            beats = [beat / NANOSECONDS for beat in self._beats[:count]]
            slots = slots_to_watch(self._slot, beats, now)
            # A slot is as good as another: who accepts for two may also do the handshakes of two.
            self.shared.handshakes.take_share(len(slots) / count if count else self._equal_share(now))
        for listener in self._listeners:
            listener.watch(accepts if listener.slot is None else listener.slot in slots)
