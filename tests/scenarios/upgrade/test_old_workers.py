"""What the old master's workers do while they drain: they make way, and follow what operators want."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

from tests.conftest import Dial, Serve
from tests.scenarios.http.web import GET, web
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.http_client import Ending, HttpClient
from tests.support.recording_backend import RecordingBackend
from tests.support.waiting import wait_until


def test_a_client_without_a_request_is_not_cut_off_but_told_with_its_next_answer(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.ask(GET % 1).status == 200
            server.upgrade()
            answer = client.ask(GET % 2)
            assert (answer.status, answer.options()) == (200, {b"close"})
            assert client.wait_for_end() is Ending.CLEAN
        server.wait_until_old_master_is_gone()


def test_they_write_to_a_log_that_is_opened_anew(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        file = server.folder / "access.log"
        with dial(server) as client:
            exchange(client)
            server.upgrade()
            file.rename(server.folder / "renamed.log")
            server.signal(signal.SIGUSR1)
            wait_until(lambda: server.said().count("opened anew: ") == 2, "both masters open it")
            leave(client)
        server.wait_until_old_master_is_gone()
        assert len(file.read_text().splitlines()) == 1
        assert (server.folder / "renamed.log").read_text() == ""


def test_there_may_be_more_of_the_new_ones(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        server.upgrade()
        server.signal(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == 2, "one more")
        with dial(server) as new:
            assert exchange(new) == exchange(client) == b"ping"
