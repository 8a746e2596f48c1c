"""Mode "http", the client's side: requests one after the other, and every way a connection can end."""

from __future__ import annotations

import logging
import re
from ipaddress import ip_network
from typing import Any

import pytest

from termproxy import clock
from termproxy.http.forwarding import Settings
from termproxy.observability.metrics import RESPONSES
from termproxy.observability.scoreboard import Column
from termproxy.outcome import WANT_WRITE
from tests.relay.ends import turns, until
from tests.support.clients import NAME
from tests.support.http_client import Ending
from tests.worker.harness import HttpBench
from tests.worker.wire import BIG, GET, NO_CONTENT, OK, POST, UNTIL_END, refused_address, warm

BAD = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"


def drain(web: HttpBench, *, idle_until: float = 0.0) -> None:
    """As the worker does."""
    web.shared.draining, web.shared.idle_until = True, idle_until
    for connection in list(web.shared.connections):
        connection.drain()


# Requests, one after the other.


def test_a_head_may_come_byte_by_byte(web: HttpBench) -> None:
    client = web.client()
    for byte in GET % 1:
        client.send(bytes([byte]))
        turns(1)
    web.visit().answer(OK)

    assert client.response().body == b"ok"


def test_requests_that_come_together_are_answered_in_their_order(web: HttpBench) -> None:
    client = web.client()
    client.send(b"".join(GET % number for number in range(100)))
    visit = web.visit()
    for number in range(100):
        request = visit.request()
        assert visit.rest == b""  # one at a time
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % number)
        assert request.target == b"/%d" % number
    assert [client.response().body for _ in range(100)] == [b"%02d" % number for number in range(100)]
    assert [line["path"] for line in web.lines(100)] == [f"/{number}" for number in range(100)]


def test_answers_of_ours_stand_in_the_order_too(web: HttpBench) -> None:
    """The second one cannot be asked, for its server has no room; the first is answered first."""
    web.serve(web.address, max_connections=1, cluster={"queue": 0})
    other = web.client()
    client = web.client()
    client.send(GET % 1 + GET % 2 + BAD)
    visit = web.visit()
    visit.answer(OK)
    assert client.response().status == 200
    visit.request()
    other.send(GET % 9)
    assert other.response().status == 503
    visit.send(OK)

    assert [client.response().status for _ in range(2)] == [200, 400]
    assert client.wait_for_end() is Ending.CLEAN


def test_a_request_that_follows_while_an_answer_is_on_its_way_waits(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    for number in range(2, 5):
        client.send(GET % number)
        turns()
    assert visit.rest == b""
    visit.send(OK)
    for number in range(2, 5):
        assert visit.answer(OK).target == b"/%d" % number
    assert [client.response().status for _ in range(4)] == [200] * 4


def test_of_what_a_client_sends_ahead_little_is_held(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    sock, sent, stuck = client._end._tls.sock, 0, 0  # type: ignore[attr-defined]
    while stuck < 30 and sent < len(BIG):
        try:
            sent += sock.send(BIG[sent : sent + (1 << 16)])
            stuck = 0
        except OSError:
            stuck += 1
            turns(1)
    assert sent < len(BIG)
    visit.send(OK)
    assert client.response().status == 200
    assert client.response().status == 400


def test_an_empty_line_ahead_of_a_request_is_passed_over(web: HttpBench) -> None:
    client = web.client()
    client.send(POST % 1 + b"\r\n" + GET % 2)
    visit = web.visit()
    assert [visit.answer(OK).target for _ in range(2)] == [b"/1", b"/2"]
    assert [client.response().status for _ in range(2)] == [200, 200]


def test_a_request_that_says_close_is_the_last_one(web: HttpBench) -> None:
    client = web.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % 2)
    visit = web.visit()
    visit.answer(OK)
    answer = client.response()

    assert answer.options() == {b"close"}
    assert client.wait_for_end() is Ending.CLEAN
    assert visit.rest == b""


# What is refused.


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (BAD, 400, "repeated_host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400, "bad_field_name"),
        (b"GET /" + b"x" * 1100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431, "too_many_fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, "unknown_expectation"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "refused_method"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, None),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
            "bad_chunk_size",
        ),
    ],
)
def test_what_is_refused_is_answered_and_the_connection_ends(
    web: HttpBench, request_: bytes, status: int, reason: str | None
) -> None:
    client = web.client()
    client.send(request_ + GET % 2)
    answer = client.response()

    assert (answer.status, answer.options()) == (status, {b"close"})
    assert client.wait_for_end() is Ending.CLEAN
    line = web.record()
    assert (line["status"], line["fault"]) == (status, "client")
    assert reason is None or line["ended"] == reason
    assert not web.visits_wait()
    client.half_close()
    client._end.close()
    until(web.all_is_given_back, "the end of the linger")


