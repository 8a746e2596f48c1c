"""What the scenarios of names have in common: a server to fill, a backend that records, clients."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from termproxy import clock
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, half_close, read_to_end, stranger
from tests.support.pki import Authority, Issued, replace_file
from tests.support.server import Server, settings
from tests.support.waiting import wait_until

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = [TLS_1_2, TLS_1_3]

RENEWED_WITHIN = 5.0  # seconds; two are promised, and this machine may be busy


class Recorder(Backend):
    """Says a word to whoever comes, answers every byte with itself, and keeps all that it was sent."""

    def __init__(self, word: bytes = b"") -> None:
        super().__init__(self._record)
        self.word = word
        self.received = bytearray()

    def _record(self, sock: socket.socket) -> None:
        sock.sendall(self.word)
        while piece := sock.recv(1 << 16):
            self.received += piece
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)


class Place:
    """A folder, and the configuration of one frontend in it."""

    def __init__(self, folder: Path, root: Authority) -> None:
        self.folder = folder
        self.root = root
        self.certificates: list[Any] = []
        self.hosts: list[dict[str, Any]] = []
        self.tls: dict[str, Any] = {}
        self.clusters: dict[str, list[str]] = {}

    def site(self, file: str, *names: str, **options: Any) -> Issued:
        """A certificate for names, in a file of its own; the first one stands for unknown names."""
        issued = self.root.issue(*names, **options)
        path = issued.write(self.folder / file)
        self.certificates.append(str(path))
        return issued

    def write(self, file: str, *contents: bytes) -> str:
        return str(replace_file(self.folder / file, b"".join(contents)))

    def host(self, *names: str, **policy: Any) -> None:
        self.hosts.append({"names": list(names)} | policy)

    def server(self, *servers: str, **changes: Any) -> Server:
        values = settings(self.folder / "unused", servers, **changes)
        frontend = values["frontend"][0]
        frontend["certificates"] = self.certificates
        if self.tls:
            frontend["tls"] = self.tls
        if self.hosts:
            frontend["host"] = self.hosts
        for name, addresses in self.clusters.items():
            values["cluster"][name] = {"servers": addresses}
        return Server(self.folder, values)


# Clients.


def client_of(
    root: Authority,
    version: ssl.TLSVersion | None = None,
    *,
    shows: Issued | None = None,
    folder: Path | None = None,
    alpn: Iterable[str] = (),
) -> ssl.SSLContext:
    """Trusts `root` only; `shows` is its own certificate, which has to be in a file of `folder`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root.pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if shows is not None:
        assert folder is not None
        file = shows.write(folder / f"client-{shows.serial}.pem")
        context.load_cert_chain(file)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def serial_of(client: ssl.SSLSocket) -> str:
    certificate = client.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def served(port: int, context: ssl.SSLContext, name: str) -> str:
    """The serial number of the certificate that is shown for a name."""
    with connect(port, context, name=name) as client:
        serial = serial_of(client)
        exchange(client)
        finish(client)
        return serial


def finish(client: ssl.SSLSocket) -> bytes:
    """End as TLS wants it; what still came."""
    half_close(client)
    return read_to_end(client)


def session_of(
    port: int, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None
) -> ssl.SSLSession:
    """What the server gave for a next time, made at `name`."""
    with connect(port, context, name=name, session=session) as client:
        exchange(client)
        kept = client.session
        finish(client)
    assert kept is not None
    return kept


def is_line_of(address: tuple[str, int]) -> Callable[[dict[str, Any]], bool]:
    """For the access log: the connection from this socket's address."""
    return lambda line: line["client"] == f"{address[0]}:{address[1]}"


def attempt(
    server: Server,
    context: ssl.SSLContext,
    name: str,
    session: ssl.SSLSession | None = None,
    word: bytes = b"a word for the backend",
) -> tuple[bytes, dict[str, Any]]:
    """Do what a client can to have `word` at the backend: what came back, and the proxy's line.

    In TLS 1.3 a client takes its handshake for done before it hears whether its certificate was good.
    """
    answer = b""
    at = ("127.0.0.1", server.port)
    with socket.create_connection(at, timeout=20, source_address=stranger()) as sock:
        address = sock.getsockname()
        try:
            with context.wrap_socket(sock, server_hostname=name, session=session) as client:
                client.sendall(word)
                while len(answer) < len(word) and (piece := client.recv(len(word) - len(answer))):
                    answer += piece
                if answer:
                    finish(client)
        except (ssl.SSLError, ConnectionError):
            pass
    [line] = server.wait_for_access(that=is_line_of(address))
    return answer, line


# Renewal.


def wait_until_all_serve(
    server: Server,
    context: ssl.SSLContext,
    name: str,
    serial: str,
    *,
    within: float = RENEWED_WITHIN,
) -> None:
    """Until every worker has shown the certificate, and none another one since."""
    wait_until(
        lambda: served(server.port, context, name) == serial, f"{name} is renewed", seconds=within
    )
    deadline = clock.monotonic() + within
    while not _every_worker_shows(server, context, name, serial):
        assert clock.monotonic() < deadline, f"{name} is not renewed at every worker"


def _every_worker_shows(server: Server, context: ssl.SSLContext, name: str, serial: str) -> bool:
    before = handshakes(server)
    for _ in range(8 * len(before)):
        if served(server.port, context, name) != serial:
            return False
    after = handshakes(server)
    return all(after[pid] > count for pid, count in before.items())


def handshakes(server: Server) -> dict[int, int]:
    return {worker["pid"]: worker["handshakes"] for worker in server.status()["workers"]}


def is_root() -> bool:
    return os.getuid() == 0
