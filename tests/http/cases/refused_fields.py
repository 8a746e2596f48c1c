"""Hosts, fields, line ends and sizes of heads (RFC 9112 §2.2, §3.2, §5; H5–H7, H10, H12, H17)."""

from __future__ import annotations

from tests.http.cases.kinds import (
    BAD,
    FIELDS_MAX,
    HEAD_MAX,
    HOST,
    SMUGGLED,
    Refused,
    head,
    request,
)

_LONG = frozenset({431})

_DELIMITERS = b'"(),/;<=>?@[\\]{}'
_CONTROLS = (*range(0x20), 0x7F)
_TAB, _CR, _LF = 0x09, 0x0D, 0x0A


def _host(name: str, *lines: bytes, version: bytes = b"HTTP/1.1") -> Refused:
    return Refused(f"host-{name}", head(b"GET / " + version, *lines) + SMUGGLED)


def _fields(name: str, *lines: bytes, status: frozenset[int] = BAD) -> Refused:
    return Refused(name, request(*lines, b"X-Last: 1") + SMUGGLED, status)


def _raw(name: str, data: bytes) -> Refused:
    return Refused(name, data + SMUGGLED)


_HOSTS = [
    _host("missing", b"X-A: 1"),
    _host("missing-and-no-field"),
    _host("twice", HOST, HOST),
    _host("twice-different", HOST, b"Host: elsewhere.test"),
    _host("twice-apart", HOST, b"X-A: 1", b"X-B: 2", b"Host: elsewhere.test"),
    _host("twice-other-case", HOST, b"hOST: elsewhere.test"),
    _host("twice-one-empty", HOST, b"Host:"),
    _host("twice-in-1.0", HOST, b"Host: elsewhere.test", version=b"HTTP/1.0"),
    _host("folded", b"Host:", b" site.test"),
    _host("space-before-colon", b"Host : site.test"),
    _host("space-before-colon-and-good-one", HOST, b"Host : elsewhere.test"),
    *(
        _host(name, b"Host:" + value)
        for name, value in {
            "empty": b"",
            "blank": b" ",
            "tab": b"\t",
            "comma": b" site.test,elsewhere.test",
            "comma-and-space": b" site.test, elsewhere.test",
            "trailing-comma": b" site.test,",
            "path": b" site.test/",
            "path-and-name": b" site.test/elsewhere.test",
            "query": b" site.test?a",
            "fragment": b" site.test#a",
            "url": b" https://site.test",
            "slashes": b" //site.test",
            "user": b" user@site.test",
            "user-and-password": b" user:secret@site.test",
            "empty-user": b" @site.test",
            "space-inside": b" site.test elsewhere.test",
            "tab-inside": b" site.test\telsewhere.test",
            "backslash": b" site.test\\elsewhere.test",
            "quoted": b' "site.test"',
            "angle-brackets": b" <site.test>",
            "braces": b" {site.test}",
            "pipe": b" site.test|elsewhere.test",
            "caret": b" site^test",
            "backtick": b" site`test",
            "nul": b" site.test\x00",
            "nul-inside": b" site.test\x00.elsewhere.test",
            "control": b" site\x01.test",
            "delete": b" site\x7f.test",
            "cr-inside": b" site.test\relsewhere.test",
            "utf-8": " münchen.test".encode(),
            "latin-1": b" m\xfcnchen.test",
            "no-break-space": b" site.test\xa0",
            "percent-00": b" site.test%00",
            "percent-2f": b" site.test%2f",
            "percent-40": b" user%40site.test",
            "port-alone": b" :443",
            "port-letters": b" site.test:https",
            "port-hex": b" site.test:0x1bb",
            "port-sign": b" site.test:+443",
            "port-negative": b" site.test:-1",
            "port-space": b" site.test: 443",
            "port-space-before": b" site.test :443",
            "port-too-great": b" site.test:65536",
            "port-of-20-digits": b" site.test:18446744073709552059",
            "two-ports": b" site.test:443:443",
            "port-and-path": b" site.test:443/",
            "port-and-user": b" site.test:443@elsewhere.test",
            "full-width-port": " site.test:４４３".encode(),
            "ipv6-bare": b" 2001:db8::1",
            "ipv6-not-closed": b" [2001:db8::1",
            "ipv6-not-opened": b" 2001:db8::1]",
            "ipv6-empty": b" []",
            "ipv6-letters": b" [site.test]",
            "ipv6-nine-groups": b" [1:2:3:4:5:6:7:8:9]",
            "ipv6-two-gaps": b" [2001::db8::1]",
            "ipv6-zone": b" [fe80::1%25eth0]",
            "ipv6-tail": b" [2001:db8::1]site.test",
            "ipv6-bad-port": b" [2001:db8::1]:https",
            "ipv6-two-brackets": b" [[2001:db8::1]]",
        }.items()
    ),
]

