"""Clients that come again, in every way there is, and what the master tells of them."""

from __future__ import annotations

import os
import signal
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from termproxy.cli.control import ask
from tests.conftest import client_context
from tests.support.clients import NAME, connect, exchange, leave
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = [TLS_1_2, TLS_1_3]

# How a session may be kept: in a ticket of either version, or by the server under an id.
KINDS = ["1.2 ticket", "1.2 id", "1.3 ticket"]


@dataclass(frozen=True, slots=True)
class Visit:
    resumed: bool
    session: ssl.SSLSession


def client_of(ca: trustme.CA, kind: str) -> ssl.SSLContext:
    """A client that knows one way; contexts and their sessions belong together."""
    return only(client_context(ca), kind)


def only(context: ssl.SSLContext, kind: str) -> ssl.SSLContext:
    version = TLS_1_3 if kind.startswith("1.3") else TLS_1_2
    context.minimum_version = context.maximum_version = version
    if kind == "1.2 id":
        context.options |= ssl.OP_NO_TICKET
    return context


def visit(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None, name: str = NAME
) -> Visit:
    """Connect, say a word, hear it again, and leave; what the client may show next time."""
    with connect(port, context, name=name, session=session) as client:
        assert exchange(client) == b"ping"
        resumed, kept = client.session_reused, client.session
        leave(client)
    assert kept is not None
    return Visit(bool(resumed), kept)


def told(server: Server, do: str = "status", **arguments: Any) -> dict[str, Any]:
    """What `termproxy tickets` would print."""
    question = {"verb": "tickets", "do": do} | arguments
    return ask(server.control, question, timeout=PATIENCE)


def keys(server: Server, role: str | None = None) -> list[str]:
    return [key["id"] for key in told(server)["keys"] if role in {None, key["role"]}]


def issuing(server: Server) -> str:
    [name] = keys(server, "issuing")
    return name


def totals(server: Server, frontend: str = "main") -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = told(server)["frontends"][frontend]
    return counted


def by_worker(server: Server, counter: str = "handshakes") -> dict[int, int]:
    return {worker["pid"]: worker[counter] for worker in server.status()["workers"]}


def kill_a_worker(server: Server, at: int = 0) -> None:
    """And wait until there is another in its place."""
    workers = server.workers()
    os.kill(workers[at], signal.SIGKILL)

    def is_replaced() -> bool:
        found = server.workers()
        return len(found) == len(workers) and workers[at] not in found

    wait_until(is_replaced, "the worker is replaced")


def resumed_at_every_worker(
    server: Server, context: ssl.SSLContext, session: ssl.SSLSession
) -> ssl.SSLSession:
    """Come again until each worker has had its turn; the last session."""
    before = by_worker(server)
    for _ in range(40 * len(before)):
        met = visit(server.port, context, session)
        assert met.resumed
        session = met.session
        after = by_worker(server)
        if set(after) == set(before) and all(after[pid] > count for pid, count in before.items()):
            return session
    raise AssertionError(f"not every worker was met: {before}, then {after}")


def server_in(folder: Path, values: dict[str, Any]) -> Server:
    folder.mkdir(exist_ok=True)
    return Server(folder, values)
