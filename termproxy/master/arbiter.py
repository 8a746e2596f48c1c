"""The master's loop: wait for a signal, a child's exit, a word from a worker or an operator, or a tick;
ask the Supervisor what follows; do it.

It has one thread, reads no client's byte, and never waits for anything else.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil

from termproxy import __version__, clock
from termproxy.config.load import Source
from termproxy.errors import ConfigError, StartError
from termproxy.master import supervisor as decide
from termproxy.master.backend_keeper import BackendKeeper, BackendRefusedError
from termproxy.master.control import ControlSocket, Request
from termproxy.master.file_watch import FileWatch
from termproxy.master.generation import Generation, build, check
from termproxy.master.listeners import Listeners
from termproxy.master.notify import notify
from termproxy.master.pidfile import Pidfile
from termproxy.master.signals import SignalInbox
from termproxy.master.spawn import READY, REASON_MAX, Helper, spawn, spawn_helper
from termproxy.master.stapler import Changes, Stapler
from termproxy.master.state_dir import StateDir
from termproxy.master.ticket_keeper import TicketKeeper, TicketKeyRefusedError
from termproxy.observability import logs
from termproxy.observability.failure_book import FailureBook
from termproxy.observability.metrics import FAILURES, as_plain
from termproxy.observability.scoreboard import ROWS, SLOTS, Column, Row, Scoreboard
from termproxy.tls._openssl import openssl_version
from termproxy.tls.certificates import Certificate
from termproxy.tls.context import Stores
from termproxy.worker.explanation import explain
from termproxy.worker.main import Assignment, gevent_version
from termproxy.worker.messages import REPORT_MAX, MessageReader
from termproxy.worker.orders import order, show_staples, staples_order

log = logging.getLogger("master")

TICK = 0.25  # seconds

# Descriptors of a worker besides two for each connection: listeners, loop, logs, shared memory.
DESCRIPTORS_BESIDES = 64

_SIGNALS: dict[type, signal.Signals] = {
    decide.AskToDrain: signal.SIGTERM,
    decide.EndNow: signal.SIGINT,
    decide.Abort: signal.SIGABRT,
    decide.Kill: signal.SIGKILL,
}
_LAST_RESORTS: dict[type, str] = {
    decide.Abort: "hangs: aborting it",
    decide.Kill: "does not go: killing it",
}

SWEEP = 60.0  # seconds: expired sessions stay in memory no longer than this

ORDERS_SEND = 1 << 16  # bytes at a time

FAILURE_KINDS = 1000  # kept, of handshakes that failed
FAILURES_TOLD = 50

_NOT_YET = {
    signal.SIGUSR1: "reopening logs (use HUP)",
    signal.SIGUSR2: "upgrading",
    signal.SIGWINCH: "stopping the workers only",
    signal.SIGTTIN: "adding a worker",
    signal.SIGTTOU: "removing a worker",
}


@dataclass(slots=True)
class Child:
    """What belongs to a worker's process, besides what the Supervisor knows."""

    row: Row
    startup_fd: int | None
    talk: socket.socket
    unsent: bytearray = field(default_factory=bytearray)  # orders that the worker has not taken yet
    reports: MessageReader = field(default_factory=lambda: MessageReader(REPORT_MAX))
    said: bytes = b""
    is_heard: bool = True


@dataclass(slots=True)
class LastReload:
    """For `status`: how the latest attempt went."""

    at: str
    ok: bool
    detail: str


