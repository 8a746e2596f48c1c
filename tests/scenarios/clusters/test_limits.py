"""Servers take so many connections, over all workers; more clients wait, but not for ever."""

from __future__ import annotations

import os
import signal
import ssl
from contextlib import ExitStack

from tests.conftest import Dial, Serve
from tests.scenarios.clusters.app import App, cluster, rows, wish
from tests.support.clients import leave, read_to_end
from tests.support.server import Server
from tests.support.waiting import wait_until


def limited(app: App, limit: int, **settings: object) -> dict[str, object]:
    return {"cluster": cluster({"address": app.address, "max_connections": limit}, **settings)}


def hear(client: ssl.SSLSocket) -> bytes:
    client.sendall(b"?")
    return client.recv(10)


def active(server: Server, app: App) -> int:
    return int(rows(server)[app.address]["active"])


def test_a_server_never_has_more_than_it_takes_over_all_workers(serve: Serve, dial: Dial) -> None:
    with (
        App() as app,
        serve(workers=4, **limited(app, 3, queue_timeout=60)) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(dial(server)) for _ in range(12)]
        for client in clients:
            client.sendall(b"?")
        wait_until(lambda: server.open_connections() == 12, "all are in")
        heard = 0
        for done in range(12):
            wait_until(lambda done=done: app.clients >= min(12, done + 3), "a place is taken")  # type: ignore[misc]
            assert active(server, app) <= 3
            ready = next(client for client in clients if _has_word(client))
            clients.remove(ready)
            heard += 1
            leave(ready)
        assert (heard, app.clients) == (12, 12)
        wait_until(lambda: active(server, app) == 0, "nothing is counted")


def _has_word(client: ssl.SSLSocket) -> bool:
    client.settimeout(0.05)
    try:
        return bool(client.recv(10))
    except TimeoutError:
        return False
    finally:
        client.settimeout(20)


def test_who_waits_too_long_is_sent_away(serve: Serve, dial: Dial) -> None:
    with App() as app, serve(**limited(app, 1, queue_timeout=0.5)) as server, dial(server) as first:
        assert hear(first) == b"a"
        with dial(server) as second:
            assert read_to_end(second) == b""
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("queue_timeout", "backend")
        assert 0.5 <= line["seconds"] < 5
        leave(first)


def test_a_full_queue_sends_away_at_once(serve: Serve, dial: Dial) -> None:
    with (
        App() as app,
        serve(**limited(app, 1, queue=1, queue_timeout=60)) as server,
        dial(server) as first,
    ):
        assert hear(first) == b"a"
        with dial(server) as second:
            wait_until(lambda: server.open_connections() == 2, "the second waits")
            with dial(server) as third:
                assert read_to_end(third) == b""
            [line] = server.wait_for_access()
            assert line["ended"] == "queue_full"
            leave(first)
            assert hear(second) == b"a"
            leave(second)


def test_a_killed_worker_s_connections_are_counted_no_more(serve: Serve, dial: Dial) -> None:
    with App() as app, serve(workers=2, **limited(app, 1, queue_timeout=60)) as server:
        with dial(server) as first:
            assert hear(first) == b"a"
            [victim] = [w["pid"] for w in server.status()["workers"] if w["connections"]]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: active(server, app) == 0, "nothing is counted")
        with dial(server) as second:
            assert hear(second) == b"a"
            leave(second)
        assert rows(server)[app.address]["total"] == 2


def test_connections_of_an_older_generation_count_until_they_end(serve: Serve, dial: Dial) -> None:
    """The backend does not care who of us has them open."""
    with App() as app, serve(**limited(app, 1, queue_timeout=60)) as server, dial(server) as first:
        assert hear(first) == b"a"
        assert server.reload()["ok"]
        assert active(server, app) == 1
        with dial(server) as second:
            second.sendall(b"?")
            wait_until(lambda: server.open_connections() == 2, "the second is in")
            assert app.clients == 1
            leave(first)
            assert second.recv(10) == b"a"
            leave(second)


def test_drained_servers_keep_what_is_open_and_get_nothing_new(serve: Serve, dial: Dial) -> None:
    with (
        App(b"a") as a,
        App(b"b") as b,
        serve(workers=2, cluster=cluster(a.address, b.address)) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(dial(server)) for _ in range(8)]
        words = [hear(client) for client in clients]
        assert set(words) == {b"a", b"b"}
        wish(server, "drain", a.address)
        later = [stack.enter_context(dial(server)) for _ in range(8)]
        assert {hear(client) for client in later} == {b"b"}
        assert active(server, a) == words.count(b"a")
        assert server.reload()["ok"]
        assert rows(server)[a.address]["state"] == "draining"
        newest = [stack.enter_context(dial(server)) for _ in range(4)]
        assert {hear(client) for client in newest} == {b"b"}
        for client in clients + later + newest:
            leave(client)
        wait_until(lambda: active(server, a) == active(server, b) == 0, "nothing is counted")
        wish(server, "enable", a.address)
        last = [stack.enter_context(dial(server)) for _ in range(8)]
        assert {hear(client) for client in last} == {b"a", b"b"}


def test_what_was_counted_does_not_go_backwards(serve: Serve, dial: Dial) -> None:
    with App() as app, serve(app.address, workers=2) as server:
        for round_ in range(1, 4):
            with dial(server) as client:
                assert hear(client) == b"a"
                leave(client)
            assert rows(server)[app.address]["total"] == round_
            assert server.reload()["ok"]
            wait_until(lambda: len(server.status()["workers"]) == 2, "the old workers are gone")
            assert rows(server)[app.address]["total"] == round_
