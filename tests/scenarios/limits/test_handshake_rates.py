"""Handshakes have a rate, in all and for each client; full ones cost more than resumed ones."""

from __future__ import annotations

import ssl

import pytest
import trustme

from termproxy import clock
from tests.conftest import Serve, client_context
from tests.scenarios.limits.clients import connect_from, dropped, is_turned_away
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.server import Server
from tests.support.waiting import wait_until

ONE, OTHER = "127.3.0.1", "127.3.0.2"


def session_from(host: str, server: Server, trust: ssl.SSLContext) -> ssl.SSLSession:
    with connect_from(host, server, trust) as client:
        exchange(client)
        assert client.session is not None
        return client.session


def count_of_accepted(host: str, server: Server, trust: ssl.SSLContext, attempts: int) -> int:
    return sum(not is_turned_away(host, server, trust) for _ in range(attempts))


def test_a_client_above_its_rate_is_turned_away_and_others_are_not(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    """Over all workers: with a worker's share for each the limit would come too early."""
    limits = {"handshakes_per_client": 8}
    with Backend() as backend, serve(backend.address, workers=4, limits=limits) as server:
        began = clock.monotonic()
        accepted = count_of_accepted(ONE, server, trust, 40)
        seconds = clock.monotonic() - began
        assert 7 <= accepted <= 8 * (seconds + 1) + 1
        if seconds < 1:
            assert accepted <= 17
        assert not is_turned_away(OTHER, server, trust)
        assert dropped(server)["handshakes_per_client"] == 40 - accepted
        assert server.status()["totals"]["handshakes"] == accepted + 1
        wait_until(lambda: not is_turned_away(ONE, server, trust), "its time has come again")


def test_a_client_that_resumes_may_come_more_often(serve: Serve, ca: trustme.CA) -> None:
    trust = client_context(ca, ssl.TLSVersion.TLSv1_2)  # whose session is good for any number of times
    limits = {"handshakes_per_client": 10}
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        session = session_from(OTHER, server, trust)
        for _ in range(25):
            with connect_from(ONE, server, trust, session) as client:
                assert client.session_reused
        assert dropped(server) == {}
        assert count_of_accepted(ONE, server, trust, 20) < 20


def test_above_the_rate_handshakes_wait_a_little_and_then_are_turned_away(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    limits = {"handshakes_per_second": 8, "handshake_queue": 0.2}
    with (
        Backend() as backend,
        serve(backend.address, workers=1, limits=limits) as server,
        connect_from(ONE, server, trust) as established,
    ):
        began = clock.monotonic()
        accepted = count_of_accepted(ONE, server, trust, 16)
        seconds = clock.monotonic() - began
        assert exchange(established) == b"ping"
        assert accepted <= 8 * (seconds + 1)
        assert accepted >= 5
        assert dropped(server).get("handshakes_per_second", 0) == 16 - accepted
        leave(established)


def test_full_handshakes_are_turned_away_before_resumed_ones(
    serve: Serve, trust: ssl.SSLContext
) -> None:
    limits = {"handshakes_per_second": 4, "handshake_queue": 0.1}
    with Backend() as backend, serve(backend.address, workers=1, limits=limits) as server:
        session = session_from(ONE, server, trust)
        wait_until(lambda: is_turned_away(OTHER, server, trust), "the rate of full ones is used up")
        with connect_from(ONE, server, trust, session) as client:
            assert client.session_reused
            assert exchange(client) == b"ping"


def test_a_dead_worker_s_share_is_done_by_the_others(serve: Serve, trust: ssl.SSLContext) -> None:
    """The rate is the server's: it does not fall with a worker, nor with each reload."""
    limits = {"handshakes_per_second": 40, "handshake_queue": 5}
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        server.values["workers"] = 1
        assert server.reload()["ok"]
        began = clock.monotonic()
        assert count_of_accepted(ONE, server, trust, 90) == 90
        assert clock.monotonic() - began < 5


@pytest.mark.parametrize("limits", [{"handshakes_per_second": 1000}, {"handshakes_per_client": 1000}])
def test_below_the_rate_nobody_notices(
    serve: Serve, trust: ssl.SSLContext, limits: dict[str, int]
) -> None:
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        assert count_of_accepted(ONE, server, trust, 50) == 50
        assert dropped(server) == {}
