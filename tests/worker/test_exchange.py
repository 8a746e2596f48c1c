"""Mode "http", the backend's side: one request, its answer, and what becomes of the connection."""

from __future__ import annotations

import hashlib
import socket

import gevent
import pytest

from tests.relay.ends import reset, turns, until
from tests.support.http_client import Ending
from tests.worker.harness import HttpBench, Visit
from tests.worker.loop_client import LoopClient
from tests.worker.wire import (
    BIG,
    CHUNKED,
    CHUNKED_POST,
    CLOSING,
    GET,
    HEAD,
    NO_CONTENT,
    OK,
    POST,
    SWITCH,
    UNTIL_END,
    WEBSOCKET,
    big_post,
    chunks,
    push,
    refused_address,
    send_until_blocked,
    warm,
)

# One request, one answer.


def test_a_request_is_answered_by_the_backend(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    request = web.visit().answer(OK)
    answer = client.response()

    assert (request.method, request.target) == (b"GET", b"/1")
    assert request.values(b"host") == [b"site.test"]
    assert (answer.status, answer.body, answer.options()) == (200, b"ok", set())
    assert web.active() == 0


def test_a_request_s_connection_to_the_backend_serves_the_next_one(web: HttpBench) -> None:
    client, visit = warm(web)
    for number in range(1, 4):
        client.send(GET % number)
        assert visit.answer(OK).target == b"/%d" % number
        assert client.response().body == b"ok"
    assert not web.visits_wait()
    assert [line["status"] for line in web.lines(4)] == [200] * 4


def test_another_client_takes_a_kept_connection_too(web: HttpBench) -> None:
    _, visit = warm(web)
    other = web.client()
    other.send(POST % 7)

    assert visit.answer(OK).body == b"hello"
    assert other.response().status == 200


def test_requests_at_the_same_time_have_connections_of_their_own(web: HttpBench) -> None:
    clients = [web.client() for _ in range(3)]
    visits = []
    for number, client in enumerate(clients):
        client.send(GET % number)
        visits.append(web.visit())
    assert web.active() == 3
    for visit in reversed(visits):
        visit.answer(OK)
    assert [client.response().body for client in clients] == [b"ok"] * 3
    assert web.active() == 0


def test_only_so_many_idle_connections_are_kept(web: HttpBench) -> None:
    web.serve(cluster={"idle_connections": 1})
    clients = [web.client() for _ in range(2)]
    visits = []
    for number, client in enumerate(clients):
        client.send(GET % number)
        visits.append(web.visit())
    for client, visit in zip(clients, visits, strict=True):
        visit.answer(OK)
        assert client.response().body == b"ok"

    assert visits[1].receive() == b""


def test_a_kept_connection_is_closed_when_it_has_been_idle_for_long(web: HttpBench) -> None:
    _, visit = warm(web)
    web.sweep(29.0)
    turns()
    web.sweep(31.0)

    assert visit.receive() == b""


# Bodies.


def test_a_large_upload_arrives_whole(web: HttpBench) -> None:
    client = web.client()
    client.send(big_post(len(BIG)))
    visit = web.visit()
    sender = gevent.spawn(client.send, BIG)
    request = visit.head()

    assert request.values(b"content-length") == [b"%d" % len(BIG)]
    assert visit.body(request) == BIG
    sender.get()
    visit.send(OK)
    assert client.response().body == b"ok"


def test_a_body_in_chunks_passes_chunk_by_chunk(web: HttpBench) -> None:
    client = web.client()
    client.send(CHUNKED_POST + b"3;ext=1\r\nabc\r\n")
    visit = web.visit()
    request = visit.head()
    client.send(b"2\r\nde")
    client.send(b"\r\n0\r\nX-Checksum: 1\r\n\r\n")

    assert visit.body(request) == b"abcde"
    assert request.values(b"transfer-encoding") == [b"chunked"]
    assert (request.trailers, b"ext" in request.raw) == ([], False)
    visit.send(OK)
    assert client.response().body == b"ok"
    client.send(GET % 2)
    assert visit.answer(OK).target == b"/2"


def test_what_stands_behind_a_body_is_the_next_request(web: HttpBench) -> None:
    client = web.client()
    client.send(CHUNKED_POST + chunks(b"abc") + POST % 2 + GET % 3)
    visit = web.visit()
    bodies = [visit.answer(OK).body for _ in range(3)]

    assert bodies == [b"abc", b"hello", b""]
    assert [client.response().status for _ in range(3)] == [200] * 3
    assert not web.visits_wait()


def test_what_comes_behind_the_last_chunk_later_is_the_next_request(web: HttpBench) -> None:
    client = web.client()
    client.send(CHUNKED_POST + b"3\r\n")
    visit = web.visit()
    client.send(b"abc\r\n0\r\n\r\n" + GET % 2)

    assert visit.answer(OK).body == b"abc"
    assert visit.answer(OK).target == b"/2"
    assert [client.response().status for _ in range(2)] == [200] * 2


def test_a_backend_that_reads_slowly_slows_its_client_down(web: HttpBench) -> None:
    """No more is held than a buffer, and what the kernel takes."""
    client = web.client()
    client.send(big_post(len(BIG)))
    visit = web.visit()
    visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    sent = send_until_blocked(client, BIG)
    assert sent < len(BIG)
    sender = gevent.spawn(client.send, BIG[sent:])
    assert visit.body(visit.head()) == BIG
    sender.get()
    visit.send(OK)
    assert client.response().body == b"ok"
    client.send(GET % 2)
    assert visit.answer(OK).target == b"/2"


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_a_large_download_waits_for_a_slow_reader_and_arrives_whole(
    web: HttpBench, framing: str
) -> None:
    answer = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BIG), BIG),
        "chunks": CHUNKED + chunks(BIG),
        "end": UNTIL_END + BIG,
    }[framing]
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    sent = push(visit, answer)
    assert sent < len(answer)  # the client does not read, and so the backend cannot send
    sender = gevent.spawn(finish, visit, answer[sent:], closes=framing == "end")
    received = client.response()
    sender.get()

    assert received.until_end == (framing == "end")
    assert hashlib.sha256(received.body).digest() == hashlib.sha256(BIG).digest()
    if framing == "end":
        assert client.wait_for_end() is Ending.CLEAN
    else:
        client.send(GET % 2)
        assert visit.answer(OK).target == b"/2"


