"""Who gets which client, over several workers."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

from tests.conftest import Dial, Serve
from tests.scenarios.clusters.app import App, cluster, wish
from tests.support.clients import leave
from tests.support.server import Server


def ask_for_word(server: Server, dial: Dial) -> bytes:
    with dial(server) as client:
        client.sendall(b"?")
        word = client.recv(10)
        leave(client)
    return word


def test_weights_are_shares(serve: Serve, dial: Dial) -> None:
    with App(b"a") as a, App(b"b") as b:
        with serve(cluster=cluster({"address": a.address, "weight": 3}, b.address)) as server:
            heard = Counter(ask_for_word(server, dial) for _ in range(16))
        assert heard == {b"a": 12, b"b": 4}


def test_least_connections_looks_at_all_workers(serve: Serve, dial: Dial) -> None:
    with App(b"a") as a, App(b"b") as b, ExitStack() as stack:
        values = {"cluster": cluster(a.address, b.address, balance="least_connections")}
        with serve(workers=3, **values) as server:
            wish(server, "drain", b.address)
            clients = [stack.enter_context(dial(server)) for _ in range(10)]
            for client in clients:
                client.sendall(b"?")
                assert client.recv(10) == b"a"
            wish(server, "enable", b.address)
            more = [stack.enter_context(dial(server)) for _ in range(10)]
            for client in more:
                client.sendall(b"?")
                assert client.recv(10) == b"b"
            for client in clients + more:
                leave(client)


def test_random_two_uses_all(serve: Serve, dial: Dial) -> None:
    with App(b"a") as a, App(b"b") as b, App(b"c") as c:
        values = {"cluster": cluster(a.address, b.address, c.address, balance="random_two")}
        with serve(workers=2, **values) as server:
            heard = {ask_for_word(server, dial) for _ in range(40)}
        assert heard == {b"a", b"b", b"c"}


def test_a_client_finds_its_server_at_every_worker_and_after_a_reload(serve: Serve, dial: Dial) -> None:
    with App(b"a") as a, App(b"b") as b, App(b"c") as c:
        values = {"cluster": cluster(a.address, b.address, c.address, balance="client_hash")}
        with serve(workers=3, **values) as server:
            heard = {ask_for_word(server, dial) for _ in range(9)}
            assert server.reload()["ok"]
            heard |= {ask_for_word(server, dial) for _ in range(9)}
        assert len(heard) == 1
