"""A ticket is good at every worker: contexts, and with them its key, are made before the fork."""

from __future__ import annotations

import os
import signal
import ssl

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.waiting import wait_until

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed_by_whichever_worker_comes_next(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = client_context(ca, version)
    rounds = 24
    with Backend() as backend, serve(backend.address, workers=2) as server:
        with dial(server, context=context) as client:
            exchange(client)  # the ticket comes with the first answer
            session = client.session
            leave(client)
        for _ in range(rounds):
            with dial(server, context=context, session=session) as client:
                assert client.session_reused
                exchange(client)
                session = client.session
                leave(client)
        lines = server.wait_for_access(rounds + 1)
        assert [line["resumed"] for line in lines].count(True) == rounds
        assert server.status()["totals"]["handshakes_resumed"] == rounds
        shares = [worker["handshakes"] for worker in server.status()["workers"]]
        assert min(shares) > 0, "both workers were asked"


def test_a_ticket_outlives_the_worker_that_gave_it(serve: Serve, dial: Dial, ca: trustme.CA) -> None:
    context = client_context(ca)
    with Backend() as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            exchange(client)
            session = client.session
            leave(client)
        [first] = server.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [first]), "the worker is replaced")
        with dial(server, context=context, session=session) as client:
            assert client.session_reused
            assert exchange(client) == b"ping"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_keeps_its_server_name(
    serve: Serve, dial: Dial, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = client_context(ca, version)
    with Backend() as backend, serve(backend.address) as server:
        with dial(server, context=context) as client:
            exchange(client)
            session = client.session
            leave(client)
        with dial(server, context=context, session=session) as client:
            exchange(client)
            leave(client)
        lines = server.wait_for_access(2)
        assert [line["sni"] for line in lines] == ["site.test", "site.test"]
