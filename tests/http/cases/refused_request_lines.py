"""Methods, targets, versions and what stands between them (RFC 9112 §3; H6, H9)."""

from __future__ import annotations

from tests.http.cases.kinds import BAD, HELLO, HOST, SMUGGLED, TARGET_MAX, Refused, head, request

_VERSION = frozenset({505})
_BAD_VERSION = frozenset({400, 505})
_METHOD = frozenset({405})
_BAD_METHOD = frozenset({400, 405})

_DELIMITERS = b'"(),/:;<=>?@[\\]{}'
_CONTROLS = (*range(0x20), 0x7F)
_CR, _LF, _SPACE = 0x0D, 0x0A, 0x20


def _line(name: str, line: bytes, status: frozenset[int] = BAD) -> Refused:
    return Refused(name, head(line, HOST) + SMUGGLED, status)


def _target(name: str, target: bytes, status: frozenset[int] = BAD) -> Refused:
    return Refused(f"target-{name}", request(target=target) + SMUGGLED, status)


_METHODS = [
    *(
        _line(f"method-with-{byte:02x}", b"GE%cT / HTTP/1.1" % byte)
        for byte in (*_DELIMITERS, 0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x7F, 0x80, 0xA0, 0xFF)
    ),
    _line("method-empty", b" / HTTP/1.1"),
    _line("method-missing", b"/ HTTP/1.1"),
    _line("method-and-colon", b"GET: / HTTP/1.1"),
    _line("method-of-40000-bytes", b"G" * 40_000 + b" / HTTP/1.1", frozenset({400, 414, 431, 501})),
    _line("method-connect", b"CONNECT site.test:443 HTTP/1.1", _METHOD),
    Refused(
        "method-connect-1.0",
        head(b"CONNECT site.test:443 HTTP/1.0", b"Host: site.test:443") + SMUGGLED,
        _METHOD,
    ),
    _line("method-connect-elsewhere", b"CONNECT 127.0.0.1:22 HTTP/1.1", _BAD_METHOD),
    _line("method-connect-path", b"CONNECT / HTTP/1.1", _BAD_METHOD),
    _line("method-connect-url", b"CONNECT https://site.test/ HTTP/1.1", _BAD_METHOD),
    Refused(
        "method-connect-with-body",
        head(b"CONNECT site.test:443 HTTP/1.1", HOST, b"Content-Length: 5") + b"hello" + SMUGGLED,
        _BAD_METHOD,
    ),
    _line("method-trace", b"TRACE / HTTP/1.1", _METHOD),
    _line("method-trace-1.0", b"TRACE / HTTP/1.0", _METHOD),
    _line("method-trace-asterisk", b"TRACE * HTTP/1.1", _BAD_METHOD),
    Refused(
        "method-trace-with-body",
        request(b"Content-Length: 5", method=b"TRACE") + b"hello" + SMUGGLED,
        _BAD_METHOD,
    ),
    Refused(
        "method-trace-with-chunked-body",
        request(b"Transfer-Encoding: chunked", method=b"TRACE") + HELLO + SMUGGLED,
        _BAD_METHOD,
    ),
]

_SPACES = [
    _line("line-leading-space", b" GET / HTTP/1.1"),
    _line("line-leading-tab", b"\tGET / HTTP/1.1"),
    _line("line-two-spaces-before-target", b"GET  / HTTP/1.1"),
    _line("line-two-spaces-before-version", b"GET /  HTTP/1.1"),
    _line("line-tab-before-target", b"GET\t/ HTTP/1.1"),
    _line("line-tab-before-version", b"GET /\tHTTP/1.1"),
    _line("line-space-and-tab-before-target", b"GET \t/ HTTP/1.1"),
    _line("line-vertical-tab-before-target", b"GET\x0b/ HTTP/1.1"),
    _line("line-form-feed-before-version", b"GET /\x0cHTTP/1.1"),
    _line("line-no-break-space-before-version", b"GET /\xa0HTTP/1.1"),
    _line("line-cr-before-target", b"GET\r/ HTTP/1.1"),
    _line("line-cr-before-version", b"GET /\rHTTP/1.1"),
    _line("line-trailing-space", b"GET / HTTP/1.1 "),
    _line("line-trailing-tab", b"GET / HTTP/1.1\t"),
    _line("line-trailing-nul", b"GET / HTTP/1.1\x00"),
    _line("line-space-in-target", b"GET /a b HTTP/1.1"),
    _line("line-two-targets", b"GET / /admin HTTP/1.1"),
    _line("line-two-versions", b"GET / HTTP/1.1 HTTP/1.1"),
    _line("line-no-target", b"GET HTTP/1.1", _BAD_VERSION),
    _line("line-method-alone", b"GET", _BAD_VERSION),
    _line("line-nul-first", b"\x00GET / HTTP/1.1"),
    _line("line-byte-order-mark", b"\xef\xbb\xbfGET / HTTP/1.1"),
]

