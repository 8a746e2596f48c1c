"""Our own answers: short, whole, and nothing in them that a client has sent."""

from __future__ import annotations

import pytest

from termproxy.http.answers import answer
from tests.http.readers import h11_response, llhttp_response

STATUSES = (400, 405, 408, 413, 414, 417, 421, 429, 431, 500, 501, 502, 503, 504, 505)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("close", [True, False])
def test_an_answer_is_whole_and_says_whether_the_connection_stays(status: int, *, close: bool) -> None:
    data = answer(status, close=close)
    for response in (h11_response(data, b"GET", ends=False), llhttp_response(data, ends=False)):
        assert (response.status, response.rest) == (status, b"")
        assert response.body.startswith(b"%d " % status)
        assert {name.lower(): value for name, value in response.fields} == {
            b"content-type": b"text/plain",
            b"content-length": b"%d" % len(response.body),
            **({b"connection": b"close"} if close else {}),
            **({b"allow": b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"} if status == 405 else {}),
        }


def test_an_answer_to_head_has_all_but_its_body() -> None:
    whole, head = answer(502, close=True), answer(502, close=True, with_body=False)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert h11_response(head, b"HEAD", ends=False).body == b""


def test_an_answer_may_have_more_lines() -> None:
    data = answer(503, close=False, extra=b"Retry-After: 1\r\n")
    assert (b"retry-after", b"1") in h11_response(data, b"GET", ends=False).fields


def test_answers_are_remembered_within_bounds() -> None:
    assert answer(400, close=True) is answer(400, close=True)
    for number in range(1000):
        answer(503, close=True, extra=b"Retry-After: %d\r\n" % number)
    assert answer.cache_info().currsize <= 256
