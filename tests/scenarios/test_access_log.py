"""One JSON line a connection, and nothing a client says can make it two."""

from __future__ import annotations

import re
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.hello import client_hello
from tests.support.waiting import PATIENCE


def test_a_line_says_who_came_what_was_agreed_and_how_it_ended(
    serve: Serve, dial: Dial, site: Path
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with dial(server) as client:
            port = client.getsockname()[1]
            exchange(client, b"four bytes, or more")
            leave(client)
        [line] = server.wait_for_access()
    begun = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - begun).total_seconds()) < PATIENCE
    assert 0 <= line.pop("handshake_seconds") < line["seconds"] < PATIENCE
    assert 0 <= line.pop("connect_seconds") < line.pop("seconds")
    assert line == {
        "client": f"127.0.0.1:{port}",
        "frontend": "main",
        "sni": "site.test",
        "certificate": str(site),
        "version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "group": line["group"],
        "resumed": False,
        "resumption": "none_offered",
        "backend": backend.address,
        "bytes_from_client": 19,
        "bytes_from_backend": 19,
        "ended": "done",
        "fault": "none",
    }
    assert re.fullmatch(r"x25519|X25519MLKEM768|secp256r1", line["group"])


def test_tls_1_2_is_told_apart(serve: Serve, dial: Dial, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with dial(server, context=client_context(ca, ssl.TLSVersion.TLSv1_2)) as client:
            exchange(client)
            leave(client)
        [line] = server.wait_for_access()
        assert (line["version"], line["cipher"]) == ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")


def test_the_start_is_one_line_with_every_version(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        [line] = [line for line in server.said().splitlines() if "serves" in line]
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO +master\[\d+\] termproxy \S+ serves; "
            r"Python 3\.\S+, gevent \S+, OpenSSL [^;]+; workers: 2; "
            rf"listening on 127\.0\.0\.1:{server.port} \(main to main\)",
            line,
        )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "name",
    [
        b'a\n{"ended": "done"}',
        b"a\r\nb",
        b"\x1b[2J\x1b]0;title\x07",
        b'"quoted" \\ and \\u000a',
        b"\xff\xfe\x80 not UTF-8",
        b"\xe2\x80\xa8 a line separator, \xc2\x85 another",
    ],
)
def test_no_server_name_can_forge_a_line(serve: Serve, name: bytes, version: ssl.TLSVersion) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            sock.sendall(client_hello(name, alpn=name, version=version))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        [line] = server.wait_for_access()
        assert line["ended"] != "done"
        raw = (server.folder / "access.log").read_bytes()
        assert raw.count(b"\n") == 1
        assert all(0x20 <= byte < 0x7F for byte in raw[:-1])
        assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in server.said().encode())


def test_no_name_and_the_longest_name_are_lines_like_any_other(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        for name in (None, b"x" * 255):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
                sock.sendall(client_hello(name))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        assert len(server.wait_for_access(2)) == 2


def test_off_writes_none(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve(backend.address, log={"access": "off"}) as server,
        dial(server) as client,
    ):
        exchange(client)
        leave(client)
    assert server.access_lines() == []
    assert '"ended"' not in server.said()


def test_standard_output_gets_whole_lines_of_all_workers(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2, log={"access": "-"}) as server:
        for _ in range(30):
            with dial(server) as client:
                exchange(client)
                leave(client)
    lines = [line for line in server.said().splitlines() if line.startswith("{")]
    assert len(lines) == 30
    assert all(line.endswith("}") for line in lines)
