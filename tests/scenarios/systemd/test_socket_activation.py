"""Sockets that systemd has bound: found by name, kept over reloads and upgrades, and never closed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve, client_context
from tests.scenarios.systemd.manager import passing
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave
from tests.support.server import Server
from tests.support.waiting import wait_until


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def activated(server: Server, *listen: str, **sockets: socket.socket) -> Server:
    server.values["frontend"][0]["listen"] = list(listen)
    return passing(server, sockets)


def greet(sock: socket.socket, ca: trustme.CA) -> None:
    with connect(sock.getsockname()[1], client_context(ca)) as client:
        assert exchange(client) == b"ping"
        leave(client)


def test_all_sockets_of_a_name_are_served_by_all_workers(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, listener() as one, listener() as two:
        server = serve(backend.address, workers=2)
        with activated(server, "systemd:web", **{"web#1": one, "web#2": two}):
            for _ in range(4):
                greet(one, ca)
                greet(two, ca)
            assert server.status()["frontends"][0]["listen"] == ["systemd:web"]
            assert "nobody" not in server.said()


def test_reload_and_upgrade_keep_them(serve: Serve, ca: trustme.CA) -> None:
    """One that nobody listened on at first, too."""
    with Backend() as backend, listener() as web, listener() as spare:
        server = serve(backend.address)
        with activated(server, "systemd:web", web=web, spare=spare):
            server.wait_for_words(
                "systemd passes sockets named 'spare', and no frontend listens on them"
            )
            assert server.reload()["ok"]
            greet(web, ca)
            server.upgrade()
            server.wait_until_old_master_is_gone()
            greet(web, ca)
            server.values["frontend"][0]["listen"] = ["systemd:web", "systemd:spare"]
            assert server.reload()["ok"]
            greet(spare, ca)


def test_after_the_end_clients_wait_for_the_next_start(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, listener() as web:
        server = serve(backend.address)
        with activated(server, "systemd:web", web=web):
            greet(web, ca)
        with socket.create_connection(web.getsockname()), server:
            greet(web, ca)


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        (
            "systemd:wbe",
            "cannot listen on systemd:wbe: systemd passes no socket of that name; it passes",
        ),
        ("systemd:datagrams", "what systemd passes is no stream socket; write ListenStream="),
        ("systemd:silent", "what systemd passes is a connection; write Accept=no"),
    ],
)
def test_what_cannot_be_served_refuses_the_start(serve: Serve, listen: str, why: str) -> None:
    with (
        Backend() as backend,
        listener() as web,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket() as silent,
    ):
        server = activated(serve(backend.address), listen, web=web, datagrams=datagrams, silent=silent)
        server.start()
        assert server.wait_until_gone() == 1
        assert why in server.said()


def test_without_systemd_the_name_is_refused(serve: Serve) -> None:
    with Backend() as backend:
        server = serve(backend.address)
        server.values["frontend"][0]["listen"] = ["systemd:web"]
        server.start()
        assert server.wait_until_gone() == 1
        assert "systemd passes no sockets; start us by a socket unit" in server.said()


def test_nobody_inherits_the_variables(serve: Serve, tmp_path: Path) -> None:
    with Backend() as backend, listener() as web:
        server = serve(backend.address)
        with activated(server, "systemd:web", web=web):
            server.upgrade()
            wait_until(lambda: server.master != server.pid, "the new one serves")
            environ = Path(f"/proc/{server.master}/environ").read_bytes()
            assert b"LISTEN_" not in environ
