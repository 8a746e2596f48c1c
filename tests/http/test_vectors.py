"""The vectors themselves: what we accept, others read as we do; exceptions are listed, with reasons."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.http.cases.kinds import BAD_GATEWAY, HEAD_MAX, SMUGGLED
from tests.http.readers import (
    ReadRequest,
    UnreadableError,
    h11_requests,
    h11_response,
    llhttp_requests,
    llhttp_response,
    missing,
)
from tests.http.vectors import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    Accepted,
    AcceptedResponse,
    Refused,
    Request,
    Then,
)

NO_EMPTY_LINE = "RFC 9112 §2.2 lets a server skip an empty line before a request; h11 does not"
NO_SUCH_METHOD = "llhttp knows a list of methods; RFC 9110 §9.1 makes any token one"
NOT_TOLD = "httptools cannot be told that the request was HEAD"

UNREAD_BY_H11 = {
    "before-an-empty-line": NO_EMPTY_LINE,
    "before-each-an-empty-line": NO_EMPTY_LINE,
    "pipelined-behind-body-and-an-empty-line": NO_EMPTY_LINE,
}
UNREAD_BY_LLHTTP = {
    "method-of-all-token-characters": NO_SUCH_METHOD,
    "method-lower-case": NO_SUCH_METHOD,
    "method-lower-case-get": NO_SUCH_METHOD,
    "method-mixed-case": NO_SUCH_METHOD,
    "method-of-one-letter": NO_SUCH_METHOD,
    "method-unknown": NO_SUCH_METHOD,
}
UNREAD_RESPONSES_BY_LLHTTP = {
    "bytes-behind-head": NOT_TOLD,
    "interim-before-head": NOT_TOLD,
    "no-body-head": NOT_TOLD,
    "no-body-head-404": NOT_TOLD,
    "no-body-head-coding": NOT_TOLD,
    "no-body-head-length": NOT_TOLD,
}

every_accepted = pytest.mark.parametrize("vector", ACCEPTED_REQUESTS, ids=lambda vector: vector.name)
every_answer = pytest.mark.parametrize("vector", ACCEPTED_RESPONSES, ids=lambda vector: vector.name)
every_refused = pytest.mark.parametrize("vector", REFUSED_REQUESTS, ids=lambda vector: vector.name)


# Their form.


@pytest.mark.parametrize(
    ("vectors", "at_least"),
    [
        (REFUSED_REQUESTS, 300),
        (ACCEPTED_REQUESTS, 80),
        (REFUSED_RESPONSES, 80),
        (ACCEPTED_RESPONSES, 50),
    ],
    ids=["refused-requests", "accepted-requests", "refused-responses", "accepted-responses"],
)
def test_there_are_enough_vectors_and_none_twice(vectors: list[Refused], at_least: int) -> None:
    names = Counter(vector.name for vector in vectors)
    messages = Counter(
        (vector.data, getattr(vector, "then", None), getattr(vector, "method", None))
        for vector in vectors
    )

    assert len(vectors) >= at_least
    assert [name for name, count in names.items() if count > 1] == []
    assert [message[0][:200] for message, count in messages.items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9.-]+", name)] == []


@every_refused
def test_a_refused_request_needs_no_more_bytes_to_be_refused(vector: Refused) -> None:
    """Its head is whole or too long already; and a good request lies behind what has an end."""
    assert b"\r\n\r\n" in vector.data or len(vector.data) > HEAD_MAX
    assert vector.status <= {400, 405, 413, 414, 417, 431, 501, 505}
    if vector.then is Then.WAITS and "without-end" not in vector.name:
        assert SMUGGLED in vector.data


@every_refused
def test_a_request_that_is_refused_in_its_body_has_a_good_head(vector: Refused) -> None:
    if vector.in_body and vector.then is Then.WAITS:
        head, end, _ = vector.data.partition(b"\r\n\r\n")
        [request] = h11_requests(head + end + b"0\r\n\r\n")
        assert (request.method, request.target) == (b"POST", b"/upload")


def test_a_backend_may_well_send_a_502_itself() -> None:
    """A test that takes every 502 for the gateway's own would be wrong."""
    assert BAD_GATEWAY in {vector.status for vector in ACCEPTED_RESPONSES}


# Others read them as we do.


def reading(request: ReadRequest) -> tuple[bytes, bytes, bytes]:
    return request.method, request.target, request.body


def meaning(request: Request) -> tuple[bytes, bytes, bytes]:
    return request.method, request.target, request.body


@every_accepted
def test_h11_reads_an_accepted_request_as_we_do(vector: Accepted) -> None:
    if vector.name in UNREAD_BY_H11:
        with pytest.raises(UnreadableError):
            h11_requests(vector.data)
        return
    requests = h11_requests(vector.data)
    assert [*map(reading, requests)] == [*map(meaning, vector.expected)]
    for request, expected in zip(requests, vector.expected, strict=True):
        assert missing(expected.fields, request.fields) == []


@every_accepted
def test_llhttp_reads_an_accepted_request_as_we_do(vector: Accepted) -> None:
    if vector.name in UNREAD_BY_LLHTTP:
        with pytest.raises(UnreadableError):
            llhttp_requests(vector.data)
        return
    requests = llhttp_requests(vector.data)
    assert [*map(reading, requests)] == [*map(meaning, vector.expected)]
    for request, expected in zip(requests, vector.expected, strict=True):
        assert missing(expected.fields, request.fields) == []


@every_answer
def test_h11_reads_an_accepted_response_as_we_do(vector: AcceptedResponse) -> None:
    response = h11_response(vector.data, vector.method, ends=vector.then is Then.ENDS)
    assert (response.status, response.body) == (vector.status, vector.body)
    assert missing(vector.fields, response.fields) == []
    assert [status for status in response.interim if status == 103] == [*vector.interim]
    assert vector.reusable <= (not response.rest)


@every_answer
def test_llhttp_reads_an_accepted_response_as_we_do(vector: AcceptedResponse) -> None:
    if vector.name in UNREAD_RESPONSES_BY_LLHTTP:
        assert vector.method == b"HEAD"
        return
    response = llhttp_response(vector.data, ends=vector.then is Then.ENDS)
    assert (response.status, response.body) == (vector.status, vector.body)
    assert missing(vector.fields, response.fields) == []
    assert [status for status in response.interim if status == 103] == [*vector.interim]


@pytest.mark.parametrize("exceptions", [UNREAD_BY_H11, UNREAD_BY_LLHTTP, UNREAD_RESPONSES_BY_LLHTTP])
def test_an_exception_names_a_vector_that_there_is(exceptions: dict[str, str]) -> None:
    requests = {vector.name for vector in ACCEPTED_REQUESTS}
    assert exceptions.keys() <= requests | {vector.name for vector in ACCEPTED_RESPONSES}


# The readers themselves can refuse.


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    ],
)
def test_a_request_that_does_not_end_or_is_bad_is_unreadable(data: bytes) -> None:
    for read in (h11_requests, llhttp_requests):
        with pytest.raises(UnreadableError):
            read(data)


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", True),
        (b"HTTP/1.1 200 OK\r\n\r\nhell", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"hello", True),
    ],
)
def test_a_response_that_does_not_end_or_is_bad_is_unreadable(data: bytes, *, ends: bool) -> None:
    with pytest.raises(UnreadableError):
        h11_response(data, b"GET", ends=ends)
    with pytest.raises(UnreadableError):
        llhttp_response(data, ends=ends)
