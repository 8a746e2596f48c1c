"""A connection whose handshake waits to begin, and those that a limit turns away."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.observability.metrics import DROPPED
from termproxy.observability.scoreboard import Column
from termproxy.tls.certificates import load_certificate
from termproxy.tls.context import Policy, build_context
from termproxy.worker.admission import CREDIT_MAX, SURCHARGE
from termproxy.worker.connection import Phase
from tests.relay.ends import until
from tests.support.hello import client_hello
from tests.worker.harness import Bench


@pytest.fixture
def bench(site: Path, trust: ssl.SSLContext, tmp_path: Path) -> Iterator[Bench]:
    """In a worker that has been at handshakes for too long."""
    context = build_context([load_certificate(site)], Policy(), on_client_hello=lambda _: None)
    bench = Bench(context, trust, tmp_path)
    bench.given = bench.frontend()
    bench.shared.handshakes._time.charge(CREDIT_MAX / SURCHARGE * 50)
    yield bench
    bench.close()
    bench.shared.handshakes.close()


def waiting(bench: Bench) -> socket.socket:
    client = bench.accept()
    client.send(client_hello("site.test"))
    connection = bench.connections[-1]
    connection._on_handshake()
    assert connection.phase is Phase.WAITING
    assert len(bench.shared.handshakes) == 1
    return client


def ended_with_a_reset(client: socket.socket) -> bool:
    try:
        client.recv(1)
    except ConnectionResetError:
        return True
    return False


def dropped(bench: Bench) -> int:
    assert bench.given is not None
    return int(bench.given.tally[DROPPED["handshake_queue"]])


def test_it_waits_and_its_handshake_begins_when_there_is_nothing_else_to_do(bench: Bench) -> None:
    client = waiting(bench)
    until(lambda: bench.connections[-1].phase is Phase.HANDSHAKE, "its turn")
    until(lambda: client.recv(1, socket.MSG_PEEK), "a ServerHello")
    assert len(bench.shared.handshakes) == 0


def test_it_is_turned_away_at_its_deadline_which_is_no_fault_of_the_client_s(bench: Bench) -> None:
    client = waiting(bench)
    bench.pass_time(11.0)

    assert ended_with_a_reset(client)
    assert dropped(bench) == 1
    assert bench.count(Column.HANDSHAKES_FAILED) == 0
    assert bench.all_is_given_back()
    assert len(bench.shared.handshakes) == 0


def test_a_worker_that_stops_says_so(bench: Bench) -> None:
    waiting(bench)
    bench.connections[-1].drain_is_over()

    assert bench.record()["ended"] == "drain_timeout"
    assert bench.all_is_given_back()
    assert len(bench.shared.handshakes) == 0


def test_a_client_that_has_left_meanwhile_costs_no_crypto(bench: Bench) -> None:
    client = waiting(bench)
    client.close()
    bench.shared.handshakes.leave(bench.connections[-1])
    bench.connections[-1].begin_handshake(waited=True)

    assert bench.record()["ended"] == "client_closed"
    assert bench.record()["detail"] == "the client left while its handshake waited to begin"
    assert bench.all_is_given_back()
