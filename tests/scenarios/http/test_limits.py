"""What is too much is refused in the words of HTTP, and no backend hears of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.scenarios.http.web import GET, accepted, chunks, web
from tests.support.http_client import Ending, HttpClient
from tests.support.recording_backend import RecordingBackend

LIMITS = {"request_head": 2048, "request_target": 100, "request_fields": 10, "request_body": 1000}

ASK = b"GET /%b HTTP/1.1\r\nHost: site.test\r\n%b\r\n"


@pytest.mark.parametrize(
    ("request_", "answered"),
    [
        pytest.param(ASK % (b"x" * 100, b""), (414, "target_too_long"), id="target"),
        pytest.param(ASK % (b"", b"A: b\r\n" * 10), (431, "too_many_fields"), id="fields"),
        pytest.param(ASK % (b"", b"A: " + b"b" * 2100), (431, "head_too_large"), id="head"),
        pytest.param(ASK % (b"", b"Content-Length: 1001\r\n"), (413, "body_too_large"), id="length"),
    ],
)
def test_what_is_over_a_limit_is_refused_before_a_backend_is_asked(
    serve: Serve, trust: ssl.SSLContext, site: Path, request_: bytes, answered: tuple[int, str]
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, limits=LIMITS) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(request_)
        answer = client.response()
        assert answer.options() == {b"close"}
        assert client.wait_for_end() is Ending.CLEAN
        [line] = server.wait_for_access()
        assert (answer.status, line["ended"]) == answered
        assert (line["status"], line["fault"]) == (answer.status, "client")
        assert accepted(backend) == 0


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ASK % (b"x" * 99, b""), id="target"),
        pytest.param(ASK % (b"", b"A: b\r\n" * 9), id="fields"),
        pytest.param(ASK % (b"", b"A: " + b"b" * 1900 + b"\r\n"), id="head"),
        pytest.param(ASK % (b"", b"Content-Length: 1000\r\n") + b"x" * 1000, id="length"),
        pytest.param(
            ASK % (b"", b"Transfer-Encoding: chunked\r\n") + chunks(b"x" * 1000, 10), id="chunks"
        ),
    ],
)
def test_what_is_just_within_a_limit_passes(
    serve: Serve, trust: ssl.SSLContext, site: Path, request_: bytes
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, limits=LIMITS) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(request_).status == 200
        assert client.ask(GET % 1).status == 200


def test_a_body_in_chunks_that_grows_too_long_is_refused_on_the_way(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, limits=LIMITS) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.send(ASK % (b"", b"Transfer-Encoding: chunked\r\n") + b"1f4\r\n" + b"x" * 500)
        backend.wait_for_bytes(500)
        assert client.send(b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n")
        assert client.response().status == 413
        assert client.wait_for_end() is Ending.CLEAN
        [end] = backend.wait_for_ends()
        assert isinstance(end, ConnectionResetError)  # which no backend takes for a whole request
        assert not backend.requests
