"""Requests that are odd, long or old, and in order: a gateway that refuses them breaks its clients."""

from __future__ import annotations

from tests.http.cases.kinds import (
    BAD,
    EXTENSION_MAX,
    EXTENSIONS_MAX,
    FIELDS_MAX,
    HEAD_MAX,
    HELLO,
    HOST,
    TARGET_MAX,
    Accepted,
    Field,
    Request,
    chunked_request,
    head,
    request,
)

_ROOT = Request(b"GET", b"/")
_UPLOAD = Request(b"POST", b"/upload", b"hello")
_EVERY_BYTE = bytes(range(256))
_INNER = request(target=b"/inner")


def _one(name: str, data: bytes, expected: Request = _ROOT, *, closes: bool = False) -> Accepted:
    return Accepted(name, data, (expected,), closes)


def _field(name: str, line: bytes, *fields: Field) -> Accepted:
    return _one(f"field-{name}", request(line), Request(b"GET", b"/", fields=fields))


def _target(name: str, target: bytes, forwarded: bytes | None = None) -> Accepted:
    return _one(f"target-{name}", request(target=target), Request(b"GET", target, forwarded=forwarded))


def _host(name: str, host: bytes) -> Accepted:
    """The Host that the backend reads is the client's."""
    expected = Request(b"GET", b"/", fields=((b"host", host),))
    return _one(f"host-{name}", head(b"GET / HTTP/1.1", b"Host: " + host), expected)


_METHODS = [
    _one("get", request()),
    _one("head", request(method=b"HEAD"), Request(b"HEAD", b"/")),
    *(
        _one(
            f"method-{name}",
            request(b"Content-Length: 5", method=method) + b"hello",
            Request(method, b"/", b"hello"),
        )
        for name, method in {
            "post": b"POST",
            "put": b"PUT",
            "patch": b"PATCH",
            "delete": b"DELETE",
            "options": b"OPTIONS",
            "propfind": b"PROPFIND",
            "of-all-token-characters": b"!#$%&'*+-.^_`|~Az09",
            "lower-case": b"post",
            "mixed-case": b"Post",
            "unknown": b"FROBNICATE",
        }.items()
    ),
    _one("method-lower-case-get", request(method=b"get"), Request(b"get", b"/")),
    _one(
        "method-of-one-letter",
        request(b"Content-Length: 0", method=b"X"),
        Request(b"X", b"/"),
    ),
    _one("options-asterisk", request(method=b"OPTIONS", target=b"*"), Request(b"OPTIONS", b"*")),
    _one(
        "post-without-length",
        request(method=b"POST", target=b"/upload"),
        Request(b"POST", b"/upload"),
    ),
]

