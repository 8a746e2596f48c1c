"""HTTP/1.1 as a test reads it: one message at a time, from whatever gives bytes.

What termproxy sends has to be readable in one way only: what is not plain is an error here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

Field = tuple[bytes, bytes]

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.[01]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class MalformedError(AssertionError):
    """These bytes are no HTTP message, or more than one."""


class CutError(Exception):
    """The bytes end inside a message.  `response` is what there was of it, if its head was there."""

    def __init__(self, where: str, response: Response | None = None) -> None:
        super().__init__(f"the bytes end {where}")
        self.response = response


@dataclass(slots=True)
class Message:
    """Names of fields are in lower case; `raw` is the message as it came, or as much as has come."""

    fields: list[Field]
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    raw: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]

    def options(self) -> set[bytes]:
        """What its Connection fields say."""
        values = b",".join(self.values(b"connection")).lower()
        return {option.strip() for option in values.split(b",")} - {b""}


@dataclass(slots=True)
class Request(Message):
    method: bytes = b""
    target: bytes = b""


@dataclass(slots=True)
class Response(Message):
    """`until_end`: its body lasted until the connection's end, so that this has to be a clean one."""

    status: int = 0
    interim: list[Response] = field(default_factory=list)
    until_end: bool = False


class MessageReader:
    """Takes bytes from `pull` (which gives none at the end) as it needs them."""

    def __init__(self, pull: Callable[[], bytes]) -> None:
        self._pull = pull
        self._buffer = bytearray()
        self._raw = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come, and belongs to no message that was asked for."""
        return bytes(self._buffer)

    def request(self) -> Request | None:
        """The next one; None when the bytes end before it."""
        request = self.request_head()
        if request is not None:
            self.request_body(request)
        return request

    def request_head(self) -> Request | None:
        """Without its body: request_body() reads that."""
        self._raw.clear()
        if not self._buffer and not self._more():
            return None
        start, fields = self._head()
        found = _REQUEST_LINE.fullmatch(start)
        if found is None:
            raise MalformedError(f"no request line: {start!r}")
        return Request(fields, raw=bytes(self._raw), method=found[1], target=found[2])

    def request_body(self, request: Request) -> None:
        self._body(request, _framing(request) or 0)
        request.raw = bytes(self._raw)
        self._raw.clear()

    def response(self, method: bytes = b"GET") -> Response | None:
        """The next one that is final, with those before it; None when the bytes end before it."""
        interim: list[Response] = []
        while True:
            self._raw.clear()
            if not self._buffer and not self._more():
                if interim:
                    raise CutError("behind an interim response")
                return None
            response = self._one_response(method)
            if response.status >= 200 or response.status == 101:
                response.interim = interim
                return response
            interim.append(response)

    def _one_response(self, method: bytes) -> Response:
        start, fields = self._head()
        found = _STATUS_LINE.fullmatch(start)
        if found is None:
            raise MalformedError(f"no status line: {start!r}")
        response = Response(fields, status=int(found[1]))
        framing = _framing(response)
        if response.status < 200 or response.status in {204, 304} or method == b"HEAD":
            framing = 0
        try:
            if framing is None:
                self._until_end(response)
            else:
                self._body(response, framing)
        except CutError as cut:
            cut.response = response
            raise
        response.raw = bytes(self._raw)
        return response

    # Parts of messages.

    def _head(self) -> tuple[bytes, list[Field]]:
        start = self._line("in the first line")
        return start, self._fields("in the head")

    def _fields(self, where: str) -> list[Field]:
        fields = []
        while line := self._line(where):
            found = _FIELD.fullmatch(line)
            if found is None:
                raise MalformedError(f"no field: {line!r}")
            fields.append((found[1].lower(), found[2].rstrip(b" \t")))
        return fields

    def _body(self, message: Message, framing: int | bytes) -> None:
        if isinstance(framing, int):
            while len(message.body) < framing:
                message.body += self._up_to(framing - len(message.body), "in the body")
            return
        while size := self._chunk_size():
            end = len(message.body) + size
            while len(message.body) < end:
                message.body += self._up_to(end - len(message.body), "in a chunk")
            if line := self._line("behind a chunk"):
                raise MalformedError(f"a chunk is longer than its size: {line!r}")
        message.trailers = self._fields("in the trailers")

    def _chunk_size(self) -> int:
        size, _, _ = (line := self._line("in a chunk's size")).partition(b";")
        if _SIZE.fullmatch(size) is None:
            raise MalformedError(f"no chunk size: {line!r}")
        return int(size, 16)

    def _until_end(self, response: Response) -> None:
        response.until_end = True
        while self._buffer or self._more():
            response.body += self._take(len(self._buffer))

    # Bytes.

    def _line(self, where: str) -> bytes:
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0:
            looked = len(self._buffer)
            if not self._more():
                raise CutError(where)
        line = self._take(end + 1)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise MalformedError(f"no good end of a line: {line!r}")
        return line[:-2]

    def _up_to(self, count: int, where: str) -> bytes:
        """Some bytes, and not more than these."""
        if not self._buffer and not self._more():
            raise CutError(where)
        return self._take(min(count, len(self._buffer)))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._raw += taken
        return taken

    def _more(self) -> bool:
        piece = self._pull()
        self._buffer += piece
        return bool(piece)


def _framing(message: Message) -> int | bytes | None:
    """The body's length, b"chunked", or None for none said."""
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    match lengths, codings:
        case [], []:
            return None
        case [length], [] if _LENGTH.fullmatch(length):
            return int(length)
        case [], [coding] if coding.lower() == b"chunked":
            return b"chunked"
    raise MalformedError(f"no plain framing: {lengths}, {codings}")
