"""Where a request's body ends: lengths and codings that could be read in two ways (H1–H4, H7)."""

from __future__ import annotations

from tests.http.cases.kinds import BAD, HELLO, SMUGGLED, Refused, request

_CODING = frozenset({400, 501})

# The backslash-u names are digits, too, for those who ask isdigit().
_LENGTHS = {
    "empty": b"",
    "blank": b" ",
    "tab": b"\t",
    "plus": b" +5",
    "minus": b" -5",
    "minus-zero": b" -0",
    "hex": b" 0x5",
    "hex-letters": b" a",
    "octal": b" 0o5",
    "binary": b" 0b101",
    "underscore": b" 5_0",
    "inner-space": b" 5 0",
    "inner-tab": b" 5\t0",
    "point": b" 5.0",
    "exponent": b" 5e0",
    "fraction": b" 10/2",
    "word": b" five",
    "unit": b" 5b",
    "quoted": b' "5"',
    "semicolon": b" 5;",
    "parameter": b" 5; a=b",
    "list": b" 5, 5",
    "list-without-space": b" 5,5",
    "list-different": b" 5, 0",
    "leading-comma": b" ,5",
    "trailing-comma": b" 5,",
    "comma": b" ,",
    "colon": b" :5",
    "two-colons": b": 5",
    "nul": b" 5\x00",
    "nul-first": b" \x005",
    "vertical-tab": b" 5\x0b",
    "vertical-tab-first": b"\x0b5",
    "form-feed": b" 5\x0c",
    "no-break-space": b" 5\xa0",
    "next-line": b" 5\x85",
    "cr": b" 5\r0",
    "superscript": " ⁵".encode(),
    "latin-1-superscript": b" \xb2",
    "full-width": " ５".encode(),
    "arabic": " ٥".encode(),
    "chunked": b" chunked",
    "infinity": b" inf",
    "nan": b" nan",
}

# Well written, but no length that could be meant.
_LONG_LENGTHS = {
    "19-digits": b" 1000000000000000000",
    "19-digits-of-five": b" 0000000000000000005",
    "2-to-63": b" 9223372036854775808",
    "2-to-64": b" 18446744073709551616",
    "2-to-64-and-5": b" 18446744073709551621",
    "2-to-32-and-5-in-20-digits": b" 00000000004294967301",
    "300-digits": b" " + b"9" * 300,
    "5000-digits": b" " + b"9" * 5000,
}


def _sized(name: str, *lines: bytes, status: frozenset[int] = BAD) -> Refused:
    data = request(*lines, method=b"POST", target=b"/upload") + b"hello" + SMUGGLED
    return Refused(f"length-{name}", data, status)


_CONTENT_LENGTH = [
    *(_sized(name, b"Content-Length:" + value) for name, value in _LENGTHS.items()),
    *(
        _sized(name, b"Content-Length:" + value, status=frozenset({400, 413}))
        for name, value in _LONG_LENGTHS.items()
    ),
    _sized("twice", b"Content-Length: 5", b"Content-Length: 5"),
    _sized("twice-different", b"Content-Length: 5", b"Content-Length: 0"),
    _sized("twice-other-case", b"Content-Length: 5", b"content-length: 5"),
    _sized("twice-apart", b"Content-Length: 5", b"X-A: 1", b"X-B: 2", b"CONTENT-LENGTH: 0"),
    _sized("twice-one-empty", b"Content-Length: 5", b"Content-Length:"),
    _sized("thrice", *[b"Content-Length: 5"] * 3),
    _sized("underscore-name", b"Content_Length: 5"),
    _sized("underscore-name-and-good-one", b"Content-Length: 5", b"Content_Length: 0"),
    _sized("space-before-colon", b"Content-Length : 5"),
    _sized("tab-before-colon", b"Content-Length\t: 5"),
    _sized("control-before-name", b"\x01Content-Length: 5"),
    _sized("nul-in-name", b"Content\x00-Length: 5"),
    _sized("space-for-hyphen", b"Content Length: 5"),
    _sized("no-colon", b"Content-Length 5"),
    _sized("folded", b"Content-Length:", b" 5"),
    _sized("folded-digits", b"Content-Length: 5", b" 0"),
    _sized("hidden-by-fold", b"X-A: 1", b"\tContent-Length: 5"),
    Refused(
        "length-twice-in-1.0",
        request(b"Content-Length: 5", b"Content-Length: 5", method=b"POST", version=b"HTTP/1.0")
        + b"hello"
        + SMUGGLED,
    ),
    Refused(
        "length-plus-of-get",
        request(b"Content-Length: +0") + SMUGGLED,
    ),
]

