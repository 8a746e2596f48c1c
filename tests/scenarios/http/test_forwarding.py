"""What backends are told of a request's way, where requests go, and what every answer says."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Dial, Serve, write_site
from tests.scenarios.http.web import GET, OK, web
from tests.support.http_client import Ending, HttpClient
from tests.support.http_messages import Request
from tests.support.pki import Authority
from tests.support.recording_backend import RecordingBackend, canned
from tests.support.server import Server
from tests.worker.loop_client import LoopClient

CLAIMS = (
    b"X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n"
    b"X-Forwarded-Port: 1\r\nForwarded: for=10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\nX-Request-ID: mine\r\n"
    b"X-Forwarded-Prefix: /admin\r\nX-Forwarded-Server: evil\r\n"
)
CLAIMED = b"GET / HTTP/1.1\r\nHost: site.test:8443\r\n" + CLAIMS + b"\r\n"

FACTS = {
    "X-TLS-Version": "tls_version",
    "X-TLS-Cipher": "tls_cipher",
    "X-TLS-Name": "tls_name",
    "X-TLS-Resumed": "tls_resumed",
    "X-Client-Subject": "client_subject",
    "X-Client-Issuer": "client_issuer",
    "X-Client-Serial": "client_serial",
    "X-Client-SHA256": "client_sha256",
    "X-Client-Names": "client_names",
    "Client-Cert": "client_certificate",
}


def ask(server: Server, dial: Dial, request: bytes, **options: Any) -> None:
    with LoopClient(dial(server, **options)) as client:
        assert client.ask(request).status == 200


@contextmanager
def asked(
    serve: Serve, site: Path, dial: Dial, request: bytes, **frontend: Any
) -> Iterator[tuple[Request, Server]]:
    """The request as a backend has got it."""
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, frontend=frontend) as server,
    ):
        ask(server, dial, request)
        yield backend.requests[0][1], server


def test_a_client_s_own_claims_are_replaced_by_ours(serve: Serve, dial: Dial, site: Path) -> None:
    with asked(serve, site, dial, CLAIMED) as (request, server):
        assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert request.values(b"x-forwarded-proto") == [b"https"]
        assert request.values(b"x-forwarded-host") == [b"site.test:8443"]
        assert request.values(b"x-forwarded-port") == [b"%d" % server.port]
        assert request.values(b"forwarded") == [b'for=127.0.0.1;proto=https;host="site.test:8443"']
        assert re.fullmatch(rb"[0-9a-f]{32}", request.values(b"x-request-id")[0])
        for name in (b"x-real-ip", b"x-forwarded-prefix", b"x-forwarded-server", b"via"):
            assert request.values(name) == []
        assert (b"evil" in request.raw, b"10.9.9.9" in request.raw) == (False, False)


def test_a_trusted_client_s_claims_stay_before_ours(serve: Serve, dial: Dial, site: Path) -> None:
    trusting = {"trust_forwarded_from": ["127.0.0.0/8"]}
    with asked(serve, site, dial, CLAIMED, **trusting) as (request, _):
        assert request.values(b"x-forwarded-for") == [b"10.9.9.9, 127.0.0.1"]
        assert request.values(b"x-forwarded-proto") == [b"http"]
        assert request.values(b"x-forwarded-host") == [b"evil.test"]
        assert request.values(b"forwarded") == [
            b'for=10.9.9.9, for=127.0.0.1;proto=https;host="site.test:8443"'
        ]
        assert request.values(b"x-request-id") == [b"mine"]


def test_what_is_told_can_be_chosen(serve: Serve, dial: Dial, site: Path) -> None:
    http = {"x_forwarded": False, "forwarded": False, "request_id": False, "via": True}
    with asked(serve, site, dial, CLAIMED, http=http) as (request, _):
        assert {name for name, _ in request.fields} == {b"host", b"via"}
        assert request.values(b"via") == [b"1.1 termproxy"]


def test_fields_of_one_connection_do_not_pass(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n"
        b"Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\nX-Other: 2\r\n\r\n"
    )
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: 1\r\n\r\n")
    with (
        RecordingBackend(canned(answer)) as backend,
        web(serve, site, backend.address) as server,
        HttpClient(server.port, trust) as client,
    ):
        response = client.ask(request)
        got = backend.requests[0][1]
        assert got.values(b"x-other") == [b"2"]
        for name in (b"connection", b"x-mine", b"keep-alive", b"te", b"proxy-connection"):
            assert got.values(name) == []
        assert {name for name, _ in response.fields} == {b"content-length"}


def test_request_ids_differ_and_stand_in_the_access_log(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    with RecordingBackend() as backend, web(serve, site, backend.address, workers=2) as server:
        for _ in range(5):
            with HttpClient(server.port, trust) as client:
                for number in range(4):
                    assert client.ask(GET % number).status == 200
        told = [request.values(b"x-request-id")[0].decode() for _, request in backend.requests]
        assert len(set(told)) == 20
        assert sorted(line["request_id"] for line in server.wait_for_access(20)) == sorted(told)


def test_facts_of_the_handshake_are_told_in_the_configured_fields(
    serve: Serve, dial: Dial, site: Path
) -> None:
    forged = b"".join(b"%b: forged\r\n" % name.encode() for name in FACTS)
    request = b"GET / HTTP/1.1\r\nHost: site.test\r\n%b\r\n" % forged
    with asked(serve, site, dial, request, http={"facts": FACTS}) as (got, _):
        assert got.values(b"x-tls-version") == [b"TLSv1.3"]
        assert got.values(b"x-tls-cipher")[0].startswith(b"TLS_")
        assert got.values(b"x-tls-name") == [b"site.test"]
        assert got.values(b"x-tls-resumed") == [b"false"]
        for name in FACTS:
            if "lient" in name:  # it has shown no certificate
                assert got.values(name.lower().encode()) == []
        assert b"forged" not in got.raw


def test_a_disguised_fact_is_refused(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    """CGI and WSGI take X_Client_Subject for X-Client-Subject."""
    with (
        RecordingBackend() as backend,
        web(serve, site, backend.address, frontend={"http": {"facts": FACTS}}) as server,
        HttpClient(server.port, trust) as client,
    ):
        request = b"GET / HTTP/1.1\r\nHost: site.test\r\nX_Client_Subject: CN=root\r\n\r\n"
        assert client.ask(request).status == 400
        assert not backend.received


def test_a_client_s_certificate_is_told(
    serve: Serve, site: Path, tmp_path: Path, trust: ssl.SSLContext
) -> None:
    authority = Authority("clients' root")
    shown = authority.client("5% of us")
    (tmp_path / "clients.pem").write_bytes(authority.pem)
    tls = {"client_auth": "required", "client_ca": str(tmp_path / "clients.pem")}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl_pem(trust))
    context.load_cert_chain(shown.write(tmp_path / "client.pem"))
    frontend = {"tls": tls, "http": {"facts": FACTS}}
    with RecordingBackend() as backend, web(serve, site, backend.address, frontend=frontend) as server:
        with HttpClient(server.port, context) as client:
            for number in range(2):
                assert client.ask(GET % number).status == 200
        for _, request in backend.requests:
            assert request.values(b"x-client-sha256") == [shown.sha256.encode()]
            assert request.values(b"x-client-serial") == [
                f"{shown.certificate.serial_number:x}".encode()
            ]
            [subject] = request.values(b"x-client-subject")
            assert b"5%25 of us" in subject
            assert request.values(b"client-cert")[0].startswith(b":MII")
        assert server.wait_for_access(2)[0]["client_certificate"] == shown.sha256


def ssl_pem(trust: ssl.SSLContext) -> str:
    """Whom a context trusts."""
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in trust.get_ca_certs(binary_form=True))


# Where requests go.


def test_the_first_route_that_fits_is_taken(serve: Serve, trust: ssl.SSLContext, site: Path) -> None:
    with RecordingBackend() as app, RecordingBackend() as static, RecordingBackend() as api:
        routes = [
            {"path_prefix": "/static/", "cluster": "static"},
            {"host": "*.site.test", "path_prefix": "/api", "cluster": "api"},
        ]
        cluster = {
            name: {"servers": [backend.address]}
            for name, backend in (("main", app), ("static", static), ("api", api))
        }
        frontend = {"route": routes}
        with (
            web(serve, site, frontend=frontend, cluster=cluster) as server,
            HttpClient(server.port, trust) as client,
        ):
            for host, path in (
                (b"site.test", b"/static/a"),
                (b"site.test", b"/api"),
                (b"www.site.test", b"/api/b"),
                (b"site.test", b"/%73tatic/c"),
                (b"site.test", b"/static/../d"),
            ):
                request = b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host)
                assert client.ask(request).status == 200
        assert static.targets() == [b"/static/a", b"/%73tatic/c"]
        assert api.targets() == [b"/api/b"]
        assert app.targets() == [b"/api", b"/static/../d"]


@pytest.fixture
def two_sites(serve: Serve, site: Path, ca: Any, tmp_path: Path) -> Iterator[tuple[Server, Any, Any]]:
    """site.test, for everybody; and secret.test, which demands a certificate of clients."""
    secret = write_site(ca, tmp_path / "secret.pem", "secret.test")
    (tmp_path / "clients.pem").write_bytes(Authority("clients' root").pem)
    host = {
        "names": ["secret.test"],
        "cluster": "secret",
        "client_auth": "required",
        "client_ca": str(tmp_path / "clients.pem"),
    }
    frontend = {"certificates": [str(site), str(secret)], "host": [host]}
    with RecordingBackend() as public, RecordingBackend() as hidden:
        cluster = {"main": {"servers": [public.address]}, "secret": {"servers": [hidden.address]}}
        with web(serve, site, frontend=frontend, cluster=cluster) as server:
            yield server, public, hidden


def test_a_host_of_another_policy_is_421(
    trust: ssl.SSLContext, two_sites: tuple[Server, Any, Any]
) -> None:
    server, public, hidden = two_sites
    with HttpClient(server.port, trust) as client:
        for host in (b"secret.test", b"SECRET.test:443", b"secret.test."):
            answer = client.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            assert (answer.status, answer.options()) == (421, set())
        absolute = b"GET https://secret.test/ HTTP/1.1\r\nHost: secret.test\r\n\r\n"
        assert client.ask(absolute).status == 421
        assert client.ask(GET % 1).status == 200
    assert public.targets() == [b"/1"]
    assert not hidden.received
    lines = server.wait_for_access(5)
    assert [line["status"] for line in lines] == [421] * 4 + [200]
    assert (lines[0]["ended"], lines[0]["fault"]) == ("misdirected_request", "client")
    assert lines[0]["host"] == "secret.test"


def test_every_answer_has_strict_transport_security_once(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nStrict-Transport-Security: max-age=0\r\n\r\n")
    frontend = {"http": {"strict_transport_security": "max-age=31536000; includeSubDomains"}}
    with (
        RecordingBackend(canned(answer)) as backend,
        web(serve, site, backend.address, frontend=frontend) as server,
        HttpClient(server.port, trust) as client,
    ):
        wanted = [b"max-age=31536000; includeSubDomains"]
        assert client.ask(GET % 1).values(b"strict-transport-security") == wanted
        refused = client.ask(b"GET / HTTP/1.1\r\n\r\n")
        assert (refused.status, refused.values(b"strict-transport-security")) == (400, wanted)
        assert client.wait_for_end() is Ending.CLEAN