class Arbiter:
    """Runs one server.  `read_source` gives the configuration, anew for each reload; `on_serving` is
    called once, when the first workers accept clients.  Where there is nothing to reload, HUP is the
    closed terminal's, and stops.
    """

    def __init__(
        self,
        read_source: Callable[[], Source],
        on_serving: Callable[[], None] = lambda: None,
        *,
        may_reload: bool = True,
    ) -> None:
        self._may_reload = may_reload
        self._read_source = read_source
        self._on_serving = on_serving
        self._selector = selectors.DefaultSelector()
        self._listeners = Listeners()
        self._scoreboard = Scoreboard()
        self._failures = FailureBook(FAILURE_KINDS)
        self._stores = Stores()
        self._tickets = TicketKeeper(self._stores.tickets, lambda: int(clock.utc_now().timestamp()))
        self._stapler = Stapler(self._selector, self._fork_helper, self._show_staples)
        self._backends = BackendKeeper(self._fork_helper)
        self._supervisor = decide.Supervisor()
        self._generations: dict[int, Generation] = {}
        self._children: dict[int, Child] = {}
        self._added_addresses: dict[int, list[Any]] = {}
        self._slots_before: dict[int, int] = {}
        self._told_when_stopped: list[Request] = []
        self._last_reload: LastReload | None = None
        self._reload_again = False
        self._started = clock.utc_now()
        self._next_number = 1
        self._exit_status: int | None = None
        self._file_watch = FileWatch()
        self._state_dir: StateDir | None = None
        self._next_sweep = 0.0
        self._inbox: SignalInbox
        self._pidfile: Pidfile | None = None
        self._control: ControlSocket | None = None

    def run(self) -> int:
        """Serve until told to stop: the exit status.  ConfigError or StartError before it serves."""
        checked = check(self._read_source(), uid=os.getuid(), now=clock.utc_now(), stores=self._stores)
        config = checked.config
        logs.set_up(config.log.level)
        # Keys are in this memory: no core file.  Workers inherit that.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self._inbox = SignalInbox()
        self._selector.register(self._inbox.fd, selectors.EVENT_READ, self._on_signals)
        self._selector.register(self._file_watch.fd, selectors.EVENT_READ, self._file_watch.on_events)
        try:
            if config.pidfile is not None:
                self._pidfile = Pidfile(config.pidfile)
            if config.control is not None:
                self._control = ControlSocket(config.control, self._selector, self._on_request)
            generation = build(checked, self._take_number())
            self._state_dir = None if config.state_dir is None else StateDir(config.state_dir)
            self._tickets.use(config.resumption, self._state_dir)
            self._stapler.keep_in(self._state_dir, list(generation.certificates_to_staple()))
            self._begin(generation)
            return self._loop()
        finally:
            self._clean_up()

    def _loop(self) -> int:
        next_tick = clock.monotonic()
        while self._exit_status is None:
            try:
                for key, _ in self._selector.select(max(0.0, next_tick - clock.monotonic())):
                    key.data(clock.monotonic())
                now = clock.monotonic()
                if now >= next_tick:
                    next_tick = now + TICK
                    self._tick(now)
            except Exception:
                # A bug in here must not take the workers with it: they go on serving.
                log.exception("the master stumbled; please report this")
                time.sleep(TICK)  # not to stumble over the same thing in a tight circle
        return self._exit_status

    def _tick(self, now: float) -> None:
        beats = {pid: child.row.beat for pid, child in self._children.items()}
        self._act(self._supervisor.on_tick(now, beats))
        if self._control is not None:
            self._control.expire(now)
        if self._file_watch.is_due(now) or self._has_one_changed_validity():
            self._renew_certificates()
        self._tickets.tick()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP
            self._stores.sweep()
        if self._supervisor.in_force is not None and not self._supervisor.stopping:
            self._stapler.tick(now)
            self._backends.probing.tick(now)

    # What the Supervisor decided.

    def _act(self, actions: Iterable[decide.Action]) -> None:
        for action in list(actions):  # doing one may make the Supervisor decide again
            match action:
                case decide.Spawn():
                    self._spawn(action)
                case decide.AskToDrain() | decide.EndNow():
                    _send(action.pid, _SIGNALS[type(action)])
                case decide.Abort() | decide.Kill():
                    log.error("worker %d %s", action.pid, _LAST_RESORTS[type(action)])
                    _send(action.pid, _SIGNALS[type(action)])
                case decide.InForce(number):
                    self._in_force(self._generations[number])
                case decide.Dropped(number, reason):
                    self._dropped(self._generations[number], reason)
                case decide.Stopped():
                    if self._exit_status is None:
                        self._exit_status = 0

    def _spawn(self, action: decide.Spawn) -> None:
        if action.generation not in (self._supervisor.candidate, self._supervisor.in_force):
            return  # a spawn before this one failed, and its generation was dropped
        now = clock.monotonic()
        generation = self._generations[action.generation]
        try:
            row = self._scoreboard.take_row([each.name for each in generation.config.frontends])
        except OSError as error:  # no descriptor is left, or no memory
            reason = f"shared memory: {error.strerror}"
            self._act(self._supervisor.on_spawn_failed(action, reason, now))
            return
        if row is None:
            reason = f"{ROWS} workers are alive; old generations must drain first"
            self._act(self._supervisor.on_spawn_failed(action, reason, now))
            return
        assignment = self._assignment(generation, action.slot, row)
        try:
            spawned = spawn(assignment, generation.user, self._leave_master)
        except OSError as error:
            self._scoreboard.return_row(row)
            self._act(self._supervisor.on_spawn_failed(action, f"fork: {error.strerror}", now))
            return
        pid = spawned.pid
        self._children[pid] = child = Child(row, spawned.startup_fd, spawned.talk)
        self._listen(child)
        self._selector.register(
            spawned.startup_fd, selectors.EVENT_READ, lambda now: self._on_word(pid, now)
        )
        self._supervisor.on_spawned(action, pid, now)
        log.debug("worker %d: slot %d of generation %d", pid, action.slot, action.generation)

    def _assignment(self, generation: Generation, slot: int, row: Row) -> Assignment:
        listeners = [
            (frontend, sock, number)
            for frontend, address in generation.addresses()
            for number, sock in enumerate(self._listeners.of(address))
        ]
        board, boards_before = self._backends.boards(generation.number)
        return Assignment(
            slot=slot,
            row=row,
            slot_beats=self._scoreboard.slot_beats,
            listeners=listeners,
            assemblies=[site.assembly for site in generation.sites],
            stores=self._stores,
            timeouts=generation.config.timeouts,
            limits=generation.config.limits,
            access_log=generation.access_log,
            board=board,
            boards_before=boards_before,
        )

    def _leave_master(self) -> None:
        """In a worker, just forked: let go of what is the master's."""
        self._inbox.close()
        self._selector.close()
        if self._pidfile is not None:
            self._pidfile.close()
        if self._control is not None:
            self._control.close()
        for request in self._told_when_stopped:
            request.sock.close()
        self._file_watch.close()
        self._stapler.close()
        for child in self._children.values():
            child.talk.close()
            if child.startup_fd is not None:
                os.close(child.startup_fd)

    # Generations.

    def _take_number(self) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def _begin(self, generation: Generation) -> None:
        """Bring a generation's workers up.  StartError when an address cannot be had."""
        config = generation.config
        _raise_descriptor_limit(config.limits.connections)
        workers = config.workers or min(len(psutil.Process().cpu_affinity()), SLOTS)
        addresses = [address for _, address in generation.addresses()]
        self._slots_before[generation.number] = self._listeners.slots()
        try:
            self._backends.begin(generation.number, config, workers)
        except OSError as error:
            generation.close()
            raise StartError(f"shared memory: {error.strerror}") from None
        try:
            added = self._listeners.bind(addresses, workers)
        except StartError:
            self._backends.end(generation.number)
            generation.close()
            raise
        self._added_addresses[generation.number] = added
        self._generations[generation.number] = generation
        for warning in generation.warnings:
            log.warning("%s", warning)
        number = generation.number
        self._act(self._supervisor.begin(number, workers, config.timeouts.drain))

    def _in_force(self, generation: Generation) -> None:
        wanted = {address for _, address in generation.addresses()}
        self._listeners.close(a for a in self._listeners.addresses() if a not in wanted)
        self._added_addresses.pop(generation.number, None)
        self._slots_before.pop(generation.number, None)
        if generation.number == 1:
            log.info("%s", _start_line(generation, len(self._supervisor.workers)))
            notify(f"READY=1\nMAINPID={os.getpid()}")
            self._on_serving()
        else:
            self._reload_ended(ok=True, detail=f"generation {generation.number} serves")
        logs.set_up(generation.config.log.level)
        try:
            self._tickets.use(generation.config.resumption, self._state_dir)
        except StartError as error:  # it could be used when it was checked
            log.error("the ticket keys of before stay: %s", error)
        self._stores.keep_only(generation.config.resumption.session_cache)
        self._watch_files(generation)
        self._stapler.want(generation.certificates_to_staple())
        self._backends.put_in_force(generation.number, clock.monotonic())
        # Files may have changed since this generation read them: only one in force is renewed.
        self._file_watch.look_now(clock.monotonic())
        self._reload_if_asked_again()

    def _dropped(self, generation: Generation, reason: str) -> None:
        self._listeners.close(self._added_addresses.pop(generation.number, ()))
        self._listeners.shrink(self._slots_before.pop(generation.number, SLOTS))
        if self._supervisor.in_force is None:
            log.error("cannot start: %s", reason)
            self._exit_status = 1
            return
        self._reload_ended(ok=False, detail=f"a new worker failed: {reason}")
        self._reload_if_asked_again()

    def _reload(self) -> None:
        if self._supervisor.stopping:
            return
        if self._supervisor.candidate is not None:
            self._reload_again = True  # one more, once this one is decided, serves all who asked
            return
        notify("RELOADING=1")
        try:
            checked = check(
                self._read_source(), uid=os.getuid(), now=clock.utc_now(), stores=self._stores
            )
            self._warn_of_fixed_settings(checked.config)
            self._begin(build(checked, self._take_number()))
        except (ConfigError, StartError) as error:
            self._reload_ended(ok=False, detail=str(error))

    def _reload_if_asked_again(self) -> None:
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _reload_ended(self, *, ok: bool, detail: str) -> None:
        self._last_reload = LastReload(clock.utc_now().isoformat(timespec="seconds"), ok, detail)
        if ok:
            log.info("reloaded: %s", detail)
        else:
            log.error("not reloaded, the old configuration stays: %s", detail)
        notify("READY=1")

    def _warn_of_fixed_settings(self, config: Any) -> None:
        assert self._supervisor.in_force is not None  # noqa: S101 - a reload follows a start
        old = self._generations[self._supervisor.in_force].config
        for name in ("pidfile", "control", "state_dir"):
            if getattr(old, name) != getattr(config, name):
                log.warning("a changed %s takes a restart; the old one stays", name)

    # Certificates that change while they are served.

    def _watch_files(self, generation: Generation) -> None:
        folders: set[Path] = set()
        for site in generation.sites:
            folders |= site.store.directories()
        for file in self._tickets.files():
            folders |= {file.parent, file.resolve().parent}
        self._file_watch.watch(folders, clock.monotonic())

    def _renew_certificates(self) -> None:
        """Show what the files hold now, in every worker, without a new one."""
        number = self._supervisor.in_force
        if number is None or self._supervisor.stopping:
            return
        generation = self._generations[number]
        self._tickets.look_at_files()
        for index, site in enumerate(generation.sites):
            before = site.assembly.certificates
            problems, changed = site.renew(clock.utc_now())
            for _, what, cure in problems:
                log.error("what was served before stays: %s; %s", what, cure)
            if changed:
                after = site.assembly.certificates
                self._order_workers(number, order(index, before, after, site.store.pem))
                log.info("frontend %s: renewed %s", site.assembly.config.name, _renewed(before, after))
        self._watch_files(generation)
        self._stapler.want(generation.certificates_to_staple())

    def _has_one_changed_validity(self) -> bool:
        generation = self._generations.get(self._supervisor.in_force or 0)
        utc_now = clock.utc_now()
        return generation is not None and any(
            site.next_change is not None and site.next_change <= utc_now for site in generation.sites
        )

    def _order_workers(self, generation: int, message: bytes) -> None:
        for pid, worker in self._supervisor.workers.items():
            if worker.generation == generation:
                self._order(self._children[pid], message)

    # OCSP responses.

    def _fork_helper(self, prepare: Callable[[], Callable[[int], None]]) -> Helper:
        assert self._supervisor.in_force is not None  # noqa: S101 - see _tick
        user = self._generations[self._supervisor.in_force].user
        return spawn_helper(prepare, user, self._leave_master)

    def _show_staples(self, changes: Changes) -> None:
        show_staples(changes, self._stores.staples)
        message = staples_order(changes)
        for child in self._children.values():
            self._order(child, message)

    # What the master and a worker say to each other.

    def _on_talk(self, child: Child) -> None:
        if child.talk.fileno() == -1:
            return  # it was reaped in the same turn of the loop
        self._send_orders(child)
        self._hear(child)

    def _order(self, child: Child, message: bytes) -> None:
        was_idle = not child.unsent
        child.unsent += message
        if was_idle:
            self._send_orders(child)

    def _send_orders(self, child: Child) -> None:
        """Send what the worker takes now; the rest when it takes more."""
        try:
            while child.unsent:
                del child.unsent[: child.talk.send(child.unsent[:ORDERS_SEND])]
        except BlockingIOError:
            pass
        except OSError:
            child.unsent.clear()  # it is on its way out; its replacement inherits what is served
        self._listen(child)

    def _hear(self, child: Child) -> None:
        """What a worker reports; it may no longer be itself, and is not trusted."""
        if not child.is_heard:
            return
        try:
            data = child.talk.recv(REPORT_MAX)
        except OSError:  # nothing now, or never again
            return
        frontends = child.row.frontends
        try:
            for report in child.reports.feed(data):
                self._failures.merge(report["failures"], frontends, FAILURES)
        except (ValueError, TypeError, KeyError) as error:
            log.error("a worker reports nonsense, and is not heard any more: %s", error)
            data = b""
        if not data:
            child.is_heard = False
            self._listen(child)

    def _listen(self, child: Child) -> None:
        """Have the selector wait for what there is to do."""
        events = selectors.EVENT_READ if child.is_heard else 0
        events |= selectors.EVENT_WRITE if child.unsent else 0
        is_registered = child.talk in self._selector.get_map()
        if not events:
            if is_registered:
                self._selector.unregister(child.talk)
        elif is_registered:
            self._selector.modify(child.talk, events, lambda _: self._on_talk(child))
        else:
            self._selector.register(child.talk, events, lambda _: self._on_talk(child))

    # Events.

    def _on_signals(self, now: float) -> None:
        for signum in self._inbox.read():
            match signum:
                case signal.SIGCHLD:
                    self._reap()
                case signal.SIGHUP if self._may_reload:
                    self._reload()
                case signal.SIGTERM | signal.SIGQUIT if not self._supervisor.stopping:
                    self._stop(now)
                case signal.SIGTERM | signal.SIGQUIT | signal.SIGINT | signal.SIGHUP:
                    self._stop_now(now)
                case _:
                    log.warning("%s: %s is not built yet", signum.name, _NOT_YET[signum])

    def _stop(self, now: float) -> None:
        log.info("stopping: draining the workers")
        notify("STOPPING=1")
        # New clients are refused at once, rather than queued for a server that goes.
        self._listeners.close(self._listeners.addresses())
        self._act(self._supervisor.stop(now))

    def _stop_now(self, now: float) -> None:
        log.info("stopping at once")
        notify("STOPPING=1")
        self._act(self._supervisor.stop_now(now))

    def _reap(self) -> None:
        for pid, status in _exited():
            child = self._children.pop(pid, None)
            if self._stapler.on_exit(pid) or child is None:
                self._backends.probing.on_exit(pid, _how(status, ""), clock.monotonic())
                continue  # if it was none of ours: an orphan handed to us, as to any process 1
            self._scoreboard.return_row(child.row)
            worker = self._supervisor.workers[pid]
            self._backends.worker_has_gone(worker.generation, worker.slot)
            self._hear(child)
            child.unsent.clear()
            child.is_heard = False
            self._listen(child)
            child.talk.close()
            reason = _how(status, self._last_words(child))
            expected = worker.phase is not decide.Phase.READY and status == 0
            log.log(logging.DEBUG if expected else logging.WARNING, "worker %d %s", pid, reason)
            self._act(self._supervisor.on_exit(pid, reason, clock.monotonic()))
            self._close_ended_generations()

    def _on_word(self, pid: int, now: float) -> None:
        """A worker says that it is ready, or why it never will be."""
        child = self._children.get(pid)
        if child is None or child.startup_fd is None:
            return  # it was reaped in the same turn of the loop, and its last words read then
        said = os.read(child.startup_fd, REASON_MAX)
        child.said += said
        if not said or child.said == READY:
            self._close_startup(child)
        if child.said == READY:
            child.said = b""
            self._act(self._supervisor.on_ready(pid, now))

    def _last_words(self, child: Child) -> str:
        if child.startup_fd is not None:
            try:
                child.said += os.read(child.startup_fd, REASON_MAX)
            except BlockingIOError:
                pass  # a grandchild still holds the pipe; it said nothing
            self._close_startup(child)
        return child.said.decode(errors="replace").strip("\0")

    def _close_startup(self, child: Child) -> None:
        if child.startup_fd is not None:
            self._selector.unregister(child.startup_fd)
            os.close(child.startup_fd)
            child.startup_fd = None

    def _close_ended_generations(self) -> None:
        alive = {worker.generation for worker in self._supervisor.workers.values()}
        alive |= {self._supervisor.in_force or 0, self._supervisor.candidate or 0}
        for number in [n for n in self._generations if n not in alive]:
            self._generations.pop(number).close()
            self._backends.end(number)

    # The operator's verbs.

    def _on_request(self, verb: str, arguments: dict[str, Any], request: Request) -> None:
        match verb:
            case "status":
                request.answer(self._status())
            case "certs":
                request.answer({"certificates": self._certificates()})
            case "explain":
                request.answer(self._explanation(arguments))
            case "failures":
                request.answer({"since": self._since(), "failures": self._failures.top(FAILURES_TOLD)})
            case "tickets":
                request.answer(self._on_tickets(arguments))
            case "backends":
                request.answer(self._on_backends(arguments))
            case "stop":
                self._told_when_stopped.append(request)
                now = clock.monotonic()
                if arguments.get("now"):
                    self._stop_now(now)
                elif not self._supervisor.stopping:
                    self._stop(now)
            case _:
                request.answer({"error": f"unknown verb {verb!r}"})

    def _on_tickets(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            match arguments.get("do"):
                case "status":
                    pass
                case "rotate":
                    self._tickets.rotate()
                    log.info("ticket keys rotated, as asked for; the old ones still redeem")
                case "revoke":
                    self._tickets.revoke()
                    self._stores.forget_sessions()
                    log.warning("ticket keys revoked, as asked for: no session of before is resumed")
                case "export":
                    key, salt = (bytes.fromhex(arguments[name]) for name in ("key", "salt"))
                    return {"sealed": self._tickets.export(key, salt).hex()}
                case "import":
                    sealed, key = (bytes.fromhex(arguments[name]) for name in ("sealed", "key"))
                    self._tickets.take_over(sealed, key)
                    log.info("ticket keys taken over from another machine; the old ones still redeem")
                case do:
                    return {"error": f"tickets: cannot do {do!r}"}
        except (TicketKeyRefusedError, KeyError, TypeError, ValueError) as error:
            return {"error": str(error)}
        issued = self._scoreboard.tickets(self._tickets.numbers())
        workers = [
            {"pid": pid, "frontends": child.row.plain_totals()}
            for pid, child in sorted(self._children.items())
        ]
        frontends = self._frontend_totals()
        return self._tickets.status(issued) | {"frontends": frontends, "workers": workers}

    def _on_backends(self, arguments: dict[str, Any]) -> dict[str, Any]:
        now, utc_now = clock.monotonic(), clock.utc_now()
        if "do" not in arguments:
            return {"backends": self._backends.table(now, utc_now)}
        try:
            return self._backends.wish(arguments["do"], arguments.get("target"), now, utc_now)
        except BackendRefusedError as error:
            return {"error": str(error)}

    def _frontend_totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Every counter of each frontend, by name."""
        number = self._supervisor.in_force
        frontends = () if number is None else self._generations[number].config.frontends
        counted = self._scoreboard.frontend_totals([frontend.name for frontend in frontends])
        return {name: as_plain(words) for name, words in counted.items()}

    def _status(self) -> dict[str, Any]:
        number = self._supervisor.in_force
        config = self._generations[number].config if number is not None else None
        counted = self._frontend_totals()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._since(),
            "uptime_seconds": round((clock.utc_now() - self._started).total_seconds(), 1),
            "state": "stopping" if self._supervisor.stopping else "serving",
            "generation": number,
            "starting_generation": self._supervisor.candidate,
            "last_reload": self._last_reload and asdict(self._last_reload),
            "frontends": [
                {
                    "name": frontend.name,
                    "listen": [str(address) for address in frontend.listen],
                    "cluster": frontend.cluster,
                    "totals": counted[frontend.name],
                }
                for frontend in (config.frontends if config else ())
            ],
            "workers": list(self._worker_status(clock.monotonic())),
            "totals": {
                column.name.lower(): count for column, count in self._scoreboard.totals().items()
            },
        }

    def _since(self) -> str:
        return self._started.isoformat(timespec="seconds")

    def _explanation(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number, now = self._supervisor.in_force, clock.utc_now()
        sni, alpn = arguments.get("sni"), arguments.get("alpn") or []
        client_ip = arguments.get("client_ip")
        if number is None:
            return {"error": "nothing is served yet"}
        if not isinstance(sni, str | None) or not all(isinstance(each, str) for each in alpn):
            return {"error": "sni is a text, and alpn a list of texts"}
        try:
            client = ip_address(str(client_ip)) if client_ip is not None else None
        except ValueError:
            return {"error": "client_ip is an IP address, as in 192.0.2.1 or 2001:db8::1"}
        sites = self._generations[number].sites
        return {"frontends": [explain(site.assembly, sni, alpn, client, now) for site in sites]}

    def _certificates(self) -> list[dict[str, Any]]:
        number = self._supervisor.in_force
        if number is None:
            return []
        generation, now = self._generations[number], clock.utc_now()
        served = [
            {
                "frontend": site.assembly.config.name,
                "names": certificate.names,
                "issuer": certificate.issuer,
                "key_type": certificate.key_type,
                "not_after": certificate.not_after.isoformat(timespec="seconds"),
                "days_left": (certificate.not_after - now).days,
                "sha256": certificate.sha256,
                "file": str(certificate.chain_file),
                "ocsp": self._stapler.state(certificate.sha256),
            }
            for site in generation.sites
            for certificate in site.assembly.certificates
        ]
        return sorted(served, key=lambda each: each["days_left"])

    def _worker_status(self, now: float) -> Iterator[dict[str, Any]]:
        for pid, worker in sorted(self._supervisor.workers.items()):
            row = self._children[pid].row
            beat = row.beat
            yield {
                "pid": pid,
                "slot": worker.slot,
                "generation": worker.generation,
                "state": worker.phase.value,
                "connections": row.words[Column.OPEN],
                "accepted": row.words[Column.ACCEPTED],
                "handshakes": row.words[Column.HANDSHAKES],
                "handshakes_failed": row.words[Column.HANDSHAKES_FAILED],
                "heartbeat_age_seconds": round(now - beat, 3) if beat else None,
            }

    def _clean_up(self) -> None:
        """The end: nothing of ours stays behind, whatever the reason was."""
        self._stapler.stop()
        self._backends.probing.stop()
        for pid in list(self._children):
            _send(pid, signal.SIGKILL)
        for pid in list(self._children):
            os.waitpid(pid, 0)
        answer = {"stopped": True, "pid": os.getpid()}
        if self._control is not None:
            self._control.remove()
        if self._pidfile is not None:
            self._pidfile.remove()
        self._listeners.close(self._listeners.addresses())
        self._inbox.close()
        self._file_watch.close()
        self._selector.close()
        for request in self._told_when_stopped:
            request.answer(answer)
        if self._exit_status == 0:
            log.info("stopped")


def _exited() -> Iterator[tuple[int, int]]:
    """Every child that has exited, with its status as waitpid() gives it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _how(status: int, said: str) -> str:
    if os.WIFSIGNALED(status):
        how = f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    else:
        how = f"exited with status {os.WEXITSTATUS(status)}"
    return f"{how}: {said}" if said else how


def _send(pid: int, signum: signal.Signals) -> None:
    """Signal a child that has not been reaped: its pid cannot have become another's."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def _raise_descriptor_limit(connections: int) -> None:
    """Every connection takes two descriptors; the soft limit is mostly made for something else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + DESCRIPTORS_BESIDES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning(
            "limits.connections = %d needs %d descriptors a worker, the limit is %d: raise it, as with "
            "LimitNOFILE= in the systemd unit",
            connections,
            wanted,
            hard,
        )
        wanted = hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _start_line(generation: Generation, workers: int) -> str:
    listeners = ", ".join(
        f"{address} ({frontend.name} to {frontend.destination})"
        for frontend, address in generation.addresses()
    )
    versions = f"Python {platform.python_version()}, gevent {gevent_version()}, {openssl_version()}"
    return f"termproxy {__version__} serves; {versions}; workers: {workers}; listening on {listeners}"


def _renewed(before: Sequence[Certificate], after: Sequence[Certificate]) -> str:
    """Which files, for the log."""
    known = {certificate.chain_sha256 for certificate in before}
    files = [str(each.chain_file) for each in after if each.chain_sha256 not in known]
    if not files:
        return "client CAs or CRLs" if list(before) == list(after) else "which files serve"
    return ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
