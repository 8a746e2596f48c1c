"""What the master measures when somebody asks for the metrics; observability/metrics.py has the names.

All of it is plain values: the admin process makes the text.  It is asked a few times a minute, and so
nothing is kept up to date for it; it costs a few milliseconds of the master's, who serves nobody.
"""

from __future__ import annotations

import platform
import resource
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from termproxy import __version__, clock
from termproxy.master.supervisor import Phase
from termproxy.observability.metrics import TOTALS
from termproxy.observability.process_stats import Place, ProcessStats
from termproxy.observability.scoreboard import Column
from termproxy.tls._openssl import openssl_version
from termproxy.tls.certificates import Certificate

if TYPE_CHECKING:
    from termproxy.master.arbiter import Arbiter
    from termproxy.master.generation import Generation

Sample = tuple[list[str], float]  # values of the labels, and the metric's

EXPIRING_TOLD = 100  # certificates, of those that expire next


class Measuring:
    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self._processes = ProcessStats()
        self._before: dict[int, Place] = {}  # processes of the master before us

    def document(self) -> dict[str, Any]:
        """For observability/prometheus.py."""
        measured: dict[str, list[Sample]] = {}
        for name, labels, value in self._measured():
            measured.setdefault(name, []).append((labels, value))
        totals = self._arbiter.scoreboard.totals()
        return {
            "frontends": self._arbiter.scoreboard.frontend_totals(self.frontends()),
            "totals": {name: totals[Column[name.upper()]] for name in TOTALS},
            "measured": measured,
        }

    def frontends(self) -> list[str]:
        """The names of those in force."""
        generation = self._in_force()
        return [] if generation is None else [each.name for each in generation.config.frontends]

    def readiness(self) -> dict[str, Any]:
        """Whether clients are served, and if not, why."""
        supervisor = self._arbiter.supervisor
        ready = sum(
            worker.phase is Phase.READY and worker.generation == supervisor.in_force
            for worker in supervisor.workers.values()
        )
        if self._arbiter.succession.upgrade.is_done:
            why: str | None = None  # by another master; whoever asks us has asked just before
        elif supervisor.stopping:
            why = "it is stopping"
        elif supervisor.in_force is None:
            why = "no generation is in force yet"
        else:
            why = None if ready else "no worker is ready"
        return {"ready": why is None, "why": why, "workers": ready}

    # From one master to the next.

    def as_plain(self, *, with_past: bool) -> dict[str, Any]:
        """Our processes, by pid, and what the CPU has done for those that are no more."""
        places = self._places()
        told: dict[str, Any] = {"processes": {str(pid): list(place) for pid, place in places.items()}}
        if with_past:
            self._processes.look(places)
            told["cpu"] = [[*place, seconds] for place, seconds in self._processes.past.items()]
        return told

    def hear_before(
        self,
        processes: Mapping[str, tuple[str, str]],
        cpu: Sequence[tuple[str, str, float]] | None = None,
    ) -> None:
        """What the master before us tells: its processes are measured with ours while they live."""
        self._before = {int(pid): (what, slot) for pid, (what, slot) in processes.items()}
        if cpu is not None:
            self._processes.past |= {(what, slot): seconds for what, slot, seconds in cpu}
            self._processes.look(self._places())  # they may have gone when somebody asks

    def _in_force(self) -> Generation | None:
        return self._arbiter.generations.get(self._arbiter.supervisor.in_force or 0)

    def _measured(self) -> Iterator[tuple[str, list[str], float]]:
        versions = [__version__, platform.python_version(), openssl_version()]
        yield "build", versions, 1
        yield "start", [], self._arbiter.started.timestamp()
        yield from self._lives()
        yield from self._reloads()
        now = clock.utc_now()
        generation = self._in_force()
        if generation is not None:
            yield from self._certificates(generation, now)
        yield from self._ticket_keys()
        yield from self._backends(now)
        yield from self._resources()

    def _lives(self) -> Iterator[tuple[str, list[str], float]]:
        supervisor, workers = self._arbiter.supervisor, self._arbiter.supervisor.workers
        phases = Counter(worker.phase for worker in workers.values())
        for phase in Phase:
            yield "workers", [phase.value], phases[phase]
        open_at: Counter[int] = Counter()
        for pid, worker in workers.items():
            open_at[worker.slot] += self._arbiter.children[pid].row.words[Column.OPEN]
        for slot, connections in sorted(open_at.items()):
            yield "open", [str(slot)], connections
        generation = self._in_force()
        limit = 0 if generation is None else generation.config.limits.connections
        yield "limit", [], limit * phases[Phase.READY]
        yield "restarts", [], self._arbiter.restarts
        yield "generation", [], supervisor.in_force or 0
        yield "generations", [], len({worker.generation for worker in workers.values()})
        yield "ready", [], self.readiness()["ready"]

    def _reloads(self) -> Iterator[tuple[str, list[str], float]]:
        for outcome in ("done", "refused"):
            yield "reloads", [outcome], self._arbiter.reloads.counts[outcome]
        last = self._arbiter.reloads.last
        yield "reload_ok", [], last is None or last.ok
        if last is not None:
            yield "reload_at", [], datetime.fromisoformat(last.at).timestamp()

    def _certificates(
        self, generation: Generation, now: datetime
    ) -> Iterator[tuple[str, list[str], float]]:
        served = [
            (site.assembly.config.name, certificate)
            for site in generation.sites
            for certificate in site.assembly.certificates
        ]
        for frontend, count in Counter(frontend for frontend, _ in served).items():
            yield "certificates", [frontend], count
        staples = self._arbiter.stapler.staples()
        expiring = nsmallest(EXPIRING_TOLD, served, key=lambda each: each[1].not_after)
        told: dict[tuple[str, str], Certificate] = {}
        for frontend, certificate in expiring:
            told.setdefault((frontend, str(certificate.chain_file)), certificate)
        for labels, certificate in told.items():
            yield "certificate_expiry", [*labels], (certificate.not_after - now).total_seconds()
            staple = staples.get(certificate.sha256)
            if staple is not None:
                yield "ocsp_age", [*labels], (now - staple.this_update).total_seconds()
                yield "ocsp_expiry", [*labels], (staple.next_update - now).total_seconds()

    def _ticket_keys(self) -> Iterator[tuple[str, list[str], float]]:
        keys = self._arbiter.tickets.status({})["keys"]
        for role, count in sorted(Counter(key["role"] for key in keys).items()):
            yield "ticket_keys", [role], count
        for key in keys:
            if key["role"] == "issuing" and key["age_seconds"] is not None:
                yield "ticket_key_age", [], key["age_seconds"]

    def _backends(self, now: datetime) -> Iterator[tuple[str, list[str], float]]:
        table = self._arbiter.backends.table(clock.monotonic(), now)
        up: dict[tuple[str, str], bool] = {}
        for row in table:
            key = row["cluster"], row["server"]
            up[key] = up.get(key, False) or row["state"] == "up"
        for key, is_up in up.items():
            yield "backend_up", [*key], is_up
        states = Counter((row["cluster"], row["state"]) for row in table)
        for labels, count in states.items():
            yield "backend_servers", [*labels], count
        for key, (active, used, failures) in self._arbiter.backends.totals().items():
            yield "backend_active", [*key], active
            yield "backend_used", [*key], used
            yield "backend_failures", [*key], failures

    def _resources(self) -> Iterator[tuple[str, list[str], float]]:
        for place, stats in sorted(self._processes.look(self._places()).items()):
            yield "cpu", [*place], stats.cpu_seconds
            if stats.resident_bytes:  # else it is no more
                yield "rss", [*place], stats.resident_bytes
            if stats.open_files is not None:
                yield "fds", [*place], stats.open_files
        yield "fds_max", [], resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _places(self) -> dict[int, Place]:
        places = self._before | {
            pid: ("worker", str(worker.slot)) for pid, worker in self._arbiter.supervisor.workers.items()
        }
        places |= {pid: (name, "") for name, pid in self._arbiter.helpers().items()}
        return places
