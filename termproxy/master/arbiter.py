"""The master's loop: wait for a signal, a child's exit, a word from a worker or an operator, or a tick;
ask the Supervisor what follows; do it.

It has one thread, reads no client's byte, and never waits for anything else.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import resource
import selectors
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import psutil

from termproxy import __version__, clock
from termproxy.config.load import Source
from termproxy.config.schema import Config
from termproxy.errors import StartError, TermproxyError
from termproxy.master import landlock
from termproxy.master import supervisor as decide
from termproxy.master.activation import take_passed
from termproxy.master.administration import Administration
from termproxy.master.backend_keeper import BackendKeeper, seats_for
from termproxy.master.child import Child
from termproxy.master.client_keeper import ClientKeeper
from termproxy.master.control import ControlSocket, Request
from termproxy.master.file_watch import FileWatch
from termproxy.master.generation import Generation, User, build, check
from termproxy.master.handover import PassedListener
from termproxy.master.listeners import Listeners, listen_alone
from termproxy.master.log_keeper import LogKeeper
from termproxy.master.measuring import Measuring
from termproxy.master.notify import Notifier
from termproxy.master.pidfile import Pidfile
from termproxy.master.prover import Fork, Prover
from termproxy.master.reloads import Reloads, renewed
from termproxy.master.signals import SignalInbox, is_in_foreground
from termproxy.master.spawn import Helper, spawn, spawn_helper
from termproxy.master.stapler import Changes, Stapler
from termproxy.master.state_dir import StateDir
from termproxy.master.succession import Succession
from termproxy.master.ticket_keeper import TicketKeeper
from termproxy.master.verbs import Verbs
from termproxy.observability import logs
from termproxy.observability.failure_book import FailureBook
from termproxy.observability.metrics import FAILURES
from termproxy.observability.scoreboard import NANOSECONDS, ROWS, SLOTS, Column, Row, Scoreboard
from termproxy.tls._openssl import openssl_version
from termproxy.tls.context import Stores
from termproxy.worker.main import Assignment, gevent_version, raise_descriptor_limit
from termproxy.worker.orders import (
    ACCEPT,
    MAKE_WAY,
    order,
    show_staples,
    slot_orders,
    staples_order,
)

log = logging.getLogger("master")

TICK = 0.25  # seconds

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

FAILURE_KINDS = 1000  # kept, of handshakes that failed


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
        self.may_reload = may_reload
        self._read_source = read_source
        self._on_serving = on_serving
        self.selector = selectors.DefaultSelector()
        self.listeners = Listeners()
        self.scoreboard = Scoreboard()
        self.failures = FailureBook(FAILURE_KINDS)
        self.stores = Stores()
        self.tickets = TicketKeeper(self.stores.tickets, lambda: int(clock.utc_now().timestamp()))
        self.stapler = Stapler(self.selector, self._fork_helper, self._show_staples)
        self.backends = BackendKeeper(self._fork_helper)
        self._clients = ClientKeeper()
        self.measuring = Measuring(self)
        self.administration = Administration(self._fork_admin, self.selector, Verbs(self).on_request)
        self.prover = Prover(self.selector, self._on_proof)
        self.supervisor = decide.Supervisor()
        self.generations: dict[int, Generation] = {}
        self.begun: dict[int, datetime] = {}
        """When each generation was."""
        self.children: dict[int, Child] = {}
        self.log_keeper = LogKeeper(self.children)
        self._added_addresses: dict[int, list[Any]] = {}
        self._told_when_stopped: list[Request] = []
        self.reloads = Reloads(self, read_source)
        self.restarts = 0  # of workers that died without having been asked to
        self.started = clock.utc_now()
        self.next_number = 1
        self._exit_status: int | None = None
        self._file_watch = FileWatch()
        self._state_dir: StateDir | None = None
        self._next_sweep = 0.0
        self._inbox: SignalInbox
        self.pidfile: Pidfile | None = None
        self.control: ControlSocket | None = None
        self.admin_listener: PassedListener | None = None
        self._user: User | None = None
        self.notifier = Notifier({}, os.getpid())
        self._serves = False
        self.succession = Succession(self)

    def run(self) -> int:
        """Serve until told to stop: the exit status.  ConfigError or StartError before it serves."""
        succeeds = self.succession.begin(os.environ)
        self.notifier = Notifier(os.environ, os.getpid(), is_held=succeeds)
        if not succeeds:
            self.listeners.activate(take_passed(os.environ, os.getpid()))
        try:
            return self._run()
        except TermproxyError as error:
            self.succession.say_failed(str(error))
            raise

    def _run(self) -> int:
        checked = check(self._read_source(), uid=os.getuid(), now=clock.utc_now(), stores=self.stores)
        config = checked.config
        logs.set_up(config.log.level)
        # Keys are in this memory: no core file.  Workers inherit that.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self._inbox = SignalInbox()
        self.selector.register(self._inbox.fd, selectors.EVENT_READ, self._on_signals)
        self.selector.register(self._file_watch.fd, selectors.EVENT_READ, self._file_watch.on_events)
        try:
            if config.pidfile is not None:
                beside = self.succession.has(config.pidfile)
                self.pidfile = Pidfile(config.pidfile, beside=beside)
            self._listen_to_operators(config)
            generation = build(checked, self.take_number())
            self._state_dir = None if config.state_dir is None else StateDir(config.state_dir)
            if not self.tickets.numbers():  # those of the master before us stay until we are in force
                self.tickets.use(config.resumption, self._state_dir)
            self.stapler.keep_in(self._state_dir, list(generation.certificates_to_staple()))
            self._user = generation.user
            self.begin(generation)
            return self._loop()
        finally:
            self._clean_up()

    def _listen_to_operators(self, config: Config) -> None:
        if config.control is not None:
            self.control = ControlSocket(config.control, beside=self.succession.has(config.control))
            self.administration.add(self.control.sock)
        if config.admin.listen is not None:
            address = config.admin.listen
            sock = self.succession.admin_socket(address) or listen_alone(address)
            self.admin_listener = PassedListener(str(address), [sock.fileno()])
            self.administration.add(sock, is_public=True, names=frozenset(config.admin.names))

    def _loop(self) -> int:
        next_tick = clock.monotonic()
        while self._exit_status is None or self.administration.has_to_answer(clock.monotonic()):
            try:
                for key, _ in self.selector.select(max(0.0, next_tick - clock.monotonic())):
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
        beats = {pid: child.row.beat for pid, child in self.children.items()}
        self._act(self.supervisor.on_tick(now, beats))
        self._replace_the_worn_out(now)
        if not self.succession.is_waiting:  # till then, operators are the old master's
            self.administration.tick(now)
        if self._file_watch.is_due(now) or self._has_one_changed_validity():
            self._renew_certificates()
        self.prover.tick(now)
        self.reloads.tick()
        if not self.supervisor.stopping:
            self.tickets.tick()
        self.succession.upgrade.tick(now)
        self.log_keeper.tick(now)
        self.scoreboard.count(Column.LOG_LINES_LOST, logs.take_lost())
        self.notifier.tick(now, self._status_line, is_healthy=self._is_healthy())
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP
            self.stores.sweep()
        if self.supervisor.in_force is not None and not self.supervisor.stopping:
            self.stapler.tick(now)
            self.backends.probing.tick(now)

    # What the Supervisor decided.

    def _act(self, actions: Iterable[decide.Action]) -> None:
        for action in list(actions):  # doing one may make the Supervisor decide again
            match action:
                case decide.Spawn():
                    self._spawn(action)
                case decide.AskToDrain(pid) if (
                    not self.supervisor.stopping or self.succession.upgrade.is_done
                ):
                    self.children[pid].order(MAKE_WAY)
                case decide.AskToDrain() | decide.EndNow() | decide.Abort() | decide.Kill():
                    if type(action) in _LAST_RESORTS:
                        log.error("worker %d %s", action.pid, _LAST_RESORTS[type(action)])
                    _send(action.pid, _SIGNALS[type(action)])
                case decide.Prove(number):
                    self.prover.prove(self.generations[number], self._fork_for(number))
                case decide.InForce(number):
                    self._in_force(self.generations[number])
                case decide.Dropped(number, reason):
                    self._dropped(self.generations[number], reason)
                case decide.Stopped():
                    self._exit_status = self._exit_status or 0

    def _spawn(self, action: decide.Spawn) -> None:
        if action.generation not in (self.supervisor.candidate, self.supervisor.in_force):
            return  # a spawn before this one failed, and its generation was dropped
        now = clock.monotonic()
        generation = self.generations[action.generation]
        try:
            row = self.scoreboard.take_row([each.name for each in generation.config.frontends])
        except OSError as error:  # no descriptor is left, or no memory
            reason = f"shared memory: {error.strerror}"
            self._act(self.supervisor.on_spawn_failed(action, reason, now))
            return
        if row is None:
            reason = f"{ROWS} workers are alive; old generations must drain first"
            self._act(self.supervisor.on_spawn_failed(action, reason, now))
            return
        seat = self.backends.take_seat(generation.number)
        if seat is None:
            self.scoreboard.return_row(row)
            reason = "too many workers still drain"
            self._act(self.supervisor.on_spawn_failed(action, reason, now))
            return
        assignment = self._assignment(generation, action.slot, seat, row)
        is_candidate = action.generation == self.supervisor.candidate
        try:
            if is_candidate:
                probe = self.prover.channel(action.slot)
                assignment = replace(assignment, accepts=False, probe=probe)
            reach = landlock.Reach(generation.ports)
            spawned = spawn(assignment, generation.user, self._leave_master, reach)
        except OSError as error:
            self.scoreboard.return_row(row)
            self.backends.worker_has_gone(generation.number, seat)
            self._act(self.supervisor.on_spawn_failed(action, f"fork: {error.strerror}", now))
            return
        finally:
            if assignment.probe is not None:
                assignment.probe.close()
        pid = spawned.pid
        self.children[pid] = Child(
            row,
            spawned.startup_fd,
            spawned.talk,
            self.selector,
            on_ready=lambda now: self._act(self.supervisor.on_ready(pid, now)),
            on_report=lambda report: self.failures.merge(report["failures"], row.frontends, FAILURES),
            seat=seat,
            worn_out_at=_about(generation.config.limits.recycle_after),
        )
        self.supervisor.on_spawned(action, pid, now)
        log.debug("worker %d: slot %d of generation %d", pid, action.slot, action.generation)

    def _assignment(self, generation: Generation, slot: int, seat: int, row: Row) -> Assignment:
        listeners = [
            (frontend, sock, None if address.is_shared else number)
            for frontend, address in generation.addresses()
            for number, sock in enumerate(self.listeners.of(address))
        ]
        board, boards_before = self.backends.boards(generation.number)
        return Assignment(
            slot=slot,
            row=row,
            slot_beats=self.scoreboard.slot_beats,
            listeners=listeners,
            assemblies=[site.assembly for site in generation.sites],
            stores=self.stores,
            timeouts=generation.config.timeouts,
            limits=generation.config.limits,
            access_log=generation.access_log,
            board=board,
            seat=seat,
            boards_before=boards_before,
            clients=self._clients.clients_of(generation.number, seat),
        )

    def _leave_master(self) -> None:
        """In a worker, just forked: let go of what is the master's."""
        self._inbox.close()
        self.selector.close()
        if self.pidfile is not None:
            self.pidfile.close()
        self.administration.leave()
        self._file_watch.close()
        self.stapler.close()
        self.prover.close()
        self.succession.leave()
        for child in self.children.values():
            child.leave()

    # Generations.

    def take_number(self) -> int:
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def begin(self, generation: Generation) -> None:
        """Bring a generation's workers up.  StartError when an address cannot be had."""
        config = generation.config
        workers = config.workers or min(len(psutil.Process().cpu_affinity()), SLOTS)
        addresses = [address for _, address in generation.addresses()]
        _raise_descriptor_limit(config.limits.connections, len(addresses) * workers)
        try:
            self._clients.begin(generation.number, config.limits, seats_for(workers))
            self.backends.begin(generation.number, config, workers)
        except OSError as error:
            self._clients.end(generation.number)
            generation.close()
            raise StartError(f"shared memory: {error.strerror}") from None
        try:
            added = self._have_slots(generation, workers)
        except StartError:
            self.backends.end(generation.number)
            self._clients.end(generation.number)
            generation.close()
            raise
        self._added_addresses[generation.number] = added
        self.begun[generation.number] = clock.utc_now()
        self.generations[generation.number] = generation
        for warning in generation.warnings:
            log.warning("%s", warning)
        number = generation.number
        self._act(self.supervisor.begin(number, workers, config.timeouts.drain))

    def _in_force(self, generation: Generation) -> None:
        is_first, self._serves = not self._serves, True
        if is_first and not self.succession.take_place():
            self._stop(clock.monotonic())
            return
        self._have_accept(generation.number)
        wanted = {address for _, address in generation.addresses()}
        self.listeners.close(a for a in self.listeners.addresses() if a not in wanted)
        self._added_addresses.pop(generation.number, None)
        if is_first:
            log.info("%s", _start_line(generation, len(self.supervisor.workers)))
            if missing := landlock.shortfall():
                log.info("%s", missing)
            for name in self.listeners.unused():
                log.warning("systemd passes sockets named %r, and no frontend listens on them", name)
            self.notifier.tell("READY=1", f"MAINPID={os.getpid()}")
            self._on_serving()
        logs.set_up(generation.config.log.level)
        try:
            self.tickets.use(generation.config.resumption, self._state_dir)
        except StartError as error:  # it could be used when it was checked
            log.error("the ticket keys of before stay: %s", error)
        self.stores.keep_only(generation.config.resumption.session_cache)
        self._watch_files(generation)
        self.stapler.want(generation.certificates_to_staple())
        self.backends.put_in_force(generation.number, clock.monotonic())
        # Files may have changed since this generation read them: only one in force is renewed.
        self._file_watch.look_now(clock.monotonic())
        if not is_first:
            self.reloads.ended(ok=True, detail=f"generation {generation.number} serves")

    def _dropped(self, generation: Generation, reason: str) -> None:
        self.prover.give_up()
        self.listeners.close(self._added_addresses.pop(generation.number, ()))
        if self.supervisor.in_force is None:
            log.error("cannot start: %s", reason)
            self.succession.say_failed(reason)
            self._exit_status = 1
            return
        self.reloads.ended(ok=False, detail=f"a new worker failed: {reason}")

    def have_follow(
        self, generation: Generation, messages: Sequence[bytes]
    ) -> Iterator[tuple[int, int]]:
        """Replace the generation in force, of which the settings have changed, and order its workers to
        follow: each worker, and the number of the last of these orders.
        """
        self.generations[generation.number] = generation
        listeners = sum(len(self.listeners.of(address)) for _, address in generation.addresses())
        _raise_descriptor_limit(generation.config.limits.connections, listeners)
        self._watch_files(generation)
        self.stapler.want(generation.certificates_to_staple())
        for pid, worker in self.supervisor.workers.items():
            if worker.generation == generation.number:
                yield pid, [self.children[pid].order(message) for message in messages][-1]

    # Certificates that change while they are served.

    def _watch_files(self, generation: Generation) -> None:
        folders: set[Path] = set()
        for site in generation.sites:
            folders |= site.store.directories()
        for file in self.tickets.files():
            folders |= {file.parent, file.resolve().parent}
        self._file_watch.watch(folders, clock.monotonic())

    def _renew_certificates(self) -> None:
        """Show what the files hold now, in every worker, without a new one."""
        number = self.supervisor.in_force
        if number is None or self.supervisor.stopping:
            return
        generation = self.generations[number]
        self.tickets.look_at_files()
        for index, site in enumerate(generation.sites):
            before = site.assembly.certificates
            problems, changed = site.renew(clock.utc_now())
            for _, what, cure in problems:
                log.error("what was served before stays: %s; %s", what, cure)
            if changed:
                after = site.assembly.certificates
                self._order_workers(number, order(index, before, after, site.store.pem))
                log.info("frontend %s: renewed %s", site.assembly.config.name, renewed(before, after))
        self._watch_files(generation)
        self.stapler.want(generation.certificates_to_staple())

    def _has_one_changed_validity(self) -> bool:
        generation = self.generations.get(self.supervisor.in_force or 0)
        utc_now = clock.utc_now()
        return generation is not None and any(
            site.next_change is not None and site.next_change <= utc_now for site in generation.sites
        )

    def _have_accept(self, generation: int) -> None:
        """All slots count as watched from now on: the first worker does not take those of the others."""
        beat = int(clock.monotonic() * NANOSECONDS)
        for worker in self.supervisor.workers.values():
            if worker.generation == generation:
                self.scoreboard.slot_beats[worker.slot] = beat
        self._order_workers(generation, ACCEPT)

    def _order_workers(self, generation: int, message: bytes, fds: Sequence[int] = ()) -> None:
        for pid, worker in self.supervisor.workers.items():
            if worker.generation == generation:
                self.children[pid].order(message, fds)

    # OCSP responses.

    def _fork_helper(
        self, prepare: Callable[[], Callable[[int], None]], reach: landlock.Reach
    ) -> Helper:
        assert self.supervisor.in_force is not None  # noqa: S101 - see _tick
        user = self.generations[self.supervisor.in_force].user
        return spawn_helper(prepare, user, self._leave_master, reach)

    def helpers(self) -> dict[str, int]:
        """The processes there are besides workers, and the master's, by what they do."""
        pids = {"admin": self.administration.pid, "prober": self.backends.probing.pid}
        return {"master": os.getpid()} | {name: pid for name, pid in pids.items() if pid is not None}

    def _fork_admin(self, prepare: Callable[[], Callable[[int], None]], keep: Collection[int]) -> Helper:
        return spawn_helper(prepare, self._user, self._leave_master, landlock.Reach(frozenset()), keep)

    def _fork_for(self, number: int) -> Fork:
        """How to fork a helper for a generation that is perhaps not in force yet."""
        user = self.generations[number].user
        nowhere = landlock.Reach(frozenset())
        return lambda prepare, keep: spawn_helper(prepare, user, self._leave_master, nowhere, keep)

    def _on_proof(self, number: int, reason: str) -> None:
        now = clock.monotonic()
        if reason:
            self._act(self.supervisor.on_refuted(number, f"the proof failed: {reason}", now))
        else:
            self._act(self.supervisor.on_proved(number, now))

    def _show_staples(self, changes: Changes) -> None:
        show_staples(changes, self.stores.staples)
        message = staples_order(changes)
        for child in self.children.values():
            child.order(message)

    # Events.

    def _on_signals(self, now: float) -> None:
        for signum in self._inbox.read():
            self._on_signal(signum, now)

    def _on_signal(self, signum: signal.Signals, now: float) -> None:
        match signum:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP if self.may_reload:
                self.reloads.ask()
            case signal.SIGUSR1:
                self.reopen_logs()
            case signal.SIGTTIN:
                self._one_more(now)
            case signal.SIGTTOU:
                self._one_fewer(now)
            case signal.SIGWINCH:
                self._rest(now)
            case signal.SIGUSR2:
                self.succession.upgrade.begin()
            case signal.SIGTERM | signal.SIGQUIT if not self.supervisor.stopping:
                self._stop(now)
            case signal.SIGTERM | signal.SIGQUIT | signal.SIGINT | signal.SIGHUP:
                self.stop_now(now)

    def _stop(self, now: float) -> None:
        log.info("stopping: draining the workers")
        self.reloads.give_up("termproxy is stopping")
        self.succession.stop(now=False)
        self.notifier.tell("STOPPING=1")
        # New clients are refused at once, rather than queued for a server that goes.
        self.retire(now)

    def retire(self, now: float) -> None:
        """Serve no new clients, and go when those that are here have been served."""
        self.listeners.close(self.listeners.addresses())
        self._act(self.supervisor.stop(now))

    def reload_for(self, request: Request, *, new_workers: bool) -> None:
        """An operator wants a reload, and to be told how it went."""
        if self.may_reload:
            self.reloads.ask(request, new_workers=new_workers)
        else:
            request.answer({"error": "there is no configuration file to read again"})

    def stop_for(self, request: Request, *, now: bool) -> None:
        """An operator wants us to stop, and to be told when we have."""
        self._told_when_stopped.append(request)
        if now:
            self.stop_now(clock.monotonic())
        elif not self.supervisor.stopping:
            self._stop(clock.monotonic())

    def reopen_logs(self, request: Request | None = None) -> None:
        """Have workers write to the files that now have the logs' names; `request` hears when all do."""
        self.succession.reopen_logs()
        workers = self.supervisor.workers.values()
        self.log_keeper.reopen(self.generations, workers, request, clock.monotonic())

    def _one_more(self, now: float) -> None:
        """Or, at rest, the workers of before."""
        supervisor = self.supervisor
        if supervisor.in_force is None or supervisor.stopping:
            return
        if self.succession.upgrade.is_under_way:
            log.error("TTIN: no worker more: an upgrade is under way")  # and has got the sockets already
            return
        if not supervisor.resting:
            most = self.backends.workers_max(supervisor.in_force)
            if supervisor.slots >= most:
                log.warning(
                    "TTIN: %d workers are all there may be; for more set `workers`, and HUP", most
                )
                return
            try:
                self._have_slots(self.generations[supervisor.in_force], supervisor.slots + 1)
            except (StartError, OSError) as error:
                log.error("TTIN: no worker more: %s", error)
                return
        actions = list(supervisor.grow(now))
        log.info("TTIN: workers: %d", supervisor.slots)
        self._act(actions)

    def _one_fewer(self, now: float) -> None:
        """Its listening sockets stay open, and others accept from them: a client may be queued there."""
        if self.supervisor.in_force is None or self.supervisor.stopping:
            return
        actions = list(self.supervisor.shrink(now))
        log.info("TTOU: workers: %d", self.supervisor.slots)
        self._act(actions)

    def _rest(self, now: float) -> None:
        if self.supervisor.in_force is None or self.supervisor.stopping or is_in_foreground():
            return
        log.info(
            "WINCH: the workers drain; until HUP or TTIN brings them back clients wait in the queue"
        )
        self.reloads.give_up("the workers were told to rest")
        self._act(self.supervisor.rest(now))

    def _have_slots(self, generation: Generation, slots: int) -> list[Any]:
        """Listen at its addresses for so many workers; which addresses are new.  Living workers get the
        new sockets, too: somebody has to accept there when a slot's worker hangs, or never comes up.
        """
        before = {each: len(self.listeners.of(each)) for each in self.listeners.addresses()}
        added = self.listeners.bind((address for _, address in generation.addresses()), slots)
        for number in (self.supervisor.in_force, self.supervisor.candidate):
            if number in self.generations:
                self._hand_out_slots(self.generations[number], before)
        return added

    def _hand_out_slots(self, generation: Generation, before: Mapping[Any, int]) -> None:
        """To its workers, those that were not there before."""
        addresses = [address for _, address in generation.addresses()]
        sockets = [self.listeners.of(address) for address in addresses]
        for slot in range(self.listeners.slots()):
            new = [n for n, each in enumerate(addresses) if before[each] <= slot < len(sockets[n])]
            for message, places in slot_orders(slot, new):
                fds = [sockets[place][slot].fileno() for place in places]
                self._order_workers(generation.number, message, fds)

    def _replace_the_worn_out(self, now: float) -> None:
        for pid in [pid for pid, child in self.children.items() if child.is_worn_out()]:
            self._act(self.supervisor.replace(pid, now))

    def stop_now(self, now: float) -> None:
        log.info("stopping at once")
        self.reloads.give_up("termproxy is stopping")
        self.succession.stop(now=True)
        self.notifier.tell("STOPPING=1")
        self._act(self.supervisor.stop_now(now))

    def _reap(self) -> None:
        for pid, status in _exited():
            if self.succession.upgrade.on_exit(pid, _how(status, "")):
                continue
            child = self.children.pop(pid, None)
            if self.prover.on_exit(pid) or self.stapler.on_exit(pid) or child is None:
                how, now = _how(status, ""), clock.monotonic()
                for process in (self.backends.probing, self.administration):
                    process.on_exit(pid, how, now)
                continue  # if it was none of ours: an orphan handed to us, as to any process 1
            self.scoreboard.return_row(child.row)
            worker = self.supervisor.workers[pid]
            self.backends.worker_has_gone(worker.generation, child.seat)
            self._clients.worker_has_gone(worker.generation, child.seat)
            self.scoreboard.slot_beats[worker.slot] = 0  # others take its clients at their next tick
            reason = _how(status, child.bury())
            expected = worker.phase is not decide.Phase.READY and status == 0
            self.restarts += not expected
            log.log(logging.DEBUG if expected else logging.WARNING, "worker %d %s", pid, reason)
            self._act(self.supervisor.on_exit(pid, reason, clock.monotonic()))
            self._close_ended_generations()

    def _close_ended_generations(self) -> None:
        alive = {worker.generation for worker in self.supervisor.workers.values()}
        alive |= {self.supervisor.in_force or 0, self.supervisor.candidate or 0}
        for number in [n for n in self.generations if n not in alive]:
            self.generations.pop(number).close()
            self._clients.end(number)
            self.begun.pop(number, None)
            self.backends.end(number)

    # What systemd is told.

    def _is_healthy(self) -> bool:
        """Whether somebody accepts clients, or need not."""
        phases = {worker.phase for worker in self.supervisor.workers.values()}
        need_not = self.supervisor.stopping or self.supervisor.resting
        return need_not or decide.Phase.READY in phases

    def _status_line(self) -> str:
        state = "stopping" if self.supervisor.stopping else f"generation {self.supervisor.in_force}"
        open_ = sum(child.row.words[Column.OPEN] for child in self.children.values())
        return f"{state}, {len(self.supervisor.workers)} workers, {open_} connections"

    def _clean_up(self) -> None:
        """The end: nothing of ours stays behind, whatever the reason was."""
        self.prover.stop()
        self.stapler.stop()
        self.backends.probing.stop()
        for pid in list(self.children):
            _send(pid, signal.SIGKILL)
        for pid in list(self.children):
            os.waitpid(pid, 0)
        self.succession.close()
        answer = {"stopped": True, "pid": os.getpid()}
        if self.control is not None:
            self.control.remove()
        if self.pidfile is not None:
            self.pidfile.remove()
        self.listeners.close(self.listeners.addresses())
        self._inbox.close()
        self._file_watch.close()
        for request in self._told_when_stopped:
            request.answer(answer)
        self.administration.stop()
        self.selector.close()
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


def _about(connections: int) -> float:
    """When a worker is worn out: not all of them at once.  0 is never."""
    return connections * random.uniform(0.9, 1.1) if connections else inf  # noqa: S311 - no secret


def _raise_descriptor_limit(connections: int, listeners: int) -> None:
    """Workers to come inherit it."""
    wanted, limit = raise_descriptor_limit(connections, listeners)
    if limit < wanted:
        log.warning(
            "limits.connections = %d needs %d descriptors a worker, the limit is %d: raise it, as with "
            "LimitNOFILE= in the systemd unit",
            connections,
            wanted,
            limit,
        )


def _start_line(generation: Generation, workers: int) -> str:
    listeners = ", ".join(
        f"{address} ({frontend.name} to {frontend.destination})"
        for frontend, address in generation.addresses()
    )
    versions = f"Python {platform.python_version()}, gevent {gevent_version()}, {openssl_version()}"
    return f"termproxy {__version__} serves; {versions}; workers: {workers}; listening on {listeners}"
