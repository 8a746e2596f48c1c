"""The client of the tests, through a real termproxy in tcp mode: answers, and how a connection ended."""

from __future__ import annotations

import ssl

import pytest

from tests.conftest import Serve
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import CutError
from tests.support.recording_backend import RecordingBackend, Visit, canned

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def test_answers_come_in_order_whole(serve: Serve, trust: ssl.SSLContext) -> None:
    with RecordingBackend() as backend, serve(backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.send(GET % 1 + GET % 2)
            assert [client.response().body for _ in range(2)] == [b"GET /1", b"GET /2"]
            assert client.ask(b"HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD").body == b""
            assert client.ask(GET % 4).body == b"GET /4"
        assert backend.targets() == [b"/1", b"/2", b"/3", b"/4"]


def test_pieces_arrive_one_by_one(serve: Serve, trust: ssl.SSLContext) -> None:
    with RecordingBackend() as backend, serve(backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.send_pieces(GET % 1, at=range(1, len(GET % 1), 3))
            assert client.response().body == b"GET /1"
        assert backend.received == GET % 1


def test_pieces_may_end_when_the_answer_comes(serve: Serve, trust: ssl.SSLContext) -> None:
    def early(visit: Visit) -> None:
        visit.head()
        visit.send(SIZED)

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    with RecordingBackend(early) as backend, serve(backend.address) as server:
        with HttpClient(server.port, trust) as client:
            pieces = range(len(head), len(head) + 100_000)
            assert not client.send_pieces(head + bytes(100_000), pieces, until_answered=True)
            assert client.response().body == b"hello"
        assert len(backend.received) < len(head) + 100_000


def test_a_clean_end_is_told_from_a_cut(serve: Serve, trust: ssl.SSLContext) -> None:
    with RecordingBackend(canned(SIZED)) as backend, serve(backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.ask(GET % 1).body == b"hello"
            assert client.wait_for_end() is Ending.CLEAN
            assert client.read_response() is None

        def break_off(visit: Visit) -> None:
            visit.request()
            visit.send(SIZED[:-2])
            visit.request()
            visit.reset()

        backend.script = break_off
        with HttpClient(server.port, trust) as client:
            client.send(GET % 1)
            client.send(GET % 2)
            with pytest.raises(CutError) as cut:
                client.response()
            assert cut.value.response is not None
            assert cut.value.response.body == b"hel"
            assert client.ending in {Ending.CUT, Ending.RESET}


def test_bytes_behind_the_answer_are_no_end(serve: Serve, trust: ssl.SSLContext) -> None:
    with (
        RecordingBackend(canned(SIZED + b"more")) as backend,
        serve(backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(GET % 1).body == b"hello"
        with pytest.raises(AssertionError, match="more"):
            client.wait_for_end()


def test_a_client_may_half_close_and_still_be_answered(serve: Serve, trust: ssl.SSLContext) -> None:
    with RecordingBackend() as backend, serve(backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.send(GET % 1)
            client.half_close()
            assert client.response().body == b"GET /1"
            assert client.wait_for_end() is Ending.CLEAN
        assert [visit.begun for visit in backend.visits] == [b""]


def test_a_client_that_vanishes_leaves_a_request_begun(serve: Serve, trust: ssl.SSLContext) -> None:
    with (
        RecordingBackend() as backend,
        serve(backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        client.ask(GET % 1)
        client.send((GET % 2)[:10])
        [visit] = backend.visits
        backend.wait_for_bytes(len(GET % 1) + 10)
        client.vanish()
        visit.wait_until_over()
        assert visit.begun == (GET % 2)[:10]
        assert isinstance(visit.fault, ConnectionResetError)
