"""What the gateway does with the bytes of one side, without a socket: read, judged, and written anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from termproxy.http._wire import ChunkedBody, Head, HeadReader, MalformedError
from termproxy.http.forwarding import Forwarder, Settings, response_head
from termproxy.http.head import (
    CHUNKED,
    UNTIL_CLOSE,
    BadResponseError,
    RefusedRequestError,
    Request,
    Response,
    agreed_upgrade,
    fields_to_remove,
    read_request,
    read_response,
    request_reader,
    response_reader,
    without_fields,
)
from tests.http.cases.kinds import FIELDS_MAX, HEAD_MAX, TARGET_MAX

READER = request_reader(HEAD_MAX, TARGET_MAX, FIELDS_MAX)
ANSWER_READER = response_reader(65_536, FIELDS_MAX)

REQUEST_ID = b"f81d4fae7dec11d0a76500a0c91e6bf6"


class UnfinishedError(Exception):
    """More bytes are needed."""


def head_of(data: bytes, reader: HeadReader = READER) -> Head:
    head = reader.request(data, 0, len(data))
    assert head is not None
    return head


def answer_head_of(data: bytes) -> Head:
    head = ANSWER_READER.response(data, 0, len(data))
    assert head is not None
    return head


def a_forwarder(settings: Settings | None = None, *, is_trusted: bool = False) -> Forwarder:
    return Forwarder(settings or Settings(), "192.0.2.7", 8443, {}, is_trusted=is_trusted)


@dataclass(slots=True)
class Passed:
    """Requests as a backend gets them; `forwarded` are their bytes, one behind the other."""

    forwarded: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    @property
    def is_closed(self) -> bool:
        return bool(self.requests) and not self.requests[-1].keep_alive


def pass_requests(data: bytes, forwarder: Forwarder | None = None) -> Passed:
    """RefusedRequestError or UnfinishedError for the first that is not passed on whole."""
    passed, forwarder = Passed(), forwarder or a_forwarder()
    while data and not passed.is_closed:
        try:
            head = READER.request(data, 0, len(data))
            if head is None:
                raise UnfinishedError
            data = data[head.length :]
            if names := fields_to_remove(head):
                head = without_fields(READER, head, names)
            request = read_request(head)
            body, data = _cut_body(request.body, data)
        except MalformedError as error:
            raise RefusedRequestError(error.reason) from error
        more = b"" if request.authority else b"Host: \r\n"
        passed.requests.append(request)
        passed.forwarded.append(forwarder.head(request, REQUEST_ID, more) + body)
    return passed


def _cut_body(body: int, data: bytes) -> tuple[bytes, bytes]:
    """The body as it passes, and what is behind it."""
    if body == CHUNKED:
        chunks, buffer = ChunkedBody(), bytearray(data)
        passes = chunks.feed(buffer, 0, len(buffer))
        if not chunks.is_done:
            raise UnfinishedError
        return bytes(buffer[:passes]), data[chunks.used :]
    if len(data) < body:
        raise UnfinishedError
    return data[:body], data[body:]


@dataclass(slots=True)
class PassedAnswer:
    """As its client gets it; `interim` are answers before it."""

    data: bytes
    response: Response
    interim: list[bytes]
    is_reusable: bool


def pass_answer(data: bytes, asked: Request, *, ends: bool) -> PassedAnswer:
    """BadResponseError, UnfinishedError, or the answer; `ends`: nothing comes behind `data`."""
    interim: list[bytes] = []
    while True:
        response, data = _read_answer(data, asked)
        if response.status >= 200:
            break
        if response.status == 101 and agreed_upgrade(response.head, asked) is None:
            raise BadResponseError("unasked_upgrade")
        interim.append(response_head(response, http_1_0=False, close=False, hsts=b""))
    if response.body == UNTIL_CLOSE:
        if not ends:
            raise UnfinishedError
        body, data = data, b""
    else:
        try:
            body, data = _cut_body(response.body, data)
        except MalformedError as error:
            raise BadResponseError(error.reason) from error
    close = not asked.keep_alive or response.body == UNTIL_CLOSE
    head = response_head(response, http_1_0=not asked.head.minor, close=close, hsts=b"")
    return PassedAnswer(head + body, response, interim, response.keep_alive and not data)


def _read_answer(data: bytes, asked: Request) -> tuple[Response, bytes]:
    try:
        head = ANSWER_READER.response(data, 0, len(data))
        if head is None:
            raise UnfinishedError
        data = data[head.length :]
        if names := fields_to_remove(head):
            head = without_fields(ANSWER_READER, head, names)
    except MalformedError as error:
        raise BadResponseError(error.reason) from error
    return read_response(head, asked.method), data
