"""Backends over TCP v4, v6 and Unix sockets; in turn, and past those that refuse."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Dial, Serve
from tests.support.backends import Backend, echo, greeting
from tests.support.clients import exchange, leave, read_to_end
from tests.support.ports import free_port


@pytest.mark.parametrize("kind", ["v4", "v6", "unix"])
def test_a_backend_may_be_tcp_v4_tcp_v6_or_a_unix_socket(
    serve: Serve, dial: Dial, tmp_path: Path, kind: str
) -> None:
    family = socket.AF_INET6 if kind == "v6" else socket.AF_INET
    path = tmp_path / "app.sock" if kind == "unix" else None
    with Backend(echo, family=family, path=path) as backend, serve(backend.address) as server:
        with dial(server) as client:
            assert exchange(client, bytes(100_000)) == bytes(100_000)
            leave(client)
        [line] = server.wait_for_access()
        assert (line["backend"], line["ended"]) == (backend.address, "done")


def test_clients_come_in_over_v4_and_v6(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        frontend = server.values["frontend"][0]
        frontend["listen"] = [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"]
        assert server.reload()["ok"]
        for host in ("127.0.0.1", "::1"):
            with dial(server, host=host) as client:
                assert exchange(client) == b"ping"
                leave(client)
        lines = server.wait_for_access(2)
        assert [line["client"].rpartition(":")[0] for line in lines] == ["127.0.0.1", "[::1]"]


def test_servers_of_a_cluster_are_used_in_turn(serve: Serve, dial: Dial) -> None:
    with (
        Backend(greeting(b"a")) as a,
        Backend(greeting(b"b")) as b,
        Backend(greeting(b"c")) as c,
        serve(a.address, b.address, c.address) as server,
    ):
        heard = Counter[bytes]()
        for _ in range(9):
            with dial(server) as client:
                heard[read_to_end(client)] += 1
    assert heard == {b"a": 3, b"b": 3, b"c": 3}


def test_a_server_that_refuses_is_skipped_and_told_of(serve: Serve, dial: Dial) -> None:
    refusing = f"127.0.0.1:{free_port()}"
    with Backend(greeting(b"here")) as backend, serve(refusing, backend.address) as server:
        for _ in range(4):
            with dial(server) as client:
                assert read_to_end(client) == b"here"
                leave(client)
        lines = server.wait_for_access(4)
        assert {line["backend"] for line in lines} == {backend.address}
        assert {line["ended"] for line in lines} == {"done"}
        assert f"cluster main: backend_refused: {refusing}: Connection refused" in server.said()


def test_a_unix_socket_that_is_not_there_is_skipped(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    absent = f"unix:{tmp_path / 'absent.sock'}"
    with Backend(greeting(b"here")) as backend, serve(absent, backend.address) as server:
        for _ in range(2):
            with dial(server) as client:
                assert read_to_end(client) == b"here"
        assert "backend_absent" in server.said()


def test_with_no_server_left_the_client_gets_a_clean_end_and_the_log_says_why(
    serve: Serve, dial: Dial
) -> None:
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with serve(first, second) as server:
        with dial(server) as client:
            assert read_to_end(client) == b""
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("backend_refused", "backend")
        assert any(address in line["detail"] for address in (first, second))
        assert server.status()["totals"]["backend_failures"] == 2


def test_a_refusing_cluster_fills_no_log(serve: Serve, dial: Dial) -> None:
    """One line a second for each server, with the number of those held back."""
    with serve(f"127.0.0.1:{free_port()}") as server:
        for _ in range(50):
            with dial(server) as client:
                read_to_end(client)
        lines = server.wait_for_access(50)
        span = 50 * max(line["seconds"] for line in lines)
        assert server.said().count("backend_refused") <= 10 + span
