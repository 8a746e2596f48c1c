"""One worker's connections in this process: a real loop, real sockets, a clock nobody waits for."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import gevent

from termproxy import clock
from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import Timeouts
from termproxy.observability.access_log import open_access_log
from termproxy.observability.scoreboard import Column
from termproxy.relay.pump import SCRATCH_SIZE
from termproxy.tls._openssl import Context, Scratch
from termproxy.tls.context import Policy
from termproxy.tls.selection import NameTable
from termproxy.worker.connection import Phase
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.relaying import RelayingConnection
from termproxy.worker.shared import Shared
from tests.relay.ends import TlsClient, tcp_pair, until


def row() -> memoryview:
    return memoryview(bytearray(len(Column) * 8)).cast("q")


def one_for_all(context: Context, cluster: Cluster) -> Frontend:
    """A frontend that gives every client the same."""
    frontend = Frontend("web", reject_unknown=False)
    frontend.serve(Served.of(context, cluster, Policy(), ()), NameTable())
    return frontend


class Bench:
    """Puts clients before a frontend, and listens as its backend.  `records` are the access log's."""

    def __init__(self, context: Context, trust: ssl.SSLContext, folder: Path) -> None:
        self.trust = trust
        self.context = context
        self.log_file = folder / "access.log"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.row = row()
        self.room_made = 0
        self.given: Frontend | None = None
        self.shared = Shared(
            loop=gevent.get_hub().loop,
            scratch=Scratch(SCRATCH_SIZE),
            timeouts=Timeouts(handshake=10.0, connect=3.0, idle=60.0, drain=30.0),
            row=self.row,
            access_log=open_access_log(self.log_file),
            on_closed=self._on_closed,
        )
        self._socks: list[socket.socket] = []
        self.connections: list[RelayingConnection] = []

    def _on_closed(self) -> None:
        self.room_made += 1

    def frontend(self, *servers: str) -> Frontend:
        if self.given is not None:
            return self.given
        addresses = [parse_address(server) for server in servers or (self.address,)]
        cluster = Cluster("app", list(map(Server, addresses)))
        return one_for_all(self.context, cluster)

    def accept(self, *servers: str, peer: Any = ("192.0.2.1", 40000)) -> socket.socket:
        """A client has connected: its end, plain so far."""
        client, accepted = tcp_pair()
        self._socks.append(client)
        connection = RelayingConnection(self.shared, self.frontend(*servers), accepted.detach(), peer)
        self.connections.append(connection)
        connection.start()
        return client

    def connect(self, *servers: str) -> TlsClient:
        """A client whose handshake is done."""
        client = TlsClient(self.trust, self.accept(*servers))
        self._socks.append(client.sock)
        connection = self.connections[-1]
        client.handshake()
        until(lambda: connection.phase is not Phase.HANDSHAKE, "our side of the handshake")
        return client

    def relay(self) -> tuple[TlsClient, socket.socket]:
        """A client, and its end at the backend."""
        client = self.connect()
        backend = self.backend()
        client.read_tickets()
        return client, backend

    def backend(self) -> socket.socket:
        accepted: list[socket.socket] = []

        def accept() -> bool:
            try:
                accepted.append(self.listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        until(accept, "a connection at the backend")
        accepted[0].setblocking(False)
        accepted[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socks.append(accepted[0])
        return accepted[0]

    def failures(self) -> list[dict[str, Any]]:
        """What stands in the book, the most frequent first."""
        return self.shared.failures.top(1000)

    def pass_time(self, seconds: float) -> None:
        """The worker's tick, so much later."""
        now = clock.monotonic() + seconds
        for connection in self.shared.deadlines.due(now):
            connection.on_deadline(now)

    def count(self, column: Column) -> int:
        return self.row[column]

    @property
    def records(self) -> list[dict[str, Any]]:
        assert self.shared.access_log is not None
        self.shared.access_log.flush()
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def record(self) -> dict[str, Any]:
        """The one record, once the connection is over."""
        until(lambda: self.records, "a record")
        (record,) = self.records
        return record

    def all_is_given_back(self) -> bool:
        return (
            not self.shared.connections
            and self.count(Column.OPEN) == 0
            and not any(self.shared.deadlines._buckets.values())
        )

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for sock in self._socks:
            sock.close()
        self.listener.close()
        if self.shared.access_log is not None:
            self.shared.access_log.close()
