"""Chunked bodies that are malformed, and bodies that end too early (RFC 9112 §7.1; H8, H11)."""

from __future__ import annotations

from collections.abc import Mapping

from tests.http.cases.kinds import (
    BAD,
    EXTENSION_MAX,
    EXTENSIONS_MAX,
    HEAD_MAX,
    SMUGGLED,
    Refused,
    Then,
    chunked_request,
    request,
)

_TOO_LONG = frozenset({400, 413, 431})

_END = b"0\r\n\r\n"
_REST = b"\r\nhello\r\n" + _END  # behind a size

_SIZES = {
    "empty": b"",
    "hex-prefix": b"0x5",
    "hex-prefix-upper": b"0X5",
    "plus": b"+5",
    "minus": b"-5",
    "minus-zero": b"-0",
    "underscore": b"0_5",
    "leading-space": b" 5",
    "leading-tab": b"\t5",
    "trailing-space": b"5 ",
    "trailing-tab": b"5\t",
    "leading-vertical-tab": b"\x0b5",
    "trailing-form-feed": b"5\x0c",
    "leading-nul": b"\x005",
    "trailing-nul": b"5\x00",
    "leading-lf": b"\n5",
    "leading-cr": b"\r5",
    "leading-crlf": b"\r\n5",
    "letter": b"g",
    "digit-and-letter": b"5g",
    "h-suffix": b"5h",
    "comma": b"5,5",
    "point": b"5.0",
    "quoted": b'"5"',
    "two-words": b"5 5",
    "braces": b"{5}",
    "no-size-but-extension": b";a=b",
    "superscript": "⁵".encode(),
    "full-width": "５".encode(),
    "latin-1": b"\xb2",
    "17-digits": b"00000000000000005",
    "17-digits-overflow": b"10000000000000005",
    "32-digits": b"0" * 31 + b"5",
    "2-to-63": b"8000000000000000",
    "2-to-64-less-1": b"ffffffffffffffff",
    "2-to-64-less-2": b"FFFFFFFFFFFFFFFE",
    "300-zeros": b"0" * 300 + b"5",
}

_LINE_ENDS = {
    "lf-after-size": b"5\nhello\r\n" + _END,
    "cr-after-size": b"5\rhello\r\n" + _END,
    "cr-cr-lf-after-size": b"5\r\r\nhello\r\n" + _END,
    "lf-cr-after-size": b"5\n\rhello\r\n" + _END,
    "lf-after-data": b"5\r\nhello\n" + _END,
    "cr-after-data": b"5\r\nhello\r" + _END,
    "cr-cr-lf-after-data": b"5\r\nhello\r\r\n" + _END,
    "nothing-after-data": b"5\r\nhello" + _END,
    "space-after-data": b"5\r\nhello \r\n" + _END,
    "two-line-ends-after-data": b"5\r\nhello\r\n\r\n" + _END,
    "letters-after-data": b"5\r\nhelloXX" + _END,
    "data-longer-than-size": b"5\r\nhello, world\r\n" + _END,
    "data-shorter-by-one": b"6\r\nhello\r\n" + _END,
    "data-shorter-by-two": b"7\r\nhello\r\n" + _END,
    "data-shorter-by-three": b"8\r\nhello\r\n" + _END,
    "lf-everywhere": b"5\nhello\n0\n\n",
    "lf-after-last-size": b"5\r\nhello\r\n0\n\r\n",
    "lf-lf-after-last-size": b"5\r\nhello\r\n0\n\n",
    "lf-for-last-line": b"5\r\nhello\r\n0\r\n\n",
    "cr-after-last-size": b"5\r\nhello\r\n0\r\r\n",
    "cr-for-last-line": b"5\r\nhello\r\n0\r\n\rX",
    "space-before-last-line": b"5\r\nhello\r\n0\r\n \r\n\r\n",
    "hex-prefix-of-last": b"5\r\nhello\r\n0x0\r\n\r\n",
    "minus-zero-last": b"5\r\nhello\r\n-0\r\n\r\n",
    "17-zeros-last": b"5\r\nhello\r\n" + b"0" * 17 + b"\r\n\r\n",
    "empty-size-last": b"5\r\nhello\r\n\r\n\r\n",
    "second-size": b"5\r\nhello\r\n5x\r\nhello\r\n" + _END,
    "no-chunks-at-all": b"\r\n",
    "not-chunked": b"hello, world\r\n\r\n",
    "request-for-body": b"",
}

