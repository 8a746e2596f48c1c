"""Servers that fail clients' connections are left alone for a while."""

from __future__ import annotations

import socket

from tests.conftest import Dial, Serve
from tests.scenarios.clusters.app import App, cluster, rows, wait_for_state
from tests.support.backends import Backend, reset
from tests.support.clients import leave
from tests.support.ports import free_port
from tests.support.server import Server


def ask_for_word(server: Server, dial: Dial) -> bytes:
    with dial(server) as client:
        client.sendall(b"?")
        word = client.recv(10)
        leave(client)
    return word


def test_a_server_that_refuses_again_and_again_is_asked_no_more_for_a_while(
    serve: Serve, dial: Dial
) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with App() as app:
        values = {
            "cluster": cluster(
                absent, app.address, passive={"failures": 2, "eject": 3600, "eject_max": 3600}
            )
        }
        with serve(**values) as server:
            assert [ask_for_word(server, dial) for _ in range(12)] == [b"a"] * 12
            row = rows(server)[absent]
            assert (row["state"], row["failures"], row["active"]) == ("ejected", 2, 0)
            assert f"server {absent} is ejected for 3600 s: 2 failures in a row" in server.said()


def test_all_workers_leave_it_alone_when_one_does(serve: Serve, dial: Dial) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with App() as app:
        values = {"cluster": cluster(absent, app.address, passive={"failures": 3, "eject": 300})}
        with serve(workers=4, **values) as server:
            while rows(server)[absent]["state"] == "up":
                assert ask_for_word(server, dial) == b"a"
            failures = rows(server)[absent]["failures"]
            assert 3 <= failures <= 9  # two of each other worker at most
            assert server.said().count("is ejected") == 1


def test_an_ejected_server_is_tried_again(serve: Serve, dial: Dial) -> None:
    port = free_port()
    with App(b"a") as app:
        values = {
            "cluster": cluster(f"127.0.0.1:{port}", app.address, passive={"failures": 1, "eject": 0.5})
        }
        with serve(**values) as server:
            for _ in range(2):
                assert ask_for_word(server, dial) == b"a"
            wait_for_state(server, f"127.0.0.1:{port}", "ejected")
            with socket.create_server(("127.0.0.1", port)):
                wait_for_state(server, f"127.0.0.1:{port}", "up")
            server.wait_for_words("is tried again")


def test_a_server_that_resets_before_it_answers_is_ejected(serve: Serve, dial: Dial) -> None:
    with Backend(reset) as bad, App() as app:
        values = {
            "cluster": cluster(
                bad.address, app.address, passive={"failures": 2, "eject": 3600, "eject_max": 3600}
            )
        }
        with serve(**values) as server:
            for _ in range(4):
                with dial(server) as client:
                    try:
                        client.sendall(b"?")
                        client.recv(10)
                    except OSError:
                        pass  # it was reset
            wait_for_state(server, bad.address, "ejected")
            assert {ask_for_word(server, dial) for _ in range(6)} == {b"a"}


def test_the_last_server_is_tried_however_often_it_fails(serve: Serve, dial: Dial) -> None:
    port = free_port()
    with serve(cluster=cluster(f"127.0.0.1:{port}", passive={"failures": 1})) as server:
        for _ in range(5):
            with dial(server) as client:
                assert client.recv(10) == b""
        lines = server.wait_for_access(5)
        assert {line["ended"] for line in lines} == {"backend_refused"}
        assert rows(server)[f"127.0.0.1:{port}"]["state"] == "up"
        assert "ejected" not in server.said()
