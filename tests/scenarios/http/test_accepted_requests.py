"""Requests that are odd, long or old reach the backend, and every reader there reads the same."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http import readers
from tests.http.vectors import ACCEPTED_REQUESTS, Accepted
from tests.http.vectors import Request as Expected
from tests.scenarios.http.gateway import Gateway, Situation, gateway_before
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import Request
from tests.support.recording_backend import answer_all

every_accepted = pytest.mark.parametrize("vector", ACCEPTED_REQUESTS, ids=lambda vector: vector.name)
every_situation = pytest.mark.parametrize("situation", Situation, ids=lambda situation: situation.value)

SMALL = 2000  # bytes: what is longer comes in pieces anyway

# What llhttp reads of methods; h11 takes all.
KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND"}


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, site: Path, trust: ssl.SSLContext
) -> Iterator[Gateway]:
    """When all is over, nothing but whole requests has reached the backend."""
    with gateway_before(answer_all, tmp_path_factory.mktemp("accepted"), site, trust) as gateway:
        yield gateway
    assert [visit.begun for visit in gateway.backend.visits if visit.begun] == []


@every_situation
@every_accepted
def test_an_accepted_request_reaches_the_backend_as_it_is_meant(
    gateway: Gateway, vector: Accepted, situation: Situation
) -> None:
    mark = gateway.backend.mark()
    with gateway.client() as client:
        before = gateway.say(client, vector.data, situation)
        is_passed_on, behind = expect_answers(gateway, client, vector)
    arrivals = gateway.backend.since(mark)
    assert arrivals.rests == {}
    expect_requests(arrivals.requests, vector if is_passed_on else None, before, behind)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in ACCEPTED_REQUESTS if len(vector.data) < SMALL],
    ids=lambda vector: vector.name,
)
def test_an_accepted_request_may_come_in_pieces(gateway: Gateway, vector: Accepted) -> None:
    """Cut where it hurts: inside line ends, and before the last byte."""
    mark = gateway.backend.mark()
    places = [place + 1 for place, byte in enumerate(vector.data[:-1]) if byte == ord("\r")]
    cuts = sorted({*places[:: 1 + len(places) // 6], len(vector.data) - 1})
    with gateway.client() as client:
        assert client.send_pieces(vector.data, cuts) or vector.or_status
        is_passed_on, behind = expect_answers(gateway, client, vector)
    arrivals = gateway.backend.since(mark)
    assert arrivals.rests == {}
    expect_requests(arrivals.requests, vector if is_passed_on else None, [], behind)


def expect_answers(gateway: Gateway, client: HttpClient, vector: Accepted) -> tuple[bool, list[bytes]]:
    """Whether it was passed on; and what was asked behind it, where the connection is kept."""
    for expected in vector.expected:
        response = client.response(expected.method)
        if response.status in vector.or_status:
            assert client.wait_for_end() is Ending.CLEAN
            return False, []
        assert response.status == 200
        assert {interim.status for interim in response.interim} <= {100}
        if expected.method != b"HEAD":
            assert response.body == expected.method + b" " + expected.target_at_backend
    if vector.closes:
        assert client.wait_for_end() is Ending.CLEAN
        return True, []
    # Where one message ends is clear to both sides when they agree on the next one.
    return True, [gateway.ask(client)]


def expect_requests(
    requests: list[Request], vector: Accepted | None, before: list[bytes], behind: list[bytes]
) -> None:
    between = vector.expected if vector else ()
    targets = [*before, *(expected.target_at_backend for expected in between), *behind]
    assert [request.target for request in requests] == targets
    for request, expected in zip(requests[len(before) :], between, strict=False):
        expect_request(request, expected)


def expect_request(request: Request, expected: Expected) -> None:
    assert (request.method, request.body) == (expected.method, expected.body)
    assert readers.missing(expected.fields, request.fields) == []
    assert [name for name, _ in request.fields if name in expected.absent] == []
    assert request.trailers == []
    others = [*readers.h11_requests(request.raw)]
    if expected.method in KNOWN_METHODS:
        others += readers.llhttp_requests(request.raw)
    for other in others:
        assert (other.method, other.target, other.body) == (request.method, request.target, request.body)
        assert readers.missing(request.fields, other.fields) == []
