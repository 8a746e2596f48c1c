"""A request that could be read in two ways is refused, and nobody behind us reads a byte of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.readers import UnreadableError, h11_requests, llhttp_requests
from tests.http.vectors import REFUSED_REQUESTS, Refused, Then
from tests.scenarios.http.gateway import SOON, Gateway, Situation, gateway_before
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import CutError, Response
from tests.support.recording_backend import Arrivals, answer_all

every_refused = pytest.mark.parametrize("vector", REFUSED_REQUESTS, ids=lambda vector: vector.name)
every_situation = pytest.mark.parametrize("situation", Situation, ids=lambda situation: situation.value)

SMALL = 2000  # bytes: what is longer comes in pieces anyway


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, site: Path, trust: ssl.SSLContext
) -> Iterator[Gateway]:
    """When all is over, the backend has got the good requests, and what tests of bodies left."""
    with gateway_before(answer_all, tmp_path_factory.mktemp("refused"), site, trust) as gateway:
        yield gateway
    backend = gateway.backend
    assert [target for target in backend.targets() if not target.startswith(b"/good/")] == []
    for visit in backend.visits:
        assert b"smuggled" not in visit.received
        assert_unfinished(visit.begun)


@every_situation
@every_refused
def test_a_refused_request_is_answered_and_reaches_no_backend(
    gateway: Gateway, vector: Refused, situation: Situation
) -> None:
    mark = gateway.backend.mark()
    with gateway.client() as client:
        good = gateway.say(client, vector.data, situation)
        expect_refusal(client, vector)
    if vector.then is Then.RESETS:
        gateway.wait_until_idle()
    expect_arrivals(gateway, gateway.backend.since(mark), vector, good)


# One of five: each waits until the proxy has read a piece.
@pytest.mark.parametrize(
    "vector",
    [
        vector
        for vector in REFUSED_REQUESTS[::5]
        if len(vector.data) < SMALL and vector.then is Then.WAITS
    ],
    ids=lambda vector: vector.name,
)
def test_a_refused_request_is_refused_in_pieces_too(gateway: Gateway, vector: Refused) -> None:
    mark = gateway.backend.mark()
    cuts = [place + 1 for place, byte in enumerate(vector.data) if byte in b"\r\n:"][:6]
    with gateway.client() as client:
        client.send_pieces(vector.data, cuts, until_answered=True)
        expect_refusal(client, vector)
    expect_arrivals(gateway, gateway.backend.since(mark), vector, [])


def test_a_good_request_is_still_served(gateway: Gateway) -> None:
    with gateway.client() as client:
        gateway.ask(client)


def expect_refusal(client: HttpClient, vector: Refused) -> None:
    """One of the answers that are right, and the end.  Who ends in a body may be left without one."""
    match vector.then:
        case Then.RESETS:
            client.vanish()
            return
        case Then.ENDS:
            client.half_close()
    answer = read_answer(client, vector)
    if answer is None:
        assert vector.in_body, f"{client.ending} instead of an answer"
        return
    assert answer.status in vector.status
    assert b"close" in answer.options()
    ending = client.wait_for_end()
    assert ending is Ending.CLEAN or vector.in_body


def read_answer(client: HttpClient, vector: Refused) -> Response | None:
    try:
        return client.read_response()
    except CutError:
        if vector.in_body:
            return None
        raise


def expect_arrivals(gateway: Gateway, arrivals: Arrivals, vector: Refused, good: list[bytes]) -> None:
    """Nothing but the good requests; of one that is refused in its body there may be a part."""
    assert [request.target for request in arrivals.requests] == good
    if not vector.in_body:
        assert arrivals.rests == {}
    for visit, rest in arrivals.rests.items():
        assert b"smuggled" not in rest
        visit.wait_until_over(SOON)  # which nobody uses again
        assert_unfinished(visit.begun)


def assert_unfinished(begun: bytes) -> None:
    """What came of a request is no whole one to anybody: nothing, or a part."""
    for read in (h11_requests, llhttp_requests):
        if begun:
            with pytest.raises(UnreadableError):
                read(begun)
