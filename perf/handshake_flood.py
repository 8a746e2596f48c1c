"""What is left for established connections while clients flood the server with full handshakes?

    PYTHONPATH=.:perf .venv/bin/python perf/handshake_flood.py [SECONDS [PER_SECOND [TERMPROXY]]]

wrk sends requests on 64 kept connections, first alone and then beside a flood (10 seconds each); then
alone again.  The flood sends PER_SECOND (1000) ClientHellos, each on a connection of its own that is
reset at the first byte of an answer, or after a second: a handshake costs the server a signature with an
RSA key of 4096 bits, and who asks for it next to nothing.  A core does some 270 of these a second.

Server and load have a core each.  Both loads share one, so what the flood takes from wrk there is shown,
too: the same flood, at a listener that only closes.
"""

from __future__ import annotations

import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import cast

from comparison.machine import choose_cores
from comparison.processes import Running
from comparison.run import started_backend
from comparison.servers import TERMPROXY, Setting
from comparison.site import KEYS, Site, make_certificate, make_site
from comparison.wrk import Wrk
from termproxy import clock
from tests.support.backends import RESET_ON_CLOSE
from tests.support.hello import client_hello

OPEN_MAX = 2000
PATIENCE = 1.0  # seconds
HEAD_START = 1.5  # seconds, in which wrk connects: its connections are to be there before the flood

LOAD = Wrk(path="/small", connections=64)


class Flood:
    """So many handshakes a second at a port, and how they went."""

    def __init__(self, port: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._hello = client_hello("localhost")
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, float] = {}

    def run(self, seconds: float, per_second: float) -> None:
        began, begun = clock.monotonic(), 0
        while (now := clock.monotonic()) < began + seconds:
            while begun < (now - began) * per_second:
                begun += 1
                self._begin(now)
            for key, _ in self._selector.select(0.001):
                self._go_on(cast("socket.socket", key.fileobj), key.events)
            while self._waiting and (first := next(iter(self._waiting.items())))[1] < now - PATIENCE:
                self._end(first[0], "waited for a second")
        for sock in list(self._waiting):
            self._end(sock, "left at the end")

    def _begin(self, now: float) -> None:
        if len(self._waiting) >= OPEN_MAX:
            self.outcomes["not tried: too many wait"] += 1
            return
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self._port))
        self._waiting[sock] = now
        self._selector.register(sock, selectors.EVENT_WRITE)

    def _go_on(self, sock: socket.socket, awaited: int) -> None:
        try:
            if awaited == selectors.EVENT_WRITE:
                sock.send(self._hello)
                self._selector.modify(sock, selectors.EVENT_READ)
            else:
                self._end(sock, "answered" if sock.recv(1) else "closed")
        except OSError:
            self._end(sock, "refused")

    def _end(self, sock: socket.socket, outcome: str) -> None:
        self.outcomes[outcome] += 1
        del self._waiting[sock]
        self._selector.unregister(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sock.close()


def make_costly_site(directory: Path) -> Site:
    site = make_site(directory)
    KEYS["costly"] = ("rsa:4096",)
    site.certificates["costly"] = make_certificate(directory, "costly")
    return site


def closing_listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)

    def close_all() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=close_all, daemon=True).start()
    return listener


def rate(running: Running, seconds: float, flooded: int | None, per_second: float) -> None:
    """Print wrk's rate, beside a flood of the port `flooded`."""
    command = [sys.executable, __file__, "flood", str(flooded), str(seconds), str(per_second)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if flooded else None
    figures = LOAD.measure(running, seconds)
    print(f"{figures['rate']:9,.0f} requests a second, p99 {figures['p99'] * 1000:6.2f} ms", end="  ")
    print(child.communicate()[0].strip() if child else "", flush=True)


def main(seconds: float, per_second: float, termproxy: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    with (
        started_backend(cores, termproxy, make_costly_site) as starter,
        starter.start(TERMPROXY, Setting(certificate="costly")) as running,
        closing_listener() as listener,
    ):
        for title, flooded in (
            ("alone", None),
            ("beside a flood elsewhere", listener.getsockname()[1]),
            ("beside the flood", running.port),
            ("alone again", None),
        ):
            print(f"{title:>25}", end=" ", flush=True)
            rate(running, seconds, flooded, per_second)


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        flood = Flood(int(sys.argv[2]))
        time.sleep(HEAD_START)
        flood.run(float(sys.argv[3]) - HEAD_START, float(sys.argv[4]))
        print(dict(flood.outcomes))
    else:
        given = sys.argv[1:]
        main(
            float(given[0]) if given else 10.0,
            float(given[1]) if len(given) > 1 else 1000.0,
            Path(given[2]) if len(given) > 2 else Path(sys.executable).with_name("termproxy"),
        )
