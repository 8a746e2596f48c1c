"""The tests' own reader takes what is plain, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.vectors import ACCEPTED_RESPONSES, AcceptedResponse, Then
from tests.support.http_messages import CutError, MalformedError, MessageReader

REQUEST = b"POST /a HTTP/1.1\r\nHost: a\r\nX-A: 1 \r\n"


def reader(data: bytes, size: int = 1 << 20) -> MessageReader:
    """What reads `data`, given in pieces of that size."""
    pieces: Iterator[bytes] = (data[start : start + size] for start in range(0, len(data), size))
    return MessageReader(lambda: next(pieces, b""))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_requests_come_one_after_another_whole(size: int) -> None:
    sized = REQUEST + b"Content-Length: 5\r\n\r\nhello"
    chunked = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX-B: 2\r\n\r\n"
    plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    read = reader(sized + chunked + plain, size)

    first, second, third = (read.request() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.method, first.target, first.body) == (b"POST", b"/a", b"hello")
    assert first.values(b"x-a") == [b"1"]
    assert (second.body, second.trailers) == (b"hello", [(b"x-b", b"2")])
    assert (third.method, third.body) == (b"GET", b"")
    assert [first.raw, second.raw, third.raw] == [sized, chunked, plain]
    assert read.request() is None


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "vector",
    [vector for vector in ACCEPTED_RESPONSES if len(vector.data) < 100_000],
    ids=lambda vector: vector.name,
)
def test_responses_are_read_as_the_vectors_say(vector: AcceptedResponse, size: int) -> None:
    read = reader(vector.data, size)
    response = read.response(vector.method)
    assert response is not None
    assert (response.status, response.body) == (vector.status, vector.body)
    assert [interim.status for interim in response.interim if interim.status != 100][-1:] == [
        *vector.interim
    ][-1:]
    assert not (response.until_end and vector.then is not Then.ENDS)
    assert set(vector.fields) <= set(response.fields)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        REQUEST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        REQUEST + b"Content-Length: +5\r\n\r\nhello",
        REQUEST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        reader(data).request()


def test_every_part_of_a_message_is_cut() -> None:
    chunked = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n"
    sized = REQUEST + b"Content-Length: 5\r\n\r\nhello"
    for whole in (chunked, sized):
        for end in range(1, len(whole)):
            with pytest.raises(CutError):
                reader(whole[:end]).request()


def test_a_cut_response_tells_what_there_was() -> None:
    with pytest.raises(CutError, match="in the body") as cut:
        reader(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").response()
    assert cut.value.response is not None
    assert (cut.value.response.status, cut.value.response.body) == (200, b"hel")
