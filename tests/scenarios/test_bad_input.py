"""Whatever a client sends to the TLS port: an alert or an answer, one line in the log, no traceback."""

from __future__ import annotations

import random
import socket
import ssl

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave
from tests.support.hello import client_hello

ALERT = 21  # the record's type (RFC 8446 §5.1)


def say(port: int, words: bytes, *, then_end: bool = False) -> bytes:
    """Send these bytes, and receive what the proxy says until it closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(words)
        if then_end:
            sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(4096):
            received += piece
    return received


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"])
def test_plain_http_is_answered_with_400_and_a_hint(serve: Serve, request_: bytes) -> None:
    with Backend() as backend, serve(backend.address) as server:
        answer = say(server.port, request_)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"https://" in answer
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("plain_http", "client")
        assert backend.accepted == 0


def test_plain_http_with_a_long_body_still_gets_its_answer(serve: Serve) -> None:
    """Unread bytes would turn our close into a reset, and a reset destroys the answer."""
    with Backend() as backend, serve(backend.address) as server:
        answer = say(server.port, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(200_000), then_end=True)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37), None),  # an SSL 2 hello
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", None),  # a ClientHello of one byte
        (b"\x16\x03\x01\xff\xff" + bytes(100), None),  # a record longer than any
        (b"\x17\x03\x03\x00\x10" + bytes(16), None),  # data before the handshake
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not_tls"),
        (b"\x00" * 64, "not_tls"),
        (random.Random(7).randbytes(4096), None),
    ],
)
def test_garbage_gets_an_alert_or_an_end_and_a_line_in_the_log(
    serve: Serve, dial: Dial, words: bytes, reason: str | None
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        answer = say(server.port, words, then_end=True)
        assert answer == b"" or answer[0] == ALERT
        [line] = server.wait_for_access()
        assert line["fault"] == "client"
        assert line["ended"] != "done"
        assert reason in (None, line["ended"])
        assert "version" not in line
        assert backend.accepted == 0
        with dial(server) as client:
            assert exchange(client) == b"ping"
            leave(client)


def test_a_client_that_leaves_in_the_middle_of_its_hello_is_a_line_in_the_log(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        say(server.port, client_hello("site.test")[:100], then_end=True)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("scanner", "client")


def test_a_hello_cut_into_single_bytes_is_as_good_as_whole(serve: Serve, trust: ssl.SSLContext) -> None:
    """CVE-2026-32305 was about a proxy that looked at the first piece only."""
    with Backend() as backend, serve(backend.address) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trust.wrap_bio(incoming, outgoing, server_hostname="site.test")
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            done = False
            while not done:
                try:
                    client.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    pass
                for byte in outgoing.read():
                    sock.sendall(bytes([byte]))
                if not done:
                    incoming.write(sock.recv(65536))
            client.write(b"ping")
            sock.sendall(outgoing.read())
            assert _read(client, incoming, sock) == b"ping"


def _read(client: ssl.SSLObject, incoming: ssl.MemoryBIO, sock: socket.socket) -> bytes:
    while True:
        try:
            return client.read(100)
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(65536))


def test_a_version_that_is_not_allowed_is_refused_with_protocol_version(
    serve: Serve, ca: trustme.CA
) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.values["frontend"][0]["tls"] = {"min_version": "1.3"}
        assert server.reload()["ok"]
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            connect(server.port, client_context(ca, ssl.TLSVersion.TLSv1_2))
        [line] = server.wait_for_access()
        assert (line["ended"], line["alert"]) == ("no_shared_version", "protocol_version")
        assert line["alert_from"] == "proxy"
        with connect(server.port, client_context(ca, ssl.TLSVersion.TLSv1_3)) as client:
            assert exchange(client) == b"ping"


def test_no_cipher_in_common_is_refused_with_handshake_failure(serve: Serve, ca: trustme.CA) -> None:
    context = client_context(ca, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384")  # CBC
    with Backend() as backend, serve(backend.address) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            connect(server.port, context)
        [line] = server.wait_for_access()
        assert (line["ended"], line["alert"]) == ("no_shared_cipher", "handshake_failure")


def test_a_client_that_does_not_trust_us_is_a_line_with_its_alert(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server.port, client_context(trustme.CA()))
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("certificate_rejected", "client")
        assert (line["alert"], line["alert_from"]) == ("unknown_ca", "client")
        assert backend.accepted == 0


def test_bytes_sent_before_the_handshake_never_reach_the_backend(serve: Serve, dial: Dial) -> None:
    """CVE-2023-40217 and CVE-2026-1642 in other servers: plaintext taken for decrypted data."""
    with Backend() as backend, serve(backend.address) as server:
        say(server.port, b"DELETE / HTTP/1.1\r\n\r\n", then_end=True)
        say(server.port, b"anything", then_end=True)
        server.wait_for_access(2)
        assert backend.accepted == 0
        assert server.status()["totals"]["bytes_from_clients"] == 0
        assert server.status()["totals"]["handshakes_failed"] == 2
