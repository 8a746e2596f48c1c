"""Mode "http", the backend's side: whatever goes wrong on either one, and when."""

from __future__ import annotations

import pytest

from termproxy.observability.scoreboard import Column
from tests.relay.ends import reset, turns, until
from tests.support.http_client import Ending
from tests.support.http_messages import CutError
from tests.worker.harness import HttpBench
from tests.worker.wire import (
    BIG,
    CHUNKED,
    CHUNKED_POST,
    GET,
    OK,
    POST,
    big_post,
    push,
    refused_address,
    warm,
)

# Stale connections, retries, and once only.


def test_a_get_on_a_connection_that_has_just_ended_is_sent_again(web: HttpBench) -> None:
    client, visit = warm(web)
    client.send(GET % 1)
    visit.request()
    visit.close()

    assert web.visit().answer(OK).target == b"/1"
    assert client.response().body == b"ok"
    assert [line["retries"] for line in web.lines(2)] == [0, 1]
    assert web.active() == 0


def test_it_is_sent_again_once_only(web: HttpBench) -> None:
    client, visit = warm(web)
    client.send(GET % 1)
    visit.request()
    visit.close()
    second = web.visit()
    second.request()
    second.close()

    assert client.response().status == 502
    assert (web.lines(2)[1]["ended"], web.lines(2)[1]["retries"]) == ("backend_closed", 1)
    assert not web.visits_wait()


@pytest.mark.parametrize("request_", [POST % 1, b"PATCH / HTTP/1.1\r\nHost: site.test\r\n\r\n"])
def test_what_may_not_be_repeated_is_not(web: HttpBench, request_: bytes) -> None:
    client, visit = warm(web)
    client.send(request_)
    visit.request()
    visit.close()

    assert client.response().status == 502
    assert web.lines(2)[1]["ended"] == "backend_closed"
    assert not web.visits_wait()
    assert web.active() == 0


def test_what_has_been_answered_in_part_is_not_sent_again(web: HttpBench) -> None:
    client, visit = warm(web)
    client.send(GET % 1)
    visit.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    visit.close()
    answer = client.response()

    assert (answer.status, [each.status for each in answer.interim]) == (502, [100])
    assert not web.visits_wait()


def test_a_post_does_not_go_to_a_connection_that_is_known_to_have_ended(web: HttpBench) -> None:
    """Even if the loop has not come to tell yet."""
    client, visit = warm(web)
    client.send(POST % 1)  # under way when the backend closes; one turn of the loop brings both
    visit.sock.close()

    assert web.visit().answer(OK).body == b"hello"
    assert client.response().body == b"ok"


# Backends that fail.


def test_a_backend_that_refuses_is_a_502(web: HttpBench) -> None:
    web.serve(refused_address())
    client = web.client()
    client.send(GET % 1)
    answer = client.response()

    assert (answer.status, answer.body, answer.options()) == (502, b"502 Bad Gateway\n", set())
    line = web.record()
    assert (line["ended"], line["fault"], line["status"]) == ("backend_refused", "backend", 502)
    assert line["backend"] == str(web.cluster.servers[0])
    assert web.active() == 0


def test_a_backend_that_refuses_is_passed_over(web: HttpBench) -> None:
    web.serve(refused_address(), web.address)
    client = web.client()
    for number in range(2):
        client.send(POST % number)
        if number == 0:
            visit = web.visit()
        assert visit.answer(OK).target == b"/%d" % number
        assert client.response().status == 200
    assert {line["backend"] for line in web.lines(2)} == {web.address}