def finish(visit: Visit, data: bytes, *, closes: bool) -> None:
    visit.send(data)
    if closes:
        visit.close()


def test_an_answer_in_chunks_passes_chunk_by_chunk(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    visit.send(CHUNKED + b"3\r\nabc")
    turns()
    visit.send(b"\r\n2\r\nde\r\n0\r\n")
    turns()
    visit.send(b"\r\n")
    answer = client.response()

    assert (answer.body, answer.values(b"transfer-encoding")) == (b"abcde", [b"chunked"])
    client.send(GET % 2)
    assert visit.answer(OK).target == b"/2"


@pytest.mark.parametrize(
    "answer", [NO_CONTENT, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"]
)
def test_an_answer_without_a_body_is_over_at_once(web: HttpBench, answer: bytes) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(answer)
    assert client.response().body == b""
    client.send(GET % 2)

    assert visit.answer(OK).target == b"/2"


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_answer_to_head_has_no_body_whatever_it_says(web: HttpBench, framing: bytes) -> None:
    client = web.client()
    client.send(HEAD)
    visit = web.visit()
    visit.answer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    assert client.response(b"HEAD").body == b""
    client.send(GET % 2)

    assert visit.answer(OK).target == b"/2"


def test_a_body_without_a_length_ends_with_its_connection(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(UNTIL_END + b"ab")
    visit.send(b"cd")
    visit.close()
    answer = client.response()

    assert (answer.body, answer.options(), answer.until_end) == (b"abcd", {b"close"}, True)
    assert client.ending is Ending.CLEAN


def test_a_body_without_a_length_that_breaks_off_is_no_whole_one(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(UNTIL_END + b"ab")
    client.send(b"")
    until(lambda: client_has(client, b"ab"), "the beginning")
    reset(visit.sock)

    until(lambda: web.records, "the end")
    assert client._receive() == b""
    assert client.ending in {Ending.CUT, Ending.RESET}
    assert web.record()["ended"] == "backend_reset"


def client_has(client: LoopClient, piece: bytes) -> bool:
    return client._receive().endswith(piece)


# What a backend's connection is kept for.


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CLOSING, id="it says close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/1.0"),
        pytest.param(OK + b"x", id="more than an answer"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n\r\nx", id="more than the chunks"),
        pytest.param(NO_CONTENT + b"x", id="more than no body"),
    ],
)
def test_a_connection_is_not_kept_after(web: HttpBench, answer: bytes) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(answer)
    assert client.response().options() == set()  # the client's goes on

    assert visit.receive() == b""
    client.send(GET % 2)
    web.visit().answer(OK)
    assert client.response().body == b"ok"


def test_a_connection_is_not_kept_when_more_follows_a_body_that_came_in_pieces(web: HttpBench) -> None:
    """The next request, at hand already, must not get the rest for its answer."""
    client = web.client()
    client.send(GET % 1 + GET % 2)
    visit = web.visit()
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    turns()
    visit.send(b"body" + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    assert client.response().body == b"body"

    other = web.visit()
    assert other.answer(OK).target == b"/2"
    assert client.response().body == b"ok"


def test_an_http_1_0_backend_may_keep_its_connection(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    assert client.response().body == b"ok"
    client.send(GET % 2)

    assert visit.answer(OK).target == b"/2"


@pytest.mark.parametrize("how", ["it ends", "it says something"])
def test_a_kept_connection_on_which_anything_happens_is_closed(web: HttpBench, how: str) -> None:
    client, visit = warm(web)
    if how == "it ends":
        visit.sock.shutdown(socket.SHUT_WR)
    else:
        visit.send(OK)
    visit.is_reset()
    client.send(POST % 1)

    assert web.visit().answer(OK).body == b"hello"
    assert client.response().body == b"ok"


# Early answers.


def test_an_answer_may_come_before_the_body_and_ends_the_connection(web: HttpBench) -> None:
    client = web.client()
    client.send(big_post(1_000_000) + b"x")
    visit = web.visit()
    visit.head()
    visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    answer = client.response()

    assert (answer.status, answer.body, answer.options()) == (413, b"no", {b"close"})
    client.send(b"x" * 10_000)
    assert client.wait_for_end() is Ending.CLEAN
    assert web.record()["status"] == 413


def test_a_backend_that_answers_and_reads_no_more_is_heard(web: HttpBench) -> None:
    """Its reset may arrive, while the body is sent on, before we have read what it said."""
    client = web.client()
    client.send(big_post(len(BIG)))
    visit = web.visit()
    visit.head()
    send_until_blocked(client, BIG)
    visit.sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    visit.close()  # with bytes that nobody has read: a reset
    answer = client.response()

    assert (answer.status, answer.body) == (413, b"no")
    assert web.record()["status"] == 413


def test_an_answer_and_a_body_may_pass_at_the_same_time(web: HttpBench) -> None:
    client = web.client()
    client.send(big_post(10) + b"12345")
    visit = web.visit()
    request = visit.head()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    turns()
    client.send(b"67890")
    assert visit.body(request) == b"1234567890"
    visit.send(b"67890")
    answer = client.response()

    assert (answer.body, answer.options()) == (b"1234567890", {b"close"})
    assert client.wait_for_end() is Ending.CLEAN


# Interim answers.


def test_a_client_that_waits_for_100_continue_gets_the_backend_s(web: HttpBench) -> None:
    client = web.client()
    client.send(
        b"POST / HTTP/1.1\r\nHost: site.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    visit = web.visit()
    request = visit.head()
    assert request.values(b"expect") == [b"100-continue"]
    visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client._receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert visit.body(request) == b"hello"
    visit.send(OK)
    assert client.response().body == b"ok"
    client.send(GET % 2)
    assert visit.answer(OK).target == b"/2"


def test_hints_pass_before_the_answer(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 2 + OK[:20])
    turns()
    visit.send(OK[20:])
    answer = client.response()

    assert [(each.status, each.values(b"link")) for each in answer.interim] == [(103, [b"</a.css>"])] * 2
    assert (answer.status, answer.body) == (200, b"ok")


def test_a_client_with_http_1_0_gets_no_interim_answers(web: HttpBench) -> None:
    client = web.client()
    client.send(b"GET / HTTP/1.0\r\nHost: site.test\r\n\r\n")
    web.visit().answer(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    answer = client.response()

    assert (answer.interim, answer.body, answer.options()) == ([], b"ok", {b"close"})
    assert client.wait_for_end() is Ending.CLEAN


# Clients with HTTP/1.0.


def test_chunks_are_taken_apart_for_a_client_with_http_1_0(web: HttpBench) -> None:
    client = web.client()
    client.send(b"GET / HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")
    visit = web.visit()
    visit.answer(CHUNKED + chunks(b"abcdef", 4)[:8])
    turns()
    visit.send(chunks(b"abcdef", 4)[8:])
    answer = client.response()

    assert (answer.body, answer.values(b"transfer-encoding"), answer.until_end) == (b"abcdef", [], True)
    assert (answer.options(), client.ending) == ({b"close"}, Ending.CLEAN)


def test_a_client_with_http_1_0_may_keep_its_connection(web: HttpBench) -> None:
    client = web.client()
    for number in range(2):
        client.send(b"GET / HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")
        if number == 0:
            visit = web.visit()
        visit.answer(OK)
        assert client.response().options() == {b"keep-alive"}


def test_an_answer_of_ours_tells_a_client_with_http_1_0_what_becomes_of_its_connection(
    web: HttpBench,
) -> None:
    web.serve(refused_address())
    client = web.client()
    client.send(b"GET / HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")

    assert client.response().options() == {b"close"}
    assert client.wait_for_end() is Ending.CLEAN


# Upgrades.


def test_an_upgraded_connection_passes_bytes_both_ways(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET)
    visit = web.visit()
    request = visit.answer(SWITCH + b"first")
    answer = client.response()
    assert (request.options(), request.values(b"upgrade")) == ({b"upgrade"}, [b"websocket"])
    assert (answer.status, answer.values(b"upgrade")) == (101, [b"websocket"])
    assert client._reader.rest == b"first"
    client.send(b"ping")
    assert visit.receive() == b"ping"
    visit.send(b"pong")
    assert client._receive() == b"pong"
    assert web.active() == 1
    visit.close()
    assert client._receive() == b""
    assert client.ending is Ending.CLEAN
    client.half_close()

    line = web.record()
    assert (line["status"], line["path"], line["ended"]) == (101, "/ws", "done")
    until(web.all_is_given_back, "the end")
    assert web.active() == 0


def test_what_a_client_sends_ahead_of_the_switch_is_not_lost(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET + b"ah")
    visit = web.visit()
    visit.request()
    assert visit.rest == b""
    client.send(b"ead")
    turns()
    visit.send(SWITCH)
    assert client.response().status == 101
    received = b""
    while len(received) < 5:
        received += visit.receive()

    assert received == b"ahead"


def test_what_a_client_sends_ahead_of_a_refused_switch_is_its_next_request(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET + GET % 2)
    visit = web.visit()
    visit.answer(OK)
    assert client.response().status == 200

    assert visit.answer(OK).target == b"/2"
    assert client.response().body == b"ok"


def test_garbage_ahead_of_a_refused_switch_is_refused_and_reaches_nobody(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET + b"\x81\x85\x00\x00\x00\x00hello")
    visit = web.visit()
    visit.answer(OK)

    assert client.response().status == 200
    assert client.response().status == 400
    assert visit.rest == b""
    assert web.lines(2)[1]["fault"] == "client"


def test_an_upgraded_connection_ends_when_it_is_idle_for_long(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET)
    web.visit().answer(SWITCH)
    assert client.response().status == 101
    web.pass_time(60 * 30)
    web.pass_time(60 * 30 + 3601)
    web.pass_time(60 * 60 + 3602)

    assert client.wait_for_end() is Ending.CLEAN
    assert web.record()["ended"] == "idle_timeout"


def test_a_client_that_leaves_an_upgraded_connection_resets_its_backend(web: HttpBench) -> None:
    client = web.client()
    client.send(WEBSOCKET)
    visit = web.visit()
    visit.answer(SWITCH)
    assert client.response().status == 101
    client.vanish()

    assert visit.is_reset()
    assert web.record()["fault"] == "client"
    assert web.active() == 0


# Limits.


def test_a_body_that_is_too_long_is_refused_before_anybody_is_asked(web: HttpBench) -> None:
    web.serve(body_max=4)
    client = web.client()
    client.send(POST % 1)

    assert client.response().status == 413
    assert client.wait_for_end() is Ending.CLEAN
    line = web.record()
    assert (line["ended"], line["method"], line["path"]) == ("body_too_large", "POST", "/1")
    assert not web.visits_wait()


def test_a_body_in_chunks_that_gets_too_long_is_refused_and_cut_off(web: HttpBench) -> None:
    web.serve(body_max=4)
    client = web.client()
    client.send(CHUNKED_POST + b"3\r\nabc\r\n")
    visit = web.visit()
    visit.head()
    client.send(b"3\r\nabc\r\n")

    assert client.response().status == 413
    assert visit.is_reset()
    assert web.record()["ended"] == "body_too_large"


def test_chunks_that_are_none_are_refused_and_never_end_at_the_backend(web: HttpBench) -> None:
    client = web.client()
    client.send(CHUNKED_POST + b"3\r\nabc\r\n")
    visit = web.visit()
    visit.head()
    client.send(b"0x3\r\nabc\r\n0\r\n\r\n")

    answer = client.response()
    assert (answer.status, answer.options()) == (400, {b"close"})
    assert visit.is_reset()
    assert web.record()["ended"] == "bad_chunk_size"
