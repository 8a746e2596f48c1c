"""Who the client is, told by a balancer before us and to the backends behind us."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from termproxy.relay.proxy_protocol import ProxyHeader, header_v1, header_v2, read_header
from tests.conftest import Serve
from tests.support.backends import Backend, Behaviour, echo
from tests.support.clients import NAME
from tests.support.http_client import HttpClient
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

CLIENT, BEFORE_US = ("192.0.2.7", 4711), ("198.51.100.9", 443)

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Started = Callable[..., Server]


class Reader:
    """A backend that reads a PROXY header on each connection, and then serves it as `then` does."""

    def __init__(self, then: Behaviour) -> None:
        self._then = then
        self.headers: list[ProxyHeader] = []

    def __call__(self, sock: socket.socket) -> None:
        start = b""
        while (header := read_header(start)) is None:
            start += sock.recv(1)
        self.headers.append(header)
        self._then(sock)


def answer_requests(sock: socket.socket) -> None:
    while received := sock.recv(1 << 16):
        sock.sendall(ANSWER * received.count(b"\r\n\r\n"))


@pytest.fixture
def started(serve: Serve) -> Started:
    """A server before `backend`, whose frontend and cluster have these settings, too."""

    def started(backend: Backend, frontend: dict[str, Any], cluster: dict[str, Any]) -> Server:
        server = serve(backend.address)
        server.values["frontend"][0] |= frontend
        server.values["cluster"]["main"] |= cluster
        return server

    return started


def dial_behind(server: Server, trust: ssl.SSLContext, start: bytes) -> ssl.SSLSocket:
    """A TLS client whose balancer has sent `start` before it."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    sock.sendall(start)
    return trust.wrap_socket(sock, server_hostname=NAME)


@pytest.mark.parametrize("header", [header_v1(CLIENT, BEFORE_US), header_v2(CLIENT, BEFORE_US)])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_whom_a_balancer_names_is_named_to_the_backend_and_in_the_log(
    started: Started, trust: ssl.SSLContext, header: bytes, version: str
) -> None:
    reader = Reader(echo)
    with (
        Backend(reader) as backend,
        started(backend, {"accept_proxy_from": ["127.0.0.0/8"]}, {"send_proxy": version}) as server,
    ):
        with dial_behind(server, trust, header) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        (line,) = server.wait_for_access(1)
    assert [(told.source, told.destination) for told in reader.headers] == [(CLIENT, BEFORE_US)]
    assert line["client"] == "192.0.2.7:4711"


def test_a_header_may_come_in_pieces_and_the_client_hello_right_behind_it(
    started: Started, trust: ssl.SSLContext
) -> None:
    header = header_v2(CLIENT, BEFORE_US)
    with (
        Backend(echo) as backend,
        started(backend, {"accept_proxy_from": ["127.0.0.1"]}, {}) as server,
    ):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trust.wrap_bio(incoming, outgoing, server_hostname=NAME)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        for byte in header[:-1]:
            sock.sendall(bytes([byte]))
        sock.sendall(header[-1:] + outgoing.read())
        assert sock.recv(1) == b"\x16"  # a ServerHello
        sock.close()


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"", "no_proxy_header"),
        (header_v1(CLIENT, BEFORE_US)[:-1] + b"x", "bad_proxy_header"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "bad_proxy_header"),
    ],
)
def test_without_its_header_a_balancer_is_not_heard(started: Started, start: bytes, word: str) -> None:
    with (
        Backend(echo) as backend,
        started(backend, {"accept_proxy_from": ["127.0.0.1"]}, {}) as server,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            sock.sendall(start)
            with contextlib.suppress(OSError):  # it may have been hung up on by then
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(1) == b""
        (line,) = server.wait_for_access(1)
        assert (line["ended"], line["fault"]) == (word, "client")
        assert backend.accepted == 0


def test_a_balancer_that_says_nothing_has_the_handshakes_time(started: Started) -> None:
    with Backend(echo) as backend:
        server = started(backend, {"accept_proxy_from": ["127.0.0.1"]}, {})
        server.values["timeouts"]["handshake"] = 0.5
        with server, socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            assert sock.recv(1) == b""
            (line,) = server.wait_for_access(1)
    assert line["ended"] == "no_proxy_header"


def test_a_header_of_somebody_else_is_not_believed(started: Started) -> None:
    with (
        Backend(echo) as backend,
        started(backend, {"accept_proxy_from": ["10.0.0.0/8"]}, {}) as server,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            sock.sendall(header_v1(CLIENT, BEFORE_US) + b"\x16\x03\x01")
            sock.recv(100)
        (line,) = server.wait_for_access(1)
        assert line["client"].startswith("127.0.0.1:")
        assert line["ended"] == "not_tls"


def test_a_balancer_that_speaks_for_itself_keeps_its_address(
    started: Started, trust: ssl.SSLContext
) -> None:
    with (
        Backend(echo) as backend,
        started(backend, {"accept_proxy_from": ["127.0.0.1"]}, {}) as server,
    ):
        with dial_behind(server, trust, header_v2(None, None)) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        (line,) = server.wait_for_access(1)
        assert line["client"].startswith("127.0.0.1:")


def test_the_second_version_tells_what_tls_has_agreed_on(
    started: Started, trust: ssl.SSLContext
) -> None:
    reader = Reader(echo)
    with (
        Backend(reader) as backend,
        started(backend, {}, {"send_proxy": "v2"}) as server,
        dial_behind(server, trust, b"") as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        name = client.getsockname()
    (header,) = reader.headers
    assert header.source == name
    assert header.tlvs.authority == NAME
    assert header.tlvs.ssl is not None
    assert b"TLSv1.3" in header.tlvs.ssl
    assert b"EC256" in header.tlvs.ssl
    assert len(header.tlvs.unique_id or b"") == 32


def test_in_http_mode_clients_do_not_share_a_connection_that_names_one(
    started: Started, trust: ssl.SSLContext
) -> None:
    reader = Reader(answer_requests)
    with (
        Backend(reader) as backend,
        started(backend, {"mode": "http"}, {"send_proxy": "v1"}) as server,
        HttpClient(server.port, trust) as one,
        HttpClient(server.port, trust) as other,
    ):
        for _ in range(3):
            assert one.ask(GET).body == b"ok"
            assert other.ask(GET).body == b"ok"
        assert backend.accepted == 2
        one.vanish()
        wait_until(lambda: len(backend.ended) == 1, "its backend connection has gone with it")
        assert other.ask(GET).body == b"ok"
    assert len({header.source for header in reader.headers}) == 2
