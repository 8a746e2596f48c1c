"""A named set of servers, as one worker sees it."""

from __future__ import annotations

from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server

A, B, C = (Server(parse_address(f"127.0.0.1:{port}")) for port in (1, 2, 3))


def test_a_cluster_offers_its_servers_in_turn() -> None:
    cluster = Cluster("app", [A, B])

    assert cluster.name == "app"
    assert cluster.servers == (A, B)
    assert [next(cluster.candidates()) for _ in range(4)] == [A, B, A, B]


def test_workers_begin_with_different_servers() -> None:
    """With one connection each they would all use the first server."""
    first = []
    for slot in range(4):
        cluster = Cluster("app", [A, B, C])
        cluster.begin_with(slot)
        first.append(next(cluster.candidates()))

    assert first == [A, B, C, A]
