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
from termproxy.config import schema
from termproxy.config.schema import Timeouts
from termproxy.http.forwarding import Settings
from termproxy.http.head import request_reader, response_reader
from termproxy.observability.access_log import open_access_log
from termproxy.observability.scoreboard import Column
from termproxy.relay.pump import SCRATCH_SIZE
from termproxy.tls._openssl import Context, Scratch
from termproxy.tls.context import Policy
from termproxy.tls.selection import NameTable
from termproxy.worker.connection import Phase
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.gateway import Gateway
from termproxy.worker.http_connection import HttpConnection
from termproxy.worker.relaying import RelayingConnection
from termproxy.worker.shared import Shared
from tests.relay.ends import TlsClient, receive, send_all, tcp_pair, until
from tests.support.http_messages import MessageReader, Request
from tests.worker.loop_client import LoopClient


def row() -> memoryview:
    return memoryview(bytearray(len(Column) * 8)).cast("q")


def one_for_all(context: Context, cluster: Cluster) -> Frontend:
    """A frontend that gives every client the same."""
    frontend = Frontend("web", reject_unknown=False)
    frontend.serve(Served.of(context, cluster, Policy(), ()), NameTable())
    return frontend


class Bench:
    """Puts clients before a frontend, and listens as its backend.  `records` are the access log's."""

    kind = RelayingConnection

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
        )
        self.shared.on_closed = self._on_closed
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
        port = accepted.getsockname()[1]
        connection = self.kind(self.shared, self.frontend(*servers), accepted.detach(), peer)
        connection.own_port = port
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
        self.shared.pool.close()
        for sock in self._socks:
            sock.close()
        self.listener.close()
        if self.shared.access_log is not None:
            self.shared.access_log.close()


class HttpBench(Bench):
    """The same for mode "http"; all clients get the frontend that serve() has made last."""

    kind = HttpConnection

    def __init__(self, context: Context, trust: ssl.SSLContext, folder: Path) -> None:
        super().__init__(context, trust, folder)
        self.serve()

    def serve(
        self,
        *servers: str,
        max_connections: int = 0,
        fields_max: int = 100,
        cluster: dict[str, Any] | None = None,
        **gateway: Any,
    ) -> Gateway:
        """`servers` instead of ours; changes to the cluster's settings, and to the gateway."""
        found = [Server(parse_address(each), 1, max_connections) for each in servers or (self.address,)]
        self.cluster = Cluster("app", found, schema.Cluster(servers=(), **(cluster or {})))
        self.cluster.run_soon(self.shared.loop.run_callback)
        self.given = one_for_all(self.context, self.cluster)
        forwarding = gateway.setdefault("forwarding", Settings())
        gateway.setdefault("head_max", 4096)
        self.given.gateway = Gateway(
            requests=request_reader(
                gateway["head_max"], 1024, fields_max, forwarding.configured_names()
            ),
            responses=response_reader(8192, fields_max),
            **gateway,
        )
        return self.given.gateway

    def client(self, peer: Any = ("192.0.2.1", 40000)) -> LoopClient:
        """A client whose handshake is done; every wait of it runs the loop."""
        tls = TlsClient(self.trust, self.accept(peer=peer))
        self._socks.append(tls.sock)
        connection = self.connections[-1]
        tls.handshake()
        until(lambda: connection.phase is not Phase.HANDSHAKE, "our side of the handshake")
        return LoopClient(_LoopingSocket(tls))  # type: ignore[arg-type]

    def visit(self) -> Visit:
        """The next connection at the backend."""
        return Visit(self.backend())

    def visits_wait(self) -> bool:
        """Whether there is another connection at the backend."""
        gevent.sleep(0.01)
        self.listener.setblocking(False)
        try:
            self._socks.append(self.listener.accept()[0])
        except BlockingIOError:
            return False
        return True

    def lines(self, count: int = 1) -> list[dict[str, Any]]:
        """The access log's, once there are so many."""
        until(lambda: len(self.records) >= count, f"{count} records")
        return self.records

    def sweep(self, seconds: float) -> None:
        """The worker's tick, so much later, for the kept connections."""
        for server in self.cluster.servers:
            now, timeout = clock.monotonic() + seconds, self.cluster.settings.idle_timeout
            self.shared.pool.sweep(server, now, timeout)

    def active(self) -> int:
        """What the cluster's servers have to do."""
        return sum(server.active() for server in self.cluster.servers)


class Visit:
    """A connection at the backend; every wait runs the loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = MessageReader(lambda: receive(sock))

    @property
    def rest(self) -> bytes:
        """What has come, and belongs to no request that was asked for."""
        return self._reader.rest

    def request(self) -> Request:
        request = self._reader.request()
        assert request is not None, "no request comes"
        return request

    def head(self) -> Request:
        """Without the body, which stays where it is."""
        request = self._reader.request_head()
        assert request is not None, "no request comes"
        return request

    def body(self, request: Request) -> bytes:
        self._reader.request_body(request)
        return request.body

    def receive(self) -> bytes:
        """What is there; b"" at the end."""
        return receive(self.sock)

    def send(self, answer: bytes) -> None:
        send_all(self.sock, answer)

    def answer(self, answer: bytes) -> Request:
        """The next request, which gets this."""
        request = self.request()
        self.send(answer)
        return request

    def close(self) -> None:
        self.sock.close()

    def is_reset(self) -> bool:
        """Whether we were cut off; waits for that or an end."""
        try:
            while receive(self.sock):
                pass
        except ConnectionResetError:
            return True
        return False


class _LoopingSocket:
    """What LoopClient needs of a socket."""

    def __init__(self, tls: TlsClient) -> None:
        self._tls = tls
        self.setsockopt = tls.sock.setsockopt
        self.getsockname, self.getpeername = tls.sock.getsockname, tls.sock.getpeername
        self.fileno, self.unwrap = tls.sock.fileno, tls.sock.unwrap

    def recv(self, count: int) -> bytes:
        return self._tls.receive(count)

    def sendall(self, data: bytes) -> None:
        self._tls.send(data)

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - as socket's
        """It never blocks."""

    def settimeout(self, seconds: float) -> None:
        """It never blocks."""

    def close(self) -> None:
        self._tls.sock.close()
