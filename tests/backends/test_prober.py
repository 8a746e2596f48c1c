"""Checks of servers: real sockets, and a board that tells what was found."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy import clock
from termproxy.address import Name, parse_address
from termproxy.backends import prober
from termproxy.backends.board import Board, Head, PlaceWord, ProbeWord, UseWord
from termproxy.backends.health import RESULTS, Health
from termproxy.backends.names import PLACES, Found
from termproxy.backends.prober import (
    HEAD_MAX,
    NameTarget,
    NameWatch,
    Result,
    Target,
    Watch,
    check,
    request,
    run,
    status_of,
)
from termproxy.config import schema
from tests.relay.ends import until
from tests.support.backends import Backend, FullBackend, receive_all, reset
from tests.support.ports import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def http(**settings: Any) -> schema.Health:
    return schema.Health(kind="http", timeout=settings.pop("timeout", 5.0), **settings)


TCP = schema.Health(kind="tcp", timeout=0.2)


def answering(answer: bytes, asked: list[bytes] | None = None) -> Callable[[socket.socket], None]:
    """Takes a request's head, and answers it."""

    def serve(sock: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = sock.recv(4096)
            if not piece:
                return
            received += piece
        if asked is not None:
            asked.append(received)
        sock.sendall(answer)

    return serve


def silence(sock: socket.socket) -> None:
    receive_all(sock)


def checked(behave: Callable[[socket.socket], None], settings: schema.Health) -> Result:
    with Backend(behave) as backend:
        return check(parse_address(backend.address), settings)


# Over TCP.


def test_a_server_that_accepts_passes() -> None:
    assert checked(silence, TCP) == Result("passed")


def test_a_unix_socket_that_accepts_passes(tmp_path: Path) -> None:
    with Backend(silence, path=tmp_path / "app.sock") as backend:
        assert check(parse_address(backend.address), TCP) == Result("passed")


def test_a_server_that_refuses_fails() -> None:
    assert check(parse_address(f"127.0.0.1:{free_port()}"), TCP) == Result("backend_refused")


def test_a_server_that_does_not_answer_fails_in_time() -> None:
    with FullBackend() as backend:
        began = clock.monotonic()
        assert check(parse_address(backend.address), TCP) == Result("backend_timeout")
        assert 0.2 <= clock.monotonic() - began < 5


# Over HTTP.


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, Result("passed", 200)),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Result("passed", 204)),
        (b"HTTP/1.1 302\r\nLocation: /\r\n\r\n", Result("passed", 302)),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 \r\n\r\n" + OK, Result("passed", 200)),
        (b"HTTP/1.1 503 Busy\r\n\r\n", Result("wrong_status", 503)),
        (b"HTTP/1.1 404 \r\n\r\n", Result("wrong_status", 404)),
        (b"SSH-2.0-OpenSSH_9\r\n", Result("not_http")),
        (b"HTTP/2 200 OK\r\n\r\n", Result("not_http")),
        (b"HTTP/1.1 2000 OK\r\n\r\n", Result("not_http")),
        (b"HTTP/1.1 20 OK\r\n\r\n", Result("not_http")),
        (b"HTTP/1.1  200 OK\r\n\r\n", Result("not_http")),
        (b"HTTP/1.1 200 OK\r\nno end", Result("not_http")),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (HEAD_MAX + 1000), Result("not_http")),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 1000, Result("not_http")),
        (b"", Result("backend_reset")),
    ],
)
def test_the_answer_decides(answer: bytes, expected: Result) -> None:
    assert checked(answering(answer), http()) == expected
    assert expected.word in RESULTS


def test_what_is_asked_for_is_what_the_settings_say() -> None:
    asked: list[bytes] = []
    settings = http(path="/healthz?x=1", host="app.internal:80", expect=("418",))
    assert checked(answering(b"HTTP/1.1 418 Teapot\r\n\r\n", asked), settings) == Result("passed", 418)

    assert b"".join(asked) == (
        b"GET /healthz?x=1 HTTP/1.1\r\nHost: app.internal:80\r\nUser-Agent: termproxy-health\r\n"
        b"Accept: */*\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1:80", b"127.0.0.1:80"),
        ("[::1]:80", b"[::1]:80"),
        ("unix:/run/app.sock", b"localhost"),
    ],
)
def test_without_a_host_the_server_s_address_is_named(address: str, host: bytes) -> None:
    assert b"\r\nHost: " + host + b"\r\n" in request(parse_address(address), http())