_TARGETS = [
    _target("query", b"/a?b=c&d=e"),
    _target("empty-query", b"/?"),
    _target("two-question-marks", b"/a?b?c"),
    _target("percent-encoded", b"/caf%C3%A9%20%2F%3F%23"),
    _target("path-characters", b"/-._~!$&'()*+,;=:@"),
    _target("query-characters", b"/?a=-._~!$&'()*+,;=:@/?"),
    # Browsers send these as they are (URL Standard, the query's percent-encode set).
    _target("browser-query-characters", b"/?a=[b]{c}|d^e`f"),
    # In a query these are data: forms send their line ends so, and a backslash as it was typed.
    _target("percent-0d0a-in-query", b"/?a=%0D%0Ab"),
    _target("backslash-in-query", b"/?a=\\b"),
    _target("two-slashes-first", b"//a/b"),
    _target("url-in-query", b"/login?next=https://elsewhere.test/"),
    _target("url-in-path", b"/proxy/https://elsewhere.test/"),
    _target("at-sign", b"/@user"),
    _target("of-8192-bytes", b"/" + b"a" * (TARGET_MAX - 1)),
    _target("query-of-8000-bytes", b"/?" + b"a" * 8000),
    _target("absolute", b"https://site.test/a?b", b"/a?b"),
    _target("absolute-upper-case-scheme", b"HTTPS://site.test/a", b"/a"),
    _target("absolute-upper-case-name", b"https://SITE.test/a", b"/a"),
    _target("absolute-without-path", b"https://site.test", b"/"),
    _target("absolute-without-path-but-query", b"https://site.test?a=b", b"/?a=b"),
    _target("absolute-with-at-sign-in-path", b"https://site.test/@user", b"/@user"),
    _one(
        "target-absolute-with-port",
        head(b"GET https://site.test:8443/a HTTP/1.1", b"Host: site.test:8443"),
        Request(b"GET", b"https://site.test:8443/a", forwarded=b"/a"),
    ),
    _one(
        "target-absolute-ipv6",
        head(b"GET https://[2001:db8::1]/a HTTP/1.1", b"Host: [2001:db8::1]"),
        Request(b"GET", b"https://[2001:db8::1]/a", forwarded=b"/a"),
    ),
    _one(
        "target-absolute-with-body",
        request(b"Content-Length: 5", method=b"POST", target=b"https://site.test/upload") + b"hello",
        Request(b"POST", b"https://site.test/upload", b"hello", forwarded=b"/upload"),
    ),
]

_HOSTS = [
    _host("port", b"site.test:8443"),
    _host("default-port", b"site.test:443"),
    _host("label", b"localhost"),
    _host("ipv4", b"192.0.2.1"),
    _host("ipv4-and-port", b"192.0.2.1:8443"),
    _host("ipv6", b"[2001:db8::1]"),
    _host("ipv6-and-port", b"[2001:db8::1]:8443"),
    _host("ipv6-loopback", b"[::1]"),
    _host("a-label", b"xn--mnchen-3ya.test"),
    _host("underscore", b"my_app.test"),
    Accepted("host-trailing-dot", head(b"GET / HTTP/1.1", b"Host: site.test."), (_ROOT,), or_status=BAD),
    _one("host-upper-case", head(b"GET / HTTP/1.1", b"Host: SITE.Test")),
    _one("host-last", head(b"GET / HTTP/1.1", b"X-A: 1", HOST)),
    _one("host-without-space", head(b"GET / HTTP/1.1", b"Host:site.test")),
    _one("host-in-blanks", head(b"GET / HTTP/1.1", b"Host: \t site.test \t ")),
    _one("host-other-case", head(b"GET / HTTP/1.1", b"hOST: site.test")),
]

