"""A server that stops, or reads a new configuration, loses no request."""

from __future__ import annotations

import signal
import ssl
import threading
from pathlib import Path

from termproxy import clock
from tests.conftest import Serve
from tests.scenarios.http.web import CONTENT, GET, POST, web
from tests.support.http_client import Ending, HttpClient
from tests.support.recording_backend import RecordingBackend, Visit
from tests.support.server import Server
from tests.support.waiting import wait_for_more


def test_who_waits_for_an_answer_gets_it_and_who_does_not_is_let_go(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    go_on = threading.Event()

    def waits(visit: Visit) -> None:
        while True:
            request = visit.request()
            if request.target == b"/2":
                go_on.wait(20)
            visit.answer(request)

    with RecordingBackend(waits) as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as idle, HttpClient(server.port, trust) as busy:
            assert idle.ask(GET % 1).status == 200
            assert busy.send(GET % 2)
            backend.wait_for_requests(2)
            server.signal(signal.SIGTERM)
            assert idle.wait_for_end() is Ending.CLEAN
            go_on.set()
            answer = busy.response()
            assert (answer.body, answer.options()) == (b"GET /2", {b"close"})
            assert busy.wait_for_end() is Ending.CLEAN
        assert server.wait_until_gone() == 0
        assert {line["ended"] for line in server.access_lines()} == {"done"}


def test_transfers_under_way_are_finished(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    def gives(visit: Visit) -> None:
        request = visit.request()
        answer = request.body or CONTENT
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    upload = CONTENT[: 4 << 20]
    with RecordingBackend(gives) as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as down, HttpClient(server.port, trust) as up:
            assert down.send(GET % 1)
            assert up.send(
                b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % len(upload)
            )
            assert up.send(upload[: 1 << 20])
            backend.wait_for_bytes(1 << 20)
            server.signal(signal.SIGTERM)
            server.wait_for_words("drain")
            assert up.send(upload[1 << 20 :])
            assert up.response().body == upload
            assert down.response().body == CONTENT
        assert server.wait_until_gone() == 0


def test_reloads_lose_no_request_of_clients_that_ask_again(
    serve: Serve, site: Path, trust: ssl.SSLContext
) -> None:
    """Clients that know what a clean end between two requests means, and a last answer's word."""
    with RecordingBackend() as backend, web(serve, site, backend.address, workers=2) as server:
        callers = [Caller(server, trust) for _ in range(4)]
        for caller in callers:
            caller.start()
        for _ in range(5):
            wait_for_more(lambda: sum(caller.answered for caller in callers), 40, "answers")
            assert server.reload(new_workers=True)["ok"]
        for caller in callers:
            caller.stop()
        assert [caller.lost for caller in callers] == [[]] * 4


class Caller(threading.Thread):
    """Asks again and again on one connection, for as long as that is kept."""

    def __init__(self, server: Server, trust: ssl.SSLContext) -> None:
        super().__init__()
        self._server, self._trust = server, trust
        self._is_over = threading.Event()
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self._is_over.is_set():
            with HttpClient(self._server.port, self._trust) as client:
                self._ask_on(client)

    def _ask_on(self, client: HttpClient) -> None:
        is_first = True
        while not self._is_over.wait(0.01):
            client.send(GET % self.answered)
            answer = client.read_response()
            if answer is None:
                if is_first or client.ending is not Ending.CLEAN:
                    self.lost.append(f"{client.ending} instead of an answer")
                return
            self.answered += 1
            if answer.status != 200:
                self.lost.append(f"{answer.status}")
            if b"close" in answer.options():
                return
            is_first = False

    def stop(self) -> None:
        self._is_over.set()
        self.join(20)


def test_a_client_that_has_just_come_may_still_ask(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            while not server.open_connections():
                pass
            server.signal(signal.SIGTERM)
            server.wait_for_words("drain")
            answer = client.ask(POST % 1)
            assert (answer.status, answer.options()) == (200, {b"close"})
        assert server.wait_until_gone() == 0


def test_what_outlives_the_drain_is_cut_off_and_not_taken_for_whole(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def stops(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        visit.hang()

    with (
        RecordingBackend(stops) as backend,
        web(serve, site, backend.address, timeouts={"drain": 1}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(GET % 1)
        backend.wait_for_requests()
        begun = clock.monotonic()
        server.signal(signal.SIGTERM)
        assert client.response().until_end
        assert client.ending in {Ending.CUT, Ending.RESET}
        server.wait_until_gone()
        assert clock.monotonic() - begun < 5
        [line] = server.access_lines()
        assert line["ended"] == "drain_timeout"
