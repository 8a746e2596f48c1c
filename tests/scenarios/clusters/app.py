"""A backend that is asked how it is, and serves clients besides."""

from __future__ import annotations

import json
import socket
from typing import Any

from termproxy.cli.control import ask
from tests.support.backends import Backend, receive_all
from tests.support.processes import session_members
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until


class App(Backend):
    """Answers checks with `status`; who sends anything else hears its word, and may stay."""

    def __init__(self, word: bytes = b"a", status: int = 200, **options: Any) -> None:
        super().__init__(self._serve_one, **options)
        self.word = word
        self.status = status
        self.checks = 0
        self.clients = 0

    def _serve_one(self, sock: socket.socket) -> None:
        first = sock.recv(1 << 16)
        if first.startswith(b"GET "):
            self.checks += 1
            sock.sendall(b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % self.status)
        elif first:
            self.clients += 1
            sock.sendall(self.word)
            receive_all(sock)


def cluster(*servers: Any, **settings: Any) -> dict[str, Any]:
    """The tables of a cluster `main`."""
    return {"main": {"servers": list(servers), **settings}}


HEALTH = {"kind": "http", "interval": 0.1, "rise": 2, "fall": 2, "timeout": 5}


def table(server: Server) -> list[dict[str, Any]]:
    """What is known of each server."""
    answer = ask(server.control, {"verb": "backends"}, timeout=PATIENCE)
    return list(answer["backends"])


def rows(server: Server) -> dict[str, dict[str, Any]]:
    """The same, by their addresses."""
    return {row["address"]: row for row in table(server)}


def wish(server: Server, verb: str, address: str) -> None:
    ask(server.control, {"verb": "backends", "do": verb, "target": f"main/{address}"}, timeout=PATIENCE)


def wait_for_state(server: Server, address: str, state: str) -> None:
    def look() -> bool:
        return bool(rows(server)[address]["state"] == state)

    try:
        wait_until(look, f"{address} is {state}")
    except AssertionError as error:
        known = json.dumps(rows(server), indent=1)
        raise AssertionError(f"{error}; known is {known}; it said:\n{server.said()}") from None


def wait_for_checks(server: Server, address: str, count: int = 1) -> None:
    """Until so many more have been made."""
    target = rows(server)[address]["checks"] + count
    wait_until(lambda: rows(server)[address]["checks"] >= target, f"{count} checks of {address}")


def children(server: Server) -> set[int]:
    """The master's processes but its workers and the admin process: its prober."""
    status = server.status()
    workers = {int(worker["pid"]) for worker in status["workers"]}
    return set(session_members(server.pid)) - workers - {server.pid, status["processes"]["admin"]}
