"""What backends are told: ours, once, and safe; a client's own only when it is trusted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.http.forwarding import FACT_MAX, Forwarder, Settings, response_head
from termproxy.http.head import read_request, read_response, request_reader
from tests.http.cases.kinds import Field, head, request, response
from tests.http.passing import REQUEST_ID, answer_head_of, head_of, pass_requests
from tests.http.readers import h11_requests

NOTHING_ADDED = Settings(x_forwarded=False, forwarded=False, request_id=False)
ID = (b"x-request-id", REQUEST_ID)

CLAIMS = [
    b"Forwarded: for=evil",
    b"X-Forwarded-For: 203.0.113.66",
    b"X-Forwarded-Host: evil.test",
    b"X-Forwarded-Port: 1",
    b"X-Forwarded-Proto: gopher",
    b"X-Forwarded-Server: evil",
    b"X-Forwarded-Ssl: on",
    b"X-Forwarded-Scheme: gopher",
    b"X-Forwarded-Prefix: /evil",
    b"X-Forwarded-Client-Cert: Subject=evil",
    b"Client-Cert: :ZXZpbA==:",
    b"Client-Cert-Chain: :ZXZpbA==:",
    b"X-Real-IP: 203.0.113.66",
    b"X-Request-ID: evil",
]


def forwarder(
    settings: Settings | None = None,
    client: str = "192.0.2.7",
    facts: dict[str, str | None] | None = None,
    *,
    is_trusted: bool = False,
) -> Forwarder:
    return Forwarder(settings or Settings(), client, 8443, facts or {}, is_trusted=is_trusted)


def told(by: Forwarder, data: bytes, settings: Settings | None = None, more: bytes = b"") -> list[Field]:
    """What a backend reads, but for the Host."""
    configured = settings.configured_names() if settings else ()
    asked = read_request(head_of(data, request_reader(32_768, 8192, 100, configured)), "pass")
    [read] = h11_requests(by.head(asked, REQUEST_ID, more))
    return [(name, value) for name, value in read.fields if name != b"host"]


# Ours.


def test_a_backend_is_told_where_a_request_came_from() -> None:
    assert told(forwarder(), request(b"X-A: 1")) == [
        (b"x-a", b"1"),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-port", b"8443"),
        (b"x-forwarded-host", b"site.test"),
        (b"forwarded", b'for=192.0.2.7;proto=https;host="site.test"'),
        ID,
    ]


def test_an_ipv6_address_is_in_quotes_where_rfc_7239_wants_it() -> None:
    fields = dict(told(forwarder(client="2001:db8::1"), request()))
    assert fields[b"x-forwarded-for"] == b"2001:db8::1"
    assert fields[b"forwarded"] == b'for="[2001:db8::1]";proto=https;host="site.test"'


def test_without_a_host_none_is_told() -> None:
    fields = dict(told(forwarder(), head(b"GET / HTTP/1.0"), more=b"Host: \r\n"))
    assert b"x-forwarded-host" not in fields
    assert fields[b"forwarded"] == b"for=192.0.2.7;proto=https"


def test_the_next_request_may_have_another_host() -> None:
    by = forwarder()
    for name in (b"a.test", b"b.test:8443", b"b.test:8443", b"[::1]", b"a.test"):
        fields = dict(told(by, head(b"GET / HTTP/1.1", b"Host: " + name)))
        assert fields[b"x-forwarded-host"] == name
        assert fields[b"forwarded"].endswith(b'host="%b"' % name)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (NOTHING_ADDED, set()),
        (Settings(x_forwarded=False, request_id=False), {b"forwarded"}),
        (Settings(x_forwarded=False, forwarded=False), {b"x-request-id"}),
        (Settings(x_forwarded=False, forwarded=False, request_id=False, via=True), {b"via"}),
    ],
)
@pytest.mark.parametrize("is_trusted", [True, False])
def test_each_of_them_may_be_switched_off(
    settings: Settings, names: set[bytes], *, is_trusted: bool
) -> None:
    assert {name for name, _ in told(forwarder(settings, is_trusted=is_trusted), request())} == names


def test_the_request_line_is_ours() -> None:
    asked = read_request(head_of(request(method=b"OPTIONS", target=b"HTTPS://SITE.test/a?b")))
    assert forwarder(NOTHING_ADDED).head(asked, b"") == (
        b"OPTIONS /a?b HTTP/1.1\r\nHost: site.test\r\n\r\n"
    )


def test_http_1_0_goes_on_as_1_1() -> None:
    asked = read_request(head_of(request(b"Connection: keep-alive", version=b"HTTP/1.0")))
    assert forwarder(Settings(x_forwarded=False, forwarded=False, request_id=False, via=True)).head(
        asked, b""
    ) == (b"GET / HTTP/1.1\r\nHost: site.test\r\nVia: 1.0 termproxy\r\n\r\n")


def test_via_is_added_to_what_there_is() -> None:
    settings = Settings(x_forwarded=False, forwarded=False, request_id=False, via=True)
    assert told(forwarder(settings), request(b"Via: 1.1 other")) == [
        (b"via", b"1.1 other"),
        (b"via", b"1.1 termproxy"),
    ]


def test_an_upgrade_is_asked_of_the_backend_too() -> None:
    asked = request(b"Connection: Upgrade, x-a", b"Upgrade: websocket")
    assert told(forwarder(NOTHING_ADDED), asked) == [
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
    ]
    assert told(forwarder(NOTHING_ADDED), request(b"Upgrade: websocket")) == []


# A client's own.


def underscored(name: bytes) -> bytes:
    return name.replace(b"-", b"_")


def dotted(name: bytes) -> bytes:
    return name.replace(b"-", b".")


@pytest.mark.parametrize("spelling", [bytes, bytes.upper, underscored, dotted])
def test_what_a_client_says_of_its_way_is_taken_out(spelling: Callable[[bytes], bytes]) -> None:
    """In any case, and in the spellings that WSGI, or some CGI, take for the same."""
    lines = [spelling(line.partition(b":")[0]) + b": evil" for line in CLAIMS]
    assert told(forwarder(), request(*lines, *lines)) == told(forwarder(), request())
    assert told(forwarder(NOTHING_ADDED), request(*lines)) == []


def test_a_trusted_clients_lists_go_on_with_ours() -> None:
    lines = [
        b"X-Forwarded-For: 203.0.113.1, 10.0.0.1",
        b"Forwarded: for=203.0.113.1",
        b"X-Forwarded-For:",
        b"X-Forwarded-For: 10.0.0.2",
        b"Forwarded: for=10.0.0.2;proto=http",
    ]
    fields = told(forwarder(is_trusted=True), request(*lines))
    assert [value for name, value in fields if name == b"x-forwarded-for"] == [
        b"203.0.113.1, 10.0.0.1, 10.0.0.2, 192.0.2.7"
    ]
    assert [value for name, value in fields if name == b"forwarded"] == [
        b'for=203.0.113.1, for=10.0.0.2;proto=http, for=192.0.2.7;proto=https;host="site.test"'
    ]


def test_a_trusted_clients_single_values_stay() -> None:
    lines = [
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Port: 80",
        b"X-Forwarded-Host: outer.test",
        b"X-Request-ID: theirs",
        b"X-Real-IP: 203.0.113.1",
    ]
    fields = told(forwarder(is_trusted=True), request(*lines))
    assert [field for field in fields if field[0] not in {b"x-forwarded-for", b"forwarded"}] == [
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-port", b"80"),
        (b"x-forwarded-host", b"outer.test"),
        (b"x-request-id", b"theirs"),
        (b"x-real-ip", b"203.0.113.1"),
    ]


def test_what_a_trusted_client_leaves_empty_is_said_by_us() -> None:
    names = (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Port", b"X-Forwarded-Host")
    lines = [name + b":" for name in (*names, b"Forwarded", b"X-Request-ID")]
    for data in (request(), request(*lines)):
        assert told(forwarder(is_trusted=True), data) == told(forwarder(), request())


def test_connection_takes_away_nothing_of_ours() -> None:
    """What it names is the client's, and goes before ours comes (CVE-2024-45410)."""
    data = request(b"Connection: X-Forwarded-For, Forwarded, X-Request-ID, X-A", b"X-A: 1", *CLAIMS)
    for is_trusted in (True, False):
        [forwarded] = pass_requests(data, forwarder(is_trusted=is_trusted)).forwarded
        [read] = h11_requests(forwarded)
        fields = dict(read.fields)
        assert fields[b"x-forwarded-for"] == b"192.0.2.7"
        assert fields[b"forwarded"] == b'for=192.0.2.7;proto=https;host="site.test"'
        assert fields[b"x-request-id"] == REQUEST_ID
        assert b"x-a" not in fields


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_disguised_claim_is_never_passed_on(*, is_trusted: bool) -> None:
    data = request(b"X_Forwarded_For: evil", b"X_Request_ID: evil", b"X_Other: 1")
    fields = told(forwarder(is_trusted=is_trusted), data)
    assert (b"x_other", b"1") in fields
    assert b"evil" not in dict(fields).values()