_FIELDS = [
    _field("empty", b"X-A:", (b"x-a", b"")),
    _field("blank", b"X-A: \t ", (b"x-a", b"")),
    _field("without-space", b"X-A:1", (b"x-a", b"1")),
    _field("in-blanks", b"X-A: \t 1 \t ", (b"x-a", b"1")),
    _field("tab-inside", b"X-A: 1\t2", (b"x-a", b"1\t2")),
    _field("spaces-inside", b"X-A: 1   2", (b"x-a", b"1   2")),
    _field("colons", b"X-A: :a:b:", (b"x-a", b":a:b:")),
    _field("colon-alone", b"X-A::", (b"x-a", b":")),
    _field("every-visible-byte", b"X-A: " + _EVERY_BYTE[0x21:0x7F], (b"x-a", _EVERY_BYTE[0x21:0x7F])),
    _field("every-high-byte", b"X-A: " + _EVERY_BYTE[0x80:], (b"x-a", _EVERY_BYTE[0x80:])),
    _field("utf-8", "X-A: Größe €".encode(), (b"x-a", "Größe €".encode())),
    _field("like-a-request", b"X-A: GET / HTTP/1.1", (b"x-a", b"GET / HTTP/1.1")),
    _field("all-token-characters", b"!#$%&'*+-.^`|~aZ09: 1", (b"!#$%&'*+-.^`|~az09", b"1")),
    _field("name-of-a-letter", b"A: 1", (b"a", b"1")),
    _field("name-of-digits", b"123: 1", (b"123", b"1")),
    _field("name-hyphens", b"-: 1", (b"-", b"1")),
    _field("cookie", b'Cookie: a=b; c="d e"; f=', (b"cookie", b'a=b; c="d e"; f=')),
    _field("length-like-name", b"X-Content-Length: 5", (b"x-content-length", b"5")),
    _field("encoding-like-name", b"Transfer-Encodings: chunked", (b"transfer-encodings", b"chunked")),
    _field("of-16-kib", b"X-A: " + b"a" * 16_384, (b"x-a", b"a" * 16_384)),
    _one(
        "fields-repeated",
        request(b"X-A: 1", b"X-B: 2", b"X-A: 3", b"x-a: 1"),
        Request(b"GET", b"/", fields=((b"x-a", b"1"), (b"x-a", b"3"), (b"x-a", b"1"))),
    ),
    _one(
        "fields-hop-by-hop",
        request(
            b"Connection: keep-alive, X-Drop",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"X-Drop: 1",
            b"X-Keep: 1",
        ),
        Request(
            b"GET",
            b"/",
            fields=((b"x-keep", b"1"),),
            absent=(b"keep-alive", b"proxy-connection", b"x-drop"),
        ),
    ),
    _one(
        "fields-hop-by-hop-in-two-lines",
        request(b"X-Drop: 1", b"Connection: x-drop", b"CONNECTION: ,, x-other ,", b"X-Other: 1"),
        Request(b"GET", b"/", absent=(b"x-drop", b"x-other")),
    ),
    # Who takes the hop-by-hop fields away takes the length, too, and reads the body as a request.
    Accepted(
        "fields-connection-names-the-length",
        request(b"Connection: content-length", b"Content-Length: 5", method=b"POST") + b"hello",
        (Request(b"POST", b"/", b"hello"),),
        or_status=BAD,
    ),
    Accepted(
        "fields-connection-names-the-encoding",
        chunked_request(HELLO, b"Connection: transfer-encoding"),
        (_UPLOAD,),
        or_status=BAD,
    ),
    Accepted(
        "fields-connection-names-the-host",
        request(b"Connection: host"),
        (Request(b"GET", b"/", fields=((b"host", b"site.test"),)),),
        or_status=BAD,
    ),
    Accepted(
        "fields-name-of-300-bytes",
        request(b"Content-Length" + b"0" * 286 + b": 1", b"X-Last: 1"),
        (Request(b"GET", b"/", fields=((b"x-last", b"1"),)),),
        or_status=frozenset({400, 431}),
    ),
    _one(
        "fields-100",
        request(*(b"X-%d: 1" % number for number in range(FIELDS_MAX - 1))),
        Request(b"GET", b"/", fields=((b"x-98", b"1"),)),
    ),
]

_SHORT = request(b"X-A: ", b"X-Last: 1")

_SIZES = [
    _one(
        "head-of-32768-bytes",
        _SHORT.replace(b"X-A: ", b"X-A: " + b"a" * (HEAD_MAX - len(_SHORT))),
        Request(b"GET", b"/", fields=((b"x-last", b"1"),)),
    ),
    _one(
        "head-of-eight-long-fields",
        request(*(b"X-%d: %s" % (number, b"a" * 4000) for number in range(8))),
        Request(b"GET", b"/", fields=tuple((b"x-%d" % number, b"a" * 4000) for number in range(8))),
    ),
]

_BEFORE = [
    _one("before-an-empty-line", b"\r\n" + request()),
    Accepted(
        "before-each-an-empty-line",
        b"\r\n" + request() + b"\r\n" + request(target=b"/second"),
        (_ROOT, Request(b"GET", b"/second")),
    ),
]

