"""Reloads under load lose nothing: new connections, keep-alive GET and POST without a second try, long
relays, clients that resume.

TERMPROXY_RELOADS=200 makes it as long as one likes: see scripts/reloads.
"""

from __future__ import annotations

import os
import random
import ssl
from pathlib import Path

from termproxy import clock
from tests.conftest import Serve
from tests.scenarios.http.web import web
from tests.support.backends import Backend
from tests.support.load import KeepAlive, Load, NewConnections, Relays, Resuming, hashes
from tests.support.ports import free_port
from tests.support.recording_backend import RecordingBackend
from tests.support.waiting import wait_for_more

RELOADS = int(os.environ.get("TERMPROXY_RELOADS", "20"))


def test_reloads_under_load_lose_nothing(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    reloads: list[tuple[float, float]] = []
    raw_port = free_port()
    raw = {
        "name": "raw",
        "listen": [f"127.0.0.1:{raw_port}"],
        "cluster": "echo",
        "certificates": [str(site)],
    }
    with (
        RecordingBackend(hashes) as backend,
        Backend() as echo,
        web(serve, site, backend.address, workers=2, timeouts={"drain": 120}) as server,
    ):
        server.values["frontend"].append(raw)
        server.values["cluster"]["echo"] = {"servers": [echo.address]}
        assert server.reload()["ok"]
        load = Load()
        load.add(NewConnections, 2, server.port, trust, lambda: 0.02)
        load.add(KeepAlive, 2, server.port, trust, lambda: 0.01)
        load.add(KeepAlive, 6, server.port, trust, lambda: random.uniform(0, 2))
        load.add(Relays, 3, raw_port, trust, lambda: 0.05)
        load.add(Resuming, 2, server.port, trust, lambda: 0.02)
        with load:
            wait_for_more(load.done, 300, "operations before the first")  # connections are opened
            begun = clock.monotonic()
            wait_for_more(load.done, 1000, "operations while nothing happens")
            steady = [(begun, clock.monotonic())]
            for number in range(RELOADS):
                wait_for_more(load.done, 60, "operations")
                server.values["limits"]["connections"] = 4000 + number
                began = clock.monotonic()
                assert server.reload(new_workers=bool(number % 2))["ok"]
                reloads.append((began, clock.monotonic()))
            wait_for_more(load.done, 60, "operations after the last")
        for name, ledger in load.ledgers.items():
            before, during = (ledger.quantile(0.99, spans) * 1000 for spans in (steady, reloads))
            print(f"{name}: {ledger.done} done, p99 {before:.0f} ms before, {during:.0f} ms in reloads")
        assert load.failed() == {}
        assert all(ledger.done > RELOADS for ledger in load.ledgers.values())
        assert {line["ended"] for line in server.access_lines()} <= {
            "done",
            "client_closed",
            "no_request",
        }
