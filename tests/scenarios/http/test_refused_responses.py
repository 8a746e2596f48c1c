"""A backend's answer that could be read in two ways is a 502, and one cut short is never a whole one."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.cases.refused_responses import LEAKED
from tests.http.vectors import REFUSED_RESPONSES, RefusedResponse
from tests.scenarios.http.answers import answer_with, question, target_of
from tests.scenarios.http.gateway import SOON, Gateway, Situation, expect_good, gateway_before
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import CutError, Response

every_refused = pytest.mark.parametrize("vector", REFUSED_RESPONSES, ids=lambda vector: vector.name)
every_situation = pytest.mark.parametrize("situation", Situation, ids=lambda situation: situation.value)

BAD_GATEWAY = 502


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, site: Path, trust: ssl.SSLContext
) -> Iterator[Gateway]:
    script = answer_with(REFUSED_RESPONSES)
    with gateway_before(script, tmp_path_factory.mktemp("responses"), site, trust) as gateway:
        yield gateway


@every_situation
@every_refused
def test_a_refused_response_is_a_502_or_cut_and_its_connection_is_not_used_again(
    gateway: Gateway, vector: RefusedResponse, situation: Situation
) -> None:
    with gateway.client() as client:
        gateway.say(client, question(vector), situation)
        response = read_refusal(client, vector)
    if response is not None:
        assert response.status == BAD_GATEWAY
        assert LEAKED not in response.raw
    visits = gateway.backend.visits_with(target_of(vector))
    assert visits, "the backend was not asked"
    with gateway.client() as client:
        gateway.ask(client)
    for visit in visits:
        visit.wait_until_over(SOON)
        assert visit.requests[-1].target == target_of(vector)
        assert visit.begun == b""


def test_what_was_asked_behind_a_refused_response_is_answered_or_not_but_never_by_it(
    gateway: Gateway,
) -> None:
    """The next request may be answered, or the connection may end; no byte of the bad one shows."""
    for vector in REFUSED_RESPONSES[::10]:
        target, good = gateway.good()
        with gateway.client() as client:
            client.send(question(vector) + good)
            refusal = read_refusal(client, vector)
            if refusal is None:
                continue
            assert refusal.status == BAD_GATEWAY, vector.name
            behind = client.read_response()
            if behind is not None:
                expect_good(behind, target)


def read_refusal(client: HttpClient, vector: RefusedResponse) -> Response | None:
    """The answer; or None for one that was cut, where that is allowed, so that it is seen to be."""
    try:
        response = client.response(vector.method)
    except CutError:
        assert vector.under_way, "cut, though no byte should have been passed on"
        assert client.ending in {Ending.CUT, Ending.RESET}
        return None
    if vector.under_way and response.until_end and response.status != BAD_GATEWAY:
        assert client.ending in {Ending.CUT, Ending.RESET}
        return None
    return response
