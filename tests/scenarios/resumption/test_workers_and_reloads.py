"""Whatever happens to workers and configurations, who comes again is known: at least 999 in 1000."""

from __future__ import annotations

import itertools
import os
import signal
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve, write_site
from tests.scenarios.resumption.visits import (
    KINDS,
    by_worker,
    client_of,
    issuing,
    keys,
    kill_a_worker,
    resumed_at_every_worker,
    told,
    totals,
    visit,
)
from tests.support.backends import Backend
from tests.support.endings import CutError
from tests.support.processes import state
from tests.support.server import Server
from tests.support.waiting import wait_until

VISITS = 2000


class Regular:
    """A client that comes again and again, each time with what it was given last."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self.visits = self.resumed = self.lost = 0
        self.failures: list[Exception] = []

    def come(self, over: threading.Event) -> None:
        session = None
        while not over.is_set():
            try:
                met = visit(self._port, self._context, session)
            except (ConnectionError, CutError, AssertionError):
                self.lost += 1  # it was at a worker that was killed
                continue
            except Exception as error:  # noqa: BLE001 - to be told by the test
                self.failures.append(error)
                return
            if session is not None:
                self.visits += 1
                self.resumed += met.resumed
            session = met.session


def test_while_keys_turn_workers_die_and_configurations_change_clients_are_known_again(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    mine = write_site(ca, tmp_path / "mine.pem")
    over = threading.Event()
    with (
        Backend() as backend,
        serve(
            backend.address,
            workers=4,
            log={"level": "info", "access": "off"},
            resumption={"lifetime": 40, "rotate": 2},
        ) as server,
    ):
        server.values["frontend"][0]["certificates"] = [str(mine)]
        regulars = [Regular(server.port, client_of(ca, kind)) for kind in KINDS]
        threads = [threading.Thread(target=each.come, args=(over,)) for each in regulars]
        first = issuing(server)
        for thread in threads:
            thread.start()
        try:
            disturb(server, ca, mine, regulars)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert [each.failures for each in regulars] == [[], [], []]
        visits, resumed = (sum(getattr(r, what) for r in regulars) for what in ("visits", "resumed"))
        assert resumed / visits >= 0.999, f"{resumed} of {visits}"
        assert keys(server).index(issuing(server)) - keys(server).index(first) >= 2, "keys have turned"


def disturb(server: Server, ca: trustme.CA, site: Path, regulars: list[Regular]) -> None:
    """Kill a worker, reload, change the certificate and reload, until all have come often enough."""
    first = issuing(server)
    for number in itertools.count():
        have_turned = keys(server).index(issuing(server)) - keys(server).index(first) >= 2
        visits = [each.visits for each in regulars]
        if have_turned and number >= 6 and sum(visits) >= VISITS and min(visits) >= VISITS // 20:
            return
        if number % 3 == 2:
            write_site(ca, site)
        if number % 3:
            assert server.reload(new_workers=True)["ok"]
        else:
            kill_a_worker(server, number % 4)
        enough = sum(each.visits for each in regulars) + VISITS // 10
        wait_until(lambda enough=enough: sum(r.visits for r in regulars) >= enough, "clients come")  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_outlives_the_worker_and_the_configuration_it_was_made_with(
    serve: Serve, ca: trustme.CA, tmp_path: Path, kind: str
) -> None:
    mine = write_site(ca, tmp_path / "mine.pem")
    context = client_of(ca, kind)
    with Backend() as backend, serve(backend.address, workers=2) as server:
        session = visit(server.port, context).session
        kill_a_worker(server, 0)
        kill_a_worker(server, 1)
        session = resumed_at_every_worker(server, context, session)
        server.values["frontend"][0]["certificates"] = [str(mine)]
        server.values["limits"]["connections"] = 100
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 2, "the old workers are gone")
        resumed_at_every_worker(server, context, session)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_that_is_refused_changes_nothing(serve: Serve, ca: trustme.CA, kind: str) -> None:
    context = client_of(ca, kind)
    with Backend() as backend, serve(backend.address) as server:
        session = visit(server.port, context).session
        before = keys(server)
        server.values["resumption"] = {"lifetime": 60, "rotate": 1}
        assert not server.reload()["ok"]
        assert "makes more than" in server.said()
        assert keys(server) == before
        assert visit(server.port, context, session).resumed


def test_a_worker_that_was_stopped_knows_the_new_key_before_it_gives_a_ticket(
    serve: Serve, ca: trustme.CA
) -> None:
    """No message is needed that could be late: it looks where the master has written."""
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address, workers=2) as server:
        old = visit(server.port, context).session
        sleeper = server.workers()[0]
        os.kill(sleeper, signal.SIGSTOP)
        try:
            wait_until(lambda: state(sleeper) == "T", "it is stopped")
            for _ in range(3):
                told(server, "rotate")
            made = {key["id"]: key["tickets_issued"] for key in told(server)["keys"]}
            new = visit(server.port, context).session
        finally:
            os.kill(sleeper, signal.SIGCONT)
        awake = by_worker(server)[sleeper]
        resumed_at_every_worker(server, context, old)
        resumed_at_every_worker(server, context, new)
        assert by_worker(server)[sleeper] > awake
        after = {key["id"]: key["tickets_issued"] for key in told(server)["keys"]}
        now_issuing = issuing(server)
        grown = [name for name, count in after.items() if count > made[name]]
        assert grown == [now_issuing], "no ticket was made with a key of before"


def test_a_worker_that_is_killed_while_keys_turn_does_not_hold_up_the_ring(
    serve: Serve, ca: trustme.CA
) -> None:
    context = client_of(ca, "1.2 ticket")
    with (
        Backend() as backend,
        serve(backend.address, workers=2, resumption={"lifetime": 20, "rotate": 1}) as server,
    ):
        session = visit(server.port, context).session
        first = issuing(server)
        for _ in range(2):
            kill_a_worker(server)
            before = issuing(server)
            wait_until(lambda before=before: issuing(server) != before, "the next key issues")  # type: ignore[misc]
        assert issuing(server) != first
        session = resumed_at_every_worker(server, context, session)
        with suppress(KeyError):
            assert totals(server)["resumption_misses"]["unknown_key"] == 0