_NAMES = [
    *(
        _fields(f"name-with-{byte:02x}", b"X%cA: 1" % byte)
        for byte in (*_DELIMITERS, 0x20, *_CONTROLS, 0x80, 0xA0, 0xFF)
        if byte not in {_CR, _LF}
    ),
    _fields("name-utf-8", "Größe: 1".encode()),
    _fields("name-cr", b"X\rA: 1"),
    _fields("name-empty", b": 1"),
    _fields("name-empty-no-value", b":"),
    _fields("name-blank", b" : 1"),
    _fields("name-two-empty", b": 1", b": 2"),
    _fields("name-no-colon", b"X-A"),
    _fields("name-no-colon-with-value", b"X-A 1"),
    _fields("name-equals-for-colon", b"X-A= 1"),
    _fields("name-space-before-colon", b"X-A : 1"),
    _fields("name-tab-before-colon", b"X-A\t: 1"),
    _fields("name-spaces-before-colon", b"X-A  \t : 1"),
    _fields("name-vertical-tab-before-colon", b"X-A\x0b: 1"),
    _fields("name-nul-before-colon", b"X-A\x00: 1"),
    _fields("name-no-break-space-before-colon", b"X-A\xa0: 1"),
    _fields("name-underscore", b"X_A: 1"),
    _fields("name-underscore-first", b"_A: 1"),
    _fields("name-underscore-forwarded", b"X_Forwarded_For: 127.0.0.1"),
    _fields("name-underscore-forwarded-half", b"X-Forwarded_For: 127.0.0.1"),
    _fields("name-underscore-host", b"X_Host: elsewhere.test"),
    _fields("name-request-line", b"GET /smuggled HTTP/1.1"),
    _fields("name-quoted", b'"X-A": 1'),
]

_VALUES = [
    *(
        _fields(f"value-with-{byte:02x}", b"X-A: a%cb" % byte)
        for byte in _CONTROLS
        if byte not in {_TAB, _CR, _LF}
    ),
    _fields("value-nul-first", b"X-A: \x00a"),
    _fields("value-nul-last", b"X-A: a\x00"),
    _fields("value-nul-alone", b"X-A: \x00"),
    _fields("value-delete-last", b"X-A: a\x7f"),
    _fields("value-nul-in-connection", b"Connection: close\x00"),
    _fields("value-escape-sequence", b"User-Agent: \x1b[31mred\x1b[0m"),
]

_FOLDS = [
    _fields("fold-space", b"X-A: 1", b" 2"),
    _fields("fold-tab", b"X-A: 1", b"\t2"),
    _fields("fold-spaces", b"X-A: 1", b"    2"),
    _fields("fold-empty", b"X-A: 1", b" "),
    _fields("fold-empty-tab", b"X-A: 1", b"\t"),
    _fields("fold-of-empty-value", b"X-A:", b" 1"),
    _fields("fold-field", b"X-A: 1", b" X-B: 2"),
    _fields("fold-twice", b"X-A: 1", b" 2", b" 3"),
    _fields("fold-content-length", b"X-A: 1", b" Content-Length: 5"),
    _raw("fold-first", head(b"GET / HTTP/1.1", b" X-A: 1", HOST)),
    _raw("fold-first-tab", head(b"GET / HTTP/1.1", b"\tX-A: 1", HOST)),
    _raw("fold-first-host", head(b"GET / HTTP/1.1", b" Host: site.test")),
    _raw("fold-first-empty", head(b"GET / HTTP/1.1", b" ", HOST)),
    _raw("fold-last", head(b"GET / HTTP/1.1", HOST, b"X-A: 1", b" 2")),
    _raw("fold-last-empty", head(b"GET / HTTP/1.1", HOST, b" ")),
    _raw("fold-last-empty-tab", head(b"GET / HTTP/1.1", HOST, b"\t")),
]

_LINE = b"GET / HTTP/1.1"

