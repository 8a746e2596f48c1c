"""How others read HTTP: h11, and llhttp (the parser of Node.js, here by httptools)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import h11
import httptools

from tests.http.cases.kinds import Field


class UnreadableError(Exception):
    """The reader refuses the bytes, or they end too early."""


@dataclass(slots=True)
class ReadRequest:
    method: bytes
    target: bytes
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""


@dataclass(slots=True)
class ReadResponse:
    """`rest` is what stands behind it."""

    status: int
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    rest: bytes = b""


def missing(expected: Iterable[Field], fields: Iterable[Field]) -> list[Field]:
    """Which of the fields are not there; of those with one name the order counts, as for any reader."""
    there: dict[bytes, Iterator[bytes]] = {}
    for name, _ in (fields := list(fields)):
        if name not in there:
            there[name] = iter([each.strip(b" \t") for other, each in fields if other == name])
    return [(name, value) for name, value in expected if value not in there.get(name, iter(()))]


_ROOM = 1 << 20  # bytes of a head: its size is not h11's affair


def h11_requests(data: bytes) -> list[ReadRequest]:
    requests = []
    while data:
        # One for each request: h11 knows no keep-alive in HTTP/1.0.
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_ROOM)
        connection.receive_data(data)
        requests.append(_h11_request(connection))
        data = connection.trailing_data[0]
    return requests


def _h11_request(connection: h11.Connection) -> ReadRequest:
    head = _h11_event(connection)
    assert isinstance(head, h11.Request)
    request = ReadRequest(head.method, head.target, list(head.headers))
    while isinstance(event := _h11_event(connection), h11.Data):
        request.body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return request


def h11_response(data: bytes, method: bytes, *, ends: bool) -> ReadResponse:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ROOM)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if ends:
        connection.receive_data(b"")
    interim = []
    while isinstance(event := _h11_event(connection), h11.InformationalResponse):
        interim.append(event.status_code)
    assert isinstance(event, h11.Response)
    response = ReadResponse(event.status_code, list(event.headers), interim=interim)
    while isinstance(event := _h11_event(connection), h11.Data):
        response.body += event.data
    assert isinstance(event, h11.EndOfMessage)
    response.rest = connection.trailing_data[0]
    return response


def _h11_event(connection: h11.Connection) -> h11.Event:
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise UnreadableError(str(error)) from error
    if event is h11.NEED_DATA or event is h11.PAUSED:
        raise UnreadableError("the message does not end")
    assert isinstance(event, h11.Event)
    return event


def llhttp_requests(data: bytes) -> list[ReadRequest]:
    reader = _RequestReader()
    _feed(reader.parser, data)
    if reader.is_inside:
        raise UnreadableError("the message does not end")
    return reader.requests


def llhttp_response(data: bytes, *, ends: bool) -> ReadResponse:
    """Not for answers to HEAD: nobody can tell llhttp, by httptools, what was asked."""
    reader = _ResponseReader()
    try:
        _feed(reader.parser, data)
    except UnreadableError:
        if reader.final is None or reader.is_inside:
            raise
        # It has read the answer, and does not like what stands behind it.
    if reader.final is None or (reader.is_inside and not (ends and reader.lasts_until_end)):
        raise UnreadableError("the message does not end")
    return reader.final


def _feed(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # what follows would not be HTTP; nothing follows
    except httptools.HttpParserError as error:
        raise UnreadableError(str(error)) from error


class _RequestReader:
    """The names of the methods are httptools'."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.requests: list[ReadRequest] = []
        self.is_inside = False
        self._is_in_head = False

    def on_message_begin(self) -> None:
        self.requests.append(ReadRequest(b"", b""))
        self.is_inside = self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        self.requests[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            self.requests[-1].fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.requests[-1].method = self.parser.get_method()
        self._is_in_head = False

    def on_body(self, body: bytes) -> None:
        self.requests[-1].body += body

    def on_message_complete(self) -> None:
        self.is_inside = False


class _ResponseReader:
    """The names of the methods are httptools'."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.final: ReadResponse | None = None
        self.is_inside = False
        self.lasts_until_end = False
        self._interim: list[int] = []
        self._fields: list[Field] = []
        self._is_in_head = False

    def on_message_begin(self) -> None:
        self._is_in_head = True
        if self.final is None:
            self.is_inside = True
            self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        status = self.parser.get_status_code()
        if self.final is not None:
            return  # another answer, behind the one that was asked for
        if status < 200:
            self._interim.append(status)
            return
        framed = {b"content-length", b"transfer-encoding"}
        self.lasts_until_end = not any(name in framed for name, _ in self._fields)
        self.final = ReadResponse(status, self._fields, interim=self._interim)

    def on_body(self, body: bytes) -> None:
        if self.final is not None and self.is_inside:
            self.final.body += body

    def on_message_complete(self) -> None:
        if self.final is not None:
            self.is_inside = False