# Facts.

SUBJECT = Settings(
    x_forwarded=False,
    forwarded=False,
    request_id=False,
    fact_fields=(
        ("X-Client-Subject", "client_subject"),
        ("X-Real-IP", "tls_name"),
        ("X-TLS", "tls_version"),
    ),
)
FACTS: dict[str, str | None] = {"client_subject": "CN=a", "tls_name": "site.test", "tls_version": None}


@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize("spelling", [bytes, bytes.lower, underscored, dotted])
def test_a_configured_field_is_never_a_clients_to_fill(
    spelling: Callable[[bytes], bytes], *, is_trusted: bool
) -> None:
    """Though it be one that we know for another reason, or its fact be missing."""
    names = [b"X-Client-Subject", b"X-Real-IP", b"X-TLS"]
    data = request(*[spelling(name) + b": evil" for name in names] * 2)
    assert told(forwarder(SUBJECT, facts=FACTS, is_trusted=is_trusted), data, SUBJECT) == [
        (b"x-client-subject", b"CN=a"),
        (b"x-real-ip", b"site.test"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("CN=alice,O=Example", b"CN=alice,O=Example"),
        ("", b""),
        ("a\r\nX-Evil: 1", b"a%0D%0AX-Evil: 1"),
        ("a\0b\x7f\t", b"a%00b%7F%09"),
        ("100%", b"100%25"),
        ("größe", b"gr%C3%B6%C3%9Fe"),
        ("\udcff", b"%ED%B3%BF"),
        ("~ !", b"~ !"),
    ],
)
def test_a_fact_is_plain_or_percent_encoded(text: str, value: bytes) -> None:
    fields = told(forwarder(SUBJECT, facts={"client_subject": text}), request(), SUBJECT)
    assert fields == [(b"x-client-subject", value)]


