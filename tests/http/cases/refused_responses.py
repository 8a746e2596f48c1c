"""What a backend may say that no client may get (H14): the rules for requests hold for answers, too."""

from __future__ import annotations

from tests.http.cases.kinds import (
    FIELDS_MAX,
    RefusedResponse,
    Then,
    chunked_response,
    head,
    response,
)

# Behind a head that is refused; no client may see it.
LEAKED = b"leaked"
_SIX = b"Content-Length: 6"

_CONTROLS = (*range(0x20), 0x7F)
_TAB, _CR, _LF = 0x09, 0x0D, 0x0A


def _line(name: str, line: bytes) -> RefusedResponse:
    return RefusedResponse(f"line-{name}", head(line, _SIX) + LEAKED)


def _fields(name: str, *lines: bytes) -> RefusedResponse:
    return RefusedResponse(name, response(*lines, _SIX) + LEAKED)


def _raw(name: str, data: bytes) -> RefusedResponse:
    """With an end, since who waits for the end of the head waits in vain."""
    return RefusedResponse(name, data + LEAKED, then=Then.ENDS)


_LINES = [
    _line(name, line)
    for name, line in {
        "1.2": b"HTTP/1.2 200 OK",
        "0.9": b"HTTP/0.9 200 OK",
        "2.0": b"HTTP/2.0 200 OK",
        "2": b"HTTP/2 200 OK",
        "lower-case": b"http/1.1 200 OK",
        "two-digit-minor": b"HTTP/1.10 200 OK",
        "leading-zero": b"HTTP/01.1 200 OK",
        "no-slash": b"HTTP1.1 200 OK",
        "other-protocol": b"RTSP/1.0 200 OK",
        "icy": b"ICY 200 OK",
        "no-version": b"200 OK",
        "no-status": b"HTTP/1.1",
        "no-status-but-space": b"HTTP/1.1 ",
        "no-status-but-reason": b"HTTP/1.1 OK",
        "two-digits": b"HTTP/1.1 20 OK",
        "four-digits": b"HTTP/1.1 2000 OK",
        "leading-zero-status": b"HTTP/1.1 0200 OK",
        "status-000": b"HTTP/1.1 000 OK",
        "status-099": b"HTTP/1.1 099 OK",
        "negative": b"HTTP/1.1 -20 OK",
        "sign": b"HTTP/1.1 +20 OK",
        "hex": b"HTTP/1.1 0x2 OK",
        "letters": b"HTTP/1.1 2xx OK",
        "point": b"HTTP/1.1 200.0 OK",
        "full-width": "HTTP/1.1 ２００ OK".encode(),
        "superscript": "HTTP/1.1 ²⁰⁰ OK".encode(),
        "no-space-before-reason": b"HTTP/1.1 200OK",
        "two-spaces": b"HTTP/1.1  200 OK",
        "tab": b"HTTP/1.1\t200 OK",
        "tab-before-reason": b"HTTP/1.1 200\tOK",
        "leading-space": b" HTTP/1.1 200 OK",
        "leading-empty-line": b"\r\nHTTP/1.1 200 OK",
        "nul-in-reason": b"HTTP/1.1 200 O\x00K",
        "control-in-reason": b"HTTP/1.1 200 O\x01K",
        "delete-in-reason": b"HTTP/1.1 200 O\x7fK",
        "cr-in-reason": b"HTTP/1.1 200 O\rK",
        "lf-in-reason": b"HTTP/1.1 200 O\nK",
        "request": b"GET / HTTP/1.1",
    }.items()
]

