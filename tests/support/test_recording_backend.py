"""The backend of the tests, asked directly: it records all, and does what its script says."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from termproxy import clock
from tests.support.backends import receive_all
from tests.support.recording_backend import RecordingBackend, Visit, canned
from tests.support.waiting import PATIENCE

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def visit(backend: RecordingBackend) -> socket.socket:
    host, _, port = backend.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def test_every_byte_of_every_connection_is_kept() -> None:
    with RecordingBackend() as backend:
        with visit(backend) as first, visit(backend) as second:
            first.sendall(GET % 1)
            backend.wait_for_requests(1)
            second.sendall(GET % 2)
            backend.wait_for_requests(2)
            mark = backend.mark()
            first.sendall(GET % 3 + b"POST /half")
            backend.wait_for_requests(3)
            backend.wait_for_bytes(len(GET % 0) * 3 + len(b"POST /half"))
            arrivals = backend.since(mark)
            assert [request.target for request in arrivals.requests] == [b"/3"]
            assert [*arrivals.rests.values()] == [b"POST /half"]
        for each in backend.visits:
            each.wait_until_over()
        one, two = sorted(backend.visits, key=lambda each: each.number)
        assert {bytes(one.received), bytes(two.received)} == {
            GET % 1 + GET % 3 + b"POST /half",
            GET % 2,
        }
        assert backend.targets() == [b"/1", b"/2", b"/3"]
        assert backend.visits_with(b"/3") == backend.visits_with(b"/1")
        assert {one.begun, two.begun} == {b"POST /half", b""}


def test_canned_answers_are_given_in_turn_and_then_it_ends() -> None:
    with RecordingBackend(canned(DONE, DONE * 2)) as backend:
        for _ in range(2):
            with visit(backend) as client:
                client.sendall(GET % 1 + GET % 2 + GET % 3)
                assert receive_all(client) == DONE * 3
                client.shutdown(socket.SHUT_WR)
                backend.visits[-1].wait_until_over()
                assert backend.visits[-1].begun == GET % 3  # recorded, though nobody asked for it


def test_it_may_answer_before_it_has_read_the_body() -> None:
    def early(visit: Visit) -> None:
        request = visit.head()
        visit.send(DONE)
        visit.read_body(request)
        visit.send(request.body)
        visit.end()

    with RecordingBackend(early) as backend, visit(backend) as client:
        client.sendall(POST)
        assert client.recv(100) == DONE
        client.sendall(b"hello")
        assert receive_all(client) == b"hello"


def test_it_may_drip() -> None:
    def script(visit: Visit) -> None:
        visit.request()
        visit.drip(DONE, 0.001, size=5)
        visit.end()

    with RecordingBackend(script) as backend, visit(backend) as client:
        client.sendall(GET % 1)
        assert receive_all(client) == DONE


def test_it_may_close_early() -> None:
    def script(visit: Visit) -> None:
        visit.head()
        visit.close()

    with RecordingBackend(script) as backend, visit(backend) as client:
        client.sendall(POST)
        assert receive_all(client) == b""
        assert backend.wait_for_ends() == [None]
        assert backend.received == POST


def test_it_may_reset() -> None:
    def script(visit: Visit) -> None:
        visit.head()
        visit.reset()

    with RecordingBackend(script) as backend, visit(backend) as client:
        client.sendall(POST)
        with pytest.raises(ConnectionResetError):
            receive_all(client)


def test_scripts_that_hang_or_drip_end_with_the_backend() -> None:
    threads = threading.active_count()
    before = clock.monotonic()
    with RecordingBackend(Visit.hang) as backend, visit(backend) as client:
        client.sendall(GET % 1)
        backend.wait_for_visits()
        backend.script = drip_for_ever
        with visit(backend) as other:
            assert other.recv(1) == b"a"
    assert clock.monotonic() - before < PATIENCE
    assert threading.active_count() == threads


def drip_for_ever(visit: Visit) -> None:
    visit.drip(b"a" * 1000, 1000.0)


def test_a_proxy_that_sends_what_is_not_plain_http_is_told_of() -> None:
    with pytest.raises(AssertionError, match="no good end of a line"):
        send_to_recording_backend(b"GET / HTTP/1.1\nHost: a\n\n")


def send_to_recording_backend(data: bytes) -> None:
    with RecordingBackend() as backend, visit(backend) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        assert backend.received == data


def test_it_may_listen_on_a_unix_socket(tmp_path: Path) -> None:
    with RecordingBackend(canned(DONE), path=tmp_path / "app.sock") as backend:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(backend.address.removeprefix("unix:"))
            client.sendall(GET % 1)
            assert receive_all(client) == DONE
        assert backend.wait_for_requests()[0].target == b"/1"
