"""Answers that are odd, old or terse, and in order, with what the client has to read."""

from __future__ import annotations

from tests.http.cases.kinds import (
    FIELDS_MAX,
    AcceptedResponse,
    Then,
    chunked_response,
    head,
    response,
)

_FIVE = b"Content-Length: 5"
_EVERY_BYTE = bytes(range(256))
_OLD = b"HTTP/1.0 200 OK"
_CONTINUE = head(b"HTTP/1.1 100 Continue")
_HINTS = head(b"HTTP/1.1 103 Early Hints", b"Link: </a.css>; rel=preload")
_HELLO = response(_FIVE) + b"hello"


def _ok(name: str, data: bytes, body: bytes = b"hello") -> AcceptedResponse:
    return AcceptedResponse(name, data, 200, body)


def _until_close(name: str, data: bytes, body: bytes = b"hello") -> AcceptedResponse:
    return AcceptedResponse(name, data, 200, body, reusable=False, then=Then.ENDS)


def _status(line: bytes, status: int, *, may_fail: bool = False) -> AcceptedResponse:
    name = line.decode("latin-1").partition(" ")[2].lower().replace(" ", "-").replace("'", "")
    data = response(_FIVE, status=line) + b"hello"
    return AcceptedResponse(f"status-{name}", data, status, b"hello", may_fail=may_fail)


_STATUSES = [
    _status(b"HTTP/1.1 201 Created", 201),
    _status(b"HTTP/1.1 206 Partial Content", 206),
    _status(b"HTTP/1.1 226 IM Used", 226),
    _status(b"HTTP/1.1 302 Found", 302),
    _status(b"HTTP/1.1 308 Permanent Redirect", 308),
    _status(b"HTTP/1.1 400 Bad Request", 400),
    _status(b"HTTP/1.1 404 Not Found", 404),
    _status(b"HTTP/1.1 418 I'm a teapot", 418),
    _status(b"HTTP/1.1 500 Internal Server Error", 500),
    _status(b"HTTP/1.1 502 Bad Gateway", 502),
    _status(b"HTTP/1.1 599 Unheard Of", 599),
    AcceptedResponse("reason-empty", response(_FIVE, status=b"HTTP/1.1 200 ") + b"hello", 200, b"hello"),
    # RFC 9112 §4 wants the space; many servers leave it out.
    AcceptedResponse(
        "reason-and-space-missing",
        response(_FIVE, status=b"HTTP/1.1 200") + b"hello",
        200,
        b"hello",
        may_fail=True,
    ),
    _ok("reason-in-utf-8", response(_FIVE, status="HTTP/1.1 200 Größe".encode()) + b"hello"),
    _ok("reason-with-tab", response(_FIVE, status=b"HTTP/1.1 200 O\tK") + b"hello"),
    _ok("reason-other-case", response(_FIVE, status=b"HTTP/1.1 200 ok") + b"hello"),
    _ok("reason-long", response(_FIVE, status=b"HTTP/1.1 200 " + b"a" * 1000) + b"hello"),
    _ok("reason-like-a-status", response(_FIVE, status=b"HTTP/1.1 200 404 Not Found") + b"hello"),
]

_LENGTHS = [
    _ok("length", _HELLO),
    _ok("length-zero", response(b"Content-Length: 0"), b""),
    _ok("length-leading-zeros", response(b"Content-Length: 0005") + b"hello"),
    _ok("length-without-space", response(b"Content-Length:5") + b"hello"),
    _ok("length-in-blanks", response(b"Content-Length: \t 5 \t ") + b"hello"),
    _ok("length-other-case", response(b"CONTENT-LENGTH: 5") + b"hello"),
    _ok("length-of-every-byte", response(b"Content-Length: 256") + _EVERY_BYTE, _EVERY_BYTE),
    _ok("length-of-a-response", response(b"Content-Length: %d" % len(_HELLO)) + _HELLO, _HELLO),
    _ok(
        "length-of-a-million", response(b"Content-Length: 1000000") + bytes(1_000_000), bytes(1_000_000)
    ),
]