# Each is followed by a good request: a reader that only looks for CRLF CRLF finds one.
_LINE_ENDS = [
    _raw("lf-everywhere", _LINE + b"\n" + HOST + b"\n\n"),
    _raw("lf-after-request-line", _LINE + b"\n" + HOST + b"\r\n\r\n"),
    _raw("lf-after-field", _LINE + b"\r\n" + HOST + b"\nX-A: 1\r\n\r\n"),
    _raw("lf-after-last-field", _LINE + b"\r\n" + HOST + b"\n\r\n"),
    _raw("lf-for-empty-line", _LINE + b"\r\n" + HOST + b"\r\n\n"),
    _raw("lf-lf-at-the-end", _LINE + b"\r\n" + HOST + b"\n\n"),
    _raw("lf-cr-for-crlf", _LINE + b"\n\r" + HOST + b"\n\r\n\r"),
    _raw("lf-in-value", _LINE + b"\r\n" + HOST + b"\r\nX-A: 1\n2\r\n\r\n"),
    _raw("lf-in-name", _LINE + b"\r\n" + HOST + b"\r\nX\nA: 1\r\n\r\n"),
    _raw("lf-in-target", b"GET /a\nb HTTP/1.1\r\n" + HOST + b"\r\n\r\n"),
    _raw("lf-hides-content-length", _LINE + b"\r\n" + HOST + b"\r\nX-A: 1\nContent-Length: 42\r\n\r\n"),
    _raw("lf-hides-encoding", _LINE + b"\r\n" + HOST + b"\r\nX: 1\nTransfer-Encoding: chunked\r\n\r\n"),
    _raw("lf-hides-a-request", _LINE + b"\r\n" + HOST + b"\r\nX-A: 1\n\nGET /smuggled HTTP/1.1\r\n\r\n"),
    _raw("cr-everywhere", _LINE + b"\r" + HOST + b"\r\r"),
    _raw("cr-after-request-line", _LINE + b"\r" + HOST + b"\r\n\r\n"),
    _raw("cr-after-field", _LINE + b"\r\n" + HOST + b"\rX-A: 1\r\n\r\n"),
    _raw("cr-before-name", _LINE + b"\r\n" + HOST + b"\r\n\rX-A: 1\r\n\r\n"),
    _raw("cr-cr-lf-after-request-line", _LINE + b"\r\r\n" + HOST + b"\r\n\r\n"),
    _raw("cr-cr-lf-after-field", _LINE + b"\r\n" + HOST + b"\r\r\n\r\n"),
    _raw("cr-cr-lf-at-the-end", _LINE + b"\r\n" + HOST + b"\r\n\r\r\n"),
    _raw("cr-in-value", _LINE + b"\r\n" + HOST + b"\r\nX-A: 1\r2\r\n\r\n"),
    _raw("cr-first-in-value", _LINE + b"\r\n" + HOST + b"\r\nX-A:\r 1\r\n\r\n"),
    _raw("cr-hides-content-length", _LINE + b"\r\n" + HOST + b"\r\nX-A: 1\rContent-Length: 42\r\n\r\n"),
    _raw("cr-hides-encoding", _LINE + b"\r\n" + HOST + b"\r\nX: 1\rTransfer-Encoding: chunked\r\n\r\n"),
    _raw("nul-after-request-line", _LINE + b"\r\n\x00" + HOST + b"\r\n\r\n"),
    _raw("nul-before-empty-line", _LINE + b"\r\n" + HOST + b"\r\n\x00\r\n\r\n"),
    _raw("next-line-character", _LINE + b"\x85" + HOST + b"\r\n\r\n"),
    _raw("line-separator", _LINE + "\u2028".encode() + HOST + b"\r\n\r\n"),
]


def _of_bytes(count: int) -> bytes:
    """A good head but for its size."""
    rest = request(b"X-A: ")
    return rest[:-4] + b"a" * (count - len(rest)) + rest[-4:]


def _of_fields(count: int) -> bytes:
    """Host is one of them."""
    return request(*(b"X-%d: 1" % number for number in range(count - 1)))


_SIZES = [
    Refused("head-of-32769-bytes", _of_bytes(HEAD_MAX + 1) + SMUGGLED, _LONG),
    Refused("head-of-64-kib", _of_bytes(65_536) + SMUGGLED, _LONG),
    Refused("head-of-300-kib", _of_bytes(300 * 1024) + SMUGGLED, _LONG),
    Refused(
        "head-of-many-long-fields",
        request(*(b"X-%d: %s" % (number, b"a" * 1000) for number in range(50))) + SMUGGLED,
        _LONG,
    ),
    Refused("head-without-end", _of_bytes(HEAD_MAX + 5)[:-4], _LONG),
    Refused("head-of-one-name-without-end", request()[:-2] + b"X" * HEAD_MAX, _LONG),
    Refused("fields-101", _of_fields(FIELDS_MAX + 1) + SMUGGLED, _LONG),
    Refused("fields-500", _of_fields(500) + SMUGGLED, _LONG),
    Refused("fields-10000", _of_fields(10_000) + SMUGGLED, _LONG),
    Refused(
        "fields-101-of-one-byte",
        request(*[b"a:"] * FIELDS_MAX) + SMUGGLED,
        _LONG,
    ),
]

_EXPECTATIONS = [
    Refused(
        f"expect-{name}",
        request(b"Expect: " + value, b"Content-Length: 5", method=b"POST") + b"hello" + SMUGGLED,
        frozenset({417}),
    )
    for name, value in {
        "unknown": b"202-accepted",
        "100": b"100",
        "100-continued": b"100-continued",
        "continue": b"continue",
        "two": b"100-continue, 202-accepted",
        "parameter": b"100-continue; a=b",
        "quoted": b'"100-continue"',
    }.items()
]

FIELDS = [*_HOSTS, *_NAMES, *_VALUES, *_FOLDS, *_LINE_ENDS, *_SIZES, *_EXPECTATIONS]