def test_a_backend_that_hangs_up_is_a_502(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    web.visit().close()

    assert client.response().status == 502
    assert web.record()["ended"] in {"backend_closed", "backend_reset"}
    assert web.count(Column.BACKEND_FAILURES) == 1
    assert not web.visits_wait()


def test_a_backend_that_resets_is_a_502_and_the_client_stays(web: HttpBench) -> None:
    client = web.client()
    client.send(POST % 1)
    visit = web.visit()
    visit.request()
    reset(visit.sock)
    assert client.response().status == 502
    client.send(GET % 2)
    web.visit().answer(OK)

    assert client.response().body == b"ok"
    assert web.lines(2)[0]["ended"] == "backend_reset"


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000, "bad_answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + OK, "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "backend_closed"),
        (b"", "backend_closed"),
    ],
)
def test_an_answer_that_is_none_is_a_502(web: HttpBench, answer: bytes, ended: str) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(answer)
    if ended == "backend_closed":
        visit.close()
    response = client.response()

    assert (response.status, response.options()) == (502, set())
    line = web.record()
    assert (line["ended"], line["fault"]) == (ended, "backend")
    client.send(GET % 2)
    web.visit().answer(OK)
    assert client.response().body == b"ok"
    assert web.active() == 0


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(
    web: HttpBench, begin: bytes, how: str
) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(begin)
    turns()
    visit.close() if how == "close" else reset(visit.sock)
    with pytest.raises(CutError):
        client.response()

    assert client.ending in {Ending.CUT, Ending.RESET}
    assert web.record()["ended"] == ("backend_closed" if how == "close" else "backend_reset")
    assert web.record()["status"] == 200
    until(web.all_is_given_back, "the end")