_EXTENSIONS = {
    "lf": b"5;\nhello\r\n" + _END,
    "lf-in-name": b"5;a\nb" + _REST,
    "lf-in-value": b"5;a=b\nc" + _REST,
    "lf-in-quotes": b'5;a="b\nc"' + _REST,
    "lf-ends-it": b"5;a\nhello\r\n" + _END,
    "lf-before-crlf": b"5;a\n" + _REST,
    "cr": b"5;a\rb" + _REST,
    "cr-in-quotes": b'5;a="b\rc"' + _REST,
    "cr-ends-it": b"5;a\rhello\r\n" + _END,
    "cr-before-crlf": b"5;a\r" + _REST,
    "nul": b"5;a\x00" + _REST,
    "nul-in-quotes": b'5;a="\x00"' + _REST,
    "control": b"5;a\x01" + _REST,
    "delete": b"5;a\x7f" + _REST,
    "vertical-tab": b"5;a\x0b" + _REST,
    # Chunks in an extension: who ends lines at LF reads a request in them (Kestrel, CVE-2025-55315).
    "lf-hides-chunks": b"2;\nxx\r\n45\r\n0\r\n\r\n" + SMUGGLED[:-4] + b"\r\nX: " + _END,
    "cr-hides-chunks": b"2;\rxx\r\n45\r\n0\r\n\r\n" + SMUGGLED[:-4] + b"\r\nX: " + _END,
    "lf-of-last-chunk": b"5\r\nhello\r\n0;a\n\r\n",
    "nul-of-last-chunk": b"5\r\nhello\r\n0;a\x00\r\n\r\n",
}

