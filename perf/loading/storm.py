"""What happens to the server while it is loaded: reloads, and workers killed.

A worker that is to be killed is stopped first and asked what connections it has (the kernel knows: see
psutil), so that losses on these can be told from all others.  That takes root: workers are not dumpable.
"""

import os
import signal
import time
from dataclasses import dataclass, field

import psutil

from loading.ledger import Kill
from loading.profiles import Profile
from loading.server import Proxy

STOPS_WITHIN = 0.5


class Timetable:
    """Says when something is due: first after one interval, and never twice to catch up."""

    def __init__(self, every: float, start: float) -> None:
        self._every = every
        self._next = start + every

    def is_due(self, now: float) -> bool:
        if not self._every or now < self._next:
            return False
        self._next += self._every * (1 + (now - self._next) // self._every)
        return True


@dataclass(slots=True)
class Storm:
    """One run's; what it did is in `reloads` and `kills`."""

    proxy: Proxy
    reloads_due: Timetable
    kills_due: Timetable
    reloads: int = 0
    kills: list[Kill] = field(default_factory=list)

    @classmethod
    def of(cls, profile: Profile, proxy: Proxy, now: float) -> "Storm":
        return cls(proxy, Timetable(profile.reload_every, now), Timetable(profile.kill_every, now))

    def act(self, now: float) -> None:
        if self.reloads_due.is_due(now):
            os.kill(self.proxy.pid, signal.SIGHUP)
            self.reloads += 1
        if self.kills_due.is_due(now) and (workers := self.proxy.ready_workers()):
            kill = kill_worker(workers[len(self.kills) % len(workers)], self.proxy.port)
            if kill is not None:
                self.kills.append(kill)


def may_kill() -> bool:
    return os.geteuid() == 0


def kill_worker(pid: int, port: int) -> Kill | None:
    """Kill it, and return whose connections it had; None when it had ended by itself."""
    try:
        worker = psutil.Process(pid)
        worker.suspend()
        wait_until_stopped(worker)
        clients = clients_of(worker, port)
        at = time.perf_counter()
        worker.kill()
    except psutil.NoSuchProcess:
        return None
    return Kill(at=at, pid=pid, clients=clients)


def wait_until_stopped(worker: psutil.Process) -> None:
    deadline = time.perf_counter() + STOPS_WITHIN
    while worker.status() != psutil.STATUS_STOPPED and time.perf_counter() < deadline:
        time.sleep(0.001)


def clients_of(worker: psutil.Process, port: int) -> frozenset[str]:
    """Return the far ends of what is connected to the port where clients come in."""
    return frozenset(
        f"{connection.raddr.ip}:{connection.raddr.port}"
        for connection in worker.net_connections(kind="tcp4")
        if connection.raddr and connection.laddr.port == port
    )
