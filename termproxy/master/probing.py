"""The life of the process that checks backends: forked, replaced when it dies or hangs, sent away.

What it does is in backends/prober.py; what it finds stands on the board.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from termproxy.backends.board import Board, Head
from termproxy.backends.prober import NameTarget, Target, prepare
from termproxy.config.schema import Dns
from termproxy.master.landlock import Reach
from termproxy.master.spawn import Helper
from termproxy.master.supervisor import BACK_OFF_FIRST, BACK_OFF_MAX, YOUNG
from termproxy.observability.scoreboard import NANOSECONDS

log = logging.getLogger("master")

SILENT_MAX = 10.0  # seconds without a beat until the prober counts as hung

RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53

Fork = Callable[[Callable[[], Callable[[int], None]], Reach], Helper]


def reach_of(targets: Sequence[Target | NameTarget], dns: Dns) -> Reach:
    """Where a prober has to connect, and the folders of what it reads for each look-up: the files
    themselves may be replaced.
    """
    names = [target.name.port for target in targets if isinstance(target, NameTarget)]
    ports = [target.address.port for target in targets if isinstance(target, Target)]
    if not names:
        return Reach(frozenset(ports) - {0})  # 0: a Unix socket
    files = [] if dns.hosts is None else [dns.hosts]
    files += [] if dns.servers else [RESOLV_CONF]
    # Name servers are connected to when an answer is too long for UDP.
    asked = [each.port for each in dns.servers] or [DNS_PORT]
    places = (Path(place) for file in files for place in (file, os.path.realpath(file)))
    folders = tuple({place.parent for place in places})
    return Reach(frozenset([*ports, *names, *asked]) - {0}, folders)


class Probing:
    """`fork_helper` forks a process without rights, which does what it is given, in that reach."""

    def __init__(self, fork_helper: Fork) -> None:
        self._fork_helper = fork_helper
        self._targets: Sequence[Target | NameTarget] = ()
        self._dns = Dns()
        self._board: Board | None = None
        self._pid: int | None = None  # until it has been reaped
        self._began = 0.0
        self._start_at = 0.0
        self._young_deaths = 0
        self._sent_away: set[int] = set()

    @property
    def pid(self) -> int | None:
        return self._pid

    def check(self, targets: Sequence[Target | NameTarget], board: Board, dns: Dns, now: float) -> None:
        """Have these checked, or looked up, from now on, and no others."""
        self.send_away()
        self._targets, self._board, self._dns = targets, board, dns
        self._start_at, self._young_deaths = now, 0
        self.tick(now)

    def tick(self, now: float) -> None:
        """Start the prober when it is time; end one that hangs."""
        if self._board is None:
            return
        if self._pid is None:
            if self._targets and now >= self._start_at:
                self._start(self._board, now)
            return
        beat = self._board.words[Head.PROBER_BEAT] / NANOSECONDS
        if now - max(beat, self._began) > SILENT_MAX:
            log.error("the prober of backends hangs: killing it")
            os.kill(self._pid, signal.SIGKILL)  # not reaped yet, so it cannot have become another's
            self._began = now

    def on_exit(self, pid: int, reason: str, now: float) -> bool:
        """A process has been reaped; whether it was a prober."""
        if pid in self._sent_away:
            self._sent_away.remove(pid)
            return True
        if pid != self._pid:
            return False
        self._pid = None
        self._start_again(now)
        log.warning("the prober of backends %s", reason)
        return True

    def send_away(self) -> None:
        """Check nothing any more."""
        self._targets, self._board = (), None
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._sent_away.add(self._pid)
            self._pid = None

    def stop(self) -> None:
        """At the end: nothing of it stays behind."""
        self.send_away()
        for pid in self._sent_away:
            os.waitpid(pid, 0)
        self._sent_away.clear()

    def _start(self, board: Board, now: float) -> None:
        targets, dns = self._targets, self._dns
        self._began = now
        try:
            helper = self._fork_helper(lambda: prepare(targets, board, dns), reach_of(targets, dns))
        except OSError as error:
            log.error("no prober of backends: %s", error.strerror)
            self._start_again(now)
            return
        os.close(helper.fd)  # it has nothing to say but what stands on the board
        self._pid = helper.pid

    def _start_again(self, now: float) -> None:
        if now - self._began >= YOUNG:
            self._young_deaths = 0
        self._start_at = now + min(BACK_OFF_FIRST * 2**self._young_deaths, BACK_OFF_MAX)
        self._young_deaths = min(self._young_deaths + 1, 16)
