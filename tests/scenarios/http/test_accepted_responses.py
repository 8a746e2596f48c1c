"""Answers that are odd, old or terse reach the client, and it reads what the backend meant."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.readers import missing
from tests.http.vectors import ACCEPTED_RESPONSES, AcceptedResponse
from tests.scenarios.http.answers import answer_with, question, target_of
from tests.scenarios.http.gateway import SOON, Gateway, Situation, gateway_before
from tests.support.http_client import Ending
from tests.support.http_messages import Response

every_accepted = pytest.mark.parametrize("vector", ACCEPTED_RESPONSES, ids=lambda vector: vector.name)
every_situation = pytest.mark.parametrize("situation", Situation, ids=lambda situation: situation.value)

BAD_GATEWAY = 502


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, site: Path, trust: ssl.SSLContext
) -> Iterator[Gateway]:
    script = answer_with(ACCEPTED_RESPONSES)
    with gateway_before(script, tmp_path_factory.mktemp("responses"), site, trust) as gateway:
        yield gateway


@every_situation
@every_accepted
def test_an_accepted_response_reaches_the_client_as_it_is_meant(
    gateway: Gateway, vector: AcceptedResponse, situation: Situation
) -> None:
    with gateway.client() as client:
        gateway.say(client, question(vector), situation)
        response = client.response(vector.method)
        expect_response(response, vector)
        if response.until_end:
            assert client.ending is Ending.CLEAN
        elif b"close" in response.options():
            assert client.wait_for_end() is Ending.CLEAN
        else:
            gateway.ask(client)
    expect_reuse(gateway, vector)


@every_accepted
def test_a_client_of_http_1_0_gets_no_chunks_and_no_interim_response(
    gateway: Gateway, vector: AcceptedResponse
) -> None:
    with gateway.client() as client:
        client.send(question(vector, b"HTTP/1.0"))
        response = client.response(vector.method)
        assert response.interim == []
        assert response.values(b"transfer-encoding") == []
        expect_response(response, vector, interim=False)
        assert client.wait_for_end() is Ending.CLEAN
    expect_reuse(gateway, vector)


def expect_response(response: Response, vector: AcceptedResponse, *, interim: bool = True) -> None:
    if vector.may_fail and response.status == BAD_GATEWAY:
        return
    assert (response.status, response.body) == (vector.status, vector.body)
    assert missing(vector.fields, response.fields) == []
    if interim:
        # 100 and 102 may be passed on, or not.
        passed_on = [each.status for each in response.interim if each.status not in {100, 102}]
        assert passed_on == [*vector.interim]


def expect_reuse(gateway: Gateway, vector: AcceptedResponse) -> None:
    """A connection that is not to be used again has ended, and this was its last request."""
    if not vector.reusable:
        for visit in gateway.backend.visits_with(target_of(vector)):
            visit.wait_until_over(SOON)
            assert visit.requests[-1].target == target_of(vector)
            assert visit.begun == b""