# Only one line that says "chunked" is understood (H3).
_CODINGS = {
    "empty": b"",
    "blank": b" ",
    "identity": b" identity",
    "gzip": b" gzip",
    "deflate": b" deflate",
    "chunked-identity": b" chunked, identity",
    "identity-chunked": b" identity, chunked",
    "gzip-chunked": b" gzip, chunked",
    "chunked-gzip": b" chunked, gzip",
    "chunked-chunked": b" chunked, chunked",
    "chunked-chunked-without-space": b" chunked,chunked",
    "leading-comma": b" , chunked",
    "trailing-comma": b" chunked,",
    "comma": b" ,",
    "xchunked": b" xchunked",
    "chunkedx": b" chunkedx",
    "chunke": b" chunke",
    "chunk": b" chunk",
    "chunked-twice": b" chunkedchunked",
    "two-words": b" chunked foo",
    "split-word": b" chun ked",
    "parameter": b" chunked;a=b",
    "semicolon": b" chunked;",
    "quality": b" chunked;q=0",
    "quoted": b' "chunked"',
    "single-quoted": b" 'chunked'",
    "bracketed": b" [chunked]",
    "colon": b" :chunked",
    "two-colons": b": chunked",
    "vertical-tab": b" chunked\x0b",
    "vertical-tab-first": b" \x0bchunked",
    "form-feed": b" chunked\x0c",
    "form-feed-first": b"\x0cchunked",
    "nul": b" chunked\x00",
    "nul-first": b" \x00chunked",
    "cr": b" chunked\rfoo",
    "cr-first": b"\rchunked",
    "delete": b" chunked\x7f",
    "no-break-space": b" chunked\xa0",
    "no-break-space-first": b" \xa0chunked",
    "next-line-first": b" \x85chunked",
    "byte-order-mark": b" \xef\xbb\xbfchunked",
    "long-s": " chunſked".encode(),
    "kelvin": " chun\u212aed".encode(),  # lower() makes a k of it
    "full-width": " ｃhunked".encode(),
    "tab-first": b"\tchunked",
    "space-and-tab-first": b" \tchunked",
    "two-spaces-first": b"  chunked",
    "trailers": b" trailers",
    "number": b" 5",
}


def _coded(name: str, *lines: bytes, status: frozenset[int] = _CODING) -> Refused:
    data = request(*lines, method=b"POST", target=b"/upload") + HELLO + SMUGGLED
    return Refused(f"coding-{name}", data, status)


_TRANSFER_ENCODING = [
    *(_coded(name, b"Transfer-Encoding:" + value) for name, value in _CODINGS.items()),
    _coded("two-lines", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    _coded("two-lines-identity-last", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    _coded("two-lines-identity-first", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    _coded("two-lines-gzip-first", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    _coded("two-lines-one-empty", b"Transfer-Encoding: chunked", b"Transfer-Encoding:"),
    _coded("two-lines-other-case", b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING: x"),
    _coded("two-lines-apart", b"Transfer-Encoding: chunked", b"X-A: 1", b"transfer-encoding: x"),
    _coded("underscore-name", b"Transfer_Encoding: chunked", status=BAD),
    _coded("space-before-colon", b"Transfer-Encoding : chunked", status=BAD),
    _coded("tab-before-colon", b"Transfer-Encoding\t: chunked", status=BAD),
    _coded("control-before-name", b"\x0bTransfer-Encoding: chunked", status=BAD),
    _coded("space-for-hyphen", b"Transfer Encoding: chunked", status=BAD),
    _coded("no-colon", b"Transfer-Encoding chunked", status=BAD),
    _coded("nul-in-name", b"Transfer\x00-Encoding: chunked", status=BAD),
    _coded("folded", b"Transfer-Encoding:", b" chunked", status=_CODING),
    _coded("folded-identity", b"Transfer-Encoding: chunked", b" , identity", status=_CODING),
    _coded("hidden-by-fold", b"X-A: 1", b" Transfer-Encoding: chunked", status=BAD),
    Refused(
        "coding-of-get",
        request(b"Transfer-Encoding: xchunked") + HELLO + SMUGGLED,
        _CODING,
    ),
    *(
        Refused(
            f"coding-in-1.0-{name}",
            request(*lines, method=b"POST", version=b"HTTP/1.0") + HELLO + SMUGGLED,
        )
        for name, lines in {
            "chunked": [b"Transfer-Encoding: chunked"],
            "keep-alive": [b"Connection: keep-alive", b"Transfer-Encoding: chunked"],
            "length": [b"Content-Length: 15", b"Transfer-Encoding: chunked"],
        }.items()
    ),
    Refused(
        "coding-in-1.0-get",
        request(b"Transfer-Encoding: chunked", version=b"HTTP/1.0") + HELLO + SMUGGLED,
    ),
    Refused(
        "coding-in-1.0-identity",
        request(b"Transfer-Encoding: identity", version=b"HTTP/1.0") + SMUGGLED,
        _CODING,
    ),
]

_CHUNKED = b"Transfer-Encoding: chunked"


def _both(name: str, *lines: bytes, status: frozenset[int] = BAD) -> Refused:
    data = request(*lines, method=b"POST", target=b"/upload") + HELLO + SMUGGLED
    return Refused(f"both-{name}", data, status)


# HELLO is 15 bytes long.
_BOTH = [
    _both("length-first", b"Content-Length: 5", _CHUNKED),
    _both("coding-first", _CHUNKED, b"Content-Length: 5"),
    _both("length-of-all-first", b"Content-Length: 15", _CHUNKED),
    _both("length-of-all-last", _CHUNKED, b"Content-Length: 15"),
    _both("zero-first", b"Content-Length: 0", _CHUNKED),
    _both("zero-last", _CHUNKED, b"Content-Length: 0"),
    _both("apart", b"Content-Length: 5", b"X-A: 1", b"X-B: 2", _CHUNKED),
    _both("other-case", b"content-length: 5", b"TRANSFER-ENCODING: Chunked"),
    _both("length-bad", b"Content-Length: x", _CHUNKED),
    _both("length-empty", b"Content-Length:", _CHUNKED),
    _both("two-lengths", b"Content-Length: 5", b"Content-Length: 5", _CHUNKED),
    _both("named-by-connection", b"Connection: content-length", b"Content-Length: 5", _CHUNKED),
    _both("identity", b"Content-Length: 15", b"Transfer-Encoding: identity", status=_CODING),
    _both("gzip", b"Content-Length: 15", b"Transfer-Encoding: gzip", status=_CODING),
    Refused("both-of-get", request(b"Content-Length: 6", _CHUNKED) + b"0\r\n\r\nX" + SMUGGLED),
]

FRAMING = [*_CONTENT_LENGTH, *_TRANSFER_ENCODING, *_BOTH]