_OLD = [
    _one("1.0", request(version=b"HTTP/1.0"), closes=True),
    _one("1.0-without-host", head(b"GET / HTTP/1.0"), closes=True),
    _one("1.0-without-host-but-fields", head(b"GET / HTTP/1.0", b"X-A: 1"), closes=True),
    _one("1.0-keep-alive", request(b"Connection: keep-alive", version=b"HTTP/1.0")),
    _one("1.0-head", request(method=b"HEAD", version=b"HTTP/1.0"), Request(b"HEAD", b"/"), closes=True),
    _one(
        "1.0-post",
        request(b"Content-Length: 5", method=b"POST", target=b"/upload", version=b"HTTP/1.0") + b"hello",
        _UPLOAD,
        closes=True,
    ),
    _one(
        "1.0-get-with-body",
        request(b"Content-Length: 5", version=b"HTTP/1.0") + b"hello",
        Request(b"GET", b"/", b"hello"),
        closes=True,
    ),
    _one(
        "1.0-expect",
        request(b"Expect: 100-continue", b"Content-Length: 5", method=b"POST", version=b"HTTP/1.0")
        + b"hello",
        Request(b"POST", b"/", b"hello"),
        closes=True,
    ),
    _one("1.1-close", request(b"Connection: close"), closes=True),
    _one("1.1-close-in-a-list", request(b"Connection: foo, Close"), closes=True),
    _one("1.1-keep-alive", request(b"Connection: keep-alive")),
]


def _sized(name: str, *lines: bytes, method: bytes = b"POST", body: bytes = b"hello") -> Accepted:
    data = request(*lines, method=method, target=b"/upload") + body
    return _one(f"length-{name}", data, Request(method, b"/upload", body))


_LENGTHS = [
    _sized("zero", b"Content-Length: 0", body=b""),
    _sized("zeros", b"Content-Length: 000", body=b""),
    _sized("leading-zeros", b"Content-Length: 0005"),
    _sized("18-digits", b"Content-Length: 000000000000000005"),
    _sized("without-space", b"Content-Length:5"),
    _sized("in-blanks", b"Content-Length: \t 5 \t "),
    _sized("other-case", b"CONTENT-length: 5"),
    _sized("of-get", b"Content-Length: 5", method=b"GET"),
    _sized("of-head", b"Content-Length: 5", method=b"HEAD"),
    _sized("zero-of-get", b"Content-Length: 0", method=b"GET", body=b""),
    _sized("of-every-byte", b"Content-Length: 256", body=_EVERY_BYTE),
    _sized("of-line-ends", b"Content-Length: 8", body=b"\r\n\r\n\n\n\r\r"),
    _sized("of-a-chunked-body", b"Content-Length: 15", body=HELLO),
    _sized("of-a-request", b"Content-Length: %d" % len(request()), body=request()),
    _sized("of-100000", b"Content-Length: 100000", body=_EVERY_BYTE * 390 + bytes(160)),
]


def _chunked(name: str, body: bytes, content: bytes = b"hello", *lines: bytes) -> Accepted:
    return _one(f"chunked-{name}", chunked_request(body, *lines), Request(b"POST", b"/upload", content))


def _sizes(size: bytes) -> bytes:
    """A body whose one chunk has its size written so."""
    return size + b"\r\n" + b"a" * int(size, 16) + b"\r\n0\r\n\r\n"


def _extended(extension: bytes) -> bytes:
    return b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"