def test_a_refusal_is_seen_by_a_client_that_goes_on_sending(web: HttpBench) -> None:
    """Closing a socket with unread bytes would send a reset, which destroys the answer."""
    client = web.client()
    client.send(BAD)
    turns()
    client.send(BIG[: 1 << 20])

    assert client.response().status == 400
    assert client.wait_for_end() is Ending.CLEAN


def test_every_answer_has_the_configured_transport_security(web: HttpBench) -> None:
    web.serve(hsts=b"max-age=1")
    client = web.client()
    client.send(GET % 1)
    web.visit().answer(b"HTTP/1.1 204 No Content\r\nStrict-Transport-Security: max-age=0\r\n\r\n")
    assert client.response().values(b"strict-transport-security") == [b"max-age=1"]
    client.send(BAD)

    assert client.response().values(b"strict-transport-security") == [b"max-age=1"]


# What the backend is told.


def test_a_backend_is_told_where_a_request_came_from(web: HttpBench) -> None:
    client = web.client(("192.0.2.7", 1234))
    client.send(b"GET / HTTP/1.1\r\nHost: Site.test:8443\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    request = web.visit().answer(OK)
    port = client._end.getpeername()[1]

    assert request.values(b"x-forwarded-for") == [b"192.0.2.7"]
    assert request.values(b"x-forwarded-proto") == [b"https"]
    assert request.values(b"x-forwarded-host") == [b"Site.test:8443"]
    assert request.values(b"x-forwarded-port") == [b"%d" % port]
    assert request.values(b"forwarded") == [b'for=192.0.2.7;proto=https;host="Site.test:8443"']


def test_a_trusted_client_s_word_stands_before_ours(web: HttpBench) -> None:
    web.serve(trusted=[ip_network("192.0.2.0/24")])
    client = web.client(("192.0.2.7", 1234))
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-ID: theirs\r\n\r\n")
    request = web.visit().answer(OK)

    assert request.values(b"x-forwarded-for") == [b"1.2.3.4, 192.0.2.7"]
    assert request.values(b"x-request-id") == [b"theirs"]


def test_configured_facts_of_the_connection_are_told_and_nobody_else_s(web: HttpBench) -> None:
    fields = (("X-TLS", "tls_version"), ("X-Subject", "client_subject"))
    web.serve(forwarding=Settings(fact_fields=fields))
    client = web.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-TLS: SSLv2\r\nX-Subject: CN=root\r\n\r\n")
    request = web.visit().answer(OK)

    assert request.values(b"x-tls") == [b"TLSv1.3"]
    assert request.values(b"x-subject") == []


def test_a_request_without_a_host_goes_on_with_an_empty_one(web: HttpBench) -> None:
    """As RFC 9110 §7.2 wants it, when not even the handshake told a name."""
    client = web.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")

    assert web.visit().answer(OK).values(b"host") == [b""]
    assert client.response().status == 200


def test_every_request_has_an_id_of_its_own(web: HttpBench) -> None:
    client, visit = warm(web)
    ids = []
    for number in range(3):
        client.send(GET % number)
        ids += visit.answer(OK).values(b"x-request-id")
        client.response()

    assert len(set(ids)) == 3
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each) for each in ids)
    assert [line["request_id"].encode() for line in web.lines(4)[1:]] == ids


# How connections end.


