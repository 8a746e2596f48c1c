"""New workers get no client before they have proved that they can serve."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import Dial, Serve, write_site
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.masters import MASTER, Master
from tests.support.server import Server
from tests.support.waiting import wait_until

# A bug of ours, which no check of a configuration finds.
BUG = """
from termproxy.worker import assembly

class Wrong(assembly.Frontend):
    def on_client_hello(self, connection):
        if self.name == "wrong":
            raise RuntimeError("a bug")
        return super().on_client_hello(connection)

assembly.Frontend = Wrong
"""


@pytest.fixture
def master(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    monkeypatch.setattr("tests.support.masters.MASTER", BUG + MASTER)
    made = Master(site, tmp_path)
    yield made
    made.close()


def test_workers_that_cannot_serve_never_get_a_client_and_the_old_ones_stay(
    master: Master, trust: ssl.SSLContext
) -> None:
    pids = master.pids()
    frontend = master.values["frontend"][0] | {"name": "wrong"}
    master.write(frontend=[frontend])
    last = master.reload()
    assert not last["ok"]
    assert "the proof failed: frontend wrong, no name: the handshake failed" in last["detail"]
    wait_until(lambda: len(master.status()["workers"]) == 2, "the new workers have gone")
    assert master.pids() == pids
    for _ in range(8):
        master.greet(trust)
    assert master.status()["totals"]["handshakes_failed"] == 0


def test_a_start_that_cannot_be_proved_is_refused(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.masters.MASTER", BUG + MASTER)
    values = {
        "name": "wrong",
        "listen": ["127.0.0.1:0"],
        "cluster": "app",
        "certificates": [str(site)],
    }
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    master = Master(site, tmp_path, frontend=[values | {"listen": [f"127.0.0.1:{port}"]}])
    try:
        assert master.end() == 1
        assert "cannot start: the proof failed" in master.said()
    finally:
        master.close()


def test_a_proof_is_no_traffic(serve: Serve, ca: trustme.CA, tmp_path: Path) -> None:
    sites = [str(write_site(ca, tmp_path / f"{n}.pem", f"{n}.test")) for n in range(5)]
    user = "nobody" if os.getuid() == 0 else ""
    with Backend() as backend, serve(backend.address, workers=2, user=user) as server:
        server.values["frontend"][0]["certificates"] = sites
        server.values["workers"] = 3
        assert server.reload()["ok"]
        assert "proved: 7 certificates shown, 1 sessions resumed" in server.said()
        totals = server.status()["totals"]
        assert {name: totals[name] for name in ("accepted", "handshakes", "handshakes_failed")} == {
            "accepted": 0,
            "handshakes": 0,
            "handshakes_failed": 0,
        }
        assert server.status()["frontends"][0]["totals"]["handshakes"] == {}
        assert server.access_lines() == []


def test_demands_for_certificates_and_proxy_headers_do_not_stand_in_its_way(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(authority)
    tls = {"client_auth": "required", "client_ca": str(authority)}
    with Backend() as backend:
        server: Server = serve(backend.address, workers=2)
        server.values["frontend"][0] |= {"tls": tls, "accept_proxy_from": ["127.0.0.0/8"]}
        with server:
            assert "proved: 2 certificates shown, 0 sessions resumed" in server.said()


def test_workers_that_are_proved_serve(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=1) as server:
        server.values["workers"] = 4
        assert server.reload()["ok"]
        for _ in range(12):
            with dial(server) as client:
                assert exchange(client) == b"ping"
