"""Clients on a Unix socket: one path for all workers, whose file comes and goes with the server."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import NAME, exchange, leave
from tests.support.server import Server
from tests.support.waiting import wait_until


def on_unix(server: Server, path: Path) -> Server:
    server.values["frontend"][0]["listen"].append(f"unix:{path}")
    return server


def connect_to(path: Path, ca: trustme.CA) -> ssl.SSLSocket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    return client_context(ca).wrap_socket(sock, server_hostname=NAME, suppress_ragged_eofs=False)


@pytest.mark.parametrize(
    ("send_proxy", "begin"),
    [("off", b"ping"), ("v1", b"PROXY TCP4 127.0.0.1 "), ("v2", b"\r\n\r\n\0\r\nQUIT\n")],
)
def test_clients_are_served_there(
    serve: Serve, ca: trustme.CA, tmp_path: Path, send_proxy: str, begin: bytes
) -> None:
    path = tmp_path / "s"
    with Backend() as backend:
        server = on_unix(serve(backend.address, workers=2), path)
        server.values["cluster"]["main"]["send_proxy"] = send_proxy
        with server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            for _ in range(4):
                with connect_to(path, ca) as client:
                    client.sendall(b"ping")
                    received = b""
                    while not received.endswith(b"ping"):
                        received += client.recv(1000)
                    assert received.startswith(begin)
                    leave(client)
            line = server.wait_for_access()[0]
            assert line["client"] == "127.0.0.1:0"
        assert not path.exists()


def test_mode_http_serves_them_too(serve: Serve, ca: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Backend() as backend:
        server = on_unix(serve(backend.address), path)
        server.values["frontend"][0]["mode"] = "http"
        with server, connect_to(path, ca) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 50")  # an echo is no answer


def test_the_path_stays_over_a_reload_and_an_upgrade(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with Backend() as backend, on_unix(serve(backend.address), path) as server:
        before = os.lstat(path).st_ino
        assert server.reload()["ok"]
        server.upgrade()
        server.wait_until_old_master_is_gone()
        assert os.lstat(path).st_ino == before
        with connect_to(path, ca) as client:
            assert exchange(client) == b"ping"
            leave(client)
        server.values["frontend"][0]["listen"].pop()
        assert server.reload()["ok"]
        wait_until(lambda: not path.exists(), "the path has gone")


def test_the_socket_of_one_that_was_killed_is_replaced(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with Backend() as backend:
        server = on_unix(serve(backend.address), path)
        server.start()
        server.wait_until_serving()
        server.signal(signal.SIGKILL)
        server.wait_until_gone()
        assert path.exists()
        with server, connect_to(path, ca) as client:
            assert exchange(client) == b"ping"


def test_something_else_that_is_there_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with Backend() as backend:
        server = on_unix(serve(backend.address), path)
        server.start()
        assert server.wait_until_gone() == 1
        assert "something that is not a socket is there; remove it" in server.said()
    assert path.read_text() == "precious"