_NOT_HTTP = [
    _raw("garbage-text", b"hello, world\r\n"),
    _raw("garbage-html", b"<!doctype html><title>leaked</title>"),
    _raw("garbage-ssh", b"SSH-2.0-OpenSSH_9.6\r\n"),
    _raw("garbage-smtp", b"220 site.test ESMTP\r\n"),
    _raw("garbage-tls-alert", b"\x15\x03\x03\x00\x02\x02\x28"),
    _raw("garbage-http-2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)),
    _raw("garbage-zeros", bytes(1000)),
    _raw("garbage-empty-lines", b"\r\n" * 10),
    _raw("garbage-high-bytes", bytes(range(0x80, 0x100))),
]

_ENDS = [
    RefusedResponse("nothing-but-an-end", b"", then=Then.ENDS),
    RefusedResponse("nothing-but-a-reset", b"", then=Then.RESETS),
    RefusedResponse("cut-in-version", b"HTT", then=Then.ENDS),
    RefusedResponse("cut-in-line", b"HTTP/1.1 200 OK", then=Then.ENDS),
    RefusedResponse("cut-in-line-by-reset", b"HTTP/1.1 200 OK", then=Then.RESETS),
    RefusedResponse("cut-after-line", b"HTTP/1.1 200 OK\r\n", then=Then.ENDS),
    RefusedResponse("cut-in-fields", b"HTTP/1.1 200 OK\r\nX-A: 1", then=Then.ENDS),
    RefusedResponse("cut-after-fields", response(_SIX)[:-2], then=Then.ENDS),
    RefusedResponse("cut-before-last-lf", response(_SIX)[:-1], then=Then.ENDS),
    RefusedResponse("cut-after-interim", head(b"HTTP/1.1 103 Early Hints"), then=Then.ENDS),
    RefusedResponse("cut-after-continue", head(b"HTTP/1.1 100 Continue"), then=Then.ENDS),
]

_FIELDS = [
    *(
        _fields(f"value-with-{byte:02x}", b"X-A: a%cb" % byte)
        for byte in _CONTROLS
        if byte not in {_TAB, _CR, _LF}
    ),
    *(
        _fields(f"name-with-{byte:02x}", b"X%cA: 1" % byte)
        for byte in (*b'"(),/;<=>?@[\\]{} ', 0x00, 0x01, 0x09, 0x0B, 0x7F, 0x80, 0xFF)
    ),
    _fields("name-empty", b": 1"),
    _fields("name-no-colon", b"X-A"),
    _fields("name-space-before-colon", b"X-A : 1"),
    _fields("name-tab-before-colon", b"X-A\t: 1"),
    _fields("fold", b"X-A: 1", b" 2"),
    _fields("fold-tab", b"X-A: 1", b"\t2"),
    _fields("fold-empty", b"X-A: 1", b" "),
    _fields("fold-first", b" X-A: 1"),
    _fields("fold-hides-length", b"X-A: 1", b" Content-Length: 60"),
    _fields("fields-101", *(b"X-%d: 1" % number for number in range(FIELDS_MAX))),
    _fields("fields-10000", *(b"X-%d: 1" % number for number in range(10_000))),
    _fields("head-of-300-kib", b"X-A: " + b"a" * 300 * 1024),
    RefusedResponse("head-without-end", b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 300 * 1024),
    RefusedResponse("reason-without-end", b"HTTP/1.1 200 " + b"a" * 300 * 1024),
]

_OK = b"HTTP/1.1 200 OK"

_LINE_ENDS = [
    _raw("lf-everywhere", _OK + b"\n" + _SIX + b"\n\n"),
    _raw("lf-after-line", _OK + b"\n" + _SIX + b"\r\n\r\n"),
    _raw("lf-after-field", _OK + b"\r\nX-A: 1\n" + _SIX + b"\r\n\r\n"),
    _raw("lf-after-last-field", _OK + b"\r\n" + _SIX + b"\n\r\n"),
    _raw("lf-for-empty-line", _OK + b"\r\n" + _SIX + b"\r\n\n"),
    _raw("lf-in-value", _OK + b"\r\nX-A: 1\n2\r\n" + _SIX + b"\r\n\r\n"),
    _raw("lf-hides-cookie", _OK + b"\r\nX-A: 1\nSet-Cookie: a=b\r\n" + _SIX + b"\r\n\r\n"),
    _raw("cr-everywhere", _OK + b"\r" + _SIX + b"\r\r"),
    _raw("cr-after-field", _OK + b"\r\nX-A: 1\r" + _SIX + b"\r\n\r\n"),
    _raw("cr-cr-lf", _OK + b"\r\n" + _SIX + b"\r\r\n\r\n"),
    _raw("cr-in-value", _OK + b"\r\nX-A: 1\r2\r\n" + _SIX + b"\r\n\r\n"),
    _raw("nul-before-empty-line", _OK + b"\r\n" + _SIX + b"\r\n\x00\r\n\r\n"),
]

_LENGTHS = [
    RefusedResponse(f"length-{name}", response(b"Content-Length:" + value) + LEAKED)
    for name, value in {
        "empty": b"",
        "plus": b" +6",
        "minus": b" -6",
        "hex": b" 0x6",
        "letters": b" six",
        "point": b" 6.0",
        "inner-space": b" 6 0",
        "list": b" 6, 6",
        "list-different": b" 6, 60",
        "trailing-comma": b" 6,",
        "quoted": b' "6"',
        "nul": b" 6\x00",
        "vertical-tab": b" 6\x0b",
        "no-break-space": b" 6\xa0",
        "arabic": " ٦".encode(),
        "underscore": b" 6_0",
        "19-digits": b" 0000000000000000006",
        "2-to-64": b" 18446744073709551616",
        "2-to-64-and-6": b" 18446744073709551622",
        "5000-digits": b" " + b"9" * 5000,
    }.items()
]
_LENGTHS += [
    RefusedResponse(name, response(*lines) + LEAKED)
    for name, lines in {
        "length-twice": [_SIX, _SIX],
        "length-twice-different": [_SIX, b"Content-Length: 60"],
        "length-twice-other-case": [_SIX, b"X-A: 1", b"CONTENT-LENGTH: 6"],
        "length-space-before-colon": [b"Content-Length : 6"],
        "length-folded": [b"Content-Length:", b" 6"],
    }.items()
]

_BODY = b"6\r\nleaked\r\n0\r\n\r\n"

_CODINGS = [
    RefusedResponse(f"coding-{name}", response(b"Transfer-Encoding:" + value) + _BODY)
    for name, value in {
        "empty": b"",
        "identity": b" identity",
        "gzip": b" gzip",
        "gzip-chunked": b" gzip, chunked",
        "chunked-gzip": b" chunked, gzip",
        "chunked-chunked": b" chunked, chunked",
        "chunked-identity": b" chunked, identity",
        "trailing-comma": b" chunked,",
        "xchunked": b" xchunked",
        "parameter": b" chunked;a=b",
        "quoted": b' "chunked"',
        "vertical-tab": b" \x0bchunked",
        "nul": b" chunked\x00",
    }.items()
]
_CODINGS += [
    RefusedResponse(f"coding-{name}", response(*lines) + _BODY)
    for name, lines in {
        "two-lines": [b"Transfer-Encoding: chunked"] * 2,
        "two-lines-different": [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
        "space-before-colon": [b"Transfer-Encoding : chunked"],
        "and-length": [b"Content-Length: 16", b"Transfer-Encoding: chunked"],
        "and-length-behind": [b"Transfer-Encoding: chunked", b"Content-Length: 16"],
        "and-length-zero": [b"Content-Length: 0", b"Transfer-Encoding: chunked"],
    }.items()
]
_CODINGS += [
    RefusedResponse(
        "coding-in-1.0", response(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK") + _BODY
    ),
    RefusedResponse(
        "coding-in-1.0-and-length",
        response(b"Transfer-Encoding: chunked", b"Content-Length: 16", status=b"HTTP/1.0 200 OK")
        + _BODY,
    ),
]

_FINAL = response(_SIX) + LEAKED

_INTERIM = [
    RefusedResponse("interim-1000-times", head(b"HTTP/1.1 100 Continue") * 1000 + _FINAL),
    RefusedResponse("interim-1000-hints", head(b"HTTP/1.1 103 Early Hints", b"Link: a") * 1000 + _FINAL),
    RefusedResponse("interim-with-length", head(b"HTTP/1.1 103 Early Hints", _SIX) + LEAKED + _FINAL),
    RefusedResponse(
        "interim-with-coding",
        head(b"HTTP/1.1 103 Early Hints", b"Transfer-Encoding: chunked") + _BODY + _FINAL,
    ),
    RefusedResponse("interim-lf", b"HTTP/1.1 100 Continue\n\n" + _FINAL),
    RefusedResponse(
        "interim-then-garbage", head(b"HTTP/1.1 100 Continue") + b"garbage\r\n\r\n" + LEAKED
    ),
    RefusedResponse("interim-then-bad-length", head(b"HTTP/1.1 100 Continue") + response(_SIX, _SIX)),
    RefusedResponse(
        "switching-that-nobody-asked-for",
        head(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket")
        + LEAKED,
    ),
    RefusedResponse("switching-without-upgrade", head(b"HTTP/1.1 101 Switching Protocols") + LEAKED),
]

_CHUNKED = [
    RefusedResponse(f"chunked-{name}", chunked_response(body), under_way=True)
    for name, body in {
        "size-hex-prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
        "size-plus": b"+5\r\nhello\r\n0\r\n\r\n",
        "size-minus": b"-5\r\nhello\r\n0\r\n\r\n",
        "size-underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
        "size-leading-space": b" 5\r\nhello\r\n0\r\n\r\n",
        "size-trailing-space": b"5 \r\nhello\r\n0\r\n\r\n",
        "size-empty": b"\r\nhello\r\n0\r\n\r\n",
        "size-letters": b"hello\r\n0\r\n\r\n",
        "size-of-17-digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        "size-2-to-64-less-1": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "size-without-end": b"5" * 100_000,
        "lf-after-size": b"5\nhello\r\n0\r\n\r\n",
        "lf-after-data": b"5\r\nhello\n0\r\n\r\n",
        "cr-after-size": b"5\rhello\r\n0\r\n\r\n",
        "nothing-after-data": b"5\r\nhello0\r\n\r\n",
        "data-longer-than-size": b"5\r\nhello, world\r\n0\r\n\r\n",
        "data-shorter-than-size": b"6\r\nhello\r\n0\r\n\r\n",
        "lf-after-last-size": b"5\r\nhello\r\n0\n\r\n",
        "lf-for-last-line": b"5\r\nhello\r\n0\r\n\n",
        "second-size": b"5\r\nhello\r\nx\r\nhello\r\n0\r\n\r\n",
        "not-chunked": b"hello, world, this is no chunk\r\n",
        "extension-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        "extension-cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        "extension-nul": b"5;\x00\r\nhello\r\n0\r\n\r\n",
        "extension-of-64-kib": b"5;" + b"a" * 65_536 + b"\r\nhello\r\n0\r\n\r\n",
        "extension-without-end": b"5;" + b"a" * 100_000,
        "extensions-of-64-kib": b"1;aaaaaaaaaaaaaaa\r\nx\r\n" * 4096 + b"0\r\n\r\n",
        "trailer-lf": b"5\r\nhello\r\n0\r\nX-A: 1\n\r\n",
        "trailer-fold": b"5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n",
        "trailer-nul": b"5\r\nhello\r\n0\r\nX-A: \x00\r\n\r\n",
        "trailer-no-colon": b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
        "trailer-space-before-colon": b"5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n",
        "trailer-content-length": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "trailer-transfer-encoding": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "trailers-without-end": b"5\r\nhello\r\n0\r\nX-A: " + b"a" * 100_000,
    }.items()
]


def _cut(name: str, data: bytes, then: Then = Then.ENDS) -> RefusedResponse:
    return RefusedResponse(f"cut-{name}", data, under_way=True, then=then)


_CUT = [
    _cut("sized-before-body", response(_SIX)),
    _cut("sized-half-way", response(_SIX) + b"hel"),
    _cut("sized-half-way-by-reset", response(_SIX) + b"hel", Then.RESETS),
    _cut("sized-one-byte-short", response(_SIX) + b"hello"),
    _cut("sized-late", response(b"Content-Length: 1000000") + bytes(999_999)),
    _cut("sized-error", response(_SIX, status=b"HTTP/1.1 500 Internal Server Error") + b"hel"),
    _cut("sized-in-1.0", response(_SIX, status=b"HTTP/1.0 200 OK") + b"hel"),
    _cut("chunked-before-body", chunked_response(b"")),
    _cut("chunked-in-size", chunked_response(b"5")),
    _cut("chunked-in-data", chunked_response(b"5\r\nhel")),
    _cut("chunked-in-data-by-reset", chunked_response(b"5\r\nhel"), Then.RESETS),
    _cut("chunked-between-chunks", chunked_response(b"5\r\nhello\r\n")),
    _cut("chunked-between-chunks-by-reset", chunked_response(b"5\r\nhello\r\n"), Then.RESETS),
    _cut("chunked-in-last-size", chunked_response(b"5\r\nhello\r\n0")),
    _cut("chunked-before-last-line", chunked_response(b"5\r\nhello\r\n0\r\n")),
    _cut("chunked-in-trailers", chunked_response(b"5\r\nhello\r\n0\r\nX-A: 1\r\n")),
    _cut("until-close-by-reset", response() + b"hello", Then.RESETS),
    _cut("until-close-in-1.0-by-reset", response(status=b"HTTP/1.0 200 OK") + b"hello", Then.RESETS),
]

REFUSED_RESPONSES: list[RefusedResponse] = [
    *_LINES,
    *_NOT_HTTP,
    *_ENDS,
    *_FIELDS,
    *_LINE_ENDS,
    *_LENGTHS,
    *_CODINGS,
    *_INTERIM,
    *_CHUNKED,
    *_CUT,
]
