"""What the master tells of resumption is what the clients have seen."""

from __future__ import annotations

import ssl

import trustme

from termproxy.observability.metrics import MISSES
from tests.conftest import Serve
from tests.scenarios.resumption.visits import (
    KINDS,
    by_worker,
    client_of,
    kill_a_worker,
    told,
    totals,
    visit,
)
from tests.support.backends import Backend
from tests.support.command import termproxy
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_until

SEEN = {"1.2 ticket": "ticket", "1.2 id": "session_id", "1.3 ticket": "ticket"}


def test_the_counters_are_what_the_clients_saw_over_workers_deaths_and_reloads(
    serve: Serve, ca: trustme.CA
) -> None:
    seen = {"full": 0, "ticket": 0, "session_id": 0}
    with Backend() as backend, serve(backend.address, workers=3) as server:
        for kind in KINDS:
            context = client_of(ca, kind)
            session = None
            for number in range(12):
                met = visit(server.port, context, session)
                seen[SEEN[kind] if met.resumed else "full"] += 1
                session = met.session if number % 4 else None
            if kind == KINDS[0]:
                kill_a_worker(server)
            elif kind == KINDS[1]:
                assert server.reload(new_workers=True)["ok"]
        counted = totals(server)
        assert counted["handshakes"] == seen
        resumed = seen["ticket"] + seen["session_id"]
        assert counted["resumption_misses"] == {"none_offered": seen["full"]}
        assert sum(counted["handshake_seconds_full"].values()) == seen["full"]
        assert sum(counted["handshake_seconds_resumed"].values()) == resumed
        assert sum(counted["ticket_age_seconds"].values()) == resumed
        spent = counted["handshake_cpu_microseconds"]
        assert set(spent) == set(seen)
        assert spent["full"] / seen["full"] > spent["ticket"] / seen["ticket"], "that is what it is for"
        assert server.status()["totals"]["handshakes_resumed"] == resumed
        said = termproxy("tickets", "status", "-c", str(server.file)).stdout
        assert f"main: {seen['full'] + resumed} handshakes" in said
        assert (
            f"{seen['full']} full, {seen['ticket']} by ticket, {seen['session_id']} by session id"
            in said
        )


def test_tickets_are_counted_by_their_key_over_all_workers(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address, workers=2) as server:
        first = told(server)["keys"][0]["id"]
        for _ in range(10):
            visit(server.port, context)
        kill_a_worker(server)
        told(server, "rotate")
        for _ in range(5):
            visit(server.port, context)
        made = {key["id"]: key["tickets_issued"] for key in told(server)["keys"]}
        assert list(made.values()) == [10, 5, 0]
        assert made[first] == 10


def test_each_frontend_counts_for_itself(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        server = serve(backend.address)
        port = free_port()
        [main] = server.values["frontend"]
        server.values["frontend"].append(main | {"name": "other", "listen": [f"127.0.0.1:{port}"]})
        with server:
            session = visit(server.port, context).session
            visit(server.port, context, session)
            assert not visit(port, context, session).resumed, "it is another policy group"
            assert totals(server)["handshakes"] == {"full": 1, "ticket": 1}
            assert totals(server, "other")["handshakes"] == {"full": 1}
            assert totals(server, "other")["resumption_misses"] == {"other_group": 1}


def test_the_access_log_tells_how_and_why_not(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address) as server:
        for kind in KINDS:
            context = client_of(ca, kind)
            session = visit(server.port, context).session
            visit(server.port, context, session)
        ticket = client_of(ca, "1.3 ticket")
        session = visit(server.port, ticket).session
        told(server, "revoke")
        visit(server.port, ticket, session)
        lines = server.wait_for_access(8)
        assert [line["resumption"] for line in lines] == [
            "none_offered",
            "ticket",
            "none_offered",
            "session_id",
            "none_offered",
            "ticket",
            "none_offered",
            "retired_key",
        ]
        for line in lines:
            assert line["resumed"] == (line["resumption"] in {"ticket", "session_id"})
            assert ("ticket_age" in line) == line["resumed"]
            assert 0 <= line.get("ticket_age", 0) <= 5


def test_a_handshake_that_failed_tells_nothing_of_resumption(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.2 ticket")
    context.set_ciphers("AES128-SHA")
    with serve("127.0.0.1:9") as server:
        try:
            visit(server.port, context)
        except OSError:
            pass  # as it should be
        [line] = server.wait_for_access(1)
        assert "resumption" not in line
        assert totals(server)["handshakes"] == {}
        assert totals(server)["resumption_misses"] == {}


def test_the_age_of_what_is_resumed_is_the_sessions(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.2 ticket")
    with Backend() as backend, serve(backend.address) as server:
        session = visit(server.port, context).session
        wait_until(lambda: _age(server, context, session) >= 2, "it is two seconds old", poll=0.3)
        ages = totals(server)["ticket_age_seconds"]
        assert ages["10"] >= 1
        assert set(ages) <= {"1", "10"}


def _age(server: Server, context: ssl.SSLContext, session: ssl.SSLSession) -> int:
    before = len(server.access_lines())
    visit(server.port, context, session)
    return int(server.wait_for_access(before + 1)[-1]["ticket_age"])


def test_each_worker_counts_its_own(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address, workers=2) as server:
        for _ in range(12):
            visit(server.port, context)
        assert sum(by_worker(server).values()) == 12


def test_every_reason_has_a_stable_word() -> None:
    """They stand in logs and metrics."""
    assert MISSES == (
        "none_offered",
        "unknown_key",
        "retired_key",
        "other_group",
        "damaged",
        "expired",
        "other_version",
        "client_certificate_expired",
        "not_accepted",
        "evicted",
    )
