"""Keys that turn, by the clock and by hand: tickets are good for their time, and not a second longer."""

from __future__ import annotations

import itertools

import pytest
import trustme

from termproxy import clock
from tests.conftest import Serve
from tests.scenarios.resumption.visits import (
    KINDS,
    client_of,
    issuing,
    keys,
    resumed_at_every_worker,
    told,
    totals,
    visit,
)
from tests.support.backends import Backend
from tests.support.command import termproxy
from tests.support.waiting import wait_until

TICKETS = [kind for kind in KINDS if "ticket" in kind]


@pytest.mark.parametrize("kind", TICKETS)
def test_a_rotation_by_hand_is_at_once_and_the_old_key_redeems(
    serve: Serve, ca: trustme.CA, kind: str
) -> None:
    context = client_of(ca, kind)
    with Backend() as backend, serve(backend.address, workers=2) as server:
        session = visit(server.port, context).session
        old, following = issuing(server), keys(server, "next")
        assert termproxy("tickets", "rotate", "-c", str(server.file)).returncode == 0
        assert [issuing(server)] == following
        resumed_at_every_worker(server, context, session)
        made = {key["id"]: key["tickets_issued"] for key in told(server)["keys"]}
        assert made[old] == 1
        assert made[following[0]] >= 1, "who came with the old one was given a new one"


@pytest.mark.parametrize("kind", KINDS)
def test_revoking_leaves_no_session_of_before(serve: Serve, ca: trustme.CA, kind: str) -> None:
    """Those that the server keeps, too: the log says so."""
    context = client_of(ca, kind)
    with Backend() as backend, serve(backend.address, workers=2) as server:
        sessions = [visit(server.port, context).session for _ in range(6)]
        assert termproxy("tickets", "rotate", "--revoke-old", "-c", str(server.file)).returncode == 0
        assert not any(visit(server.port, context, session).resumed for session in sessions)
        word = "retired_key" if "ticket" in kind else "evicted"
        assert totals(server)["resumption_misses"] == {"none_offered": 6, word: 6}
        resumed_at_every_worker(server, context, visit(server.port, context).session)


@pytest.mark.parametrize("with_tickets", [True, False], ids=["tickets", "no tickets"])
def test_the_lifetime_that_is_told_is_the_real_one(
    serve: Serve, ca: trustme.CA, *, with_tickets: bool
) -> None:
    """However often keys turn meanwhile: good in its last second, and refused after it."""
    lifetime = 2
    settings = {"lifetime": lifetime, "rotate": 1, "tickets": with_tickets}
    with Backend() as backend, serve(backend.address, resumption=settings) as server:
        contexts = [client_of(ca, kind) for kind in KINDS]
        kept = [(context, visit(server.port, context).session) for context in contexts]
        hints = {session.ticket_lifetime_hint for _, session in kept if session.has_ticket}
        assert hints == {lifetime}
        made, last = min(session.time for _, session in kept), max(session.time for _, session in kept)
        latest = 0.0
        while (begun := clock.utc_now().timestamp()) < last + lifetime + 1.2:
            for context, session in kept:
                begun = clock.utc_now().timestamp()
                resumed = visit(server.port, context, session).resumed
                over = session.time + lifetime
                if (ended := clock.utc_now().timestamp()) < over:
                    assert resumed, f"{over - ended} s before"
                    latest = max(latest, ended)
                if begun > over + 1:
                    assert not resumed
        assert latest > made + lifetime - 1, "it was tried in its last second"
        misses = set(totals(server)["resumption_misses"])
        # A client whose own clock says that it is over does not show it in TLS 1.3.
        assert misses <= {"none_offered", "expired", "retired_key", "evicted"}


def test_keys_turn_by_the_clock_and_leave_in_the_end(serve: Serve) -> None:
    with serve("127.0.0.1:9", resumption={"lifetime": 2, "rotate": 1}) as server:
        first = keys(server)[0]
        roles: list[str] = []

        def role_of_the_first() -> str:
            [role] = [key["role"] for key in told(server)["keys"] if key["id"] == first]
            if not roles or roles[-1] != role:
                roles.append(role)
            return str(role)

        wait_until(lambda: role_of_the_first() == "retired", "it has retired")
        assert roles == ["issuing", "redeeming", "retired"]
        found = told(server)["keys"]
        for key, following in itertools.pairwise(found):
            assert key["issue_until"] == following["issue_from"], "there is no gap"
            assert key["redeem_until"] == key["issue_until"] + 2


def test_a_reload_with_other_settings_keeps_keys_and_sessions(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address) as server:
        session = visit(server.port, context).session
        old = issuing(server)
        server.values["resumption"] = {"lifetime": 100, "rotate": 50}
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: told(server)["lifetime"] == 100, "the settings hold")
        assert issuing(server) == old
        met = visit(server.port, context, session)
        assert met.resumed
        assert met.session.ticket_lifetime_hint == 100


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_tickets_are_sent_as_was_set(serve: Serve, ca: trustme.CA, count: int) -> None:
    context = client_of(ca, "1.3 ticket")
    with (
        Backend() as backend,
        serve(backend.address, resumption={"tickets_per_handshake": count}) as server,
    ):
        visit(server.port, context)
        visit(server.port, context)
        assert sum(key["tickets_issued"] for key in told(server)["keys"]) == 2 * count