def test_a_client_that_ends_between_two_requests_leaves_no_line(web: HttpBench) -> None:
    client, _ = warm(web)
    client.half_close()
    assert client.wait_for_end() is Ending.CLEAN

    until(web.all_is_given_back, "the end")
    assert len(web.records) == 1


@pytest.mark.parametrize("how", ["end", "vanish", "cut"])
def test_a_client_that_asks_for_nothing_leaves_one_line(web: HttpBench, how: str) -> None:
    client = web.client()
    {"end": client.half_close, "vanish": client.vanish, "cut": client._end.close}[how]()
    until(web.all_is_given_back, "the end")

    line = web.record()
    assert line["ended"] == ("client_reset" if how == "vanish" else "no_request")
    assert "status" not in line


def test_a_client_that_leaves_in_the_middle_of_a_head_leaves_a_line(web: HttpBench) -> None:
    client, _ = warm(web)
    client.send((GET % 1)[:20])
    turns()
    client._end.close()
    until(web.all_is_given_back, "the end")

    line = web.lines(2)[1]
    assert (line["ended"], line["fault"], "status" in line) == ("client_closed", "client", False)


def test_no_byte_is_counted_twice(web: HttpBench) -> None:
    client, visit = warm(web)
    sent = len(GET % 0)
    client.send(POST % 1)
    visit.answer(NO_CONTENT)
    client.response()
    sent += len(POST % 1)
    client.send((GET % 1)[:20])
    turns()
    client._end.close()
    until(web.all_is_given_back, "the end")

    lines = web.lines(3)
    assert [line["bytes_from_client"] for line in lines] == [len(GET % 0), len(POST % 1), 20]
    assert web.count(Column.BYTES_FROM_CLIENTS) == sent + 20
    assert web.count(Column.BYTES_FROM_BACKENDS) == sum(line["bytes_to_client"] for line in lines[:2])


def test_what_was_exchanged_is_counted(web: HttpBench) -> None:
    client, visit = warm(web)
    client.send(GET % 1)
    visit.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    client.response()
    client.send(BAD)
    client.response()

    assert web.given is not None
    assert [web.given.tally[word] for word in RESPONSES[1:]] == [0, 1, 0, 2, 0]
    assert web.count(Column.REQUESTS) == 3
    assert web.count(Column.OPEN) == 1


def test_an_exchange_leaves_a_line_with_all_that_is_known(web: HttpBench) -> None:
    client = web.client()
    client.send(b"POST /a?b=c HTTP/1.1\r\nHost: SITE.test:443\r\nContent-Length: 5\r\n\r\nhello")
    request = web.visit().answer(OK)
    answer = client.response()
    line = web.record()

    assert line.pop("time").endswith("Z")
    assert 0 <= line.pop("first_byte_seconds") <= line.pop("seconds") < 10
    assert line.pop("group").lower().startswith("x25519")
    assert line.pop("bytes_to_client") == len(answer.raw)
    assert line == {
        "client": "192.0.2.1:40000",
        "frontend": "web",
        "sni": NAME,
        "version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "resumed": False,
        "resumption": "none_offered",
        "method": "POST",
        "host": "site.test",
        "path": "/a",
        "status": 200,
        "request_id": request.values(b"x-request-id")[0].decode(),
        "backend": web.address,
        "retries": 0,
        "bytes_from_client": 69,
        "ended": "done",
        "fault": "none",
    }


