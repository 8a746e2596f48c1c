"""Servers that are down get no clients, and get them again when they are up."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import Dial, Serve
from tests.scenarios.clusters.app import HEALTH, App, cluster, rows, wait_for_checks, wait_for_state
from tests.support.backends import Backend, FullBackend, greeting
from tests.support.clients import leave, read_to_end
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_until


def ask_for_word(server: Server, dial: Dial) -> bytes:
    with dial(server) as client:
        client.sendall(b"?")
        word = client.recv(10)
        leave(client)
    return word


def test_a_server_that_says_it_is_ill_gets_no_client_until_it_is_well(serve: Serve, dial: Dial) -> None:
    with App(b"a") as a, App(b"b") as b:
        values = {"cluster": cluster(a.address, b.address, health=HEALTH)}
        with serve(workers=2, **values) as server:
            wait_for_checks(server, a.address)
            assert {ask_for_word(server, dial) for _ in range(8)} == {b"a", b"b"}
            a.status = 503
            wait_for_state(server, a.address, "down")
            assert {ask_for_word(server, dial) for _ in range(8)} == {b"b"}
            row = rows(server)[a.address]
            assert (row["last_check"]["result"], row["last_check"]["status"]) == ("wrong_status", 503)
            assert row["since"] is not None
            a.status = 200
            wait_for_state(server, a.address, "up")
            assert {ask_for_word(server, dial) for _ in range(8)} == {b"a", b"b"}
            down = f"cluster main: server {a.address} is down: 2 checks in a row failed"
            assert server.said().count(down) == 1
            assert server.said().count(f"cluster main: server {a.address} is up") == 1


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_server_that_is_not_there_is_known_before_a_client_comes(
    serve: Serve, dial: Dial, kind: str
) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with App(b"b") as b:
        values = {"cluster": cluster(absent, b.address, health=HEALTH | {"kind": kind})}
        with serve(**values) as server:
            wait_for_state(server, absent, "down")
            assert {ask_for_word(server, dial) for _ in range(6)} == {b"b"}
            assert server.status()["totals"]["backend_failures"] == 0
            assert "its first check failed: backend_refused" in server.said()


def test_checks_may_find_a_unix_socket_with_other_settings(
    serve: Serve, tmp_path: Path, dial: Dial
) -> None:
    with App(b"u", status=204, path=tmp_path / "app.sock") as app:
        health = HEALTH | {"path": "/healthz", "host": "app.test", "expect": [204], "jitter": 1}
        with serve(cluster=cluster(app.address, health=health)) as server:
            wait_for_checks(server, app.address, 3)
            assert rows(server)[app.address]["last_check"]["status"] == 204
            assert ask_for_word(server, dial) == b"u"


def test_with_all_down_a_client_is_sent_away_at_once(serve: Serve, dial: Dial) -> None:
    with FullBackend() as hole:
        values = {"cluster": cluster(hole.address, health=HEALTH | {"kind": "tcp", "timeout": 0.2})}
        with serve(**values) as server:
            wait_for_state(server, hole.address, "down")
            with dial(server) as client:
                assert read_to_end(client) == b""
            [line] = server.wait_for_access()
            assert (line["ended"], line["fault"]) == ("no_backend", "backend")
            assert line["detail"].endswith("no server of cluster main can be used: 1 down")
            assert line["seconds"] < 2
            assert "backend" not in line


def test_one_process_checks_for_all_workers(serve: Serve) -> None:
    with App() as app:
        values = {"cluster": cluster(app.address, health=HEALTH | {"interval": 0.5, "jitter": 0})}
        with serve(workers=4, **values) as server:
            wait_for_checks(server, app.address, 4)
            assert app.checks <= rows(server)[app.address]["checks"] + 1


def test_servers_of_a_cluster_without_checks_see_none(serve: Serve) -> None:
    with Backend(greeting(b"x")) as quiet, App() as app:
        values = {
            "cluster": cluster(app.address, health=HEALTH) | {"spare": {"servers": [quiet.address]}}
        }
        with serve(**values) as server:
            wait_for_checks(server, app.address, 3)
            assert rows(server)[quiet.address]["last_check"] is None
        assert quiet.accepted == 0


def test_a_server_that_comes_back_is_found_by_the_clients_that_wait_for_room(
    serve: Serve, dial: Dial
) -> None:
    """Two settings at work: a queue on one server, checks on the other."""
    with App(b"a") as a, App(b"b", status=500) as b:
        servers = [{"address": a.address, "max_connections": 1}, b.address]
        values = {"cluster": cluster(*servers, health=HEALTH, queue_timeout=60)}
        with serve(**values) as server:
            wait_for_state(server, b.address, "down")
            with dial(server) as first:
                first.sendall(b"?")
                assert first.recv(10) == b"a"
                with dial(server) as second:
                    second.sendall(b"?")
                    wait_until(lambda: server.open_connections() == 2, "the second waits")
                    b.status = 200
                    assert second.recv(10) == b"b"


def test_health_stays_over_a_reload(serve: Serve, dial: Dial) -> None:
    """A new prober would need a first check of each; clients do not wait for it."""
    with App(b"a", status=500) as a, App(b"b") as b:
        values = {"cluster": cluster(a.address, b.address, health=HEALTH)}
        with serve(**values) as server:
            wait_for_state(server, a.address, "down")
            checks = rows(server)[a.address]["checks"]
            server.values["cluster"] = cluster(a.address, b.address, health=HEALTH | {"interval": 3600})
            assert server.reload()["ok"]
            assert rows(server)[a.address]["state"] == "down"
            assert rows(server)[a.address]["checks"] >= checks
            assert {ask_for_word(server, dial) for _ in range(4)} == {b"b"}


def test_checks_end_when_they_are_no_longer_wanted(serve: Serve) -> None:
    with App(status=500) as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_state(server, app.address, "down")
        server.values["cluster"] = cluster(app.address)
        assert server.reload()["ok"]
        row = rows(server)[app.address]
        assert (row["state"], row["last_check"], row["checks"]) == ("up", None, 0)


def test_a_port_that_speaks_something_else_is_not_healthy(serve: Serve) -> None:
    def ssh(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        sock.recv(1000)

    with Backend(ssh) as backend, serve(cluster=cluster(backend.address, health=HEALTH)) as server:
        wait_for_state(server, backend.address, "down")
        assert rows(server)[backend.address]["last_check"]["result"] == "not_http"
