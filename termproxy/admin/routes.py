"""THE table of what operators may ask for over HTTP, and which of the master's verbs answers.  No I/O.

    GET   reads: /status, /certs, /backends …; arguments stand in the query
    POST  does:  /stop, /tickets/rotate …; arguments are a JSON object in the body
    200   done, or what was asked for
    409   the master refuses, and says why: {"error": "..."}

The command line makes its requests from the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from termproxy.hostname import is_ip_address
from termproxy.http.head import CONFIGURED, RefusedRequestError, Request, mask, request_reader

HEAD_MAX = 8192  # bytes
TARGET_MAX = 4096  # bytes
FIELDS_MAX = 50
BODY_MAX = 1 << 17  # bytes: a ring of ticket keys, sealed, in hexadecimal
ARGUMENTS_MAX = 100  # in a query

REQUESTS = request_reader(HEAD_MAX, TARGET_MAX, FIELDS_MAX, (b"origin",))
_ORIGIN = mask(CONFIGURED)

JSON = "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format

LOCAL = frozenset({"localhost"})
"""How clients on this machine call us, besides our addresses."""


class RefusedError(Exception):
    """A request that is not put to the master; `allow` are the methods that its resource has."""

    def __init__(self, status: int, why: str, allow: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.allow = allow


@dataclass(frozen=True, slots=True)
class Resource:
    path: str
    verb: str
    method: str = "GET"  # and HEAD with it
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that the path says."""
    query: Mapping[str, type] = field(default_factory=dict)
    """Arguments that the query may hold, and what they are: list for one that may stand there often."""
    waits: bool = False
    """Whether the answer comes when it has been done, however long that takes."""
    is_public: bool = False
    """Whether it is there on the TCP listener, too."""


def _does(path: str, verb: str, *, waits: bool = False, **fixed: Any) -> Resource:
    return Resource(path, verb, "POST", fixed, waits=waits)


RESOURCES = (
    Resource("/status", "status"),
    Resource("/certs", "certs", query={"first": int}),
    Resource("/backends", "backends"),
    Resource("/tickets", "tickets", fixed={"do": "status"}),
    Resource("/explain", "explain", query={"sni": str, "alpn": list, "client_ip": str}),
    Resource("/failures", "failures"),
    Resource("/metrics", "metrics", is_public=True),
    Resource("/ready", "ready", is_public=True),
    Resource("/live", "live", is_public=True),
    *(_does(f"/backends/{do}", "backends", do=do) for do in ("enable", "drain", "disable")),
    *(_does(f"/tickets/{do}", "tickets", do=do) for do in ("rotate", "revoke", "export", "import")),
    _does("/stop", "stop", waits=True),
    _does("/reload", "reload", waits=True),
    _does("/upgrade", "upgrade", waits=True),
    _does("/reopen", "reopen", waits=True),
)


# Asked.


def check_sender(request: Request, names: frozenset[str]) -> None:
    """RefusedError for what a browser may have been talked into: a web page's request has an Origin, and
    one to a name that was pointed at us has that name for its host (DNS rebinding).
    """
    if request.head.seen & _ORIGIN:
        raise RefusedError(403, "requests of web pages are refused: there is an Origin field")
    if request.host and request.host not in names and not is_ip_address(request.host):
        raise RefusedError(403, f"{request.host} is not a name of ours: ask localhost, or an address")


def find(request: Request, *, is_public: bool) -> Resource:
    """What a request is for."""
    path = request.target.partition(b"?")[0].decode("ascii", "replace")
    found = {
        each.method: each
        for each in RESOURCES
        if each.path == path and (each.is_public or not is_public)
    }
    if not found:
        raise RefusedError(404, f"there is no {path[:100]}")
    method = request.method.decode("ascii", "replace")
    resource = found.get("GET" if method == "HEAD" else method)
    if resource is None:
        allow = ", ".join(sorted(found)).replace("GET", "GET, HEAD")
        raise RefusedError(405, f"{path} knows {allow} only", allow)
    return resource


def body_length(request: Request, resource: Resource) -> int:
    """The bytes of the body, which there are to be read."""
    if request.body < 0:
        raise RefusedError(411, "a body has a Content-Length here")
    if request.body > BODY_MAX:
        raise RefusedError(413, f"a body has at most {BODY_MAX} bytes here")
    if request.body and resource.method == "GET":
        raise RefusedError(400, f"GET {resource.path} takes no body")
    return request.body


def arguments(resource: Resource, target: bytes, body: bytes) -> dict[str, Any]:
    """What the master is told besides the verb."""
    found: dict[str, Any] = _from_query(resource, target.partition(b"?")[2])
    if body:
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise RefusedError(400, "the body is no JSON object")
        found.update(told)
    return {**found, **resource.fixed}


def _from_query(resource: Resource, query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=ARGUMENTS_MAX,
        )
        found: dict[str, Any] = {}
        for name, value in pairs:
            kind = resource.query.get(name)
            if kind is None:
                raise RefusedError(400, f"{resource.path} knows no {name[:100]!r}")
            if kind is list:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise RefusedError(400, f"{name} stands there twice")
            else:
                found[name] = kind(value)
    except ValueError:
        raise RefusedError(400, "the query cannot be read") from None
    return found


def refused(error: RefusedRequestError) -> RefusedError:
    """What is no request of HTTP/1.1 that can be read in one way only."""
    allow = "GET, HEAD, POST" if error.status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    return RefusedError(error.status, error.reason.replace("_", " "), allow)


# Answered.


def shown(resource: Resource, answer: Mapping[str, Any]) -> tuple[int, bytes]:
    """The status, and the body, of what the master has answered."""
    if "error" in answer:
        return HTTPStatus.CONFLICT, _json(answer)
    is_bad = resource.verb == "ready" and not answer.get("ready")
    return HTTPStatus.SERVICE_UNAVAILABLE if is_bad else HTTPStatus.OK, _json(answer)


def problem(why: str) -> bytes:
    """The body that tells why there is no answer."""
    return _json({"error": why})


def response(status: int, kind: str, body: bytes, *, with_body: bool = True, allow: str = "") -> bytes:
    """A whole one, after which the connection ends; without its body it answers a HEAD."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if allow:
        lines.append(f"Allow: {allow}")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + body if with_body else head


def _json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document) + b"\n"


# The other way round, for whoever asks.


def request_for(question: Mapping[str, Any]) -> bytes:
    """The request that puts {"verb": ..., ...} to a master.  ValueError when there is no such verb."""
    resource = _resource_for(question)
    rest = {
        name: value
        for name, value in question.items()
        if name != "verb" and name not in resource.fixed and value is not None and value != []
    }
    target, body = resource.path, b""
    if resource.method == "POST":
        body = orjson.dumps(rest)
    elif rest:
        target += "?" + urlencode(rest, doseq=True)
    lines = [f"{resource.method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    if resource.method == "POST":
        lines += [f"Content-Type: {JSON}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _resource_for(question: Mapping[str, Any]) -> Resource:
    fitting: Iterable[Resource] = (
        each
        for each in RESOURCES
        if each.verb == question["verb"] and each.fixed.get("do") == question.get("do")
    )
    found = next(iter(fitting), None)
    if found is None:
        told = " ".join(str(question[name]) for name in ("verb", "do") if name in question)
        raise ValueError(f"unknown verb {told!r}")
    return found
