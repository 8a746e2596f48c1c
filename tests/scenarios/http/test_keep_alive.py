"""Connections are kept on both sides, and requests on one are answered in their order."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.conftest import Serve
from tests.scenarios.http.web import GET, OK, POST, accepted, web
from tests.support.http_client import Ending, HttpClient
from tests.support.ports import free_port
from tests.support.recording_backend import RecordingBackend, Visit, canned


def test_many_requests_of_many_clients_need_one_connection_to_the_backend(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        for each in range(4):
            with HttpClient(server.port, trust) as client:
                for number in range(25):
                    assert client.ask(GET % (each * 100 + number)).body.startswith(b"GET /")
        assert accepted(backend) == 1
        assert len(backend.requests) == 100
        assert len(server.wait_for_access(100)) == 100


def test_clients_at_the_same_time_have_connections_of_their_own(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def in_pairs(visit: Visit) -> None:
        """Answers when another connection has a request, too."""
        while True:
            request = visit.request()
            visit._backend.wait_for_requests(2)
            visit.answer(request)

    with (
        RecordingBackend(in_pairs) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as one,
        HttpClient(server.port, trust) as other,
    ):
        assert one.send(GET % 1)
        assert other.send(GET % 2)
        assert (one.response().body, other.response().body) == (b"GET /1", b"GET /2")
        assert accepted(backend) == 2


def test_without_a_pool_each_request_has_a_connection_of_its_own(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend:
        cluster = {"main": {"servers": [backend.address], "idle_connections": 0}}
        with web(serve, site, cluster=cluster) as server, HttpClient(server.port, trust) as client:
            for number in range(5):
                assert client.ask(GET % number).status == 200
            assert accepted(backend) == 5


def test_idle_connections_to_a_backend_are_closed_after_their_time(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend:
        cluster = {"main": {"servers": [backend.address], "idle_timeout": 0.5}}
        with web(serve, site, cluster=cluster) as server, HttpClient(server.port, trust) as client:
            assert client.ask(GET % 1).status == 200
            backend.visits[0].wait_until_over()
            assert backend.visits[0].fault is None
            assert client.ask(POST % 2).status == 200
            assert accepted(backend) == 2


def test_a_thousand_requests_that_come_together_are_answered_in_their_order(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(b"".join(GET % number for number in range(1000)))
        assert [client.response().body for _ in range(1000)] == [b"GET /%d" % n for n in range(1000)]
        assert backend.targets() == [b"/%d" % number for number in range(1000)]
        assert accepted(backend) == 1


def test_our_own_answers_stand_in_the_order_of_the_requests(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    absent = f"127.0.0.1:{free_port()}"
    with RecordingBackend() as backend:
        routes = [{"path_prefix": "/absent", "cluster": "absent"}]
        cluster = {"main": {"servers": [backend.address]}, "absent": {"servers": [absent]}}
        with (
            web(serve, site, frontend={"route": routes}, cluster=cluster) as server,
            HttpClient(server.port, trust) as client,
        ):
            ask = b"GET %b HTTP/1.1\r\nHost: site.test\r\n\r\n"
            paths = [b"/1", b"/absent/2", b"/3", b"/absent/4", b"/5"]
            bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
            assert client.send(b"".join(ask % path for path in paths) + bad + ask % b"/never")
            assert [client.response().status for _ in range(6)] == [200, 502, 200, 502, 200, 400]
            assert client.wait_for_end() is Ending.CLEAN
            assert backend.targets() == [b"/1", b"/3", b"/5"]


def test_an_http_1_0_client_is_served_and_let_go_unless_it_wants_to_stay(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            assert client.ask(b"GET /1 HTTP/1.0\r\nHost: site.test\r\n\r\n").options() == {b"close"}
            assert client.wait_for_end() is Ending.CLEAN
        with HttpClient(server.port, trust) as client:
            for number in range(3):
                request = b"GET /%d HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n"
                assert client.ask(request % number).options() == {b"keep-alive"}
        assert accepted(backend) == 1


def test_an_http_1_0_backend_gets_a_connection_for_each_request(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    script = canned(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but good")
    with (
        RecordingBackend(script) as backend,
        web(serve, site, backend.address) as server,
    ):
        for _ in range(3):
            with HttpClient(server.port, trust) as client:
                answer = client.ask(GET % 1)
                assert (answer.body, answer.until_end) == (b"old but good", True)
                assert client.ending is Ending.CLEAN
        assert accepted(backend) == 3


def test_a_client_that_says_nothing_between_two_requests_is_let_go_in_peace(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, timeouts={"idle": 1}) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(GET % 1).status == 200
        assert client.wait_for_end() is Ending.CLEAN
        assert len(server.wait_for_access()) == 1


def test_workers_have_pools_of_their_own_and_share_no_connection(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address, workers=2) as server:
        for number in range(20):
            with HttpClient(server.port, trust) as client:
                assert client.ask(GET % number).status == 200
        assert 1 <= accepted(backend) <= 2


def test_a_backend_that_closes_kept_connections_costs_no_request(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """It hangs up as soon as it has answered, without a word of that."""

    def one_each(visit: Visit) -> None:
        visit.answer(visit.request())
        visit.close()

    with (
        RecordingBackend(one_each) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        for number in range(200):
            assert client.ask(GET % number).status == 200
        assert backend.targets() == [b"/%d" % number for number in range(200)]
        assert {line["status"] for line in server.wait_for_access(200)} == {200}
        client.vanish()


def test_a_connection_with_more_than_an_answer_on_it_serves_nobody_else(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    def says_too_much(visit: Visit) -> None:
        visit.request()
        visit.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")

    with (
        RecordingBackend(says_too_much) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        for number in range(20):
            assert client.send(GET % number + GET % number)
            assert [client.response().body for _ in range(2)] == [b"ok", b"ok"]
        assert accepted(backend) == 40
