"""What heads mean: which requests and responses go on, with which body, and which go no further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.http import head as head_module
from termproxy.http._wire import DISGUISED, UNDERSCORED, MalformedError
from termproxy.http.head import (
    CHUNKED,
    CONFIGURED,
    CONTENT_LENGTH,
    HOST,
    TRANSFER_ENCODING,
    UNTIL_CLOSE,
    UPGRADE,
    VIA,
    BadResponseError,
    RefusedRequestError,
    Request,
    Response,
    agreed_upgrade,
    fields_to_remove,
    mask,
    mask_of,
    numbers,
    read_authority,
    read_request,
    read_response,
    request_reader,
    without_fields,
)
from tests.http.cases.kinds import head, request, response
from tests.http.passing import ANSWER_READER, READER, answer_head_of, head_of

CHUNKS = b"Transfer-Encoding: chunked"


def read(*lines: bytes, underscores: str = "reject", version: bytes = b"HTTP/1.1") -> Request:
    return read_request(head_of(request(*lines, version=version)), underscores)


def why_not(data: bytes, underscores: str = "reject") -> tuple[str, int]:
    with pytest.raises(RefusedRequestError) as caught:
        read_request(head_of(data), underscores)
    return caught.value.reason, caught.value.status


def answer(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> Response:
    return read_response(answer_head_of(response(*lines, status=status)), method)


def why_no_answer(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> str:
    with pytest.raises(BadResponseError) as caught:
        answer(*lines, status=status, method=method)
    return caught.value.reason


# Requests.


def test_a_plain_request_goes_on_as_it_is() -> None:
    plain = read(b"X-A: 1")
    assert (plain.method, plain.target, plain.body) == (b"GET", b"/", 0)
    assert (plain.authority, plain.host) == (b"site.test", "site.test")
    assert plain.keep_alive
    assert plain.upgrade is None


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_some_methods_are_for_no_gateway(method: bytes) -> None:
    assert why_not(request(method=method)) == ("refused_method", 405)


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 0017"], 17),
        ([b"Content-Length: " + b"9" * 18], 10**18 - 1),
        ([CHUNKS], CHUNKED),
        ([b"transfer-encoding:CHUNKED"], CHUNKED),
    ],
)
def test_a_body_has_the_length_that_is_said(lines: list[bytes], body: int) -> None:
    assert read(*lines).body == body


@pytest.mark.parametrize(
    ("lines", "reason", "status"),
    [
        ([b"Content-Length: 5", CHUNKS], "length_and_coding", 400),
        ([b"Content-Length: x", b"Transfer-Encoding: x"], "length_and_coding", 400),
        ([CHUNKS, CHUNKS], "unknown_transfer_coding", 501),
        ([b"Transfer-Encoding: gzip, chunked"], "unknown_transfer_coding", 501),
        ([b"Transfer-Encoding:"], "unknown_transfer_coding", 501),
        ([b"Transfer-Encoding:\tchunked"], "unknown_transfer_coding", 501),
        ([b"Transfer-Encoding: chunked "], "unknown_transfer_coding", 501),
        ([b"Content-Length: 5", b"Content-Length: 5"], "repeated_length", 400),
        ([b"Content-Length:"], "bad_length", 400),
        ([b"Content-Length: +5"], "bad_length", 400),
        ([b"Content-Length: 5, 5"], "bad_length", 400),
        ([b"Content-Length: 5\xb2"], "bad_length", 400),
        ([b"Content-Length: " + b"0" * 19], "bad_length", 400),
    ],
)
def test_a_length_that_could_be_two_is_none(lines: list[bytes], reason: str, status: int) -> None:
    assert why_not(request(*lines)) == (reason, status)


def test_http_1_0_has_no_codings() -> None:
    assert why_not(request(CHUNKS, version=b"HTTP/1.0")) == ("coding_in_http_1_0", 400)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_host_is_there_once(version: bytes) -> None:
    line = b"GET / " + version
    assert why_not(head(line, b"Host: a", b"Host: a")) == ("repeated_host", 400)
    assert why_not(head(line, b"Host:")) == ("bad_host", 400)
    assert why_not(head(line, b"Host: a b")) == ("bad_host", 400)
    assert why_not(head(line, b"Host: " + b"a" * 301)) == ("bad_host", 400)


def test_only_http_1_0_may_leave_it_out() -> None:
    assert why_not(head(b"GET / HTTP/1.1", b"X-A: 1")) == ("no_host", 400)
    old = read_request(head_of(head(b"GET / HTTP/1.0")))
    assert (old.authority, old.host, old.keep_alive) == (b"", "", False)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"site.test", "site.test"),
        (b"SITE.test", "site.test"),
        (b"site.test.", "site.test"),
        (b"site.test.:443", "site.test"),
        (b"site.test:1", "site.test"),
        (b"site.test:65535", "site.test"),
        (b"site.test:00443", "site.test"),
        (b"my_app", "my_app"),
        (b"a-b~c", "a-b~c"),
        (b"192.0.2.1:80", "192.0.2.1"),
        (b"[2001:DB8::1]", "2001:db8::1"),
        (b"[::1]:8443", "::1"),
        (b"[::ffff:192.0.2.1]", "::ffff:192.0.2.1"),
        (b"", None),
        (b".", None),
        (b".site.test", None),
        (b"site..test", None),
        (b"site.test..", None),
        (b"site.test:", None),
        (b"site.test:0", None),
        (b"site.test:65536", None),
        (b"site.test:000443", None),
        (b"site.test:-1", None),
        (b"site.test\n", None),
        (b"site.test:443\n", None),
        (b"user@site.test", None),
        (b"site%2etest", None),
        (b"site,test", None),
        (b"site/test", None),
        (b"m\xc3\xbcnchen.test", None),
        (b"[192.0.2.1]", None),
        (b"[site.test]", None),
        (b"[]", None),
        (b"[::1", None),
        (b"[::1]x", None),
        (b"[::1].", None),
        (b"[fe80::1%eth0]", None),
        (b"[:::]", None),
        (b"::1", None),
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(authority: bytes, host: str | None) -> None:
    assert read_authority(authority) == host


@given(st.binary(max_size=40) | st.text("aA1.:[]@-_%/", max_size=20).map(str.encode))
def test_a_host_that_is_read_is_safe_in_every_field(authority: bytes) -> None:
    host = read_authority(authority)
    if host is not None:
        assert host == host.lower()
        assert not set(host) & set('"\\/@%,; \t\r\n[]')
        assert not set(authority) & set(b'"\\/@%,; \t\r\n')


def test_what_clients_say_is_remembered_within_bounds() -> None:
    for number in range(5000):
        read_authority(b"h%d.test" % number)
        read(b"Connection: x-%d" % number)
    for remembered in (read_authority, head_module._options):
        assert remembered.cache_info().currsize <= 1024
    entries = head_module._options.cache_info().currsize
    read(b"Connection: " + b"x" * 301)
    assert head_module._options.cache_info().currsize == entries


# Targets.


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        (b"/", b"/"),
        (b"//a", b"//a"),
        (b"https://site.test", b"/"),
        (b"https://site.test/", b"/"),
        (b"http://site.test/a?b", b"/a?b"),
        (b"HTTPS://Site.TEST?b", b"/?b"),
        (b"https://site.test//a", b"//a"),
        (b"https://site.test/https://site.test/", b"/https://site.test/"),
    ],
)
def test_a_target_goes_on_in_origin_form(target: bytes, forwarded: bytes) -> None:
    assert read_request(head_of(request(target=target))).target == forwarded


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"a", "bad_target"),
        (b"*", "bad_target"),
        (b"?a", "bad_target"),
        (b"site.test:443", "bad_target"),
        (b"ftp://site.test/", "bad_target"),
        (b"https:///", "bad_target"),
        (b"https://", "bad_target"),
        (b"https://a/", "target_and_host_differ"),
        (b"https://site.test:443/", "target_and_host_differ"),
        (b"https://site.test./", "target_and_host_differ"),
        (b"https://u@site.test/", "target_and_host_differ"),
    ],
)
def test_another_target_goes_nowhere(target: bytes, reason: str) -> None:
    assert why_not(request(target=target)) == (reason, 400)


def test_an_asterisk_is_for_options_only() -> None:
    for target in (b"*", b"https://site.test"):
        assert read_request(head_of(request(method=b"OPTIONS", target=target))).target == b"*"
    asked = read_request(head_of(request(method=b"OPTIONS", target=b"https://site.test?a")))
    assert asked.target == b"/?a"


def test_an_absolute_target_needs_a_host_in_http_1_0_too() -> None:
    data = head(b"GET http://site.test/ HTTP/1.0")
    assert why_not(data) == ("target_and_host_differ", 400)


# Fields of one connection.


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"HTTP/1.1", [], True),
        (b"HTTP/1.1", [b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: a, CLOSE\t,"], False),
        (b"HTTP/1.1", [b"Connection: a", b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.1", [b"Connection: closed"], True),
        (b"HTTP/1.1", [b"Proxy-Connection: close"], True),
        (b"HTTP/1.0", [], False),
        (b"HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"HTTP/1.0", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.0", [b"Proxy-Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_or_not(version: bytes, lines: list[bytes], *, keep_alive: bool) -> None:
    assert read(*lines, version=version).keep_alive is keep_alive


HOP_BY_HOP = [
    b"Connection: close",
    b"Keep-Alive: 1",
    b"Proxy-Connection: close",
    b"TE: trailers",
    b"Trailer: X-A",
    b"Upgrade: websocket",
    b"HTTP2-Settings: a",
    b"Proxy: http://evil.test/",
]


def test_fields_of_one_connection_go_no_further() -> None:
    asked = read(*HOP_BY_HOP, b"X-A: 1")
    kept = asked.head.with_fields(b"", asked.without, b"")
    assert kept == b"Host: site.test\r\nX-A: 1\r\n\r\n"
    told = answer(*HOP_BY_HOP, b"X-A: 1", b"Content-Length: 0")
    kept = told.head.with_fields(b"", told.without, b"")
    assert kept == b"X-A: 1\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([b"close"], set()),
        ([b"X-A"], {b"x-a"}),
        ([b" ,x-a ,, close", b"X-B\t"], {b"x-a", b"x-b"}),
        ([b"keep-alive, Upgrade, TE, HTTP2-Settings, Trailer, Proxy-Connection"], set()),
        ([b"connection"], set()),
    ],
)
def test_connection_names_further_ones(values: list[bytes], names: set[bytes]) -> None:
    lines = [b"Connection: " + value for value in values]
    assert fields_to_remove(head_of(request(*lines))) == names
    assert fields_to_remove(answer_head_of(response(*lines))) == names


@pytest.mark.parametrize(
    "name",
    [
        b"host",
        b"Content-Length",
        b"transfer-encoding",
        b"content-type",
        b"Authorization",
        b"cookie",
        b"set-cookie",
        b"expect",
        b"cache-control",
    ],
)
def test_what_concerns_the_message_is_not_for_connection_to_take(name: bytes) -> None:
    for data in (
        request(b"Connection: x-a, " + name),
        request(b"Connection: x", b"Connection: " + name),
    ):
        with pytest.raises(MalformedError, match="bad_connection"):
            fields_to_remove(head_of(data))


def test_without_connection_nothing_is_named() -> None:
    assert fields_to_remove(head_of(request(b"X-A: connection"))) == frozenset()


def test_a_head_without_some_fields_is_else_the_same() -> None:
    data = request(b"X-A:1", b"Connection: x-a, x-b", b"x-b: \t2 ", b"X-C:\t3 ", target=b"/a?b")
    less = without_fields(READER, head_of(data), frozenset({b"x-a", b"x-b"}))
    assert less.lines() == [
        b"GET /a?b HTTP/1.1",
        b"Host: site.test",
        b"Connection: x-a, x-b",
        b"X-C:\t3 ",
    ]
    for first in (b"HTTP/1.0 404 ", b"HTTP/1.1 200", b"HTTP/1.1 200 All right"):
        less = without_fields(ANSWER_READER, answer_head_of(head(first, b"X-A: 1")), frozenset({b"x-a"}))
        assert less.lines() == [first]
        assert less.status in (200, 404)


def test_a_head_at_its_limit_may_lose_fields() -> None:
    """It does not grow over the limit while it shrinks."""
    data = request(b"Connection: x-a", *[b"A:1"] * 50)
    tight = request_reader(len(data), 100, 100)
    less = without_fields(tight, head_of(data, tight), frozenset({b"x-a"}))
    assert less.length == len(data)


def test_a_connection_field_that_names_itself_still_says_close() -> None:
    head = head_of(request(b"Connection: close, connection, x-a", b"X-A: 1"))
    less = without_fields(READER, head, fields_to_remove(head))
    assert not read_request(less).keep_alive


# Underscores, expectations.


@pytest.mark.parametrize("name", [b"X_A", b"X_Forwarded_For", b"Content_Length", b"_"])
def test_underscores_are_refused_dropped_or_passed(name: bytes) -> None:
    line = name + b": 1"
    assert why_not(request(line)) == ("underscore_in_name", 400)
    assert read(line, underscores="drop").without & mask(DISGUISED, UNDERSCORED) == mask(
        DISGUISED, UNDERSCORED
    )
    passed = read(line, underscores="pass")
    kept = passed.head.with_fields(b"", passed.without, b"")
    is_ours = name in {b"X_Forwarded_For", b"Content_Length"}
    assert (line in kept) is not is_ours


def test_a_length_with_an_underscore_is_no_length() -> None:
    for underscores in ("drop", "pass"):
        assert read(b"Content_Length: 5", b"Transfer_Encoding: x", underscores=underscores).body == 0


def test_only_100_continue_can_be_expected() -> None:
    for value in (b"100-continue", b"100-Continue"):
        assert not read(b"Expect: " + value).without & mask(head_module.EXPECT)
    for lines in ([b"Expect:"], [b"Expect: 100"], [b"Expect: 100-continue"] * 2):
        assert why_not(request(*lines)) == ("unknown_expectation", 417)


def test_http_1_0_expects_nothing() -> None:
    old = read(b"Expect: 100-continue", version=b"HTTP/1.0")
    assert old.without & mask(head_module.EXPECT)


# Upgrades.


@pytest.mark.parametrize(
    "protocols",
    [b"websocket", b"WebSocket", b"a/1, b", b"foo/2.0,websocket", b"h2x", b"xhttp/1.1"],
)
def test_an_upgrade_is_asked_for(protocols: bytes) -> None:
    asked = read(b"Connection: keep-alive, Upgrade", b"Upgrade: " + protocols)
    assert asked.upgrade == protocols
    assert not asked.without & mask(UPGRADE)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Upgrade: websocket"],
        [b"Connection: upgrade"],
        [b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 1"],
        [b"Connection: upgrade", b"Upgrade: websocket", CHUNKS],
        [b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: websocket"],
        [b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: a"],
        [b"Connection: upgrade", b"Upgrade: H2C"],
        [b"Connection: upgrade", b"Upgrade: h2"],
        [b"Connection: upgrade", b"Upgrade: HTTP/2.0"],
        [b"Connection: upgrade", b"Upgrade: TLS/1.0, HTTP/1.1"],
        [b"Connection: upgrade", b"Upgrade: websocket, h2c"],
        [b"Connection: upgrade", b"Upgrade:"],
        [b"Connection: upgrade", b"Upgrade: ,"],
        [b"Connection: upgrade", b"Upgrade: web socket"],
        [b"Connection: upgrade", b"Upgrade: a/b/c"],
        [b"Connection: upgrade", b"Upgrade: " + b"a" * 257],
    ],
)
def test_an_upgrade_is_not_asked_for_and_the_request_goes_on(lines: list[bytes]) -> None:
    """RFC 9110 §7.8: a server may ignore it.  HTTP once more would be HTTP that nobody checks."""
    asked = read(*lines)
    assert asked.upgrade is None
    assert asked.without & mask(UPGRADE)


def test_http_1_0_has_no_upgrades() -> None:
    assert read(b"Connection: upgrade", b"Upgrade: a", version=b"HTTP/1.0").upgrade is None


@pytest.mark.parametrize(
    ("asked", "told", "agreed"),
    [
        (b"websocket", [b"websocket"], b"websocket"),
        (b"websocket", [b"WebSocket"], b"WebSocket"),
        (b"a/1, b\t,c", [b"b"], b"b"),
        (b"websocket", [b"other"], None),
        (b"websocket", [b""], None),
        (b"websocket", [], None),
        (b"websocket", [b"websocket", b"websocket"], None),
        (b"a, b", [b"a, b"], None),
        (None, [b"websocket"], None),
        (None, [], None),
    ],
)
def test_a_protocol_is_agreed_on_when_it_was_asked_for(
    asked: bytes | None, told: list[bytes], agreed: bytes | None
) -> None:
    wanted = read() if asked is None else read(b"Connection: upgrade", b"Upgrade: " + asked)
    lines = [b"Upgrade: " + protocol for protocol in told]
    answered = answer_head_of(head(b"HTTP/1.1 101 Switching Protocols", *lines))
    assert agreed_upgrade(answered, wanted) == agreed


# Responses.


@pytest.mark.parametrize(
    ("status", "method", "lines", "body"),
    [
        (200, b"GET", [], UNTIL_CLOSE),
        (200, b"GET", [b"Content-Length: 5"], 5),
        (200, b"GET", [CHUNKS], CHUNKED),
        (200, b"HEAD", [], 0),
        (200, b"HEAD", [b"Content-Length: 5"], 0),
        (200, b"HEAD", [CHUNKS], 0),
        (304, b"GET", [b"Content-Length: 5"], 0),
        (304, b"GET", [CHUNKS], 0),
        (204, b"GET", [], 0),
        (204, b"GET", [b"Content-Length: 0"], 0),
        (100, b"GET", [], 0),
        (103, b"POST", [b"Content-Length: 0"], 0),
        (404, b"POST", [], UNTIL_CLOSE),
        (205, b"POST", [b"Content-Length: 0"], 0),
    ],
)
def test_a_response_has_the_body_that_status_and_method_leave_it(
    status: int, method: bytes, lines: list[bytes], body: int
) -> None:
    told = answer(*lines, status=b"HTTP/1.1 %d X" % status, method=method)
    assert told.body == body
    assert told.keep_alive is (body != UNTIL_CLOSE)
    assert bool(told.without & mask(CONTENT_LENGTH)) is (status < 200 or status == 204)


@pytest.mark.parametrize(
    ("status", "lines", "reason"),
    [
        (204, [b"Content-Length: 5"], "body_not_allowed"),
        (204, [CHUNKS], "body_not_allowed"),
        (103, [b"Content-Length: 5"], "body_not_allowed"),
        (101, [CHUNKS], "body_not_allowed"),
        (200, [CHUNKS, b"Content-Length: 5"], "length_and_coding"),
        (200, [b"Content-Length: 5"] * 2, "repeated_length"),
        (304, [b"Content-Length: 5"] * 2, "repeated_length"),
        (200, [b"Content-Length: 5, 5"], "bad_length"),
        (200, [b"Transfer-Encoding: gzip"], "unknown_transfer_coding"),
        (200, [CHUNKS, CHUNKS], "unknown_transfer_coding"),
    ],
)
def test_a_response_whose_end_is_unclear_goes_no_further(
    status: int, lines: list[bytes], reason: str
) -> None:
    for method in (b"GET", b"HEAD"):
        assert why_no_answer(*lines, status=b"HTTP/1.1 %d X" % status, method=method) == reason


def test_a_response_of_http_1_0_has_no_codings() -> None:
    assert why_no_answer(CHUNKS, status=b"HTTP/1.0 200 OK") == "coding_in_http_1_0"


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"HTTP/1.1", [b"Content-Length: 5"], True),
        (b"HTTP/1.1", [b"Content-Length: 5", b"Connection: close"], False),
        (b"HTTP/1.1", [b"Content-Length: 5", b"Connection: x, Close"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive"], False),
        (b"HTTP/1.0", [b"Content-Length: 5"], False),
        (b"HTTP/1.0", [b"Content-Length: 5", b"Connection: keep-alive"], True),
        (b"HTTP/1.0", [b"Content-Length: 5", b"Connection: keep-alive, close"], False),
        (b"HTTP/1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_a_backends_connection_is_kept_or_not(
    version: bytes, lines: list[bytes], *, keep_alive: bool
) -> None:
    assert answer(*lines, status=version + b" 200 OK").keep_alive is keep_alive


# Numbers of fields.


def test_configured_names_have_numbers_of_their_own() -> None:
    names = (b"x-a", b"via", b"x-b", b"x-a")
    by_name = numbers(names)
    assert (by_name[b"x-a"], by_name[b"x-b"], by_name[b"via"]) == (CONFIGURED, CONFIGURED + 1, VIA)
    assert len(set(by_name.values())) == len(by_name)
    assert mask_of(names) == mask(CONFIGURED, CONFIGURED + 1, VIA)
    assert mask_of(()) == 0


def test_known_names_end_before_configured_ones_begin() -> None:
    assert max(numbers(()).values()) < CONFIGURED
    assert numbers(())[b"host"] == HOST == 0


def test_configured_fields_are_known_to_the_reader() -> None:
    reader = request_reader(1000, 100, 10, (b"x-a", b"via"))
    head = head_of(request(b"X-A: 1", b"VIA: 2", b"X_A: 3"), reader)
    assert head.seen == mask(HOST, CONFIGURED, VIA, DISGUISED)


def test_more_configured_fields_than_there_are_numbers_are_refused() -> None:
    request_reader(1000, 100, 10, tuple(b"x-%d" % number for number in range(30)))
    with pytest.raises(ValueError, match="number of its own"):
        request_reader(1000, 100, 10, tuple(b"x-%d" % number for number in range(31)))


def test_the_length_stays_in_what_is_forwarded_and_the_coding_is_written_anew() -> None:
    for lines in ([b"Content-Length: 5"], [CHUNKS]):
        assert not read(*lines).without & mask(HOST, CONTENT_LENGTH)
        assert read(*lines).without & mask(TRANSFER_ENCODING)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("head_too_large", 431),
        ("too_many_fields", 431),
        ("target_too_long", 414),
        ("unsupported_version", 505),
        ("unknown_expectation", 417),
        ("refused_method", 405),
        ("anything_else", 400),
    ],
)
def test_a_refusal_has_the_status_of_its_reason(reason: str, status: int) -> None:
    assert RefusedRequestError(reason).status == status
    assert RefusedRequestError(reason, 413).status == 413
    assert str(RefusedRequestError(reason)) == str(BadResponseError(reason)) == reason