_BEFORE = [
    Refused("before-two-empty-lines", b"\r\n\r\n" + request() + SMUGGLED),
    Refused("before-bare-lf", b"\n" + request() + SMUGGLED),
    Refused("before-bare-cr", b"\r" + request() + SMUGGLED),
    Refused("before-lf-after-an-empty-line", b"\r\n\n" + request() + SMUGGLED),
    Refused("before-a-line-of-a-space", b" \r\n" + request() + SMUGGLED),
    Refused("before-a-field", b"X-A: 1\r\n" + request() + SMUGGLED, _BAD_VERSION),
    Refused("before-a-status-line", b"HTTP/1.1 200 OK\r\n" + request() + SMUGGLED, _BAD_VERSION),
]

_VERSIONS = [
    *(
        _line(f"version-{version}", b"GET / HTTP/" + version.encode(), _VERSION)
        for version in ("0.9", "1.2", "1.9", "2.0", "2.1", "3.0", "9.9")
    ),
    *(
        _line(f"version-{name}", b"GET / " + version, _BAD_VERSION)
        for name, version in {
            "no-minor": b"HTTP/1",
            "no-minor-digit": b"HTTP/1.",
            "no-major": b"HTTP/.1",
            "no-digits": b"HTTP/",
            "no-slash": b"HTTP1.1",
            "no-dot": b"HTTP/11",
            "comma": b"HTTP/1,1",
            "two-digit-minor": b"HTTP/1.10",
            "leading-zero-major": b"HTTP/01.1",
            "leading-zero-minor": b"HTTP/1.01",
            "three-numbers": b"HTTP/1.1.1",
            "sign": b"HTTP/+1.1",
            "negative": b"HTTP/-1.1",
            "letters": b"HTTP/x.y",
            "full-width-digits": "HTTP/１.１".encode(),
            "arabic-digits": "HTTP/١.١".encode(),
            "suffix": b"HTTP/1.1x",
            "semicolon": b"HTTP/1.1;",
            "lower-case": b"http/1.1",
            "mixed-case": b"Http/1.1",
            "two-slashes": b"HTTP//1.1",
            "backslash": b"HTTP\\1.1",
            "space-for-slash": b"HTTP 1.1",
            "space-after-slash": b"HTTP/ 1.1",
            "https": b"HTTPS/1.1",
            "other-protocol": b"RTSP/1.0",
            "prefix": b"XHTTP/1.1",
            "two-without-dot": b"HTTP/2",
        }.items()
    ),
    _line("version-none", b"GET /", _BAD_VERSION),
    _line("version-none-but-space", b"GET / ", _BAD_VERSION),
    Refused("http-0.9-request", b"GET /\r\n" + SMUGGLED, _BAD_VERSION),
    Refused("http-0.9-request-with-empty-line", b"GET /\r\n\r\n" + SMUGGLED, _BAD_VERSION),
    Refused("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, _BAD_VERSION),
    _line("http-2-preface-of-1.1", b"PRI * HTTP/1.1"),
]

_TARGETS = [
    # A space, tab or CR in it is a matter of the line; LF ends it.
    *(
        _target(f"with-{byte:02x}", b"/a%cb" % byte)
        for byte in (*_CONTROLS, 0x80, 0xA0, 0xFF)
        if byte not in {_CR, _LF, _SPACE}
    ),
    _target("utf-8", "/é".encode()),
    _target("fragment", b"/#top"),
    _target("fragment-after-query", b"/?a=1#top"),
    _target("fragment-and-host", b"/#@elsewhere.test/"),
    _target("backslash", b"/a\\b"),
    _target("backslash-first", b"\\"),
    _target("backslash-pair", b"/\\elsewhere.test/"),
    *(
        _target(f"percent-{code.decode().lower()}-{case}", b"/a%" + spelt + b"b")
        for code in (b"00", b"0D", b"0A")
        for case, spelt in (("upper", code), ("lower", code.lower()))
        if case == "upper" or code != code.lower()
    ),
    _target("percent-0d0a", b"/a%0d%0aX-Injected:%201"),
    _target("percent-00-in-query", b"/?a=%00"),
    _target("percent-0d-in-absolute-form", b"https://site.test/%0d"),
    _target("relative", b"index.html"),
    _target("query-only", b"?a=1"),
    _target("authority-form", b"site.test:443"),
    _target("authority-form-without-port", b"site.test"),
    _target("asterisk-of-get", b"*"),
    Refused("target-asterisk-and-more", request(method=b"OPTIONS", target=b"*/") + SMUGGLED),
    Refused("target-two-asterisks", request(method=b"OPTIONS", target=b"**") + SMUGGLED),
    _target("absolute-other-name", b"https://elsewhere.test/"),
    _target("absolute-other-port", b"https://site.test:8443/"),
    _target("absolute-longer-name", b"https://site.test.elsewhere.test/"),
    _target("absolute-shorter-name", b"https://test/"),
    _target("absolute-no-authority", b"https:///"),
    _target("absolute-no-slashes", b"https:site.test/"),
    _target("absolute-one-slash", b"https:/site.test/"),
    _target("absolute-nothing-else", b"https://"),
    _target("absolute-port-alone", b"https://:443/"),
    _target("absolute-user", b"https://user@site.test/"),
    _target("absolute-user-and-password", b"https://user:secret@site.test/"),
    _target("absolute-empty-user", b"https://@site.test/"),
    _target("absolute-host-as-user", b"https://site.test@elsewhere.test/"),
    _target("absolute-host-as-password", b"https://site.test:443@elsewhere.test/"),
    _target("absolute-backslashes", b"https:\\\\site.test\\"),
    _target("absolute-backslash-after-name", b"https://site.test\\@elsewhere.test/"),
    _target("absolute-comma", b"https://site.test,elsewhere.test/"),
    _target("absolute-space", b"https://site.test /"),
    _target("absolute-fragment", b"https://site.test#/"),
    _target("absolute-bad-port", b"https://site.test:https/"),
    _target("absolute-ftp", b"ftp://site.test/"),
    _target("absolute-file", b"file:///etc/passwd"),
    _target("absolute-javascript", b"javascript:alert(1)"),
    _target("absolute-no-scheme", b"://site.test/"),
    Refused(
        "target-absolute-without-host", head(b"GET https://site.test/ HTTP/1.1", b"X-A: 1") + SMUGGLED
    ),
    Refused(
        "target-absolute-with-two-hosts",
        head(b"GET https://site.test/ HTTP/1.1", HOST, b"Host: elsewhere.test") + SMUGGLED,
    ),
    Refused(
        "target-absolute-ipv6-other",
        head(b"GET https://[2001:db8::1]/ HTTP/1.1", b"Host: [2001:db8::2]") + SMUGGLED,
    ),
    Refused(
        "target-absolute-1.0-other-name",
        head(b"GET https://elsewhere.test/ HTTP/1.0", HOST) + SMUGGLED,
    ),
    _target("of-8193-bytes", b"/" + b"a" * TARGET_MAX, frozenset({414})),
    _target("of-20000-bytes", b"/" + b"a" * 19_999, frozenset({414})),
    _target("of-8193-bytes-with-query", b"/?" + b"a" * (TARGET_MAX - 1), frozenset({414})),
    _target("of-40000-bytes", b"/" + b"a" * 39_999, frozenset({414, 431})),
    Refused("target-without-end", b"GET /" + b"a" * 100_000, frozenset({414, 431})),
]

REQUEST_LINES = [*_METHODS, *_SPACES, *_BEFORE, *_VERSIONS, *_TARGETS]
