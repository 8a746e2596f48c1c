"""What a request of plain HTTP is answered; with sockets it is in scenarios/test_redirect.py."""

from __future__ import annotations

import pytest

from termproxy.http.head import RefusedRequestError, Request, request_reader
from termproxy.worker.redirection import Redirection

READER = request_reader(4096, 1024, 20)


def asked(data: bytes) -> Request:
    request = Redirection("web", READER, 4096, 443).read(data)
    assert request is not None
    return request


@pytest.mark.parametrize(
    ("port", "host", "location"),
    [
        (443, b"a.test", "https://a.test/x?y"),
        (443, b"A.Test.:80", "https://a.test/x?y"),
        (8443, b"a.test", "https://a.test:8443/x?y"),
        (8443, b"[2001:DB8::1]", "https://[2001:db8::1]:8443/x?y"),
    ],
)
def test_the_same_is_to_be_had_over_https(port: int, host: bytes, location: str) -> None:
    redirection = Redirection("web", READER, 4096, port)
    assert redirection.location(asked(b"GET /x?y HTTP/1.1\r\nHost: %b\r\n\r\n" % host)) == location


def test_what_is_asked_of_the_server_as_a_whole_is_asked_of_its_root() -> None:
    request = asked(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert Redirection("web", READER, 4096, 443).location(request) == "https://a.test/"


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a.test\r\n"])
def test_half_a_head_is_none_yet(data: bytes) -> None:
    assert Redirection("web", READER, 4096, 443).read(data) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "no_host"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\nHost: a\n\n", "bad_line_end"),
    ],
)
def test_without_a_host_nobody_can_be_sent_there(data: bytes, reason: str) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        Redirection("web", READER, 4096, 443).read(data)
    assert refused.value.reason == reason


def test_the_start_line_tells_where_its_clients_end_up() -> None:
    assert Redirection("web", READER, 4096, 443).destination == "HTTPS"
