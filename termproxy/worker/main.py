"""A worker's life: make the loop, accept and forward, drain when asked to, and go.

Everything it works with was made by the master before the fork: contexts, listeners, the access log,
the scoreboard.  One tick, four times a second, does all that is not an event: the heartbeat, the
deadlines, the listeners of silent slots, the access log.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.event import Event

from termproxy import clock
from termproxy.backends.board import Board, Key
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import Config, Limits, Timeouts
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
from termproxy.worker._client_table import Clients
from termproxy.worker.acceptor import Acceptor
from termproxy.worker.assembly import Assembly
from termproxy.worker.deadlines import TICK
from termproxy.worker.frontend import Frontend
from termproxy.worker.orders import ORDER_MAX, Orders, settings_in
from termproxy.worker.probes import Probes
from termproxy.worker.redirection import Redirection
from termproxy.worker.shared import FAILURE_LINES_INTERVAL, FailureLine, Shared

log = logging.getLogger("worker")

# Of a drain, what is left for clients that are idle when it ends to take their leave.
LEAVE = 1.0  # seconds; half of a shorter drain

ORDERS_READ = 1 << 20  # bytes at a time

REPORT_KINDS = 100  # of failed handshakes in a report, a few KiB each: less than REPORT_MAX
LAST_WORDS = 1.0  # seconds for a send

FOR_EVER = float("inf")

# Descriptors of a worker besides two for each connection, and its listeners: loop, logs, a reserve.
DESCRIPTORS_BESIDES = 64

# Connections make few cycles, and close() breaks those: the collector can run seldom.
GC_THRESHOLD = (50_000, 20, 50)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the master gives a worker."""

    slot: int
    row: Row
    slot_beats: memoryview
    listeners: Sequence[tuple[Frontend | Redirection, socket.socket, int | None]]
    """Each with its slot; None when all slots share it."""
    assemblies: Sequence[Assembly]  # of the frontends, in the configuration's order
    stores: Stores
    timeouts: Timeouts
    limits: Limits
    access_log: AccessLog | None
    board: Board | None = None  # of the backends; None: each worker for itself
    seat: int = 0  # the worker's row there
    boards_before: Sequence[Board] = ()  # of generations whose workers are still at work
    clients: Clients | None = None  # None: they are not counted
    accepts: bool = True  # clients, at once; else when the master says so
    probe: socket.socket | None = None  # the channel on which it has to prove itself first


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
        for index, assembly in enumerate(assignment.assemblies):
            assembly.frontend.tally = Tally(assignment.row.frontend(index))
            if assembly.redirection is not None:
                assembly.redirection.tally = assembly.frontend.tally
        for cluster in self._clusters:
            self._introduce(cluster)
        for frontend, sock, slot in assignment.listeners:
            self._acceptor.add(frontend, sock, slot)
        self._probes = None
        if assignment.probe is not None:
            frontends = [assembly.frontend for assembly in assignment.assemblies]
            self._probes = Probes(self._loop, assignment.probe, frontends)
        self._accepts = False
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
        if self._assignment.accepts:
            self._accept()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        self._report_ready()
        self._over.wait()
        timer.stop()
        self._write_logs(FOR_EVER)
        self._report_failures()
        self._tell_the_rest()

    def _accept(self) -> None:
        """Take clients from now on."""
        if self._drain_until is None:
            self._accepts = True
            self._assignment.stores.tickets.count_into(self._assignment.row.keys)
            self._shared.row[Column.STATE] = WorkerState.ACCEPTING
            self._acceptor.tick(clock.monotonic())

    def drain(self) -> None:
        """Accept no more; end when the open connections have, or when their time is up.  Nobody goes on
        here: clients without a request are let go at once.
        """
        self._drain(clock.monotonic())

    def make_way(self) -> None:
        """Drain, while others go on with the listeners: clients without a request may have one yet, and
        are told with its answer to go there.
        """
        if self._drain_until is None:
            drain = self._shared.timeouts.drain
            self._drain(clock.monotonic() + max(drain - LEAVE, drain / 2))

    def _drain(self, idle_until: float) -> None:
        shared, now = self._shared, clock.monotonic()
        shared.draining, shared.idle_until = True, idle_until
        for connection in list(shared.connections):
            connection.drain()
        if self._drain_until is None:
            self._drain_until = now + shared.timeouts.drain
            shared.row[Column.STATE] = WorkerState.DRAINING
            shared.pool.close()
            self._acceptor.stop()
        self._end_if_drained(now)

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
            if "accept" in order:
                self._accept()
            elif "make_way" in order:
                self.make_way()
            elif "settings" in order:
                self._follow(*settings_in(order))
            else:
                self._obedience.obey(order, fds, clock.utc_now())
        except CertificateError as error:
            log.error("certificates from the master are refused, the old ones stay: %s", error)
        finally:
            _close(fds)  # those that nothing was done with
        self._shared.row[Column.ORDERS] += 1

    def _listen(self, place: int, slot: int, sock: socket.socket) -> None:
        firsts = [kind for kind, _, number in self._assignment.listeners if number == 0]
        self._acceptor.add(firsts[place], sock, slot)

    def _follow(self, config: Config, keys: list[Key]) -> None:
        """Work by other settings from now on, as far as a running worker can (master/changes.py)."""
        logging.getLogger().setLevel(config.log.level.upper())
        self._shared.timeouts = config.timeouts
        self._shared.limits = config.limits
        raise_descriptor_limit(config.limits.connections, len(self._assignment.listeners))
        if self._accepts and not self._shared.draining:
            self._acceptor.limit_has_changed()
        clusters = self._change_clusters(config, keys)
        query = config.log.query
        for assembly, frontend in zip(self._assignment.assemblies, config.frontends, strict=True):
            assembly.change(frontend, clusters, config.limits, logs_query=query)

    def _change_clusters(self, config: Config, keys: list[Key]) -> dict[str, Cluster]:
        board, before = self._assignment.board, {cluster.name: cluster for cluster in self._clusters}
        if board is not None:
            board.add(keys[len(board.keys) :])
        clusters = {}
        for name, settings in config.clusters.items():
            cluster = clusters[name] = before.get(name) or Cluster.of(name, settings)
            if name not in before:
                self._introduce(cluster)
            elif cluster.settings != settings:
                cluster.change(settings)
        self._clusters = set(clusters.values())
        return clusters

    def _introduce(self, cluster: Cluster) -> None:
        """Have it see what all workers see."""
        assignment = self._assignment
        if assignment.board is not None:
            cluster.attach(assignment.board, assignment.seat, assignment.boards_before)
        cluster.run_soon(self._loop.run_callback)

    def _tick(self) -> None:
        now = clock.monotonic()
        self._shared.row[Column.HEARTBEAT] = int(now * NANOSECONDS)
        if self._accepts:
            self._acceptor.tick(now)
        for connection in self._shared.deadlines.due(now):
            connection.on_deadline(now)
        servers: set[Server] = set()
        for cluster in self._clusters:
            cluster.tick(now)
            servers.update(cluster.servers)
            for server in cluster.servers:
                self._shared.pool.sweep(server, now, cluster.settings.idle_timeout)
        self._shared.pool.sweep_others(servers)
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
        oldest = min((connection.began for connection in self._shared.connections), default=0.0)
        self._shared.row[Column.OLDEST] = int(oldest * NANOSECONDS)
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
    record = ConnectionRecord(clock.wall(), client, frontend)
    record.ended, record.fault, record.count = reason, fault, count
    record.detail = (
        f"{count} more such handshakes failed in the {FAILURE_LINES_INTERVAL:g} s before this"
    )
    return record


def raise_descriptor_limit(connections: int, listeners: int) -> tuple[int, int]:
    """Every connection takes two descriptors; the soft limit is mostly made for something else.  Returns
    how many are wanted, and the limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + listeners + DESCRIPTORS_BESIDES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        soft = most
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted, soft


def has_hub() -> bool:
    """Whether this process has a gevent hub: a process that forks must not."""
    return get_hub_if_exists() is not None


def gevent_version() -> str:
    return str(gevent.__version__)
