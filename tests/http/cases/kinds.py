"""What a vector is: bytes of one side, and what has to become of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Field = tuple[bytes, bytes]

BAD = frozenset({400})
BAD_GATEWAY = 502

HEAD_MAX = 32_768  # bytes, from the request line to the empty line
TARGET_MAX = 8192  # bytes
FIELDS_MAX = 100
EXTENSION_MAX = 256  # bytes of a chunk's extensions
EXTENSIONS_MAX = 4096  # bytes of all extensions of a body


class Then(Enum):
    """What the sender does once it has sent its bytes."""

    WAITS = "waits"
    ENDS = "ends"
    RESETS = "resets"


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is answered with one of `status`, and a connection that is closed.

    Not a byte of it reaches a backend.  With `in_body` the head is in order and may have been passed
    on before the fault is found: then the request is never complete at the backend.  A client that
    ends early (`then`) need not be answered.
    """

    name: str
    data: bytes
    status: frozenset[int] = BAD
    in_body: bool = False
    then: Then = Then.WAITS


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend has to read.

    `target` is as the client wrote it; `forwarded`, if given, is what the backend gets instead.
    Among the fields are `fields`, names in lower case, those of one name in this order; and none that
    is named in `absent`.
    """

    method: bytes
    target: bytes
    body: bytes = b""
    fields: tuple[Field, ...] = ()
    absent: tuple[bytes, ...] = ()
    forwarded: bytes | None = None

    @property
    def target_at_backend(self) -> bytes:
        return self.target if self.forwarded is None else self.forwarded


@dataclass(frozen=True, slots=True)
class Accepted:
    """Requests that are passed on, and read by every backend as `expected`.

    `closes`: the connection ends after the last answer.  `or_status`: where the rules leave room, the
    gateway may also refuse with one of these; then nothing of it reaches a backend.
    """

    name: str
    data: bytes
    expected: tuple[Request, ...]
    closes: bool = False
    or_status: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RefusedResponse:
    """What a backend answers, that its client must not get: a 502, and the connection is not reused.

    With `under_way` the head is in order and may have been passed on before the fault is found: then
    the client's connection is aborted instead, so that it does not take a part for the whole.
    """

    name: str
    data: bytes
    method: bytes = b"GET"
    under_way: bool = False
    then: Then = Then.WAITS


@dataclass(frozen=True, slots=True)
class AcceptedResponse:
    """What a backend answers, and what the client has to read.

    `interim` are the 1xx that have to be passed on.  After an answer that is not `reusable` the
    backend's connection carries no other request.  `may_fail`: where the rules leave room, a 502 will
    do, too.
    """

    name: str
    data: bytes
    status: int
    body: bytes = b""
    method: bytes = b"GET"
    fields: tuple[Field, ...] = ()
    interim: tuple[int, ...] = ()
    reusable: bool = True
    may_fail: bool = False
    then: Then = Then.WAITS


# What messages are made of.

HOST = b"Host: site.test"


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def request(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A head with a good Host and these further lines."""
    return head(b" ".join([method, target, version]), HOST, *lines)


def chunked_request(body: bytes, *lines: bytes) -> bytes:
    """A good head, and a body as it is given here."""
    return request(b"Transfer-Encoding: chunked", *lines, method=b"POST", target=b"/upload") + body


def response(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return head(status, *lines)


def chunked_response(body: bytes, *lines: bytes) -> bytes:
    return response(b"Transfer-Encoding: chunked", *lines) + body


HELLO = b"5\r\nhello\r\n0\r\n\r\n"

# Stands behind whatever is refused: who reads the refused message otherwise than we takes it for one.
SMUGGLED = request(target=b"/smuggled")
