"""What is more than a question and an answer: going on when told to, hints, early answers, upgrades."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from tests.conftest import Dial, Serve
from tests.scenarios.http.web import CONTENT, GET, OK, accepted, big_post, web
from tests.support.clients import half_close, send_and_receive, vanish
from tests.support.http_client import Ending, HttpClient
from tests.support.recording_backend import RecordingBackend, Visit, answer_all
from tests.support.waiting import wait_until
from tests.worker.loop_client import LoopClient

EXPECTING = big_post(5, b"Expect: 100-continue\r\n")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

WEBSOCKET = (
    b"GET /chat HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def switch_and_echo(visit: Visit) -> None:
    """Agrees to whatever is asked for, and sends back what comes."""
    request = visit.head()
    assert request.options() == {b"upgrade"}
    visit.read_body(request)
    visit.send(SWITCHING)
    if visit._reader.rest:
        visit.send(visit._reader.rest)
    while piece := visit._receive():
        visit.send(piece)
    visit.end()


# 100 Continue, and other interim answers.


def test_a_client_that_waits_for_the_word_gets_the_backend_s(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def goes_on(visit: Visit) -> None:
        while True:
            request = visit.head()
            assert request.values(b"expect") == [b"100-continue"]
            visit.send(CONTINUE)
            visit.read_body(request)
            visit.answer(request)

    with (
        RecordingBackend(goes_on) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        for _ in range(3):
            assert client.send(EXPECTING)
            assert client._receive() == CONTINUE
            assert client.send(b"hello")
            assert client.response().body == b"POST /"
        assert [request.body for _, request in backend.requests] == [b"hello"] * 3
        assert accepted(backend) == 1


def test_a_client_that_is_refused_before_its_body_does_not_have_to_send_it(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def refuses(visit: Visit) -> None:
        visit.head()
        visit.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        visit.read_to_end()

    with RecordingBackend(refuses) as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            answer = client.ask(EXPECTING)
            assert (answer.status, answer.options()) == (403, {b"close"})
            # What it sends after all is neither a body nor a request for anybody.
            client.send(GET % 2)
            assert client.wait_for_end() is Ending.CLEAN
        backend.visits[0].wait_until_over()
        assert b"/2" not in backend.received


def test_a_client_that_does_not_wait_may_send_at_once(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(EXPECTING + b"hello").status == 200
        assert client.ask(GET % 2).status == 200
        assert backend.requests[0][1].body == b"hello"


def test_hints_come_before_the_answer_is_there(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

    def hints(visit: Visit) -> None:
        visit.request()
        visit.send(hint)
        wait_until(lambda: heard, "the client has the hint")
        visit.send(hint + OK)

    heard: list[bytes] = []
    with (
        RecordingBackend(hints) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(GET % 1)
        heard.append(client._receive())
        assert heard == [hint]
        answer = client.response()
        assert ([each.status for each in answer.interim], answer.body) == ([103], b"ok")


def test_interim_answers_without_end_are_no_answer(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def for_ever(visit: Visit) -> None:
        visit.request()
        for _ in range(1000):
            visit.send(b"HTTP/1.1 102 Processing\r\n\r\n")

    with (
        RecordingBackend(for_ever) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        answer = client.ask(GET % 1)
        assert answer.status == 502
        assert len(answer.interim) < 20


# Early answers.


@pytest.mark.parametrize("how", ["it reads on", "it hangs up", "it resets"])
def test_an_answer_that_comes_during_an_upload_arrives(
    serve: Serve, trust: ssl.SSLContext, site: Path, how: str
) -> None:
    def refuses(visit: Visit) -> None:
        visit.head()
        visit.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much")
        if how == "it hangs up":
            visit.close()
        elif how == "it resets":
            visit.end()
            visit.close()
        else:
            visit.read_to_end()

    with RecordingBackend(refuses) as backend, web(serve, site, backend.address) as server:
        for _ in range(10):
            with HttpClient(server.port, trust) as client:
                client.send(big_post(len(CONTENT)) + CONTENT[: 1 << 20])
                answer = client.response()
                assert (answer.status, answer.body, answer.options()) == (413, b"too much", {b"close"})
                assert client.wait_for_end() is Ending.CLEAN
        assert {line["status"] for line in server.wait_for_access(10)} == {413}


def test_a_client_that_reads_only_after_its_upload_sees_why_it_was_refused(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """It sends for longer than an ordinary end is lingered for."""
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, limits={"request_body": 1000}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(big_post(len(CONTENT)))
        for start in range(24):
            assert client.send(CONTENT[start << 16 : (start + 1) << 16])
            backend.pause(0.1)
        assert client.response().status == 413
        assert client.wait_for_end() is Ending.CLEAN
        assert accepted(backend) == 0


# Upgrades.


def test_an_upgraded_connection_echoes_whatever_is_sent(serve: Serve, dial: Dial, site: Path) -> None:
    with (
        RecordingBackend(switch_and_echo) as backend,
        web(serve, site, backend.address) as server,
        dial(server) as tls,
    ):
        client = LoopClient(tls)
        answer = client.ask(WEBSOCKET)
        assert (answer.status, answer.values(b"sec-websocket-accept")) == (
            101,
            [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
        )
        for size in (1, 126, 70_000, 3_000_000):
            content = random.Random(size).randbytes(size)
            assert send_and_receive(tls, content, size) == content
        half_close(tls)
        assert client.wait_for_end() is Ending.CLEAN
        [line] = server.wait_for_access()
        assert (line["status"], line["path"], line["ended"]) == (101, "/chat", "done")
        assert line["bytes_from_client"] > 3_000_000


def test_what_is_sent_ahead_of_the_switch_is_not_lost(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend(switch_and_echo) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        ahead = bytes(range(256)) * 40
        assert client.send(WEBSOCKET + ahead)
        assert client.response().status == 101
        received = client._reader.rest
        while len(received) < len(ahead):
            received += client._receive()
        assert received == ahead
        backend.script = answer_all


def test_what_is_sent_ahead_reaches_no_backend_that_does_not_switch(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        smuggled = b"GET /admin HTTP/1.1\r\nHost: site.test\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"
        assert client.send(WEBSOCKET + smuggled)
        assert [client.response().status for _ in range(2)] == [200, 200]
        # It was a request like any other, with what we say about it.
        assert backend.targets() == [b"/chat", b"/admin"]
        assert b"X-Forwarded-For: 127.0.0.1\r\nX-F" in backend.requests[1][1].raw
        assert client.send(WEBSOCKET + b"\x81\x85\x01\x02\x03\x04data")
        assert [client.response().status for _ in range(2)] == [200, 400]
        assert b"\x81\x85" not in backend.received


def test_a_switch_that_nobody_asked_for_is_none(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    def switches(visit: Visit) -> None:
        visit.request()
        visit.send(SWITCHING)

    with (
        RecordingBackend(switches) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(GET % 1).status == 502
        assert client.ask(WEBSOCKET.replace(b"Upgrade: websocket", b"Upgrade: other")).status == 502


def test_an_upgraded_connection_ends_when_nothing_is_said_for_long(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    timeouts = {"tunnel": 2, "idle": 1}
    with (
        RecordingBackend(switch_and_echo) as backend,
        web(serve, site, backend.address, timeouts=timeouts) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(WEBSOCKET).status == 101
        backend.pause(1.3)  # longer than other connections may be silent
        client.send(b"still here")
        assert client._receive() == b"still here"
        assert client.wait_for_end() is Ending.CLEAN
        [line] = server.wait_for_access()
        assert (line["ended"], line["status"]) == ("idle_timeout", 101)
        assert 3 < line["seconds"] < 6


def test_a_client_that_vanishes_from_an_upgraded_connection_resets_its_backend(
    serve: Serve, dial: Dial, site: Path
) -> None:
    with RecordingBackend(switch_and_echo) as backend, web(serve, site, backend.address) as server:
        tls = dial(server)
        assert LoopClient(tls).ask(WEBSOCKET).status == 101
        assert isinstance(tls, ssl.SSLSocket)
        vanish(tls)
        [end] = backend.wait_for_ends()
        assert isinstance(end, ConnectionResetError)
        assert server.wait_for_access()[0]["fault"] == "client"