_BODILESS = [
    AcceptedResponse(f"no-body-{name}", head(*lines), status, method=method)
    for name, status, method, lines in (
        ("204", 204, b"GET", [b"HTTP/1.1 204 No Content"]),
        ("204-zero", 204, b"GET", [b"HTTP/1.1 204 No Content", b"Content-Length: 0"]),
        ("204-of-post", 204, b"POST", [b"HTTP/1.1 204 No Content"]),
        ("304", 304, b"GET", [b"HTTP/1.1 304 Not Modified", b'ETag: "a"']),
        ("304-length", 304, b"GET", [b"HTTP/1.1 304 Not Modified", b"Content-Length: 5000"]),
        ("304-coding", 304, b"GET", [b"HTTP/1.1 304 Not Modified", b"Transfer-Encoding: chunked"]),
        ("head", 200, b"HEAD", [b"HTTP/1.1 200 OK"]),
        ("head-length", 200, b"HEAD", [b"HTTP/1.1 200 OK", b"Content-Length: 5000"]),
        ("head-coding", 200, b"HEAD", [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"]),
        ("head-404", 404, b"HEAD", [b"HTTP/1.1 404 Not Found", b"Content-Length: 9"]),
        ("head-304", 304, b"HEAD", [b"HTTP/1.1 304 Not Modified", b"Content-Length: 9"]),
    )
]
_BODILESS += [
    AcceptedResponse(f"no-body-{name}", head(*lines), 204, may_fail=True)
    for name, lines in {
        "204-length": [b"HTTP/1.1 204 No Content", b"Content-Length: 5"],
        "204-coding": [b"HTTP/1.1 204 No Content", b"Transfer-Encoding: chunked"],
    }.items()
]


def _behind(
    name: str, data: bytes, status: int, body: bytes = b"", method: bytes = b"GET"
) -> AcceptedResponse:
    """Bytes that nobody asked for stand behind the answer: they are nobody's."""
    return AcceptedResponse(f"bytes-behind-{name}", data, status, body, method, reusable=False)


_BEHIND = [
    _behind("length", _HELLO + b"leaked", 200, b"hello"),
    _behind("length-a-response", _HELLO + response(b"Content-Length: 6") + b"leaked", 200, b"hello"),
    _behind("length-zero", response(b"Content-Length: 0") + b"leaked", 200),
    _behind("chunked", chunked_response(b"5\r\nhello\r\n0\r\n\r\nleaked"), 200, b"hello"),
    _behind("204", head(b"HTTP/1.1 204 No Content") + b"leaked", 204),
    _behind("304", head(b"HTTP/1.1 304 Not Modified", b"Content-Length: 6") + b"leaked", 304),
    _behind("head", response(b"Content-Length: 6") + b"leaked", 200, method=b"HEAD"),
    _behind("a-crlf", _HELLO + b"\r\n", 200, b"hello"),
]

_CHUNKED = [
    _ok(f"chunked-{name}", chunked_response(body), content)
    for name, body, content in (
        ("one-chunk", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("empty", b"0\r\n\r\n", b""),
        ("three-chunks", b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n", b"hello"),
        ("leading-zeros", b"0000000000000005\r\nhello\r\n0000\r\n\r\n", b"hello"),
        ("upper-case-size", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("lower-case-size", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("data-of-line-ends", b"5\r\n\r\n\r\n\n\r\n0\r\n\r\n", b"\r\n\r\n\n"),
        ("data-like-chunks", b"f\r\n5\r\nhello\r\n0\r\n\r\n\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        ("extension", b'5;a="b;c";d\r\nhello\r\n0;e\r\n\r\n', b"hello"),
        ("trailers", b"5\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n", b"hello"),
        ("trailer-of-empty-value", b"5\r\nhello\r\n0\r\nX-A:\r\n\r\n", b"hello"),
        ("1000-chunks-of-a-byte", b"1\r\na\r\n" * 1000 + b"0\r\n\r\n", b"a" * 1000),
        ("chunk-of-a-million", b"f4240\r\n" + bytes(1_000_000) + b"\r\n0\r\n\r\n", bytes(1_000_000)),
    )
]
_CHUNKED.append(
    _ok(
        "chunked-upper-case",
        response(b"TRANSFER-ENCODING: CHUNKED") + b"5\r\nhello\r\n0\r\n\r\n",
    )
)

_ENDED = [
    _until_close("until-close", response() + b"hello"),
    _until_close("until-close-empty", response(), b""),
    _until_close("until-close-long", response() + bytes(1_000_000), bytes(1_000_000)),
    _until_close("until-close-like-chunks", response() + b"5\r\nhello\r\n", b"5\r\nhello\r\n"),
    _until_close("until-close-said", response(b"Connection: close") + b"hello"),
    _until_close("until-close-in-1.0", response(status=_OLD) + b"hello"),
    _until_close(
        "until-close-in-1.0-keep-alive", response(b"Connection: keep-alive", status=_OLD) + b"hello"
    ),
    _until_close("length-and-close", response(_FIVE, b"Connection: close") + b"hello"),
    _until_close(
        "chunked-and-close", chunked_response(b"5\r\nhello\r\n0\r\n\r\n", b"Connection: close")
    ),
    _until_close("length-in-1.0", response(_FIVE, status=_OLD) + b"hello"),
    # Whether the end is seen before the next request is sent is a matter of luck: it is sent again.
    AcceptedResponse("length-and-end", _HELLO, 200, b"hello", then=Then.ENDS),
    AcceptedResponse(
        "close-said-and-not-done",
        response(_FIVE, b"Connection: close") + b"hello",
        200,
        b"hello",
        reusable=False,
    ),
    AcceptedResponse(
        "1.0-close-not-done", response(_FIVE, status=_OLD) + b"hello", 200, b"hello", reusable=False
    ),
    _ok("length-in-1.0-keep-alive", response(_FIVE, b"Connection: keep-alive", status=_OLD) + b"hello"),
    AcceptedResponse(
        "no-body-204-in-1.0", head(b"HTTP/1.0 204 No Content"), 204, reusable=False, then=Then.ENDS
    ),
]

_INTERIM = [
    AcceptedResponse(f"interim-{name}", data + _HELLO, 200, b"hello", interim=interim)
    for name, data, interim in (
        ("continue", _CONTINUE, ()),
        ("hints", _HINTS, (103,)),
        ("hints-twice", _HINTS * 2, (103, 103)),
        ("continue-and-hints", _CONTINUE + _HINTS, (103,)),
        ("hints-and-continue", _HINTS + _CONTINUE, (103,)),
        ("processing-and-hints", head(b"HTTP/1.1 102 Processing") + _HINTS, (103,)),
        ("with-fields", head(b"HTTP/1.1 103 Early Hints", b"X-A: 1", b"X-B: 2"), (103,)),
        ("empty-reason", head(b"HTTP/1.1 103 "), (103,)),
    )
]
_INTERIM += [
    AcceptedResponse(
        "interim-before-204", _HINTS + head(b"HTTP/1.1 204 No Content"), 204, interim=(103,)
    ),
    AcceptedResponse(
        "interim-before-chunks",
        _HINTS + chunked_response(b"5\r\nhello\r\n0\r\n\r\n"),
        200,
        b"hello",
        interim=(103,),
    ),
    AcceptedResponse(
        "interim-before-head", _HINTS + response(_FIVE), 200, method=b"HEAD", interim=(103,)
    ),
    AcceptedResponse(
        "interim-before-404",
        _CONTINUE + response(_FIVE, status=b"HTTP/1.1 404 Not Found") + b"hello",
        404,
        b"hello",
        method=b"POST",
    ),
]

_FIELDS = [
    AcceptedResponse(f"field-{name}", response(*lines, _FIVE) + b"hello", 200, b"hello", fields=fields)
    for name, lines, fields in (
        (
            "cookies",
            [b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT"],
            (
                (b"set-cookie", b"a=1; Path=/"),
                (b"set-cookie", b"b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            ),
        ),
        ("empty", [b"X-A:"], ((b"x-a", b""),)),
        ("without-space", [b"X-A:1"], ((b"x-a", b"1"),)),
        ("tab-inside", [b"X-A: 1\t2"], ((b"x-a", b"1\t2"),)),
        ("every-visible-byte", [b"X-A: " + _EVERY_BYTE[0x21:0x7F]], ((b"x-a", _EVERY_BYTE[0x21:0x7F]),)),
        ("every-high-byte", [b"X-A: " + _EVERY_BYTE[0x80:]], ((b"x-a", _EVERY_BYTE[0x80:]),)),
        ("repeated", [b"X-A: 1", b"X-B: 2", b"x-a: 3"], ((b"x-a", b"1"), (b"x-a", b"3"))),
        ("of-16-kib", [b"X-A: " + b"a" * 16_384], ((b"x-a", b"a" * 16_384),)),
        (
            "content",
            [b"Content-Type: text/plain", b"Content-Encoding: identity"],
            ((b"content-type", b"text/plain"),),
        ),
        ("99-and-length", [b"X-%d: 1" % number for number in range(FIELDS_MAX - 1)], ((b"x-98", b"1"),)),
        ("all-token-characters", [b"!#$%&'*+-.^`|~aZ09: 1"], ((b"!#$%&'*+-.^`|~az09", b"1"),)),
    )
]

ACCEPTED_RESPONSES: list[AcceptedResponse] = [
    *_STATUSES,
    *_LENGTHS,
    *_BODILESS,
    *_BEHIND,
    *_CHUNKED,
    *_ENDED,
    *_INTERIM,
    *_FIELDS,
]
