"""Plain HTTP at the other door: a 308 to HTTPS, and nothing else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.backends import Backend, receive_all
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import PATIENCE


def redirecting(serve: Serve, backend: Backend, **frontend: object) -> tuple[Server, int]:
    server, port = serve(backend.address), free_port()
    server.values["frontend"][0] |= {
        "mode": "http",
        "redirect_from": [f"127.0.0.1:{port}"],
        **frontend,
    }
    return server, port


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        return receive_all(sock)


@pytest.mark.parametrize(
    ("target", "host", "location"),
    [
        (b"/a?b=c", b"a.test", "https://a.test/a?b=c"),
        (b"/", b"A.test:8080", "https://a.test/"),
        (b"/", b"[::1]:80", "https://[::1]/"),
        (b"http://a.test/x", b"a.test", "https://a.test/x"),
    ],
)
def test_a_request_is_sent_to_https(serve: Serve, target: bytes, host: bytes, location: str) -> None:
    with Backend() as backend:
        server, port = redirecting(serve, backend, redirect_port=443)
        with server:
            answer = ask(port, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            (line,) = server.wait_for_access(1)
        assert backend.accepted == 0
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 308 ")
    assert f"\r\nLocation: {location}\r\n" in head
    assert body == "308 Permanent Redirect\n"
    assert (line["status"], line["ended"]) == (308, "done")


def test_the_port_is_the_frontends_own_unless_it_is_given(serve: Serve) -> None:
    with Backend() as backend:
        server, port = redirecting(serve, backend)
        with server:
            answer = ask(port, b"HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert f"\r\nLocation: https://a.test:{server.port}/x\r\n".encode() in answer
            assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\nLocation: evil\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 40_000, b"414"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(serve: Serve, request_: bytes, status: bytes) -> None:
    with Backend() as backend:
        server, port = redirecting(serve, backend)
        with server:
            assert ask(port, request_).startswith(b"HTTP/1.1 " + status + b" ")
            (line,) = server.wait_for_access(1)
            assert (line["status"], line["fault"]) == (int(status), "client")


def test_a_client_that_says_half_a_request_is_told_and_one_that_says_nothing_is_left(
    serve: Serve,
) -> None:
    with Backend() as backend:
        server, port = redirecting(serve, backend)
        server.values["timeouts"]["request_head"] = 0.5
        with server:
            assert ask(port, b"GET / HTTP/1.1\r\nHost:").startswith(b"HTTP/1.1 408 ")
            assert ask(port, b"") == b""


def test_it_is_refused_where_nothing_speaks_http(serve: Serve, tmp_path: Path) -> None:
    with Backend() as backend:
        server, _ = redirecting(serve, backend, mode="tcp")
        server.start()
        assert server.wait_until_gone() == 1
        assert 'redirect_from has no effect: mode is "tcp"' in server.said()
