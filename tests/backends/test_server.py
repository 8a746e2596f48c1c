"""One backend: where it is, and what is counted of it."""

from __future__ import annotations

import pytest

from termproxy.address import parse_address
from termproxy.backends.board import Board, UseWord, WishWord
from termproxy.backends.health import Wish
from termproxy.backends.server import Server


@pytest.fixture
def board() -> Board:
    return Board([("app", "[::1]:1")], rows=3, is_shared=False)


def server(board: Board, row: int = 0, max_connections: int = 0) -> Server:
    """As the worker of this row sees it."""
    made = Server(parse_address("[::1]:1"), max_connections=max_connections)
    made.attach(board.use(row, 0), board.wish(0), board.of_all(UseWord.ACTIVE, 0))
    return made


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:8080", "unix:/run/app.sock"])
def test_a_server_is_named_by_its_address(text: str) -> None:
    assert str(Server(parse_address(text))) == text
    assert text in repr(Server(parse_address(text)))


def test_without_a_board_it_counts_for_itself() -> None:
    alone = Server(parse_address("[::1]:1"), max_connections=1)
    alone.begin()

    assert (alone.active(), alone.has_room(), alone.is_disabled()) == (1, False, False)
    alone.failed(1.0)
    alone.succeeded()
    alone.end()
    assert alone.active() == 0


def test_every_worker_sees_what_all_have_open(board: Board) -> None:
    one, other = server(board, 0), server(board, 2)
    one.begin()
    one.begin()
    other.begin()
    one.end()

    assert one.active() == other.active() == 2
    assert list(board.of_all(UseWord.ACTIVE, 0)) == [1, 0, 1]
    assert list(board.of_all(UseWord.TOTAL, 0)) == [2, 0, 1]


def test_what_workers_of_an_older_generation_have_open_counts_too(board: Board) -> None:
    older = Board([("app", "[::1]:1")], rows=1, is_shared=False)
    older.use(0, 0)[UseWord.ACTIVE] = 5
    made = Server(parse_address("[::1]:1"), max_connections=6)
    actives = [each.of_all(UseWord.ACTIVE, 0) for each in (board, older)]
    made.attach(board.use(0, 0), board.wish(0), actives[0], actives[1:])
    made.begin()

    assert made.active() == 6
    assert not made.has_room()
    older.clear_row(0)
    assert made.has_room()


def test_there_is_room_for_so_many_over_all_workers(board: Board) -> None:
    one, other = server(board, 0, 2), server(board, 1, 2)
    one.begin()
    assert other.has_room()
    other.begin()
    assert not one.has_room()
    other.end()
    assert one.has_room()


def test_without_a_limit_there_is_always_room(board: Board) -> None:
    one = server(board)
    for _ in range(1000):
        one.begin()

    assert one.has_room()


def test_failures_in_a_row_are_told_until_a_success(board: Board) -> None:
    one = server(board)
    told: list[tuple[int, float]] = []
    one.tell(lambda server, in_a_row, now: told.append((in_a_row, now)), (), lambda: None)
    for now in (1.0, 2.0):
        one.failed(now)
    assert board.use(0, 0)[UseWord.IN_A_ROW] == 2
    one.succeeded()
    assert board.use(0, 0)[UseWord.IN_A_ROW] == 0
    one.failed(3.0)

    assert told == [(1, 1.0), (2, 2.0), (1, 3.0)]
    assert board.use(0, 0)[UseWord.FAILURES] == 3


def test_the_end_of_a_connection_is_told_to_those_who_wait(board: Board) -> None:
    one = server(board)
    waiting: list[str] = []
    calls: list[int] = []
    one.tell(lambda *_: None, waiting, lambda: calls.append(1))
    one.begin()
    one.end()
    assert calls == []
    waiting.append("a client")
    one.begin()
    one.end()
    assert calls == [1]


def test_idle_connections_to_a_disabled_server_are_not_to_be_used(board: Board) -> None:
    one, heard = server(board), []
    for wish in Wish:
        board.wish(0)[WishWord.WISH] = wish
        heard.append(one.is_disabled())

    assert heard == [False, False, True]
