"""One line for each exchange, with what was asked, who answered, when, and whose fault it was."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Dial, Serve
from tests.scenarios.http.web import GET, POST, web
from tests.support.clients import leave
from tests.support.http_client import HttpClient
from tests.support.ports import free_port
from tests.support.recording_backend import RecordingBackend
from tests.support.waiting import wait_until

FACTS = {"client", "frontend", "sni", "version", "cipher", "group", "resumed", "resumption"}


def test_an_exchange_has_a_line_with_all_that_is_known(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            client.ask(b"GET /path?secret=1 HTTP/1.1\r\nHost: Site.Test:8443\r\n\r\n")
            answer = client.ask(POST % 2)
        first, second = server.wait_for_access(2)
    assert first.keys() == second.keys()
    assert set(first) >= FACTS
    assert (first["method"], first["host"], first["path"]) == ("GET", "site.test", "/path")
    assert (second["method"], second["host"], second["path"]) == ("POST", "site.test", "/2")
    for line in (first, second):
        assert (line["status"], line["ended"], line["fault"]) == (200, "done", "none")
        assert (line["backend"], line["retries"]) == (backend.address, 0)
        assert 0 < line["first_byte_seconds"] <= line["seconds"] < 10
    assert second["bytes_from_client"] == len(POST % 2)
    assert second["bytes_to_client"] == len(answer.raw)


def test_what_a_client_sends_cannot_forge_a_line(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        with HttpClient(server.port, trust) as client:
            client.ask(b'GET /"}\\%22%00?x HTTP/1.1\r\nHost: a\r\n\r\n')
        [line] = server.wait_for_access()  # it is JSON, and one line
        assert line["fault"] in {"client", "none"}


def test_connections_without_an_exchange_have_a_line_and_idle_ends_have_none(
    serve: Serve, dial: Dial, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address) as server:
        leave(dial(server))
        with HttpClient(server.port, trust) as client:
            client.ask(GET % 1)
        with HttpClient(server.port, trust) as client:
            client.ask(GET % 2)
            client.send(b"GET /half")
        lines = server.wait_for_access(4)
        assert [line["ended"] for line in lines] == ["no_request", "done", "done", "client_closed"]


def test_counters_agree_with_the_log(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    absent = f"127.0.0.1:{free_port()}"
    routes = [{"path_prefix": "/2", "cluster": "absent"}]
    with RecordingBackend() as backend:
        cluster = {"main": {"servers": [backend.address]}, "absent": {"servers": [absent]}}
        with web(serve, site, frontend={"route": routes}, cluster=cluster) as server:
            with HttpClient(server.port, trust) as client:
                for number in range(4):
                    client.ask(GET % number)
                client.ask(b"GET / HTTP/1.1\r\n\r\n")
            lines = server.wait_for_access(5)
            assert [line["status"] for line in lines] == [200, 200, 502, 200, 400]
            totals: dict[str, Any] = server.status()["totals"]
            assert totals["requests"] == 5
            assert totals["bytes_from_clients"] == sum(line["bytes_from_client"] for line in lines)
            assert totals["bytes_from_backends"] == sum(line["bytes_to_client"] for line in lines)
            assert f"cluster absent: backend_refused: {absent}" in server.said()


@pytest.mark.parametrize(
    ("form", "tail"),
    [("common", ""), ("combined", r' "https://a\.test/\\x22x" "curl/8"')],
)
def test_a_line_may_be_as_web_servers_write_it(
    serve: Serve, trust: ssl.SSLContext, site: Path, form: str, tail: str
) -> None:
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, log={"format": form, "query": True}) as server,
        HttpClient(server.port, trust) as client,
    ):
        told = b'Referer: https://a.test/"x\r\nUser-Agent: curl/8\r\n'
        for _ in range(2):
            client.ask(b"GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n%b\r\n" % told)
        log = server.folder / "access.log"
        wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
        time = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
        pattern = rf'127\.0\.0\.1 - - {time} "GET /a\?b=c HTTP/1\.1" 200 \d+{tail}'
        for line in log.read_text().splitlines():
            assert re.fullmatch(pattern, line), line