_CHUNKED = [
    _chunked("one-chunk", HELLO),
    _chunked("empty", b"0\r\n\r\n", b""),
    _chunked("three-chunks", b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"),
    *(
        _chunked(f"size-{size.decode()}", _sizes(size), b"a" * int(size, 16))
        for size in (b"1", b"05", b"0000000000000005", b"a", b"A", b"0f", b"1a", b"1A", b"fF", b"1000")
    ),
    _chunked("last-of-zeros", b"5\r\nhello\r\n000\r\n\r\n"),
    _chunked("last-of-16-zeros", b"5\r\nhello\r\n0000000000000000\r\n\r\n"),
    _chunked("data-of-line-ends", b"6\r\n\r\n\r\n\n\r\r\n0\r\n\r\n", b"\r\n\r\n\n\r"),
    _chunked("data-like-chunks", b"f\r\n" + HELLO + b"\r\n0\r\n\r\n", HELLO),
    _chunked(
        "data-like-a-request",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(_INNER), _INNER),
        _INNER,
    ),
    _chunked("data-of-every-byte", b"100\r\n" + _EVERY_BYTE + b"\r\n0\r\n\r\n", _EVERY_BYTE),
    _chunked("500-chunks-of-a-byte", b"1\r\na\r\n" * 500 + b"0\r\n\r\n", b"a" * 500),
    _chunked("chunk-of-100000", b"186a0\r\n" + bytes(100_000) + b"\r\n0\r\n\r\n", bytes(100_000)),
    _chunked("extension", _extended(b";a")),
    _chunked("extension-with-value", _extended(b";a=b")),
    _chunked("extension-with-quoted-value", _extended(b';a="b c"')),
    _chunked("extension-with-quoted-semicolon", _extended(b';a="b;c"')),
    _chunked("extensions", _extended(b";a;b=c;d")),
    _chunked("extension-of-last-chunk", b"5\r\nhello\r\n0;a=b\r\n\r\n"),
    _chunked("extension-of-256-bytes", _extended(b";" + b"a" * (EXTENSION_MAX - 1))),
    _chunked(
        "extensions-of-4-kib",
        (b"1;" + b"a" * 127 + b"\r\nx\r\n") * (EXTENSIONS_MAX // 128) + b"0\r\n\r\n",
        b"x" * (EXTENSIONS_MAX // 128),
    ),
    _one(
        "chunked-upper-case",
        request(b"TRANSFER-ENCODING: CHUNKED", method=b"POST", target=b"/upload") + HELLO,
        _UPLOAD,
    ),
    _one(
        "chunked-mixed-case",
        request(b"transfer-encoding: ChunKed", method=b"POST", target=b"/upload") + HELLO,
        _UPLOAD,
    ),
    _one(
        "chunked-without-space",
        request(b"Transfer-Encoding:chunked", method=b"POST", target=b"/upload") + HELLO,
        _UPLOAD,
    ),
    _one(
        "chunked-of-get",
        request(b"Transfer-Encoding: chunked") + HELLO,
        Request(b"GET", b"/", b"hello"),
    ),
    _one(
        "chunked-of-delete",
        request(b"Transfer-Encoding: chunked", method=b"DELETE") + HELLO,
        Request(b"DELETE", b"/", b"hello"),
    ),
]

_DROPPED = Request(b"POST", b"/upload", b"hello", absent=(b"x-a", b"x-b"))

_TRAILERS = [
    _one(f"trailers-{name}", chunked_request(b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n"), _DROPPED)
    for name, trailers in {
        "one": b"X-A: 1\r\n",
        "two": b"X-A: 1\r\nX-B: 2\r\n",
        "empty-value": b"X-A:\r\n",
        "high-bytes": "X-A: Größe\r\n".encode(),
        "repeated": b"X-A: 1\r\nX-A: 2\r\n",
    }.items()
]
_TRAILERS.append(
    _one(
        "trailers-announced",
        chunked_request(b"5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n", b"Trailer: X-A", b"TE: trailers"),
        _DROPPED,
    )
)

_PIPELINED = [
    Accepted(
        "pipelined-two",
        request(target=b"/1") + request(target=b"/2"),
        (Request(b"GET", b"/1"), Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-twenty",
        b"".join(request(target=b"/%d" % number) for number in range(20)),
        tuple(Request(b"GET", b"/%d" % number) for number in range(20)),
    ),
    Accepted(
        "pipelined-behind-bodies",
        request(b"Content-Length: 5", method=b"POST", target=b"/upload")
        + b"hello"
        + chunked_request(HELLO)
        + request(target=b"/3"),
        (_UPLOAD, _UPLOAD, Request(b"GET", b"/3")),
    ),
    Accepted(
        "pipelined-behind-trailers",
        chunked_request(b"5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n") + request(target=b"/2"),
        (_DROPPED, Request(b"GET", b"/2", absent=(b"x-a",))),
    ),
    Accepted(
        "pipelined-behind-an-empty-body",
        request(b"Content-Length: 0", method=b"POST") + request(target=b"/2"),
        (Request(b"POST", b"/"), Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-behind-a-body-of-get",
        request(b"Content-Length: 5") + b"hello" + request(target=b"/2"),
        (Request(b"GET", b"/", b"hello"), Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-behind-head",
        request(method=b"HEAD") + request(target=b"/2"),
        (Request(b"HEAD", b"/"), Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-behind-a-body-like-a-request",
        request(b"Content-Length: %d" % len(request()), method=b"POST", target=b"/upload")
        + request()
        + request(target=b"/2"),
        (Request(b"POST", b"/upload", request()), Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-behind-body-and-an-empty-line",
        request(b"Content-Length: 5", method=b"POST", target=b"/upload")
        + b"hello\r\n"
        + request(target=b"/2"),
        (_UPLOAD, Request(b"GET", b"/2")),
    ),
    Accepted(
        "pipelined-last-closes",
        request(target=b"/1") + request(b"Connection: close", target=b"/2"),
        (Request(b"GET", b"/1"), Request(b"GET", b"/2")),
        closes=True,
    ),
]


def _expecting(name: str, value: bytes) -> Accepted:
    data = request(b"Expect: " + value, b"Content-Length: 5", method=b"POST", target=b"/upload")
    return _one(f"expect-{name}", data + b"hello", _UPLOAD)


_EXPECTATIONS = [
    _expecting("continue", b"100-continue"),
    _expecting("continue-in-other-case", b"100-Continue"),
    _one("expect-continue-chunked", chunked_request(HELLO, b"Expect: 100-continue"), _UPLOAD),
    Accepted(
        "expect-continue-pipelined",
        request(b"Expect: 100-continue", b"Content-Length: 5", method=b"POST", target=b"/upload")
        + b"hello"
        + request(target=b"/2"),
        (_UPLOAD, Request(b"GET", b"/2")),
    ),
]

_UPGRADES = [
    _one(
        "upgrade-websocket",
        request(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            target=b"/chat",
        ),
        Request(
            b"GET",
            b"/chat",
            fields=(
                (b"upgrade", b"websocket"),
                (b"sec-websocket-version", b"13"),
                (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            ),
        ),
    ),
    _one(
        "upgrade-websocket-as-browsers-write-it",
        request(
            b"Connection: keep-alive, Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            target=b"/chat",
        ),
        Request(b"GET", b"/chat", fields=((b"upgrade", b"websocket"),)),
    ),
    _one(
        "upgrade-in-1.0-means-nothing",
        request(b"Connection: Upgrade", b"Upgrade: websocket", version=b"HTTP/1.0"),
        Request(b"GET", b"/", absent=(b"upgrade",)),
        closes=True,
    ),
    _one(
        "upgrade-that-connection-does-not-name",
        request(b"Upgrade: websocket"),
        Request(b"GET", b"/", absent=(b"upgrade",)),
    ),
]

ACCEPTED_REQUESTS: list[Accepted] = [
    *_METHODS,
    *_TARGETS,
    *_HOSTS,
    *_FIELDS,
    *_SIZES,
    *_BEFORE,
    *_OLD,
    *_LENGTHS,
    *_CHUNKED,
    *_TRAILERS,
    *_PIPELINED,
    *_EXPECTATIONS,
    *_UPGRADES,
]