def test_chunks_that_are_none_cut_the_answer_off(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(CHUNKED + b"5\r\nhello\r\n")
    turns()
    visit.send(b"zz\r\n")
    with pytest.raises(CutError):
        client.response()

    assert client.ending in {Ending.CUT, Ending.RESET}
    assert web.record()["ended"] == "bad_answer"
    assert visit.is_reset()


def test_nobody_to_ask_is_a_503_that_says_when_to_come_again(web: HttpBench) -> None:
    web.serve(web.address, max_connections=1, cluster={"queue": 0})
    first, second = web.client(), web.client()
    first.send(GET % 1)
    visit = web.visit()
    second.send(GET % 2)
    answer = second.response()

    assert (answer.status, answer.values(b"retry-after")) == (503, [b"1"])
    assert web.record()["ended"] == "queue_full"
    visit.answer(OK)
    assert first.response().status == 200


def test_who_waited_in_the_queue_gets_the_connection_that_became_free(web: HttpBench) -> None:
    """A server that takes one connection at a time would not answer on a second one."""
    web.serve(web.address, max_connections=1)
    clients = [web.client() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(POST % number)
        turns(3)
    visit = web.visit()
    for number, client in enumerate(clients):
        assert visit.answer(OK).target == b"/%d" % number
        assert client.response().status == 200
    assert not web.visits_wait()
    assert web.active() == 0


def test_who_waits_too_long_in_the_queue_gets_a_503(web: HttpBench) -> None:
    web.serve(web.address, max_connections=1, cluster={"queue_timeout": 5.0})
    first, second = web.client(), web.client()
    first.send(GET % 1)
    visit = web.visit()
    second.send(GET % 2)
    turns()
    web.pass_time(5.3)

    assert second.response().status == 503
    assert web.record()["ended"] == "queue_timeout"
    visit.answer(OK)
    assert first.response().status == 200


# Clients that leave.


@pytest.mark.parametrize("how", ["vanish", "cut"])
def test_a_client_that_leaves_before_its_answer_resets_its_backend(web: HttpBench, how: str) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    client.vanish() if how == "vanish" else client._end.close()

    assert visit.is_reset()
    line = web.record()
    assert (line["fault"], "status" in line) == ("client", False)
    assert line["ended"] == ("client_reset" if how == "vanish" else "client_closed")
    until(web.all_is_given_back, "the end")
    assert web.active() == 0


def test_a_client_that_leaves_in_the_middle_of_its_answer_resets_its_backend(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    turns()
    client.vanish()

    assert visit.is_reset()
    assert (web.record()["status"], web.record()["fault"]) == (200, "client")


@pytest.mark.parametrize("request_", [POST[:-2] % 1, CHUNKED_POST + b"5\r\nhel", CHUNKED_POST])
@pytest.mark.parametrize("how", ["vanish", "cut", "end"])
def test_a_client_that_leaves_in_the_middle_of_its_request_resets_its_backend(
    web: HttpBench, request_: bytes, how: str
) -> None:
    client = web.client()
    client.send(request_)
    visit = web.visit()
    visit.head()
    {"vanish": client.vanish, "cut": client._end.close, "end": client.half_close}[how]()

    assert visit.is_reset()
    assert web.record()["fault"] == "client"
    until(web.all_is_given_back, "the end")
    assert web.active() == 0


def test_a_client_that_leaves_while_a_backend_is_looked_for_is_let_go(web: HttpBench) -> None:
    web.serve(web.address, max_connections=1)
    first, second = web.client(), web.client()
    first.send(GET % 1)
    visit = web.visit()
    second.send(GET % 2)
    turns()
    second.vanish()
    until(lambda: web.records, "the end")
    visit.answer(OK)

    assert first.response().status == 200
    assert web.active() == 0
    assert not web.visits_wait()


def test_a_client_that_ends_and_waits_gets_its_answer(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    client.half_close()
    visit = web.visit()
    turns()
    visit.answer(OK)

    assert client.response().body == b"ok"
    assert client.wait_for_end() is Ending.CLEAN
    assert web.record()["ended"] == "done"


# Time.


def test_a_backend_that_does_not_answer_in_time_is_a_504(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    web.pass_time(59.0)
    assert not web.records
    web.pass_time(60.5)

    assert client.response().status == 504
    line = web.record()
    assert (line["ended"], line["fault"]) == ("backend_timeout", "backend")
    assert visit.is_reset()


def test_half_a_head_that_drips_does_not_make_an_answer_s_time_longer(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    for piece in (OK[:5], OK[5:9]):
        visit.send(piece)
        turns()
    client.send(b"GET /next HTTP/1.1\r\n")  # nor does what the client sends ahead
    turns()
    web.pass_time(60.5)

    assert client.response().status == 504


def test_an_answer_s_time_begins_when_the_request_is_whole(web: HttpBench) -> None:
    client = web.client()
    client.send(POST[:-5] % 1)
    visit = web.visit()
    visit.head()
    web.pass_time(5.3)
    client.send(b"hello")
    turns()
    web.pass_time(59.0)
    assert not web.records
    web.pass_time(60.5)

    assert client.response().status == 504
    assert web.record()["ended"] == "backend_timeout"


def test_an_answer_that_stops_in_the_middle_is_cut_off(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    turns()
    for seconds in (8.0, 30.0, 59.0):
        web.pass_time(seconds)
    assert not web.records
    for seconds in (60.5, 68.5):
        web.pass_time(seconds)
    with pytest.raises(CutError):
        client.response()

    line = web.record()
    assert (line["ended"], line["fault"]) == ("idle_timeout", "backend")
    assert client.ending in {Ending.CUT, Ending.RESET}


def test_a_client_that_does_not_read_is_cut_off(web: HttpBench) -> None:
    client = web.client()
    client.send(GET % 1)
    visit = web.visit()
    visit.request()
    push(visit, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BIG), BIG))
    for seconds in (8.0, 30.0, 69.0, 80.0, 140.0):
        web.pass_time(seconds)

    line = web.record()
    assert (line["ended"], line["fault"]) == ("idle_timeout", "client")
    assert visit.is_reset()


def test_a_body_that_stops_is_a_408(web: HttpBench) -> None:
    client = web.client()
    client.send(POST[:-2] % 1)
    visit = web.visit()
    visit.head()
    for seconds in range(6, 67, 6):
        web.pass_time(seconds)
    answer = client.response()

    assert (answer.status, answer.options()) == (408, {b"close"})
    assert (web.record()["ended"], web.record()["fault"]) == ("body_timeout", "client")
    assert visit.is_reset()


def test_a_body_that_drips_is_a_408(web: HttpBench) -> None:
    web.serve(body_rate=100)
    client = web.client()
    client.send(big_post(1_000_000))
    visit = web.visit()
    visit.head()
    client.send(b"x" * 100)
    turns()
    for seconds in (5.3, 10.6):
        web.pass_time(seconds)
    assert not web.records
    web.pass_time(15.9)

    assert client.response().status == 408
    assert web.record()["ended"] == "body_timeout"


def test_a_client_that_waits_to_be_told_to_go_on_is_not_blamed(web: HttpBench) -> None:
    web.serve(body_rate=100)
    client = web.client()
    client.send(
        b"POST / HTTP/1.1\r\nHost: site.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    visit = web.visit()
    visit.head()
    for seconds in range(6, 56, 6):
        web.pass_time(seconds)
    assert not web.records
    web.pass_time(65.6)

    assert client.response().status == 504
    assert web.record()["ended"] == "backend_timeout"
