"""How a master takes over from the one before it, and gives way to the one after it.

The talk between the two is in master/upgrade.py; here is what each of them does at its steps.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import MutableMapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from termproxy import __version__, clock
from termproxy.address import Address
from termproxy.errors import StartError
from termproxy.master.handover import Handover, PassedCache
from termproxy.master.pidfile import Pidfile
from termproxy.master.upgrade import Predecessor, Report, Upgrade
from termproxy.observability.scoreboard import Column

if TYPE_CHECKING:
    from termproxy.master.arbiter import Arbiter

log = logging.getLogger("master")

FAILURES_REPORTED = 100  # kinds at a time


class Succession:
    """`predecessor` is the master before us, until it has drained; `upgrade` brings the one after us."""

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self.predecessor: Predecessor | None = None
        self.is_waiting = False
        """Whether the place is still the predecessor's."""
        self._heard: Counter[str] = Counter()  # of our own counters, what it has counted
        self.last: dict[str, Any] | None = None
        """For `status`: how the latest upgrade went."""
        self.upgrade = Upgrade(
            arbiter.selector,
            may_not=self._may_not_upgrade,
            make_handover=self._make_handover,
            environment=lambda: os.environ | arbiter.notifier.for_successor(),
            make_report=self._make_report,
            on_in_force=self._give_way,
            on_failed=self._go_on,
            on_told_to_end=lambda: arbiter.stop_now(clock.monotonic()),
            on_told_to_reopen=arbiter.reopen_logs,
        )

    # From the master before us.

    def begin(self, environ: MutableMapping[str, str]) -> bool:
        """Have what the master before us leaves; False when there is none.  Nothing of it changes before
        we are in force.  StartError when it is of no use.
        """
        self.predecessor = Predecessor.of(environ)
        if self.predecessor is None:
            return False
        self.is_waiting = True
        handover, arbiter = self.predecessor.handover, self._arbiter
        arbiter.started = datetime.fromisoformat(handover.started)
        arbiter.next_number = handover.generation + 1
        try:
            arbiter.listeners.go_on_with(handover.listeners, handover.activated)
            arbiter.backends.begin_after(handover.generation, handover.servers)
            if handover.ring is not None:
                arbiter.tickets.go_on_with(handover.ring)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.say_failed(f"what the old master leaves is of no use: {error}")
            raise StartError(f"what the old master leaves is of no use: {error}") from None
        for cache in handover.caches:
            try:
                arbiter.stores.take_over_cache(cache.entries, cache.layout, cache.fd)
            except (OSError, ValueError) as error:
                log.warning("sessions without tickets begin anew: %s", error)
        return True

    def say_failed(self, reason: str) -> None:
        if self.predecessor is not None:
            self.predecessor.say_failed(reason)

    def has(self, path: Path) -> bool:
        """Whether the master before us is the one that has this path now."""
        if self.predecessor is None:
            return False
        handover = self.predecessor.handover
        return str(path) in {handover.pidfile, handover.control}

    def admin_socket(self, address: Address) -> socket.socket | None:
        """What the master before us listens on for those who watch, if it is this address."""
        passed = None if self.predecessor is None else self.predecessor.handover.admin
        if passed is None:
            return None
        sock = socket.socket(fileno=passed.fds[0])
        if passed.address == str(address):
            return sock
        sock.close()
        return None

    def take_place(self) -> bool:
        """We can serve: be the master from now on.  False when the one before us does not give way."""
        predecessor, arbiter = self.predecessor, self._arbiter
        if predecessor is None:
            return True
        try:
            report = predecessor.ask_for_place()
        except StartError as error:
            log.error("%s", error)
            return False
        if report is not None:
            self._hear(report)
        arbiter.listeners.own_paths(predecessor.handover.listeners)
        for taken in (arbiter.pidfile, arbiter.control):
            try:
                if taken is not None:
                    taken.take_place()
            except OSError as error:
                log.error("cannot take the place of the old master's: %s", error)
        try:
            predecessor.take_place()
        except StartError as error:
            log.error("%s", error)
            return False
        self.is_waiting = False
        arbiter.notifier.is_held = False
        old = predecessor.handover
        self._ended(ok=True, detail=f"from termproxy {old.version}, process {old.pid}")
        predecessor.listen(arbiter.selector, self._hear, self._has_gone)
        return True

    def _hear(self, report: Report) -> None:
        """What the one before us has counted until now."""
        self._arbiter.scoreboard.hear_before(report["scoreboard"])
        self._arbiter.backends.hear_before(report["servers"])
        self._arbiter.failures.merge_own(report["failures"])
        self._arbiter.measuring.hear_before(report["processes"], report.get("cpu"))
        counted: Counter[str] = Counter(report["lives"])
        since = Counter({name: count - self._heard[name] for name, count in counted.items()})
        self._heard = counted
        self._arbiter.restarts += since["restarts"]
        for outcome in self._arbiter.reloads.counts:
            self._arbiter.reloads.counts[outcome] += since[outcome]
        if self.predecessor is not None:
            self.predecessor.open_connections = int(report["open"])

    def _has_gone(self) -> None:
        self.predecessor = None
        self._arbiter.backends.before_has_gone()
        self._arbiter.measuring.hear_before({})
        log.info("the master before this one has gone")

    def reopen_logs(self) -> None:
        """Those that the one before us still writes to, too; what comes of it is in its log."""
        if self.predecessor is not None and not self.is_waiting:
            self.predecessor.reopen_logs()

    # To the master after us.

    def _may_not_upgrade(self) -> str | None:
        supervisor = self._arbiter.supervisor
        if not self._arbiter.may_reload:
            return "this one was not started to stay"
        if supervisor.stopping:
            return "it stops"
        if supervisor.in_force is None or supervisor.candidate is not None:
            return "a generation is just starting; try again when it serves"
        if self._arbiter.reloads.is_under_way:
            return "a reload is under way; try again when it is done"
        if self.predecessor is not None:
            return (
                f"process {self.predecessor.handover.pid}, of the upgrade before, still drains "
                f"{self.predecessor.open_connections} connections; wait for it, or send it TERM"
            )
        return None

    def _make_handover(self, talk: int) -> Handover:
        arbiter = self._arbiter
        return Handover(
            pid=os.getpid(),
            version=__version__,
            talk=talk,
            started=arbiter.started.isoformat(),
            generation=arbiter.next_number - 1,
            pidfile=None if arbiter.pidfile is None else str(arbiter.pidfile.path),
            control=None if arbiter.control is None else str(arbiter.control.path),
            listeners=arbiter.listeners.passed(),
            admin=arbiter.admin_listener,
            activated=arbiter.listeners.activated(),
            caches=[PassedCache(*cache) for cache in arbiter.stores.caches()],
            ring=arbiter.tickets.as_plain(),
            servers=arbiter.backends.as_plain(),
        )

    def _make_report(self) -> Report:
        arbiter = self._arbiter
        return {
            "scoreboard": arbiter.scoreboard.as_plain(),
            "servers": arbiter.backends.as_plain(),
            # Until it serves, they are told here.
            "failures": arbiter.failures.take(FAILURES_REPORTED) if self.upgrade.is_done else [],
            "lives": arbiter.reloads.counts | {"restarts": arbiter.restarts},
            **arbiter.measuring.as_plain(with_past=not self.upgrade.is_done),
            "open": sum(child.row.words[Column.OPEN] for child in arbiter.children.values()),
        }

    def _give_way(self, successor: int) -> None:
        """It serves: drain, and go."""
        arbiter = self._arbiter
        arbiter.notifier.tell(f"MAINPID={successor}")
        arbiter.notifier.is_held = True
        arbiter.backends.probing.send_away()
        arbiter.listeners.leave_paths()
        arbiter.administration.finish()
        arbiter.retire(clock.monotonic())

    def _go_on(self, reason: str) -> None:
        """It does not come up.  Should it have died while it took our place, that is ours again."""
        arbiter = self._arbiter
        self._ended(ok=False, detail=reason)
        if arbiter.pidfile is not None and not arbiter.pidfile.is_ours():
            path = arbiter.pidfile.path
            arbiter.pidfile.close()
            arbiter.pidfile = Pidfile(path)
        control = arbiter.control
        if control is not None and not control.is_ours() and not arbiter.supervisor.stopping:
            before = control.sock
            control.renew()
            arbiter.administration.replace(before, control.sock)

    def _ended(self, *, ok: bool, detail: str) -> None:
        self.last = {"at": clock.utc_now().isoformat(timespec="seconds"), "ok": ok, "detail": detail}

    # The end.

    def stop(self, *, now: bool) -> None:
        """We stop: nobody is to take over; and when we do so at once, the one before us does, too."""
        self.upgrade.call_off("it is told to stop")
        if now and self.predecessor is not None:
            self.predecessor.end()

    def leave(self) -> None:
        """In a process just forked: these are the master's."""
        self.upgrade.leave()
        if self.predecessor is not None:
            self.predecessor.close()

    def close(self) -> None:
        """All our workers have gone."""
        self.upgrade.say_last()
        if self.predecessor is not None and self.predecessor.has_given_way:
            self.predecessor.close()  # else it has yet to hear why we do not serve