_LONG_EXTENSIONS = {
    "of-257-bytes": b"5;" + b"a" * (EXTENSION_MAX + 1) + _REST,
    "of-257-bytes-quoted": b'5;a="' + b"b" * EXTENSION_MAX + b'"' + _REST,
    "of-last-chunk": b"5\r\nhello\r\n0;" + b"a" * (EXTENSION_MAX + 1) + b"\r\n\r\n",
    "of-64-kib": b"5;" + b"a" * 65_536 + _REST,
    "without-end": b"5;" + b"a" * 100_000,
    "without-end-of-many": b"5" + b";a" * 50_000,
    "of-4-kib-in-all": (b"1;" + b"a" * 250 + b"\r\nx\r\n") * (EXTENSIONS_MAX // 250 + 1) + _END,
    "of-64-kib-in-all": (b"1;aaaaaaaaaaaaaaa\r\nx\r\n") * 4096 + _END,
}

_FORBIDDEN_TRAILERS = {
    "content-length": b"Content-Length: 5",
    "content-length-other-case": b"CONTENT-LENGTH: 5",
    "transfer-encoding": b"Transfer-Encoding: chunked",
    "host": b"Host: elsewhere.test",
    "host-same": b"Host: site.test",
    "authorization": b"Authorization: Basic dTpw",
    "proxy-authorization": b"Proxy-Authorization: Basic dTpw",
    "cookie": b"Cookie: a=b",
    "connection": b"Connection: keep-alive",
    "upgrade": b"Upgrade: websocket",
    "expect": b"Expect: 100-continue",
    "te": b"TE: trailers",
    "trailer": b"Trailer: X-A",
    "content-encoding": b"Content-Encoding: gzip",
    "content-type": b"Content-Type: text/html",
    "content-range": b"Content-Range: bytes 0-4/5",
}

_BAD_TRAILERS = {
    "lf": b"X-A: 1\n\r\n",
    "lf-lf": b"X-A: 1\n\n",
    "lf-for-empty-line": b"X-A: 1\r\n\n",
    "lf-in-value": b"X-A: 1\nX-B: 2\r\n\r\n",
    "cr": b"X-A: 1\rX-B: 2\r\n\r\n",
    "cr-cr-lf": b"X-A: 1\r\r\n\r\n",
    "cr-for-empty-line": b"X-A: 1\r\n\rX-B: 2\r\n\r\n",
    "nul": b"X-A: \x00\r\n\r\n",
    "control": b"X-A: \x01\r\n\r\n",
    "delete": b"X-A: \x7f\r\n\r\n",
    "fold": b"X-A: 1\r\n 2\r\n\r\n",
    "fold-first": b" X-A: 1\r\n\r\n",
    "fold-tab": b"X-A: 1\r\n\t2\r\n\r\n",
    "space-before-colon": b"X-A : 1\r\n\r\n",
    "tab-before-colon": b"X-A\t: 1\r\n\r\n",
    "no-colon": b"X-A\r\n\r\n",
    "empty-name": b": 1\r\n\r\n",
    "bad-name": b"X(A): 1\r\n\r\n",
    "name-utf-8": "Größe: 1\r\n\r\n".encode(),
    "request-line": b"GET /smuggled HTTP/1.1\r\nHost: site.test\r\n\r\n",
    "hidden-length": b"X-A: 1\nContent-Length: 5\r\n\r\n",
}

_LONG_TRAILERS = {
    "many": b"".join(b"X-%d: 1\r\n" % number for number in range(5000)) + b"\r\n",
    "long": b"X-A: " + b"a" * HEAD_MAX + b"\r\n\r\n",
    "without-end": b"X-A: " + b"a" * 100_000,
    "many-without-end": b"X-A: 1\r\n" * 10_000,
}


def _vectors(
    family: str, bodies: Mapping[str, bytes], status: frozenset[int] = BAD, before: bytes = b""
) -> list[Refused]:
    return [
        Refused(
            f"{family}-{name}", chunked_request(before + body) + SMUGGLED, status=status, in_body=True
        )
        for name, body in bodies.items()
    ]


_BEFORE_TRAILERS = b"5\r\nhello\r\n0\r\n"

_CHUNKED = [
    *_vectors("chunk-size", {name: size + _REST for name, size in _SIZES.items()}),
    *_vectors("chunk", _LINE_ENDS),
    *_vectors("extension", _EXTENSIONS),
    *_vectors("extension", _LONG_EXTENSIONS, _TOO_LONG),
    *_vectors(
        "trailer",
        {name: line + b"\r\n\r\n" for name, line in _FORBIDDEN_TRAILERS.items()},
        before=_BEFORE_TRAILERS,
    ),
    *_vectors("trailers", _BAD_TRAILERS, before=_BEFORE_TRAILERS),
    *_vectors("trailers", _LONG_TRAILERS, _TOO_LONG, before=_BEFORE_TRAILERS),
]


def _cut(name: str, data: bytes, then: Then = Then.ENDS) -> Refused:
    return Refused(f"cut-{name}", data, in_body=True, then=then)


_SIZED = request(b"Content-Length: 10", method=b"POST", target=b"/upload")

_CUT = [
    _cut("sized-before-body", _SIZED),
    _cut("sized-half-way", _SIZED + b"hello"),
    _cut("sized-one-byte-short", _SIZED + b"hello,you"),
    _cut("sized-half-way-by-reset", _SIZED + b"hello", Then.RESETS),
    _cut("sized-of-get", request(b"Content-Length: 10") + b"hello"),
    _cut(
        "sized-in-1.0",
        request(b"Content-Length: 10", method=b"POST", version=b"HTTP/1.0") + b"hello",
    ),
    Refused(
        "cut-sized-of-18-digits",
        request(b"Content-Length: " + b"9" * 18, method=b"POST") + b"hello",
        frozenset({400, 413}),
        in_body=True,
        then=Then.ENDS,
    ),
    _cut("chunked-before-body", chunked_request(b"")),
    _cut("chunked-in-size", chunked_request(b"5")),
    _cut("chunked-in-line-end", chunked_request(b"5\r")),
    _cut("chunked-in-extension", chunked_request(b"5;a")),
    _cut("chunked-in-data", chunked_request(b"5\r\nhel")),
    _cut("chunked-after-data", chunked_request(b"5\r\nhello")),
    _cut("chunked-between-chunks", chunked_request(b"5\r\nhello\r\n")),
    _cut("chunked-between-chunks-by-reset", chunked_request(b"5\r\nhello\r\n"), Then.RESETS),
    _cut("chunked-in-last-size", chunked_request(b"5\r\nhello\r\n0")),
    _cut("chunked-before-trailers", chunked_request(b"5\r\nhello\r\n0\r\n")),
    _cut("chunked-in-last-line-end", chunked_request(b"5\r\nhello\r\n0\r\n\r")),
    _cut("chunked-in-trailers", chunked_request(b"5\r\nhello\r\n0\r\nX-A: 1\r\n")),
]

BODIES = [*_CHUNKED, *_CUT]
