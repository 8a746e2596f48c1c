"""A master in a process of its own, in front of a backend that is the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from termproxy.cli.control import converse
from tests.support.clients import NAME
from tests.support.scrape import Samples, scrape
from tests.support.waiting import PATIENCE, wait_until

MASTER = """
import json, sys
from pathlib import Path
from termproxy.config.load import FlagSource
from termproxy.errors import TermproxyError
from termproxy.master.arbiter import Arbiter

def read():
    return FlagSource(json.loads(Path(sys.argv[1]).read_text()), {})
try:
    sys.exit(Arbiter(read, lambda: print("serving", flush=True)).run())
except TermproxyError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(9)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Master:
    """One server in front of a backend that is this test."""

    def __init__(self, site: Path, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.backend.settimeout(PATIENCE)
        self.port = free_port()
        self.values: dict[str, Any] = {
            "workers": 2,
            "pidfile": str(folder / "t.pid"),
            "control": str(folder / "c.sock"),
            "user": "nobody" if os.getuid() == 0 else "",
            "log": {"access": "off", "level": "info"},
            "timeouts": {"drain": 5},
            "frontend": [
                {
                    "name": "web",
                    "listen": [f"127.0.0.1:{self.port}"],
                    "cluster": "app",
                    "certificates": [str(site)],
                }
            ],
            "cluster": {"app": {"servers": [f"127.0.0.1:{self.backend.getsockname()[1]}"]}},
            **changes,
        }
        self.write()
        self.errors = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", MASTER, str(folder / "values.json")],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_word = self.process.stdout.readline().strip()

    def write(self, **changes: Any) -> None:
        self.values |= changes
        (self.folder / "values.json").write_text(json.dumps(self.values))

    def ask(self, **question: Any) -> dict[str, Any]:
        return converse(self.folder / "c.sock", question, timeout=PATIENCE)

    def metrics(self) -> Samples:
        return scrape(self.folder / "c.sock")

    def status(self) -> dict[str, Any]:
        return self.ask(verb="status")

    def reload(self) -> dict[str, Any]:
        """HUP, and how it went."""
        before = self.status()["last_reload"]
        generation = self.status()["generation"]
        self.process.send_signal(signal.SIGHUP)

        def decided() -> bool:
            now = self.status()
            changed = now["last_reload"] != before or now["generation"] != generation
            return changed and now["starting_generation"] is None

        wait_until(decided, "the reload's end")
        last: dict[str, Any] = self.status()["last_reload"]
        return last

    def greet(self, trust: ssl.SSLContext) -> None:
        """A client, from its handshake to the backend and back."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as raw,
            trust.wrap_socket(raw, server_hostname=NAME) as client,
        ):
            accepted, _ = self.backend.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
                accepted.sendall(b"world")
                assert client.recv(5) == b"world"

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "ready"]

    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.backend.close()


Start = Callable[..., Master]
