"""Backends that fail in every way: the right answer at the right time, nothing twice, nothing left."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from termproxy import clock
from tests.conftest import Serve
from tests.scenarios.http.web import CHUNKED, GET, POST, Balance, accepted, web
from tests.support.backends import FullBackend
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import CutError
from tests.support.ports import free_port
from tests.support.processes import may_look_inside_workers
from tests.support.recording_backend import RecordingBackend, Script, Visit, answer_all
from tests.support.server import Server

pytestmark = pytest.mark.skipif(
    not may_look_inside_workers(), reason="only root sees the descriptors of workers"
)

NO_EJECTION = {"passive": {"failures": 0}}

SLACK = 1.5  # seconds


@contextmanager
def behind(
    serve: Serve, site: Path, *servers: str, cluster: dict[str, Any] | None = None, **changes: Any
) -> Iterator[Server]:
    """A server whose descriptors have come back when all is over; failures eject nobody."""
    values = {"main": {"servers": list(servers)} | NO_EJECTION | (cluster or {})}
    with web(serve, site, cluster=values, **changes) as server:
        balance = Balance(server)
        yield server
        balance.wait_until_restored(kept=64)


def resets_before_a_head(visit: Visit) -> None:
    visit.request()
    visit.reset()


def hangs_up_before_a_head(visit: Visit) -> None:
    visit.request()
    visit.close()


def says_half_a_head(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    visit.close()


def says_garbage(visit: Visit) -> None:
    visit.request()
    visit.send(b"\x00\x01\x02 what is this?\r\n\r\n")


def says_two_lengths(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")


def resets_at_once(visit: Visit) -> None:
    visit.reset()


REASONS: dict[Script, set[str]] = {
    resets_at_once: {"backend_reset", "backend_closed"},
    resets_before_a_head: {"backend_reset"},
    hangs_up_before_a_head: {"backend_closed"},
    says_half_a_head: {"backend_closed"},
    says_garbage: {"bad_answer"},
    says_two_lengths: {"bad_answer"},
}


@pytest.mark.parametrize("script", REASONS)
@pytest.mark.parametrize("request_", [GET % 1, POST % 1])
def test_a_backend_without_a_good_answer_is_a_502(
    serve: Serve, trust: ssl.SSLContext, site: Path, script: Script, request_: bytes
) -> None:
    with RecordingBackend(script) as backend, behind(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            for _ in range(5):
                answer = client.ask(request_)
                assert (answer.status, answer.options()) == (502, set())
        for line in server.wait_for_access(5):
            assert line["ended"] in REASONS[script]
            assert (line["fault"], line["status"], line["retries"]) == ("backend", 502, 0)
        assert accepted(backend) == 5  # a fresh connection that fails is not tried again
        assert len(backend.requests) in {0, 5}


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", id="length"),
        pytest.param(CHUNKED + b"4\r\nhalf\r\n", id="chunks"),
        pytest.param(CHUNKED + b"ff\r\nhalf", id="chunk"),
    ],
)
@pytest.mark.parametrize("how", ["reset", "close"])
def test_an_answer_that_breaks_off_is_never_a_good_one(
    serve: Serve, trust: ssl.SSLContext, site: Path, begin: bytes, how: str
) -> None:
    def breaks_off(visit: Visit) -> None:
        visit.request()
        visit.send(begin)
        backend.pause(0.05)
        visit.reset() if how == "reset" else visit.close()

    with RecordingBackend(breaks_off) as backend, behind(serve, site, backend.address) as server:
        for _ in range(5):
            with HttpClient(server.port, trust) as client:
                assert client.send(GET % 1)
                with pytest.raises(CutError) as cut:
                    client.response()
                assert cut.value.response is not None
                assert client.ending in {Ending.CUT, Ending.RESET}
        for line in server.wait_for_access(5):
            assert (line["status"], line["fault"]) == (200, "backend")
            assert line["ended"] == ("backend_reset" if how == "reset" else "backend_closed")


def test_nobody_there_is_a_502_at_once(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with behind(serve, site, absent) as server, HttpClient(server.port, trust) as client:
        begun = clock.monotonic()
        assert client.ask(POST % 1).status == 502
        assert clock.monotonic() - begun < SLACK
        [line] = server.wait_for_access()
        assert (line["ended"], line["backend"]) == ("backend_refused", absent)


def test_a_black_hole_is_a_504_at_the_connect_deadline(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        FullBackend() as hole,
        behind(serve, site, hole.address, timeouts={"connect": 1}) as server,
        HttpClient(server.port, trust) as client,
    ):
        begun = clock.monotonic()
        assert client.ask(POST % 1).status == 504
        assert 0.9 <= clock.monotonic() - begun < 1 + SLACK
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("backend_timeout", "backend")


def test_a_black_hole_is_left_for_the_next_one(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    with (
        FullBackend() as hole,
        RecordingBackend() as backend,
        behind(serve, site, hole.address, backend.address, timeouts={"connect": 0.5}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert [client.ask(POST % number).status for number in range(4)] == [200] * 4
        assert len(backend.requests) == 4


def test_when_nobody_can_be_used_the_answer_is_a_503_at_once(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    health = {"kind": "tcp", "interval": 0.1, "fall": 1}
    absent = f"127.0.0.1:{free_port()}"
    with web(serve, site, cluster={"main": {"servers": [absent], "health": health}}) as server:
        server.wait_for_words(" is down")
        with HttpClient(server.port, trust) as client:
            answer = client.ask(GET % 1)
            assert (answer.status, answer.values(b"retry-after")) == (503, [b"1"])
        [line] = server.wait_for_access()
        assert (line["ended"], line["fault"]) == ("no_backend", "backend")


def test_one_dead_of_three_costs_nobody_an_answer(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with RecordingBackend() as one, RecordingBackend() as two:
        servers = [one.address, absent, two.address]
        with behind(serve, site, *servers, cluster={"passive": {"failures": 3}}) as server:
            for _ in range(5):
                with HttpClient(server.port, trust) as client:
                    for number in range(12):
                        assert client.ask(POST % number).status == 200
            assert len(one.requests) + len(two.requests) == 60
            assert min(len(one.requests), len(two.requests)) >= 20
            assert "is ejected" in server.said()


def test_no_post_arrives_twice_whatever_its_backend_does(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """It answers some requests, and hangs up before, during and after others."""
    turn = iter(range(10_000))

    def moody(visit: Visit) -> None:
        while True:
            request = visit.request()
            match next(turn) % 5:
                case 0 | 1:
                    visit.answer(request)
                case 2:
                    return visit.reset()
                case 3:
                    return visit.close()
                case _:
                    visit.answer(request)
                    return visit.close()

    with RecordingBackend(moody) as backend, behind(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            statuses = [client.ask(POST % number).status for number in range(300)]
        assert Counter(backend.targets()).most_common(1)[0][1] == 1
        assert Counter(statuses).keys() == {200, 502}
        # What was not answered was told to have failed: nothing was made up.
        good = {line["path"] for line in server.wait_for_access(300) if line["status"] == 200}
        assert len(good) == statuses.count(200)
        assert sum(line["retries"] for line in server.access_lines()) == 0


def test_a_get_on_a_stale_connection_is_sent_again_and_a_post_is_not(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """The backend hangs up when the second request has come."""

    def one_only(visit: Visit) -> None:
        visit.answer(visit.request())
        visit.request()
        visit.close()

    with RecordingBackend(one_only) as backend, behind(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert [client.ask(GET % number).status for number in range(10)] == [200] * 10
            lines = server.wait_for_access(10)
            assert [line["retries"] for line in lines] == [0] + [1] * 9
        with HttpClient(server.port, trust) as client:
            # Idle ones of before may be there, or not; from here on every second one fails.
            statuses = [client.ask(POST % (100 + number)).status for number in range(10)]
            assert set(statuses) == {200, 502}
        assert Counter(backend.targets())[b"/0"] == 1
        assert max(Counter(t for t in backend.targets() if len(t) == 4).values()) == 1


def test_a_backend_that_flaps_costs_no_more_than_it_has_to(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """One steady server beside it: whoever could be served by that is."""
    is_over = threading.Event()

    def flaps() -> None:
        while not is_over.wait(0.2):
            flapping.script = answer_all if flapping.script is resets_at_once else resets_at_once

    with RecordingBackend() as steady, RecordingBackend() as flapping:
        thread = threading.Thread(target=flaps)
        thread.start()
        try:
            with behind(serve, site, steady.address, flapping.address) as server:
                counts: Counter[int] = Counter()
                until = clock.monotonic() + 3
                while clock.monotonic() < until:
                    with HttpClient(server.port, trust) as client:
                        for number in range(10):
                            counts[client.ask(POST % number).status] += 1
                lines = server.wait_for_access(sum(counts.values()))
        finally:
            is_over.set()
            thread.join()
        assert counts.keys() <= {200, 502}
        failed = [line for line in lines if line["status"] != 200]
        assert {line["backend"] for line in failed} <= {flapping.address}
        assert counts[200] > 10 * counts[502]
        answered = len(steady.requests) + len(flapping.requests)
        assert answered == counts[200]


def test_a_slow_answer_holds_nobody_else_up(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    def drips(visit: Visit) -> None:
        while (request := visit.request()).target != b"/0":
            visit.answer(request)
        visit.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"x" * 40, 0.02)

    with (
        RecordingBackend(drips) as backend,
        behind(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as slow,
    ):
        assert slow.send(GET % 0)
        with HttpClient(server.port, trust) as quick:
            for number in range(1, 20):
                begun = clock.monotonic()
                assert quick.ask(GET % number).status == 200
                assert clock.monotonic() - begun < 1
        assert slow.response().body == b"x" * 40