@given(st.text(max_size=300))
def test_no_fact_leaves_its_line(text: str) -> None:
    asked = read_request(head_of(request()))
    data = forwarder(SUBJECT, facts={"client_subject": text}).head(asked, b"")
    line = data.removeprefix(b"GET / HTTP/1.1\r\nHost: site.test\r\nX-Client-Subject: ")
    assert line.endswith(b"\r\n\r\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-4])


def test_a_fact_that_is_too_long_is_left_out_and_the_others_stay() -> None:
    for size, names in ((FACT_MAX, {b"x-client-subject", b"x-real-ip"}), (FACT_MAX + 1, {b"x-real-ip"})):
        facts: dict[str, str | None] = {"client_subject": "a" * size, "tls_name": "a"}
        fields = told(forwarder(SUBJECT, facts=facts), request(b"X-Client-Subject: evil"), SUBJECT)
        assert {name for name, _ in fields} == names


def test_facts_come_with_every_request() -> None:
    by = forwarder(SUBJECT, facts=FACTS)
    for _ in range(3):
        assert (b"x-client-subject", b"CN=a") in told(by, request(), SUBJECT)


# Answers.


def answered(
    *lines: bytes,
    status: bytes = b"HTTP/1.1 200 OK",
    method: bytes = b"GET",
    http_1_0: bool = False,
    close: bool = False,
    hsts: bytes = b"",
) -> bytes:
    answer = read_response(answer_head_of(response(*lines, status=status)), method)
    return response_head(answer, http_1_0=http_1_0, close=close, hsts=hsts)


def test_an_answer_goes_on_without_what_is_for_one_connection() -> None:
    data = answered(b"Connection: close", b"Keep-Alive: 5", b"X-A:1", b"Content-Length: 5", b"Via: x")
    assert data == b"HTTP/1.1 200 OK\r\nX-A:1\r\nContent-Length: 5\r\nVia: x\r\n\r\n"


@pytest.mark.parametrize("line", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 "])
def test_a_status_line_is_written_anew(line: bytes) -> None:
    assert answered(b"Content-Length: 0", status=line).startswith(b"HTTP/1.1 200 \r\n")


def test_a_client_is_told_whether_the_connection_stays() -> None:
    assert answered(close=True) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    assert answered(close=True, http_1_0=True) == answered(close=True)
    assert answered(http_1_0=True) == b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"
    assert answered() == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "method"), [(b"HTTP/1.1 200 OK", b"HEAD"), (b"HTTP/1.1 304 Not Modified", b"GET")]
)
def test_a_client_of_http_1_0_hears_of_no_coding(status: bytes, method: bytes) -> None:
    """RFC 9112 §6.1."""
    coding = b"Transfer-Encoding: chunked"
    assert coding in answered(coding)
    assert coding not in answered(coding, http_1_0=True)
    for http_1_0 in (False, True):  # nor does anybody where no body comes
        assert coding not in answered(coding, status=status, method=method, http_1_0=http_1_0)


def test_strict_transport_security_is_ours_where_it_is_set() -> None:
    theirs = b"strict-transport-security: max-age=0"
    assert answered(theirs) == b"HTTP/1.1 200 OK\r\n" + theirs + b"\r\n\r\n"
    assert answered(theirs, theirs, hsts=b"max-age=5") == (
        b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=5\r\n\r\n"
    )


def test_more_lines_stand_behind_the_backends() -> None:
    answer = read_response(answer_head_of(head(b"HTTP/1.1 101 X", b"Upgrade: a", b"X-A: 1")), b"GET")
    assert response_head(answer, http_1_0=False, close=False, hsts=b"", more=b"Upgrade: a\r\n") == (
        b"HTTP/1.1 101 X\r\nX-A: 1\r\nUpgrade: a\r\n\r\n"
    )
