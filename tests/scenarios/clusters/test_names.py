"""Backends with names: found while clients wait, followed when they move."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.conftest import Dial, Serve
from tests.scenarios.clusters.app import HEALTH, App, cluster, table, wait_for_state, wish
from tests.support.clients import leave, read_to_end
from tests.support.name_server import NameServer
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_until


def word_of(server: Server, dial: Dial) -> bytes:
    with dial(server) as client:
        client.sendall(b"?")
        word = client.recv(10)
        leave(client)
    return word


def on_port(word: bytes, ip: str, port: int) -> App:
    """One that listens at this address."""
    app = App(word)
    app._sock.close()
    app._sock = socket.create_server((ip, port))
    return app


def named(name: str, dns: NameServer | None = None, **settings: Any) -> dict[str, Any]:
    servers = [] if dns is None else [dns.address]
    return {"cluster": cluster(name, **settings), "dns": {"servers": servers, "hosts": ""}}


def addresses(server: Server) -> set[str | None]:
    return {row["address"] for row in table(server)}


def wait_for_addresses(server: Server, *expected: str | None) -> None:
    wait_until(lambda: addresses(server) == set(expected), f"the addresses {expected}")


def test_the_first_client_does_not_come_too_early(serve: Serve, dial: Dial) -> None:
    with App() as app, NameServer(app_internal=["127.0.0.1"]) as dns:
        name = f"app.internal:{app.address.rpartition(':')[2]}"
        with serve(**named(name, dns)) as server:
            assert word_of(server, dial) == b"a"
            [line] = server.wait_for_access()
            assert line["backend"] == app.address
            server.wait_for_words(f"cluster main: {name} is 127.0.0.1 now")


def test_all_addresses_are_used_and_changes_are_followed(serve: Serve, dial: Dial) -> None:
    port = free_port()
    with (
        on_port(b"a", "127.0.0.1", port),
        on_port(b"b", "127.0.0.2", port),
        NameServer(app_internal=["127.0.0.1", "127.0.0.2"]) as dns,
        serve(workers=2, **named(f"app.internal:{port}", dns)) as server,
    ):
        assert {word_of(server, dial) for _ in range(8)} == {b"a", b"b"}
        with dial(server) as stays:
            dns.addresses["app.internal"] = ["127.0.0.1"]
            stays.sendall(b"?")
            assert stays.recv(10) in (b"a", b"b")
            wait_for_addresses(server, f"127.0.0.1:{port}")
            assert {word_of(server, dial) for _ in range(6)} == {b"a"}
            leave(stays)
        dns.addresses["app.internal"] = ["127.0.0.2"]
        wait_for_addresses(server, f"127.0.0.2:{port}")
        assert {word_of(server, dial) for _ in range(6)} == {b"b"}


def test_a_name_that_does_not_resolve_is_told_and_found_later(serve: Serve, dial: Dial) -> None:
    with App() as app, NameServer() as dns:
        port = app.address.rpartition(":")[2]
        with serve(**named(f"app.internal:{port}", dns)) as server:
            server.wait_for_words("does not resolve: there is no such name; it counts as down")
            with dial(server) as client:
                assert read_to_end(client) == b""
            [line] = server.wait_for_access()
            assert line["ended"] == "no_backend"
            assert f"app.internal:{port} has no address" in line["detail"]
            assert [(row["address"], row["state"]) for row in table(server)] == [(None, "down")]
            dns.addresses["app.internal"] = ["127.0.0.1"]
            wait_for_addresses(server, app.address)
            assert word_of(server, dial) == b"a"


def test_when_name_servers_fail_the_last_answer_stays(serve: Serve, dial: Dial) -> None:
    with App() as app, NameServer(app_internal=["127.0.0.1"]) as dns:
        name = f"app.internal:{app.address.rpartition(':')[2]}"
        with serve(**named(name, dns)) as server:
            assert word_of(server, dial) == b"a"
            dns.fails = True
            server.wait_for_words("its addresses stay")
            assert word_of(server, dial) == b"a"
            del dns.addresses["app.internal"]
            dns.fails = False
            server.wait_for_words("there is no such name; its addresses stay")
            assert word_of(server, dial) == b"a"


def test_addresses_stay_over_a_reload_without_a_gap(serve: Serve, dial: Dial) -> None:
    with App() as app, NameServer(app_internal=["127.0.0.1"]) as dns:
        name = f"app.internal:{app.address.rpartition(':')[2]}"
        with serve(**named(name, dns)) as server:
            assert word_of(server, dial) == b"a"
            wish(server, "drain", name)
            wish(server, "enable", name)
            dns.is_silent = True
            assert server.reload()["ok"]
            assert word_of(server, dial) == b"a"
            assert [row["total"] for row in table(server)] == [2]


def test_names_in_the_hosts_file_need_no_name_server(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 app.internal\n")
    with App() as app:
        values = {
            "cluster": cluster(f"app.internal:{app.address.rpartition(':')[2]}"),
            "dns": {"hosts": "hosts", "servers": [f"127.0.0.1:{free_port()}"]},
        }
        with serve(**values) as server:
            assert word_of(server, dial) == b"a"


def test_addresses_of_a_name_are_checked(serve: Serve, dial: Dial) -> None:
    port = free_port()
    with (
        on_port(b"a", "127.0.0.1", port) as a,
        on_port(b"b", "127.0.0.2", port),
        NameServer(app_internal=["127.0.0.1", "127.0.0.2"]) as dns,
        serve(**named(f"app.internal:{port}", dns, health=HEALTH)) as server,
    ):
        assert {word_of(server, dial) for _ in range(8)} == {b"a", b"b"}
        a.status = 503
        wait_for_state(server, f"127.0.0.1:{port}", "down")
        assert {word_of(server, dial) for _ in range(6)} == {b"b"}
