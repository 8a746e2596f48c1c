"""Every vector, through the code: what is refused goes nowhere, and what passes others read as we do."""

from __future__ import annotations

from itertools import chain

import pytest

from termproxy.http.head import BadResponseError, RefusedRequestError, Request, read_request
from tests.http.cases.kinds import request
from tests.http.passing import (
    PassedAnswer,
    UnfinishedError,
    head_of,
    pass_answer,
    pass_requests,
)
from tests.http.readers import h11_requests, h11_response, llhttp_requests, llhttp_response, missing
from tests.http.test_vectors import UNREAD_BY_LLHTTP, UNREAD_RESPONSES_BY_LLHTTP
from tests.http.vectors import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    Accepted,
    AcceptedResponse,
    Refused,
    RefusedResponse,
    Then,
)

# What can be told only where the connection is: that it was reset, and how many answers are too many.
NEEDS_A_CONNECTION = {
    "interim-1000-times",
    "interim-1000-hints",
    "cut-until-close-by-reset",
    "cut-until-close-in-1.0-by-reset",
}

# Where the rules leave room, these are not passed on.
REFUSED_ALL_THE_SAME = {
    "fields-connection-names-the-length",
    "fields-connection-names-the-encoding",
    "fields-connection-names-the-host",
    "no-body-204-length",
    "no-body-204-coding",
}


def asked(method: bytes) -> Request:
    return read_request(head_of(request(method=method)))


@pytest.mark.parametrize("vector", REFUSED_REQUESTS, ids=lambda vector: vector.name)
def test_a_refused_request_is_refused_with_its_status(vector: Refused) -> None:
    with pytest.raises((RefusedRequestError, UnfinishedError)) as caught:
        pass_requests(vector.data)
    if isinstance(caught.value, RefusedRequestError):
        assert caught.value.status in vector.status
    else:
        assert vector.in_body
        assert vector.then is not Then.WAITS


@pytest.mark.parametrize(
    "vector", [vector for vector in REFUSED_REQUESTS if vector.in_body], ids=lambda vector: vector.name
)
def test_what_has_its_fault_in_its_body_has_a_good_head(vector: Refused) -> None:
    head, end, _ = vector.data.partition(b"\r\n\r\n")
    read_request(head_of(head + end))


@pytest.mark.parametrize("vector", ACCEPTED_REQUESTS, ids=lambda vector: vector.name)
def test_an_accepted_request_is_passed_on_and_read_by_others_as_it_was_meant(vector: Accepted) -> None:
    if vector.name in REFUSED_ALL_THE_SAME:
        with pytest.raises(RefusedRequestError) as caught:
            pass_requests(vector.data)
        assert caught.value.status in vector.or_status
        return
    passed = pass_requests(vector.data)
    assert passed.is_closed == vector.closes
    readers = [h11_requests] if vector.name in UNREAD_BY_LLHTTP else [h11_requests, llhttp_requests]
    for read in readers:
        # One by one, since a backend's connection may see any other one before it.
        read_by_other = list(chain.from_iterable(read(data) for data in passed.forwarded))
        for backend, expected in zip(read_by_other, vector.expected, strict=True):
            assert (backend.method, backend.target) == (expected.method, expected.target_at_backend)
            assert backend.body == expected.body
            assert missing(expected.fields, backend.fields) == []
            assert {name for name, _ in backend.fields}.isdisjoint(expected.absent)
    assert len(passed.requests) == len(vector.expected)


@pytest.mark.parametrize("vector", REFUSED_RESPONSES, ids=lambda vector: vector.name)
def test_a_refused_response_reaches_no_client_whole(vector: RefusedResponse) -> None:
    if vector.name in NEEDS_A_CONNECTION:
        return
    with pytest.raises((BadResponseError, UnfinishedError)) as caught:
        pass_answer(vector.data, asked(vector.method), ends=vector.then is not Then.WAITS)
    assert isinstance(caught.value, BadResponseError) or vector.then is not Then.WAITS


@pytest.mark.parametrize("vector", ACCEPTED_RESPONSES, ids=lambda vector: vector.name)
def test_an_accepted_response_is_passed_on_and_read_by_others_as_it_was_meant(
    vector: AcceptedResponse,
) -> None:
    ends = vector.then is Then.ENDS
    if vector.name in REFUSED_ALL_THE_SAME:
        assert vector.may_fail
        with pytest.raises(BadResponseError):
            pass_answer(vector.data, asked(vector.method), ends=ends)
        return
    passed = pass_answer(vector.data, asked(vector.method), ends=ends)
    # That it has ended, only the connection can tell.
    assert passed.is_reusable == vector.reusable or (ends and passed.is_reusable)
    assert_read_as(vector, passed, ends=ends)


def assert_read_as(vector: AcceptedResponse, passed: PassedAnswer, *, ends: bool) -> None:
    data = b"".join(passed.interim) + passed.data
    answers = [h11_response(data, vector.method, ends=ends)]
    if vector.name not in UNREAD_RESPONSES_BY_LLHTTP:
        answers.append(llhttp_response(data, ends=ends))
    for answer in answers:
        assert (answer.status, answer.body) == (vector.status, vector.body)
        assert missing(vector.fields, answer.fields) == []
        assert [status for status in answer.interim if status == 103] == [*vector.interim]
        assert answer.rest == b""


def test_a_vector_that_needs_a_connection_is_one_that_there_is() -> None:
    assert {vector.name for vector in REFUSED_RESPONSES} >= NEEDS_A_CONNECTION
