"""What may be asked for over HTTP, and how it is refused: no socket, no master."""

from __future__ import annotations

import json
from typing import Any

import pytest

from termproxy.admin import routes
from termproxy.admin.routes import LOCAL, RESOURCES, RefusedError, Resource, request_for
from termproxy.http.head import Request, read_request


def request(first_line: str, *fields: str, host: str = "localhost") -> Request:
    data = "\r\n".join([f"{first_line} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()
    head = routes.REQUESTS.request(data, 0, len(data))
    assert head is not None
    return read_request(head)


def found(first_line: str, *, is_public: bool = False) -> Resource:
    return routes.find(request(first_line), is_public=is_public)


def asked(first_line: str, body: bytes = b"") -> dict[str, Any]:
    read = request(first_line)
    return routes.arguments(routes.find(read, is_public=False), read.target, body)


# What there is.


def test_reading_is_a_get_and_doing_a_post() -> None:
    for resource in RESOURCES:
        assert found(f"{resource.method} {resource.path}") == resource


def test_a_head_asks_for_what_a_get_would() -> None:
    assert found("HEAD /status") == found("GET /status")


@pytest.mark.parametrize("path", ["/", "/statu", "/status/", "//status", "/tickets/burn", "/%73tatus"])
def test_what_is_not_there_is_404(path: str) -> None:
    with pytest.raises(RefusedError) as refused:
        found(f"GET {path}")

    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("POST /status", "GET, HEAD"),
        ("GET /stop", "POST"),
        ("DELETE /tickets", "GET, HEAD"),
        ("HEAD /tickets/rotate", "POST"),
        ("OPTIONS /stop", "POST"),
    ],
)
def test_another_method_is_405_and_told_which_there_are(line: str, allow: str) -> None:
    with pytest.raises(RefusedError) as refused:
        found(line)

    assert (refused.value.status, refused.value.allow) == (405, allow)


def test_the_public_door_has_three_resources_which_change_nothing() -> None:
    public = [each for each in RESOURCES if each.is_public]
    for resource in RESOURCES:
        if resource in public:
            assert found(f"GET {resource.path}", is_public=True) == resource
        else:
            with pytest.raises(RefusedError, match="there is no"):
                found(f"{resource.method} {resource.path}", is_public=True)

    assert [each.path for each in public] == ["/metrics", "/ready", "/live"]
    assert {each.method for each in public} == {"GET"}


# Who may ask.


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9443", "127.0.0.1:9443", "[::1]", "10.0.0.7"])
def test_localhost_and_addresses_are_names_of_ours(host: str) -> None:
    routes.check_sender(request("GET /status", host=host), LOCAL)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"])
def test_a_name_that_was_pointed_at_us_is_403(host: str) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example."""
    with pytest.raises(RefusedError) as refused:
        routes.check_sender(request("POST /stop", host=host), LOCAL)

    assert refused.value.status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", ""])
def test_a_web_page_s_request_is_403_wherever_the_page_is_from(origin: str) -> None:
    with pytest.raises(RefusedError) as refused:
        routes.check_sender(request("POST /stop", f"Origin: {origin}"), LOCAL)

    assert refused.value.status == 403


def test_a_configured_name_is_ours() -> None:
    routes.check_sender(request("GET /ready", host="gate.example"), LOCAL | {"gate.example"})


# Arguments.


def test_arguments_of_a_get_stand_in_the_query() -> None:
    assert asked("GET /explain?sni=a.example&alpn=h2&alpn=http/1.1&client_ip=%3A%3A1") == {
        "sni": "a.example",
        "alpn": ["h2", "http/1.1"],
        "client_ip": "::1",
    }


def test_arguments_of_a_post_stand_in_the_body() -> None:
    assert asked("POST /stop", b'{"now": true}') == {"now": True}
    assert asked("POST /stop") == {}


def test_what_the_path_says_counts_whatever_the_body_says() -> None:
    assert asked("POST /tickets/rotate", b'{"do": "revoke"}') == {"do": "rotate"}


@pytest.mark.parametrize(
    "query",
    ["sni", "sni=%ff", "sni=a&sni=b", "name=a", "x", "&", "first=1", "=", "alpn=a" + "&alpn=a" * 100],
)
def test_a_query_that_cannot_be_read_is_400(query: str) -> None:
    with pytest.raises(RefusedError) as refused:
        asked(f"GET /explain?{query}")

    assert refused.value.status == 400


def test_a_number_is_a_number() -> None:
    assert asked("GET /certs?first=3") == {"first": 3}
    with pytest.raises(RefusedError):
        asked("GET /certs?first=three")


@pytest.mark.parametrize("body", [b"[]", b"7", b"now", b'{"now": true} x', b"\xff", b'{"a":' * 5000])
def test_a_body_that_is_no_object_is_400(body: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        asked("POST /stop", body)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("line", "field", "status"),
    [
        ("POST /stop", f"Content-Length: {routes.BODY_MAX + 1}", 413),
        ("POST /stop", "Transfer-Encoding: chunked", 411),
        ("GET /status", "Content-Length: 2", 400),
    ],
)
def test_a_body_has_its_length_said_and_bounded(line: str, field: str, status: int) -> None:
    read = request(line, field)
    with pytest.raises(RefusedError) as refused:
        routes.body_length(read, routes.find(read, is_public=False))

    assert refused.value.status == status


# Answers.


def test_what_the_master_refuses_is_409() -> None:
    status, body = routes.shown(found("POST /stop"), {"error": "no"})

    assert (status, json.loads(body)) == (409, {"error": "no"})


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness_is_told_by_the_status(ready: object, status: int) -> None:
    assert routes.shown(found("GET /ready"), {"ready": ready})[0] == status


def test_an_answer_to_a_head_is_the_head_of_that_to_a_get() -> None:
    whole = routes.response(200, routes.JSON, b"{}\n")
    head = routes.response(200, routes.JSON, b"{}\n", with_body=False)

    assert whole == head + b"{}\n"
    assert b"Content-Length: 3\r\n" in head


# The other way round.


@pytest.mark.parametrize(
    "question",
    [
        {"verb": "status"},
        {"verb": "stop", "now": True},
        {"verb": "tickets", "do": "status"},
        {"verb": "tickets", "do": "export", "key": "00", "salt": "ff"},
        {"verb": "backends"},
        {"verb": "backends", "do": "drain", "target": "app/127.0.0.1:80"},
        {"verb": "explain", "sni": "ünï & co?", "alpn": ["h2", "a b"], "client_ip": "::1"},
        {"verb": "certs", "first": 3},
    ],
)
def test_what_the_command_line_asks_arrives(question: dict[str, Any]) -> None:
    data = request_for(question)
    head = routes.REQUESTS.request(data, 0, len(data))
    assert head is not None
    read = read_request(head)
    routes.check_sender(read, LOCAL)
    resource = routes.find(read, is_public=False)
    body = data[head.length :]
    assert routes.body_length(read, resource) == len(body)

    assert {"verb": resource.verb, **routes.arguments(resource, read.target, body)} == question


def test_what_is_not_known_is_not_asked() -> None:
    assert request_for({"verb": "explain", "sni": None, "alpn": []}).startswith(b"GET /explain HTTP/1.1")


@pytest.mark.parametrize("question", [{"verb": "dance"}, {"verb": "tickets", "do": "burn"}])
def test_an_unknown_verb_is_told_at_once(question: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown verb '(dance|tickets burn)'"):
        request_for(question)
