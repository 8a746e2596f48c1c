"""A worker's life: make the loop, accept and forward, drain when asked to, and go.

Everything it works with was made by the master before the fork: contexts, listeners, the access log,
the scoreboard.  One tick, four times a second, does all that is not an event: the heartbeat, the
deadlines, the listeners of silent slots, the access log.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.event import Event

from termproxy import clock
from termproxy.backends.board import Board
from termproxy.config.schema import Limits, Timeouts
from termproxy.errors import Fault
from termproxy.messages import DESCRIPTORS_MAX, MessageReader, message
from termproxy.observability import logs
from termproxy.observability._tally import Tally
from termproxy.observability.access_log import AccessLog
from termproxy.observability.record import ConnectionRecord
from termproxy.observability.scoreboard import NANOSECONDS, Column, Row, WorkerState
from termproxy.relay.pump import SCRATCH_SIZE, Ready
from termproxy.tls._openssl import Scratch
from termproxy.tls.certificates import CertificateError
from termproxy.tls.context import Stores
from termproxy.worker.acceptor import Acceptor
from termproxy.worker.assembly import Assembly
from termproxy.worker.client_table import Clients
from termproxy.worker.deadlines import TICK
from termproxy.worker.frontend import Frontend
from termproxy.worker.orders import ORDER_MAX, Orders
from termproxy.worker.redirection import Redirection
from termproxy.worker.shared import FAILURE_LINES_INTERVAL, FailureLine, Shared

log = logging.getLogger("worker")

ORDERS_READ = 1 << 20  # bytes at a time

REPORT_KINDS = 100  # of failed handshakes in a report, a few KiB each: less than REPORT_MAX
LAST_WORDS = 1.0  # seconds for a send

FOR_EVER = float("inf")

# Connections make few cycles, and close() breaks those: the collector can run seldom.
GC_THRESHOLD = (50_000, 20, 50)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the master gives a worker."""

    slot: int
    row: Row
    slot_beats: memoryview
    listeners: Sequence[tuple[Frontend | Redirection, socket.socket, int]]  # with the slot of each
    assemblies: Sequence[Assembly]  # of the frontends, in the configuration's order
    stores: Stores
    timeouts: Timeouts
    limits: Limits
    access_log: AccessLog | None
    board: Board | None = None  # of the backends; None: each worker for itself
    seat: int = 0  # the worker's row there
    boards_before: Sequence[Board] = ()  # of generations whose workers are still at work
    clients: Clients | None = None  # None: they are not counted


