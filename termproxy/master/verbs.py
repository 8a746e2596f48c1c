"""What operators ask for through the control socket, and the answers.

Reading is done here; what changes the server is the arbiter's, or one of its keepers'.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from termproxy import __version__, clock
from termproxy.master.backend_keeper import BackendRefusedError
from termproxy.master.control import Request
from termproxy.master.supervisor import Supervisor
from termproxy.master.ticket_keeper import TicketKeyRefusedError
from termproxy.observability.metrics import as_plain
from termproxy.observability.scoreboard import NANOSECONDS, Column
from termproxy.worker.explanation import explain

if TYPE_CHECKING:
    from termproxy.master.arbiter import Arbiter

log = logging.getLogger("master")

FAILURES_TOLD = 50


class Verbs:
    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        # What is answered at once.
        self._told: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": lambda _: self._status(),
            "certs": lambda arguments: {"certificates": self._certificates(arguments.get("first"))},
            "explain": self._explanation,
            "failures": lambda _: self._failures(),
            "tickets": self._on_tickets,
            "backends": self._on_backends,
            "metrics": lambda _: self._arbiter.measuring.document(),
            "ready": lambda _: self._arbiter.measuring.readiness(),
            "live": lambda _: {"live": True},
        }

    def on_request(self, verb: str, arguments: dict[str, Any], request: Request) -> None:
        told = self._told.get(verb)
        if told is not None:
            request.answer(told(arguments))
            return
        match verb:
            case "reopen":
                self._arbiter.reopen_logs(request)
            case "reload":
                self._arbiter.reload_for(request, new_workers=bool(arguments.get("new_workers")))
            case "upgrade":
                self._arbiter.succession.upgrade.begin(request)
            case "stop" if self._arbiter.succession.upgrade.is_done:
                request.answer({"error": self._arbiter.succession.upgrade.why_no_change()})
            case "stop":
                self._arbiter.stop_for(request, now=bool(arguments.get("now")))
            case _:
                request.answer({"error": f"unknown verb {verb!r}"})

    def _failures(self) -> dict[str, Any]:
        return {"since": self._since(), "failures": self._arbiter.failures.top(FAILURES_TOLD)}

    def _on_tickets(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            match arguments.get("do"):
                case "status":
                    pass
                case do if do != "export" and (why := self._arbiter.succession.upgrade.why_no_change()):
                    return {"error": why}
                case "rotate":
                    self._arbiter.tickets.rotate()
                    log.info("ticket keys rotated, as asked for; the old ones still redeem")
                case "revoke":
                    self._arbiter.tickets.revoke()
                    self._arbiter.stores.forget_sessions()
                    log.warning("ticket keys revoked, as asked for: no session of before is resumed")
                case "export":
                    key, salt = (bytes.fromhex(arguments[name]) for name in ("key", "salt"))
                    return {"sealed": self._arbiter.tickets.export(key, salt).hex()}
                case "import":
                    sealed, key = (bytes.fromhex(arguments[name]) for name in ("sealed", "key"))
                    self._arbiter.tickets.take_over(sealed, key)
                    log.info("ticket keys taken over from another machine; the old ones still redeem")
                case do:
                    return {"error": f"tickets: cannot do {do!r}"}
        except (TicketKeyRefusedError, KeyError, TypeError, ValueError) as error:
            return {"error": str(error)}
        workers = [
            {"pid": pid, "frontends": child.row.plain_totals()}
            for pid, child in sorted(self._arbiter.children.items())
        ]
        frontends = self._frontend_totals()
        return self._ticket_status() | {"frontends": frontends, "workers": workers}

    def _ticket_status(self) -> dict[str, Any]:
        issued = self._arbiter.scoreboard.tickets(self._arbiter.tickets.numbers())
        return self._arbiter.tickets.status(issued)

    def _on_backends(self, arguments: dict[str, Any]) -> dict[str, Any]:
        now, utc_now = clock.monotonic(), clock.utc_now()
        if "do" not in arguments:
            return {"backends": self._arbiter.backends.table(now, utc_now)}
        if why := self._arbiter.succession.upgrade.why_no_change():
            return {"error": why}
        try:
            return self._arbiter.backends.wish(arguments["do"], arguments.get("target"), now, utc_now)
        except BackendRefusedError as error:
            return {"error": str(error)}

    def _frontend_totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Every counter of each frontend, by name."""
        counted = self._arbiter.scoreboard.frontend_totals(self._arbiter.measuring.frontends())
        return {name: as_plain(words) for name, words in counted.items()}

    def _status(self) -> dict[str, Any]:
        number = self._arbiter.supervisor.in_force
        config = self._arbiter.generations[number].config if number is not None else None
        counted = self._frontend_totals()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._since(),
            "uptime_seconds": round((clock.utc_now() - self._arbiter.started).total_seconds(), 1),
            "state": "stopping" if self._arbiter.supervisor.stopping else "serving",
            "generation": number,
            "starting_generation": self._arbiter.supervisor.candidate,
            "reloading": self._arbiter.reloads.is_under_way,
            "last_reload": self._arbiter.reloads.last and asdict(self._arbiter.reloads.last),
            "generations": list(self._generation_status(clock.monotonic())),
            "last_upgrade": self._arbiter.succession.last,
            "before": self._before(),
            "frontends": [
                {
                    "name": frontend.name,
                    "listen": [str(address) for address in frontend.listen],
                    "cluster": frontend.cluster,
                    "totals": counted[frontend.name],
                }
                for frontend in (config.frontends if config else ())
            ],
            "ticket_keys": self._ticket_status()["keys"],
            "processes": self._arbiter.helpers(),
            "restarts": self._arbiter.restarts,
            "workers_wanted": self._workers_wanted(),
            "workers": list(self._worker_status(clock.monotonic())),
            "totals": {
                column.name.lower(): count for column, count in self._arbiter.scoreboard.totals().items()
            },
        }

    def _workers_wanted(self) -> int:
        supervisor = self._arbiter.supervisor
        return 0 if supervisor.resting or supervisor.stopping else supervisor.slots

    def _before(self) -> dict[str, Any] | None:
        """The master that this one has taken over from, while it drains."""
        before = self._arbiter.succession.predecessor
        if before is None:
            return None
        return {
            "pid": before.handover.pid,
            "version": before.handover.version,
            "connections": before.open_connections,
        }

    def _since(self) -> str:
        return self._arbiter.started.isoformat(timespec="seconds")

    def _explanation(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number, now = self._arbiter.supervisor.in_force, clock.utc_now()
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
        sites = self._arbiter.generations[number].sites
        return {"frontends": [explain(site.assembly, sni, alpn, client, now) for site in sites]}

    def _certificates(self, first: object) -> list[dict[str, Any]]:
        """All of them, or the first so many to expire."""
        number = self._arbiter.supervisor.in_force
        if number is None:
            return []
        generation, now = self._arbiter.generations[number], clock.utc_now()
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
                "ocsp": self._arbiter.stapler.state(certificate.sha256),
            }
            for site in generation.sites
            for certificate in site.assembly.certificates
        ]
        soonest = sorted(served, key=itemgetter("days_left"))
        return soonest[:first] if isinstance(first, int) else soonest

    def _generation_status(self, now: float) -> Iterator[dict[str, Any]]:
        """Each generation, and why one that does not serve is there."""
        arbiter = self._arbiter
        for number in sorted(arbiter.generations):
            everyone = arbiter.supervisor.workers.values()
            workers = [worker for worker in everyone if worker.generation == number]
            rows = [arbiter.children[worker.pid].row.words for worker in workers]
            connections = sum(row[Column.OPEN] for row in rows)
            since = arbiter.begun.get(number)
            state, why = _state_of(number, arbiter.supervisor, arbiter.prover.generation)
            if state == "draining":
                came = [row[Column.OLDEST] / NANOSECONDS for row in rows if row[Column.OLDEST]]
                until = max((worker.deadline for worker in workers), default=now)
                why = _why_it_drains(connections, now - min(came, default=now), until - now)
            yield {
                "number": number,
                "state": state,
                "workers": len(workers),
                "connections": connections,
                "since": since and since.isoformat(timespec="seconds"),
                "why": why,
            }

    def _worker_status(self, now: float) -> Iterator[dict[str, Any]]:
        for pid, worker in sorted(self._arbiter.supervisor.workers.items()):
            row = self._arbiter.children[pid].row
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


def _state_of(number: int, supervisor: Supervisor, proving: int | None) -> tuple[str, str | None]:
    """What a generation does, and why it is there if it does not serve."""
    if number == supervisor.in_force and not supervisor.stopping:
        return "serving", None
    if number == supervisor.candidate and not supervisor.stopping:
        if number == proving:
            return "proving", "its workers are ready, and show that they can serve"
        return "starting", "its workers are being started"
    return "draining", None


def _why_it_drains(connections: int, oldest: float, left: float) -> str:
    """`oldest`: seconds since the oldest connection came; `left`: until all is closed."""
    until = clock.utc_now() + timedelta(seconds=max(0.0, left))
    if not connections:
        return f"its workers are leaving, until {until:%H:%M:%S} UTC at most"
    those = f"{connections} connections" if connections > 1 else "1 connection"
    return f"{those}, the oldest for {oldest:.0f} s; drains until {until:%H:%M:%S} UTC"