def test_the_query_is_written_when_it_is_asked_for(web: HttpBench) -> None:
    web.serve(logs_query=True)
    client = web.client()
    client.send(b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n")
    web.visit().answer(OK)
    client.response()

    assert web.record()["path"] == "/a?b=c"


def test_a_bug_of_ours_ends_one_connection_and_is_told(
    web: HttpBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = web.client(), web.client()
    with monkeypatch.context() as patch:
        patch.setattr("termproxy.worker.exchange.response_head", None)
        client.send(GET % 1)
        visit = web.visit()
        visit.answer(OK)
        assert visit.is_reset()
    assert caplog.records[0].levelno == logging.ERROR
    line = web.record()
    assert (line["ended"], line["fault"], line["detail"]) == ("internal_error", "proxy", "TypeError")
    other.send(GET % 2)
    web.visit().answer(OK)

    assert other.response().body == b"ok"
    assert web.active() == 0


# Time.


def test_a_client_that_asks_for_nothing_in_time_is_let_go_in_peace(web: HttpBench) -> None:
    client = web.client()
    web.pass_time(9.0)
    assert not web.records
    web.pass_time(10.6)

    assert client.wait_for_end() is Ending.CLEAN
    line = web.record()
    assert (line["ended"], line["fault"]) == ("no_request", "none")
    assert web.all_is_given_back()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_head_that_does_not_come_in_time_is_a_408(web: HttpBench, is_first: bool) -> None:  # noqa: FBT001
    """Slowloris: a byte now and then is no progress."""
    client = web.client() if is_first else warm(web)[0]
    client.send(b"GET")
    turns()
    web.pass_time(9.0)
    client.send(b" /")
    turns()
    web.pass_time(10.6)
    answer = client.response()

    assert (answer.status, answer.options()) == (408, {b"close"})
    assert client.wait_for_end() is Ending.CLEAN
    line = web.lines(1 if is_first else 2)[-1]
    assert (line["ended"], line["fault"], line["status"]) == ("request_head_timeout", "client", 408)


def test_a_head_that_was_begun_ahead_has_its_time_from_when_it_is_its_turn(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1 + b"GET")
    visit = web.visit()
    visit.answer(OK)
    assert client.response().status == 200
    web.pass_time(9.0)
    assert len(web.records) == 1
    web.pass_time(10.6)

    assert client.response().status == 408


def test_a_client_between_two_requests_is_let_go_in_peace_after_a_while(web: HttpBench) -> None:
    client, _ = warm(web)
    web.pass_time(30.0)
    web.pass_time(59.0)
    assert len(web.shared.connections) == 1
    web.pass_time(60.6)

    assert client.wait_for_end() is Ending.CLEAN
    assert len(web.records) == 1
    client._end.close()
    until(web.all_is_given_back, "the end of the linger")


def test_a_request_that_has_come_at_the_last_moment_is_answered(web: HttpBench) -> None:
    client, visit = warm(web)
    client._end.sendall(POST % 1)
    web.pass_time(60.6)
    assert visit.answer(OK).body == b"hello"
    assert client.response().status == 200
    client.send(GET % 2)
    visit.answer(OK)

    assert client.response().options() == set()


# A worker that drains.


def test_a_client_between_two_requests_is_let_go_when_nobody_goes_on(web: HttpBench) -> None:
    client, _ = warm(web)
    drain(web)

    assert client.wait_for_end() is Ending.CLEAN
    assert len(web.records) == 1


def test_a_client_between_two_requests_is_told_with_its_next_answer_to_go_elsewhere(
    web: HttpBench,
) -> None:
    """To close now would lose a POST that is on its way, which nobody sends again."""
    client, visit = warm(web)
    drain(web, idle_until=clock.monotonic() + 30)
    client.send(POST % 1)
    assert visit.answer(OK).body == b"hello"

    assert client.response().options() == {b"close"}
    assert client.wait_for_end() is Ending.CLEAN


def test_a_client_that_asks_for_nothing_any_more_is_let_go_before_the_drain_ends(
    web: HttpBench,
) -> None:
    client, _ = warm(web)
    drain(web, idle_until=clock.monotonic() + 30)
    web.pass_time(29.0)
    assert len(web.shared.connections) == 1
    web.pass_time(30.6)

    assert client.wait_for_end() is Ending.CLEAN


def test_an_answer_that_began_before_a_drain_is_followed_by_one_that_says_it_is_the_last(
    web: HttpBench,
) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    visit.send(OK[:-1])
    until(lambda: web.connections[0]._tls.plaintext_written > 0, "the answer has begun")
    drain(web, idle_until=clock.monotonic() + 30)
    visit.send(OK[-1:])
    assert client.response().options() == set()
    client.send(POST % 2)
    assert visit.answer(OK).body == b"hello"

    assert client.response().options() == {b"close"}


def test_a_request_that_has_come_when_the_drain_begins_is_answered(web: HttpBench) -> None:
    """Though the loop has not come to it yet."""
    client, visit = warm(web)
    client._end.sendall(POST % 1)
    drain(web)
    assert visit.answer(OK).body == b"hello"
    answer = client.response()

    assert (answer.body, answer.options()) == (b"ok", {b"close"})
    assert client.wait_for_end() is Ending.CLEAN


def test_a_client_that_has_not_asked_yet_may_ask(web: HttpBench) -> None:
    """Whoever comes with a question gets an answer, when the question comes in time."""
    client, silent = web.client(), web.client()
    drain(web)
    client.send(POST % 1)
    assert web.visit().answer(OK).body == b"hello"
    assert client.response().options() == {b"close"}
    web.pass_time(10.6)

    assert silent.wait_for_end() is Ending.CLEAN


def test_a_request_under_way_is_answered_and_then_it_ends(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    drain(web)
    visit.send(OK)
    answer = client.response()

    assert (answer.body, answer.options()) == (b"ok", {b"close"})
    assert client.wait_for_end() is Ending.CLEAN


def test_an_answer_under_way_is_finished_and_the_next_request_gets_the_word(web: HttpBench) -> None:
    """Its head has gone without a word of an end; what came behind it is answered with one."""
    client = web.client()
    client.send(GET % 1 + POST % 2 + POST % 3)
    visit = web.visit()
    visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    turns()
    drain(web)
    visit.send(b"cd")
    assert client.response().options() == set()
    assert visit.answer(OK).target == b"/2"
    assert client.response().options() == {b"close"}
    assert client.wait_for_end() is Ending.CLEAN


def test_a_head_that_has_begun_may_end(web: HttpBench) -> None:
    client, visit = warm(web)
    client.send((GET % 1)[:20])
    turns()
    drain(web)
    client.send((GET % 1)[20:])
    visit.answer(OK)

    assert client.response().options() == {b"close"}


def test_what_outlives_the_drain_is_cut_off(web: HttpBench) -> None:
    client, visit = warm(web)
    idle = web.client()
    idle.send(GET % 8)
    visit.answer(OK)
    idle.response()
    client.send(GET % 1)
    visit.request()
    for connection in list(web.shared.connections):
        connection.drain_is_over()

    assert visit.is_reset()
    assert [line["ended"] for line in web.records] == ["done", "done", "drain_timeout"]
    assert web.all_is_given_back()


# Clients that read slowly.


def test_the_end_is_told_even_to_a_client_that_had_no_room_for_it(web: HttpBench) -> None:
    """Without it a body without a length would not be whole."""
    client = web.client()
    (connection,) = web.connections
    connection._tls = Full(connection._tls, tries=3)  # type: ignore[assignment]
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(UNTIL_END + b"all")
    visit.close()

    assert client.response().body == b"all"
    assert client.ending is Ending.CLEAN
    assert web.record()["ended"] == "done"
    client.half_close()
    client._end.close()
    until(web.all_is_given_back, "the end")


def test_a_client_that_never_makes_room_for_the_end_is_left(web: HttpBench) -> None:
    client = web.client()
    (connection,) = web.connections
    connection._tls = Full(connection._tls, tries=1 << 60)  # type: ignore[assignment]
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(UNTIL_END + b"all")
    visit.close()
    turns()
    web.pass_time(61.0)

    assert web.all_is_given_back()


class Full:
    """A connection on which the close_notify does not go out, so many times."""

    def __init__(self, tls: Any, tries: int) -> None:
        self._tls = tls
        self._tries = tries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)

    def shutdown(self) -> int:
        self._tries -= 1
        return WANT_WRITE if self._tries >= 0 else self._tls.shutdown()


def test_requests_are_answered_while_nobody_can_be_asked(web: HttpBench) -> None:
    web.serve(refused_address())
    client = web.client()
    client.send(GET % 1 + POST % 2 + GET % 3)

    assert [client.response().status for _ in range(3)] == [502] * 3
    assert client.ending is None