class Worker:
    def __init__(
        self, assignment: Assignment, master: socket.socket, report_ready: Callable[[], None]
    ) -> None:
        self._assignment = assignment
        self._master = master
        logs.take_lost()  # that is the master's
        self._unsent = b""  # of a report
        self._orders = MessageReader(ORDER_MAX)
        self._came_along: list[int] = []  # descriptors, of orders that are not whole yet
        self._obedience = Orders(
            assignment.assemblies, assignment.stores, assignment.access_log, self._listen
        )
        self._clusters = {c for assembly in assignment.assemblies for c in assembly.clusters.values()}
        self._report_ready = report_ready
        self._loop: Any = gevent.get_hub().loop
        self._shared = Shared(
            loop=self._loop,
            scratch=Scratch(SCRATCH_SIZE),
            timeouts=assignment.timeouts,
            row=assignment.row.words,
            access_log=assignment.access_log,
            limits=assignment.limits,
            clients=assignment.clients,
        )
        self._acceptor = Acceptor(self._shared, assignment.slot, assignment.slot_beats, _descriptors())
        assignment.stores.tickets.count_into(assignment.row.keys)
        for index, assembly in enumerate(assignment.assemblies):
            assembly.frontend.tally = Tally(assignment.row.frontend(index))
            if assembly.redirection is not None:
                assembly.redirection.tally = assembly.frontend.tally
        for cluster in self._clusters:
            if assignment.board is not None:
                cluster.attach(assignment.board, assignment.seat, assignment.boards_before)
            cluster.run_soon(self._loop.run_callback)
        for frontend, sock, slot in assignment.listeners:
            self._acceptor.add(frontend, sock, slot)
        self._over = Event()
        self._drain_until: float | None = None

    def run(self) -> None:
        """Returns when the worker has drained, or was told to end at once."""
        # As the master takes them: a signal to every process does what one to the master does.
        for signum in (signal.SIGTERM, signal.SIGQUIT):
            self._loop.signal(signum).start(self.drain)
        self._loop.signal(signal.SIGINT).start(self._end_now)
        orders = self._loop.io(self._master.fileno(), Ready.READABLE)
        orders.start(self._on_orders, orders)
        timer = self._loop.timer(TICK, TICK)
        timer.start(self._tick)
        self._tick()
        self._shared.row[Column.STATE] = WorkerState.ACCEPTING
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        self._report_ready()
        self._over.wait()
        timer.stop()
        self._write_logs(FOR_EVER)
        self._report_failures()
        self._tell_the_rest()

    def drain(self) -> None:
        """Accept no more; end when the open connections have, or when their time is up."""
        if self._drain_until is None:
            self._drain_until = clock.monotonic() + self._assignment.timeouts.drain
            self._shared.row[Column.STATE] = WorkerState.DRAINING
            self._shared.draining = True
            for connection in list(self._shared.connections):
                connection.drain()
            self._shared.pool.close()
            self._acceptor.stop()
            self._end_if_drained(clock.monotonic())

    def _end_now(self) -> None:
        for connection in list(self._shared.connections):
            connection.drain_is_over()
        self._over.set()

    def _on_orders(self, watcher: Any) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._master, ORDERS_READ, DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        if not data:  # the master has gone, and its death signal did not come
            watcher.stop()
            self.drain()
            return
        try:
            self._obey_all(data, fds)
        except Exception:
            # What the master says next would build on this: a new worker begins with all of it.
            log.exception("an order could not be carried out; please report this")
            watcher.stop()
            _close(self._came_along)
            self.drain()

    def _obey_all(self, data: bytes, fds: list[int]) -> None:
        """Carry out the orders that are whole now."""
        self._came_along += fds
        for order in self._orders.feed(data):
            self._obey(order)
        if len(self._came_along) > DESCRIPTORS_MAX:
            raise ValueError(f"{len(self._came_along)} descriptors that no order counts")

    def _obey(self, order: dict[str, Any]) -> None:
        count = order.get("descriptors", 0)
        if count > len(self._came_along):
            raise ValueError(f"an order with {count} descriptors, of which {len(self._came_along)} came")
        fds, self._came_along = self._came_along[:count], self._came_along[count:]
        try:
            self._obedience.obey(order, fds, clock.utc_now())
        except CertificateError as error:
            log.error("certificates from the master are refused, the old ones stay: %s", error)
        finally:
            _close(fds)  # those that nothing was done with
        self._shared.row[Column.ORDERS] += 1

    def _listen(self, place: int, slot: int, sock: socket.socket) -> None:
        firsts = [kind for kind, _, number in self._assignment.listeners if number == 0]
        self._acceptor.add(firsts[place], sock, slot)

    def _tick(self) -> None:
        now = clock.monotonic()
        self._shared.row[Column.HEARTBEAT] = int(now * NANOSECONDS)
        self._acceptor.tick(now)
        for connection in self._shared.deadlines.due(now):
            connection.on_deadline(now)
        for cluster in self._clusters:
            cluster.tick(now)
            for server in cluster.servers:
                self._shared.pool.sweep(server, now, cluster.settings.idle_timeout)
        self._write_logs(now)
        self._report_failures()
        self._end_if_drained(now)

    def _write_logs(self, now: float) -> None:
        """What was held back for long enough, and all that the access log holds."""
        shared = self._shared
        for warning, held in shared.warnings.over(now):
            log.warning("%d more %s", held, warning or "things of other kinds")
        if shared.access_log is not None:
            for line, held in shared.failure_lines.over(now):
                shared.access_log.write(_together(line, held))
            shared.access_log.flush()
            shared.row[Column.ACCESS_LINES_LOST] = shared.access_log.lost
        shared.row[Column.LOG_LINES_LOST] += logs.take_lost()

    def _report_failures(self) -> None:
        """To the master, as much as it takes now."""
        shared = self._shared
        if shared.failures and not self._unsent:
            self._unsent = message({"failures": shared.failures.take(REPORT_KINDS)})
        if self._unsent:
            try:
                self._unsent = self._unsent[self._master.send(self._unsent) :]
            except BlockingIOError:
                pass  # the master is busy
            except OSError:
                self._unsent = b""  # it has gone

    def _tell_the_rest(self) -> None:
        """At the end, when nobody else is held up by it: wait for the master, but not for ever."""
        self._master.settimeout(LAST_WORDS)
        try:
            self._master.sendall(self._unsent)
            while self._shared.failures:
                rest = self._shared.failures.take(REPORT_KINDS)
                self._master.sendall(message({"failures": rest}))
        except OSError:  # it hangs, or has gone
            pass

    def _end_if_drained(self, now: float) -> None:
        if self._drain_until is None:
            return
        if not self._shared.connections:
            self._over.set()
        elif now >= self._drain_until:
            log.warning("%d connections outlived the drain", len(self._shared.connections))
            self._end_now()


def _descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path would make one object for each


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _together(line: FailureLine | None, count: int) -> ConnectionRecord:
    """One line of the access log for failed handshakes that had none of their own."""
    client, frontend, reason, fault = line or ("(many)", "(many)", "(many)", Fault.CLIENT)
    return ConnectionRecord(
        time=clock.utc_now(),
        client=client,
        frontend=frontend,
        ended=reason,
        fault=fault,
        count=count,
        detail=f"{count} more such handshakes failed in the {FAILURE_LINES_INTERVAL:g} s before this",
    )


def has_hub() -> bool:
    """Whether this process has a gevent hub: a process that forks must not."""
    return get_hub_if_exists() is not None


def gevent_version() -> str:
    return str(gevent.__version__)
