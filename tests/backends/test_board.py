"""Words that every process sees, each with one writer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.backends.board import LINE, Board, Head, PlaceWord, ProbeWord, UseWord, WishWord

A, B, C = ("app", "127.0.0.1:1"), ("app", "127.0.0.1:2"), ("web", "127.0.0.1:1")


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board([A, B, C], rows=4)
    yield board
    board.close()


def test_everything_begins_at_zero(board: Board) -> None:
    assert not any(board.words)


@given(servers=st.integers(0, 6), rows=st.integers(1, 5))
def test_no_two_words_share_a_place_and_no_two_writers_a_line(servers: int, rows: int) -> None:
    board = Board([("app", str(n)) for n in range(servers)], rows, is_shared=False)
    lines = [("master", board.words[:LINE]), ("prober", board.words[LINE : 2 * LINE])]
    lines += [("prober", board.probe(n)) for n in range(servers)]
    lines += [("master", board.wish(n)) for n in range(servers)]
    lines += [("prober", board.place(n)) for n in range(servers)]
    lines += [(f"worker {row}", board.use(row, n)) for row in range(rows) for n in range(servers)]
    lines += [(f"worker {row}", board.ejections(row)) for row in range(rows)]
    for number, (_, line) in enumerate(lines, 1):
        assert not any(line)
        line[0] = number

    assert [line[0] for _, line in lines] == list(range(1, len(lines) + 1))
    assert len(board.words) == LINE * len(lines)


def test_a_line_holds_all_its_words() -> None:
    assert max(map(max, (ProbeWord, WishWord, UseWord, PlaceWord))) < LINE
    assert Head.WISHES_CHANGED < LINE <= Head.PROBES_CHANGED < Head.PROBER_BEAT < 2 * LINE


def test_a_word_of_every_worker_is_seen_at_once(board: Board) -> None:
    for row in range(4):
        board.use(row, 1)[UseWord.ACTIVE] = row + 1
        board.use(row, 2)[UseWord.ACTIVE] = 100
        board.ejections(row)[0] = 10 * row

    assert list(board.of_all(UseWord.ACTIVE, 1)) == [1, 2, 3, 4]
    assert board.active(1) == 10
    assert list(board.all_ejections()) == [0, 10, 20, 30]


def test_what_a_child_writes_is_seen(board: Board) -> None:
    pid = os.fork()  # noqa: TID251 - the test's own
    if pid == 0:
        board.use(3, 0)[UseWord.ACTIVE] = 7
        os._exit(0)
    os.waitpid(pid, 0)

    assert board.active(0) == 7


def test_of_a_worker_that_has_gone_only_its_counts_stay(board: Board) -> None:
    for row in (1, 2):
        use = board.use(row, 0)
        use[UseWord.ACTIVE], use[UseWord.TOTAL], use[UseWord.FAILURES] = 2, 10, 3
        use[UseWord.EJECTED_UNTIL] = 5
    board.clear_row(1)

    assert board.active(0) == 2
    assert (board.total(0), board.failures(0)) == (20, 6)
    assert list(board.of_all(UseWord.EJECTED_UNTIL, 0)) == [0, 0, 5, 0]
    board.clear_row(2)
    assert (board.active(0), board.total(0), board.failures(0)) == (0, 20, 6)


def test_changes_are_counted_for_those_who_look(board: Board) -> None:
    board.wishes_changed()
    board.probes_changed()
    board.probes_changed()

    assert (board.words[Head.WISHES_CHANGED], board.words[Head.PROBES_CHANGED]) == (1, 2)


def test_what_is_known_of_servers_that_stay_is_inherited(board: Board) -> None:
    new = Board([C, ("new", "127.0.0.1:9"), A], rows=1)
    board.probe(0)[ProbeWord.HEALTH], board.probe(0)[ProbeWord.CHECKS] = 2, 40
    board.wish(2)[WishWord.WISH], board.wish(2)[WishWord.SINCE] = 1, 99
    board.use(0, 0)[UseWord.TOTAL] = 5
    board.clear_row(0)
    new.inherit(board, {0, 1, 2})

    assert (new.probe(2)[ProbeWord.HEALTH], new.probe(2)[ProbeWord.CHECKS]) == (2, 40)
    assert (new.wish(0)[WishWord.WISH], new.wish(0)[WishWord.SINCE]) == (1, 99)
    assert not any(new.probe(1))
    assert not any(new.wish(1))
    assert new.total(2) == 0
    assert new.words[Head.WISHES_CHANGED] == 1
    new.close()


def test_what_checks_found_is_not_inherited_where_none_are_made(board: Board) -> None:
    """Nothing would ever say that the server is up again."""
    new = Board([A, B], rows=1, is_shared=False)
    for index in (0, 1):
        board.probe(index)[ProbeWord.HEALTH] = 2
        board.wish(index)[WishWord.WISH] = 1
    new.inherit(board, {1})

    assert [new.probe(index)[ProbeWord.HEALTH] for index in (0, 1)] == [0, 2]
    assert [new.wish(index)[WishWord.WISH] for index in (0, 1)] == [1, 1]


# Names.

NAME = ("app", "app.internal:80")


def test_the_places_of_a_name_have_one_key() -> None:
    board = Board([A, NAME, NAME, NAME, C], rows=1, is_shared=False)

    assert board.places == {A: range(1), NAME: range(1, 4), C: range(4, 5)}


def test_an_address_is_read_as_it_was_written(board: Board) -> None:
    assert board.address(1) == (0, None)
    for sequence, ip in enumerate(("192.0.2.1", "2001:db8::1", None), 1):
        board.set_address(1, ip)
        assert board.address(1) == (2 * sequence, ip)
    assert board.address(0) == (0, None)


def test_an_address_that_is_being_written_is_not_read(board: Board) -> None:
    board.place(1)[PlaceWord.SEQUENCE] = 5
    assert board.address(1) is None
    board.set_address(1, "192.0.2.1")
    assert board.address(1) == (6, "192.0.2.1")


def test_addresses_keep_their_places_over_a_reload() -> None:
    before = Board([A, NAME, NAME], rows=1, is_shared=False)
    after = Board([NAME, NAME, B], rows=1, is_shared=False)
    before.set_address(2, "192.0.2.1")
    after.inherit(before, ())

    assert [after.address(index) for index in (0, 1)] == [(0, None), (2, "192.0.2.1")]


# Servers that come later.


def test_servers_that_come_later_get_places_and_the_old_keep_theirs() -> None:
    board = Board([("a", "1"), ("a", "n"), ("a", "n")], 2, room=3)
    before = dict(board.places)
    board.use(1, 0)[UseWord.ACTIVE] = 7

    assert board.add([("a", "1"), ("b", "m"), ("b", "m"), ("c", "1")])
    assert board.places == before | {("b", "m"): range(3, 5), ("c", "1"): range(5, 6)}
    assert board.active(0) == 7
    assert board.add([("b", "m"), ("b", "m")]), "they are there"
    assert len(board.keys) == 6


def test_without_room_nothing_comes() -> None:
    board = Board([("a", "1")], 1, room=1)

    assert not board.add([("b", "1"), ("b", "2")])
    assert board.keys == (("a", "1"),)
    assert ("b", "1") not in board.places


def test_two_processes_that_add_the_same_agree() -> None:
    one, other = (Board([("a", "1")], 1, room=4, is_shared=False) for _ in range(2))
    for keys in ([("b", "1")], [("a", "2"), ("b", "2")]):
        assert one.add(keys)
    assert other.add(one.keys[len(other.keys) :])
    assert other.places == one.places


def test_what_checks_found_of_who_is_checked_no_more_is_forgotten() -> None:
    board = Board([("a", "1")], 1)
    board.probe(0)[ProbeWord.HEALTH] = 2
    board.forget(("a", "1"))

    assert not any(board.probe(0))


def test_what_is_known_fills_another_board_word_by_word(board: Board) -> None:
    board.probe(1)[ProbeWord.HEALTH], board.wish(1)[WishWord.WISH] = 2, 3
    board.set_address(1, "192.0.2.1")
    for row in (0, 2):
        use = board.use(row, 1)
        use[UseWord.ACTIVE], use[UseWord.TOTAL], use[UseWord.FAILURES] = 1, 10, 100
    other = Board([B], 1, is_shared=False)
    told = board.as_plain(1)
    told["wish"]["MOONS"] = 7
    del told["probe"]["SINCE"]
    other.fill(0, told)

    assert other.probe(0)[ProbeWord.HEALTH] == 2
    assert other.wish(0)[WishWord.WISH] == 3
    seen = other.address(0)
    assert seen is not None
    assert seen[1] == "192.0.2.1"
    assert (other.active(0), other.total(0), other.failures(0)) == (2, 20, 200)
