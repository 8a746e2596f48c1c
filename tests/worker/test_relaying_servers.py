"""What a connection tells of its server: that it uses it, and how that went."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config import schema
from termproxy.worker.connection import Phase
from termproxy.worker.relaying import IDLE_CHECKS
from tests.relay.ends import receive, reset, send_all, turns, until
from tests.support.ports import free_port
from tests.worker.harness import Bench, one_for_all


def clustered(bench: Bench, *addresses: str, limit: int = 0, **settings: Any) -> Cluster:
    """Puts a cluster of these behind the bench's frontend (or of the bench's own backend)."""
    servers = tuple(
        schema.Server(parse_address(address), 1, limit) for address in addresses or (bench.address,)
    )
    cluster = Cluster.of("app", schema.Cluster(servers=servers, **settings))
    bench.given = one_for_all(bench.context, cluster)
    return cluster


def in_a_row(server: Server) -> int:
    return server._in_a_row


# Until its end.


def client_ends(client: Any, backend: socket.socket, _: Bench) -> None:
    client.say_goodbye()
    assert receive(backend) == b""
    backend.close()


def client_vanishes(client: Any, backend: socket.socket, _: Bench) -> None:
    client.vanish()


def backend_resets(client: Any, backend: socket.socket, _: Bench) -> None:
    reset(backend)


def nothing_happens(client: Any, backend: socket.socket, bench: Bench) -> None:
    for _ in range(IDLE_CHECKS + 1):
        bench.pass_time(61)


def worker_stops(client: Any, backend: socket.socket, bench: Bench) -> None:
    bench.connections[0].drain_is_over()


@pytest.mark.parametrize(
    "end", [client_ends, client_vanishes, backend_resets, nothing_happens, worker_stops]
)
def test_a_connection_is_counted_until_its_end_whatever_that_is(
    bench: Bench, end: Callable[..., None]
) -> None:
    [server] = clustered(bench).servers
    client, backend = bench.relay()
    assert server.active() == 1
    end(client, backend, bench)
    until(lambda: bench.connections[0].phase in (Phase.CLOSED, Phase.LINGERING), "the end")
    bench.pass_time(200)

    assert server.active() == 0
    assert bench.all_is_given_back()


def test_one_that_never_connects_is_counted_no_more(bench: Bench) -> None:
    [server] = clustered(bench, f"127.0.0.1:{free_port()}").servers
    bench.connect()
    until(bench.all_is_given_back, "the end")

    assert server.active() == 0
    assert in_a_row(server) == 1


def test_a_bug_between_is_no_leak(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    [server] = clustered(bench).servers
    monkeypatch.setattr("termproxy.worker.relaying.relay", lambda *_: 1 / 0)
    bench.connect()
    until(bench.all_is_given_back, "the end")

    assert server.active() == 0


# How it went.


def test_a_reset_before_an_answer_is_a_failure(bench: Bench) -> None:
    [server] = clustered(bench).servers
    for failures in (1, 2):
        client, backend = bench.connect(), bench.backend()
        client.send(b"question")
        assert receive(backend) == b"question"
        reset(backend)
        until(lambda: bench.connections[-1].phase is Phase.CLOSED, "the end")
        assert in_a_row(server) == failures


def test_a_reset_after_an_answer_is_none(bench: Bench) -> None:
    [server] = clustered(bench).servers
    server.failed(1.0)
    client, backend = bench.relay()
    send_all(backend, b"answer")
    assert client.receive() == b"answer"
    reset(backend)
    until(lambda: bench.connections[-1].phase is Phase.CLOSED, "the end")

    assert in_a_row(server) == 0


def test_a_silent_end_is_none_either(bench: Bench) -> None:
    """A backend that only takes, such as a log's."""
    [server] = clustered(bench).servers
    server.failed(1.0)
    client, backend = bench.relay()
    client_ends(client, backend, bench)
    until(lambda: bench.connections[-1].phase is Phase.CLOSED, "the end")

    assert in_a_row(server) == 0


def test_a_connection_that_stays_tells_now_and_then_that_its_server_answers(bench: Bench) -> None:
    [server] = clustered(bench).servers
    client, backend = bench.relay()
    server.failed(1.0)
    send_all(backend, b"answer")
    assert client.receive() == b"answer"
    bench.pass_time(11)

    assert in_a_row(server) == 0
    assert bench.connections[0].phase is Phase.RELAYING


def test_a_client_that_leaves_before_an_answer_says_nothing_of_the_server(bench: Bench) -> None:
    [server] = clustered(bench).servers
    server.failed(1.0)
    client, _ = bench.relay()
    client.vanish()
    until(lambda: bench.connections[-1].phase is Phase.CLOSED, "the end")

    assert in_a_row(server) == 1


# No server, or no room.


def test_while_all_servers_are_full_a_client_waits_and_then_is_served(bench: Bench) -> None:
    cluster = clustered(bench, limit=1)
    client, backend = bench.relay()
    second = bench.connect()
    turns()
    assert bench.connections[1].phase is Phase.CONNECTING
    client_ends(client, backend, bench)
    other = bench.backend()
    send_all(other, b"yours")

    assert second.receive() == b"yours"
    assert cluster.servers[0].active() == 1


def test_the_wait_has_a_deadline(bench: Bench) -> None:
    cluster = clustered(bench, limit=1, queue_timeout=2.0)
    cluster.servers[0].begin()
    bench.connect()
    bench.pass_time(1.7)
    assert bench.connections[0].phase is Phase.CONNECTING
    bench.pass_time(2.3)

    assert (bench.record()["ended"], bench.record()["fault"]) == ("queue_timeout", "backend")
    assert bench.all_is_given_back()


def test_a_client_that_waits_when_the_worker_stops_leaves_the_queue(bench: Bench) -> None:
    cluster = clustered(bench, limit=1)
    cluster.servers[0].begin()
    bench.connect()
    bench.connections[0].drain_is_over()

    assert bench.record()["ended"] == "drain_timeout"
    assert not cluster._queue
    assert bench.all_is_given_back()


def test_with_no_server_to_use_the_end_is_at_once(bench: Bench) -> None:
    cluster = clustered(bench, passive=schema.Passive(failures=1, eject_last=True))
    cluster.servers[0].failed(1e9)
    bench.connect()
    record = bench.record()

    assert (record["ended"], record["fault"]) == ("no_backend", "backend")
    assert record["detail"] == "no_backend: no server of cluster app can be used: 1 ejected"