def test_a_reset_fails() -> None:
    assert checked(reset, http()) == Result("backend_reset")


@pytest.mark.parametrize("piece", [b"", b"H"])
def test_a_server_that_is_silent_fails_in_time(piece: bytes) -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(piece)
        receive_all(sock)

    assert checked(drip, http(timeout=0.2)) == Result("backend_timeout")


def test_a_drip_of_bytes_does_not_make_the_deadline_later() -> None:
    over = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.02):
            sock.sendall(b"X: y\r\n")

    with Backend(drip) as backend:
        began = clock.monotonic()
        assert check(parse_address(backend.address), http(timeout=0.3)) == Result("backend_timeout")
        assert clock.monotonic() - began < 3
        over.set()


def test_a_check_leaves_no_descriptor() -> None:
    gevent.sleep(0.001)
    with ExitStack() as stack:
        servers = [
            (stack.enter_context(Backend(answering(OK))).address, http()),
            (f"127.0.0.1:{free_port()}", http()),
            (stack.enter_context(FullBackend()).address, TCP),
            (stack.enter_context(Backend(silence)).address, http(timeout=0.1)),
        ]
        for _ in range(2):  # the first round may load what stays
            before = len(list(Path("/proc/self/fd").iterdir()))
            for address, settings in servers:
                check(parse_address(address), settings)
        stack.close()

    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_answer_is_too_strange_to_be_read(noise: bytes, cut: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\n\r\n"
    for received in (noise, whole[:cut] + noise):
        assert status_of(received) in (None, 0, *range(200, 600))


@given(cut=st.integers(0, len(OK)))
def test_an_answer_in_pieces_is_waited_for(cut: int) -> None:
    head = OK.index(b"\r\n\r\n") + 4

    assert status_of(OK[:cut]) == (200 if cut >= head else None)


# What is written down.

SERVER = "cluster app: server 127.0.0.1:1"


@pytest.fixture
def board() -> Board:
    return Board([("app", "a"), ("app", "b")], rows=1, is_shared=False)


def watch(board: Board, **settings: Any) -> Watch:
    return Watch(Target("app", 1, parse_address("127.0.0.1:1"), http(**settings)), board)


def test_a_check_is_written_down_with_its_time_and_result(board: Board) -> None:
    watched = watch(board)
    watched.take(Result("passed", 204), 1.5)
    watched.take(Result("backend_refused"), 2.5)

    words = board.probe(1)
    assert words[ProbeWord.CHECKED] == 2.5e9
    assert (RESULTS[words[ProbeWord.RESULT]], words[ProbeWord.STATUS]) == ("backend_refused", 0)
    assert (words[ProbeWord.CHECKS], words[ProbeWord.FAILED]) == (2, 1)
    assert (words[ProbeWord.HEALTH], words[ProbeWord.SINCE], words[ProbeWord.RISEN]) == (
        Health.UP,
        1.5e9,
        0,
    )
    assert not any(board.probe(0))


def test_each_change_is_told_once(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    watched = watch(board, rise=2, fall=3)
    results = (
        [Result("passed", 200)] * 2 + [Result("wrong_status", 503)] * 5 + [Result("passed", 200)] * 4
    )
    changes = []
    with caplog.at_level(logging.INFO):
        for now, result in enumerate(results, 1):
            watched.take(result, float(now))
            changes.append(board.words[Head.PROBES_CHANGED])

    assert changes == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert caplog.messages == [
        f"{SERVER} is down: 3 checks in a row failed, the last: wrong_status (503)",
        f"{SERVER} is up: 2 checks in a row passed",
    ]
    words = board.probe(1)
    assert (words[ProbeWord.HEALTH], words[ProbeWord.RISEN]) == (Health.UP, 9e9)


def test_a_server_that_is_down_at_the_start_is_told_at_once(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    watch(board).take(Result("backend_refused"), 1.0)

    assert board.probe(1)[ProbeWord.HEALTH] == Health.DOWN
    assert caplog.messages == [f"{SERVER} is down: its first check failed: backend_refused"]


def test_what_was_known_before_holds_until_enough_checks_deny_it(board: Board) -> None:
    board.probe(1)[ProbeWord.HEALTH] = Health.DOWN
    watched = watch(board, rise=2)
    watched.take(Result("passed"), 1.0)
    assert board.probe(1)[ProbeWord.HEALTH] == Health.DOWN
    watched.take(Result("passed"), 2.0)
    assert board.probe(1)[ProbeWord.HEALTH] == Health.UP


# Names.

NAME = Name("app.internal", 80)
WHO = "cluster app: app.internal:80"


@pytest.fixture
def places() -> Board:
    return Board([("app", "127.0.0.1:1"), *[("app", str(NAME))] * PLACES], rows=1, is_shared=False)


def name_watch(board: Board, **settings: Any) -> NameWatch:
    target = NameTarget("app", board.places["app", str(NAME)], NAME, schema.Health(**settings))
    return NameWatch(target, board, lambda _: Found(None, None))


def held(board: Board) -> list[str]:
    read = [board.address(index) for index in board.places["app", str(NAME)]]
    return [known[1] for known in read if known is not None and known[1] is not None]


def test_what_is_found_is_written_down_and_told_once(
    places: Board, caplog: pytest.LogCaptureFixture
) -> None:
    watched = name_watch(places)
    with caplog.at_level(logging.INFO):
        for v4 in (["192.0.2.1"], ["192.0.2.1"], ["192.0.2.1", "192.0.2.2"], ["192.0.2.2"]):
            watched.take(Found(v4, ["2001:db8::1"], 60), 5.0)

    assert set(held(places)) == {"2001:db8::1", "192.0.2.2"}
    assert places.place(1)[PlaceWord.LOOK_UPS] == 4
    assert places.words[Head.PROBES_CHANGED] == 3
    assert caplog.messages == [
        f"{WHO} is 192.0.2.1, 2001:db8::1 now",
        f"{WHO} is 192.0.2.1, 192.0.2.2, 2001:db8::1 now",
        f"{WHO} is 192.0.2.2, 2001:db8::1 now",
    ]


def test_a_name_that_does_not_resolve_is_told_once_and_so_is_its_return(
    places: Board, caplog: pytest.LogCaptureFixture
) -> None:
    watched = name_watch(places)
    with caplog.at_level(logging.INFO):
        for found in (
            Found([], [], problem="there is no such name"),
            Found([], [], problem="there is no such name"),
            Found(["192.0.2.1"], []),
            Found(None, None, problem="no answer"),
            Found(["192.0.2.1"], []),
        ):
            watched.take(found, 5.0)

    assert held(places) == ["192.0.2.1"]
    assert caplog.messages == [
        f"{WHO} does not resolve: there is no such name; it counts as down until it does",
        f"{WHO} is 192.0.2.1 now",
        f"{WHO} resolves again",
        f"{WHO} does not resolve: no answer; its addresses stay",
        f"{WHO} resolves again",
    ]


def test_workers_are_told_that_the_first_look_up_ended_whatever_it_found(places: Board) -> None:
    """Clients wait for it."""
    name_watch(places).take(Found(None, None, problem="no answer"), 5.0)

    assert places.words[Head.PROBES_CHANGED] == 1
    assert places.place(1)[PlaceWord.LOOK_UPS] == 1


def test_an_address_that_comes_later_begins_slowly_and_knows_nothing_of_the_one_before(
    places: Board,
) -> None:
    watched = name_watch(places)
    watched.take(Found(["192.0.2.1"], []), 5.0)
    probe = places.probe(1)
    assert not any(probe)
    probe[ProbeWord.HEALTH], probe[ProbeWord.CHECKS] = Health.DOWN, 9
    watched.take(Found(["192.0.2.2"], []), 7.0)

    assert places.address(1) == (4, "192.0.2.2")
    assert (probe[ProbeWord.HEALTH], probe[ProbeWord.CHECKS]) == (Health.UNKNOWN, 0)
    assert probe[ProbeWord.RISEN] == 7e9


def test_a_place_that_is_still_in_use_is_not_given_away(places: Board) -> None:
    """Its counts are those of connections to the address before."""
    watched = name_watch(places)
    watched.take(Found(["192.0.2.1"], []), 5.0)
    places.use(0, 1)[UseWord.ACTIVE] = 1
    watched.take(Found(["192.0.2.2"], []), 6.0)

    assert [places.address(index) for index in (1, 2)] == [(4, None), (2, "192.0.2.2")]


def test_more_addresses_than_places_are_told_of(places: Board, caplog: pytest.LogCaptureFixture) -> None:
    name_watch(places).take(Found([f"192.0.2.{n}" for n in range(1, 21)], []), 5.0)

    assert len(held(places)) == PLACES
    assert caplog.messages == [f"{WHO}: of 20 addresses 16 are used"]


def test_addresses_of_a_name_are_checked_while_they_are_there() -> None:
    asked: list[bytes] = []
    with Backend(answering(OK, asked)) as backend:
        port = int(backend.address.rpartition(":")[2])
        name = Name("app.internal", port)
        found = [Found(["127.0.0.1"], [], 1.0)]
        board = Board([("app", str(name))] * PLACES, rows=1, is_shared=False)
        target = NameTarget("app", range(PLACES), name, http(interval=0.1))
        running = gevent.spawn(NameWatch(target, board, lambda _: found[-1]).run)
        until(lambda: board.probe(0)[ProbeWord.CHECKS] >= 2, "two checks")
        assert board.probe(0)[ProbeWord.HEALTH] == Health.UP
        assert f"Host: app.internal:{port}\r\n".encode() in asked[0]
        found.append(Found(["127.0.0.2"], [], 1.0))
        until(lambda: board.address(0) == (4, "127.0.0.2"), "the other address")
        until(lambda: board.probe(0)[ProbeWord.CHECKS] >= 1, "its check")
        assert board.probe(0)[ProbeWord.HEALTH] == Health.DOWN
        running.kill()


# All of it.


@pytest.fixture
def process() -> Iterator[Callable[..., None]]:
    """What the process does, in a greenlet."""
    greenlets: list[gevent.Greenlet] = []

    def start(*arguments: Any) -> None:
        greenlets.append(gevent.spawn(run, *arguments, lambda _: Found(None, None)))

    yield start
    gevent.killall(greenlets)


def test_every_server_is_checked_again_and_again(process: Callable[..., None], board: Board) -> None:
    settings = http(interval=0.1, jitter=0.5)
    with Backend(answering(OK)) as good, Backend(answering(b"HTTP/1.1 500 Oops\r\n\r\n")) as bad:
        targets = [
            Target("app", index, parse_address(each.address), settings)
            for index, each in enumerate((good, bad))
        ]
        process(targets, board)
        until(lambda: min(board.probe(n)[ProbeWord.CHECKS] for n in (0, 1)) >= 3, "three checks of each")

        assert [board.probe(n)[ProbeWord.HEALTH] for n in (0, 1)] == [Health.UP, Health.DOWN]
        assert board.words[Head.PROBER_BEAT] > 0


def test_a_server_that_hangs_holds_up_no_other(process: Callable[..., None], board: Board) -> None:
    with FullBackend() as hung, Backend(answering(OK)) as good:
        targets = [
            Target("app", index, parse_address(address), http(interval=0.1, timeout=60))
            for index, address in enumerate((hung.address, good.address))
        ]
        process(targets, board)
        until(lambda: board.probe(1)[ProbeWord.CHECKS] >= 3, "three checks")

        assert board.probe(0)[ProbeWord.CHECKS] == 0


def test_a_bug_in_one_check_does_not_end_the_others(
    process: Callable[..., None],
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(prober, "_judged", lambda *_: 1 / 0)
    with Backend(answering(OK)) as good:
        address = parse_address(good.address)
        process(
            [
                Target("app", 0, address, http(interval=0.1)),
                Target("app", 1, address, schema.Health(kind="tcp", interval=0.1)),
            ],
            board,
        )
        until(lambda: board.probe(1)[ProbeWord.CHECKS] >= 3, "three checks")

    assert board.probe(0)[ProbeWord.CHECKS] == 0
    assert "please report this" in caplog.text
