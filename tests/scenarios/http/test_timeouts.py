"""Whoever is waited for has a time, and who does not keep it is named."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from termproxy import clock
from tests.conftest import Dial, Serve
from tests.scenarios.http.web import CHUNKED, GET, POST, accepted, big_post, web
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import CutError
from tests.support.recording_backend import RecordingBackend, Visit

SLACK = 1.5  # seconds, for a tick of the worker's and a busy machine


def drip_until_answered(client: HttpClient, data: bytes, pause: float) -> float:
    """Send a byte now and then; how long it took until somebody had enough of it."""
    begun = clock.monotonic()
    client._sock.settimeout(pause)
    for byte in data:
        client.send(bytes([byte]))
        try:
            if client._reader._more():
                break
        except TimeoutError:
            continue
    client._sock.settimeout(10)
    return clock.monotonic() - begun


@pytest.mark.parametrize("before", [0, 1])
def test_a_head_that_drips_in_is_a_408_at_its_deadline(
    serve: Serve, trust: ssl.SSLContext, site: Path, before: int
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, timeouts={"request_head": 1}) as server,
        HttpClient(server.port, trust) as client,
    ):
        for _ in range(before):
            assert client.ask(GET % 1).status == 200
        seconds = drip_until_answered(client, GET % 2, 0.1)
        assert 0.9 <= seconds < 1 + SLACK
        assert client.response().status == 408
        assert client.wait_for_end() is Ending.CLEAN
        line = server.wait_for_access(before + 1)[-1]
        assert (line["ended"], line["status"], line["fault"]) == ("request_head_timeout", 408, "client")
        assert len(backend.requests) == before


def test_a_client_without_a_request_is_let_go_without_an_answer(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, timeouts={"request_head": 0.5}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.wait_for_end() is Ending.CLEAN
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("no_request", "none")
        assert accepted(backend) == 0


def test_a_body_that_drips_in_is_a_408(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    values: dict[str, Any] = {"timeouts": {"request_head": 0.5}, "limits": {"body_rate": 1000}}
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, **values) as server,
        HttpClient(server.port, trust) as client,
    ):
        client.send(big_post(1000))
        seconds = drip_until_answered(client, b"x" * 1000, 0.2)
        assert seconds < 5 + SLACK
        assert client.response().status == 408
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("body_timeout", "client")
        backend.visits[0].wait_until_over()
        assert not backend.requests


def test_a_backend_that_does_not_answer_is_a_504_at_its_deadline(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend(Visit.hang) as backend,
        web(serve, site, backend.address, timeouts={"response": 2}) as server,
        HttpClient(server.port, trust) as client,
    ):
        for request in (GET % 1, POST % 2):
            begun = clock.monotonic()
            answer = client.ask(request)
            assert 1.9 <= clock.monotonic() - begun < 2 + SLACK
            assert (answer.status, answer.options()) == (504, set())
        for line in server.wait_for_access(2):
            assert (line["ended"], line["fault"], line["status"]) == ("backend_timeout", "backend", 504)
            assert line["backend"] == backend.address
        assert accepted(backend) == 2


def test_a_backend_s_time_begins_when_it_has_the_request(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """An upload may take longer than the answer to it."""

    def reads_and_hangs(visit: Visit) -> None:
        visit.request()
        visit.hang()

    with (
        RecordingBackend(reads_and_hangs) as backend,
        web(serve, site, backend.address, timeouts={"response": 1.5}) as server,
        HttpClient(server.port, trust) as client,
    ):
        client.send(big_post(3))
        for _ in range(3):
            backend.pause(1.0)
            client.send(b"x")
        begun = clock.monotonic()
        assert client.response().status == 504
        assert 1.4 <= clock.monotonic() - begun < 1.5 + SLACK
        assert server.wait_for_access()[0]["ended"] == "backend_timeout"


def test_half_a_head_that_drips_out_is_a_504_at_its_deadline(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def drips(visit: Visit) -> None:
        visit.request()
        visit.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, 0.05)

    with (
        RecordingBackend(drips) as backend,
        web(serve, site, backend.address, timeouts={"response": 1}) as server,
        HttpClient(server.port, trust) as client,
    ):
        begun = clock.monotonic()
        assert client.ask(GET % 1).status == 504
        assert 0.9 <= clock.monotonic() - begun < 1 + SLACK


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbe",
        CHUNKED + b"2\r\nbe\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbe",
    ],
)
def test_an_answer_that_stops_is_cut_off_and_the_backend_is_to_blame(
    serve: Serve, trust: ssl.SSLContext, site: Path, begin: bytes
) -> None:
    def stops(visit: Visit) -> None:
        visit.request()
        visit.send(begin)
        visit.hang()

    with (
        RecordingBackend(stops) as backend,
        web(serve, site, backend.address, timeouts={"idle": 1.5}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(GET % 1)
        begun = clock.monotonic()
        try:
            assert client.response().until_end
        except CutError:
            pass
        assert client.ending in {Ending.CUT, Ending.RESET}
        assert 1.4 <= clock.monotonic() - begun < 1.5 + SLACK
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"], line["status"]) == ("idle_timeout", "backend", 200)


def test_an_answer_that_drips_on_may_take_its_time(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def drips(visit: Visit) -> None:
        visit.request()
        visit.send(CHUNKED)
        visit.drip(b"1\r\na\r\n" * 8 + b"0\r\n\r\n", 0.3, size=6)

    timeouts = {"idle": 1, "response": 1}
    with (
        RecordingBackend(drips) as backend,
        web(serve, site, backend.address, timeouts=timeouts) as server,
        HttpClient(server.port, trust) as client,
    ):
        client.send(GET % 1)
        assert client.response().body == b"a" * 8
        assert server.wait_for_access()[0]["seconds"] > 2


def test_a_client_that_does_not_read_is_cut_off_and_to_blame(
    serve: Serve, dial: Dial, site: Path
) -> None:
    def gives(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        visit.send(bytes(64 << 20))

    with (
        RecordingBackend(gives) as backend,
        web(serve, site, backend.address, timeouts={"idle": 1}) as server,
        dial(server) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(GET % 1)
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("idle_timeout", "client")
        [end] = backend.wait_for_ends()
        assert isinstance(end, OSError)
