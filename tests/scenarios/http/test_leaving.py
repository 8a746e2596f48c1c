"""Clients that vanish: the backend hears of it, and nothing is left behind."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Dial, Serve
from tests.scenarios.http.web import CHUNKED, CONTENT, GET, Balance, big_post, web
from tests.support.clients import vanish
from tests.support.http_client import HttpClient
from tests.support.processes import may_look_inside_workers
from tests.support.recording_backend import RecordingBackend, Script, Visit

pytestmark = pytest.mark.skipif(
    not may_look_inside_workers(), reason="only root sees the descriptors of workers"
)

CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"

ROUNDS = 10


def never_answers(visit: Visit) -> None:
    visit.request()
    visit.read_to_end()


def answers_for_ever(visit: Visit) -> None:
    visit.request()
    visit.send(CHUNKED)
    while True:
        visit.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")


def answers_in_part(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
    visit.read_to_end()


def cut(client: ssl.SSLSocket) -> None:
    """Without close_notify, which a client that still waits has to say."""
    client.close()


@pytest.mark.parametrize("leave", [vanish, cut])
@pytest.mark.parametrize(
    ("request_", "script"),
    [
        pytest.param(GET % 1, never_answers, id="before the answer"),
        pytest.param(GET % 1, answers_for_ever, id="in an endless answer"),
        pytest.param(GET % 1, answers_in_part, id="in the answer"),
        pytest.param(big_post(1000) + b"part", never_answers, id="in a body"),
        pytest.param(CHUNKED_POST + b"5\r\nhel", never_answers, id="in a chunk"),
    ],
)
def test_a_backend_is_reset_when_nobody_waits_for_it_any_more(  # noqa: PLR0917 - a matrix
    serve: Serve,
    dial: Dial,
    site: Path,
    request_: bytes,
    script: Script,
    leave: Callable[[ssl.SSLSocket], None],
) -> None:
    with RecordingBackend(script) as backend, web(serve, site, backend.address) as server:
        balance = Balance(server)
        for number in range(ROUNDS):
            client = dial(server)
            client.sendall(request_)
            backend.wait_for_visits(number + 1)
            backend.wait_for_bytes(1)
            leave(client)
            ends = backend.wait_for_ends(number + 1)
            assert isinstance(ends[-1], ConnectionResetError | BrokenPipeError)
        lines = server.wait_for_access(ROUNDS)
        assert {line["fault"] for line in lines} == {"client"}
        assert {line["ended"] for line in lines} <= {"client_reset", "client_closed", "truncated"}
        balance.wait_until_restored()


def test_connections_of_all_kinds_leave_nothing_behind(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.ask(GET % 1).status == 200
        balance = Balance(server)
        for number in range(ROUNDS):
            clients = [HttpClient(server.port, trust) for _ in range(5)]
            for client in clients:
                client.send(big_post(100_000) + CONTENT[:100_000] + GET % number + b"GET /half")
            for client in clients[:2]:
                assert client.response().status == 200
            clients[0].vanish()
            clients[1]._sock.close()
            for client in clients[2:]:
                assert [client.response().status for _ in range(2)] == [200, 200]
                client.half_close()
                client._sock.close()
        balance.wait_until_restored(kept=64)
        assert server.open_connections() == 0
