"""The book of failures: every one counted, in bounded room, whoever writes into it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.observability.failure_book import COUNT_MAX, OTHERS, TEXT_MAX, FailureBook, Kind

FRONTENDS = ("web", "api")
WORDS = ("scanner", "no_shared_cipher")
EVERYTHING = 10_000


def kind(
    detail: str = "what differs",
    *,
    frontend: str = "web",
    reason: str = "scanner",
    count: int = 1,
    last: str = "2026-11-23T08:00:00+00:00",
    client: str = "192.0.2.1",
    name: str | None = None,
) -> Kind:
    return Kind(
        frontend=frontend,
        reason=reason,
        detail=detail,
        cure="nothing",
        count=count,
        last=last,
        client=client,
        name=name,
    )


def plain(**changes: Any) -> dict[str, Any]:
    book = FailureBook()
    book.add(kind())
    (one,) = book.take()
    return one | changes


def counts(book: FailureBook) -> dict[str, int]:
    return {each["detail"]: each["count"] for each in book.top(EVERYTHING)}


def test_an_empty_book_is_false() -> None:
    book = FailureBook()
    assert not book
    book.add(kind())
    assert book


def test_failures_of_a_kind_are_counted_together() -> None:
    book = FailureBook()
    for _ in range(3):
        book.add(kind("a"))
    book.add(kind("b"))

    assert counts(book) == {"a": 3, "b": 1}


@pytest.mark.parametrize(
    "other", [kind(frontend="api"), kind(reason="no_shared_cipher"), kind("something else")]
)
def test_another_frontend_reason_or_difference_is_another_kind(other: Kind) -> None:
    book = FailureBook()
    book.add(kind())
    book.add(other)

    assert len(book.top(EVERYTHING)) == 2


def test_the_example_is_the_latest() -> None:
    book = FailureBook()
    book.add(kind(last="2026-11-23T08:00:02+00:00", client="192.0.2.2", name="b.test"))
    book.add(kind(last="2026-11-23T08:00:01+00:00", client="192.0.2.1", name="a.test"))
    (one,) = book.top(1)
    assert (one["last"][17:19], one["client"], one["name"]) == ("02", "192.0.2.2", "b.test")

    book.add(kind(last="2026-11-23T08:00:03+00:00", client="192.0.2.3"))
    (one,) = book.top(1)
    assert (one["last"][17:19], one["client"], one["name"]) == ("03", "192.0.2.3", None)
    assert one["count"] == 3


def test_the_most_frequent_come_first() -> None:
    book = FailureBook()
    for detail, count in (("rare", 1), ("frequent", 9), ("common", 4)):
        book.add(kind(detail, count=count))

    assert [each["detail"] for each in book.top(2)] == ["frequent", "common"]


def test_what_is_taken_is_no_longer_there() -> None:
    book = FailureBook()
    for number in range(5):
        book.add(kind(f"kind {number}"))
    first = book.take(2)
    assert [each["detail"] for each in first] == ["kind 0", "kind 1"]
    assert len(book.take()) == 3
    assert not book
    assert book.take() == []


def test_a_book_can_be_filled_again_after_it_was_taken() -> None:
    book = FailureBook(kinds_max=4)
    for _ in range(3):
        for number in range(50):
            book.add(kind(f"kind {number}"))
        assert sum(each["count"] for each in book.take()) == 50


def test_the_rarer_ones_give_way_when_there_are_too_many() -> None:
    book = FailureBook(kinds_max=10)
    book.add(kind("frequent", count=100))
    for number in range(1000):
        book.add(kind(f"kind {number}"))

    assert counts(book)["frequent"] == 100
    assert counts(book)[OTHERS] >= 900
    assert sum(counts(book).values()) == 1100


ADDED = st.tuples(
    st.sampled_from(FRONTENDS), st.sampled_from(WORDS), st.integers(0, 60).map(str), st.integers(1, 50)
)


@given(
    kinds_max=st.integers(1, 8), added=st.lists(ADDED, max_size=120), takes=st.sets(st.integers(0, 119))
)
@settings(deadline=None)
def test_no_count_is_ever_lost_and_the_room_is_bounded(
    kinds_max: int, added: list[tuple[str, str, str, int]], takes: set[int]
) -> None:
    """From a worker's book to the master's, whichever of the two is too small."""
    worker, master = FailureBook(kinds_max), FailureBook(kinds_max)
    expected: Counter[tuple[str, str]] = Counter()
    most = kinds_max + len(FRONTENDS) * len(WORDS)
    for at, (frontend, reason, detail, count) in enumerate(added):
        worker.add(kind(detail, frontend=frontend, reason=reason, count=count))
        expected[frontend, reason] += count
        if at in takes:
            master.merge(worker.take(3), FRONTENDS, WORDS)
        assert len(worker.top(EVERYTHING)) <= most
        assert len(master.top(EVERYTHING)) <= most
    master.merge(worker.take(), FRONTENDS, WORDS)

    found: Counter[tuple[str, str]] = Counter()
    for each in master.top(EVERYTHING):
        found[each["frontend"], each["reason"]] += each["count"]
    assert found == expected
    assert not worker
    assert len(master.top(EVERYTHING)) <= most


# What a worker says may be anything.


def test_what_was_taken_goes_through_json() -> None:
    worker, master = FailureBook(), FailureBook()
    worker.add(kind("a", count=2, name="a.test"))
    worker.add(kind("b"))
    master.merge(orjson.loads(orjson.dumps(worker.take())), FRONTENDS, WORDS)

    assert counts(master) == {"a": 2, "b": 1}
    assert master.top(1)[0]["name"] == "a.test"


@pytest.mark.parametrize(
    "nonsense",
    [
        plain(frontend="another"),
        plain(reason="a word of its own"),
        plain(reason=["scanner"]),
        plain(detail=None),
        plain(client=None),
        plain(name=7),
        plain(count=0),
        plain(count=-1),
        plain(count=1.5),
        plain(count="1"),
        plain(count=None),
        plain(count=COUNT_MAX + 1),
        plain(last=1),
        plain(more="than was asked for"),
        {},
        [],
        "text",
        7,
        None,
    ],
)
def test_nonsense_is_refused(nonsense: Any) -> None:
    book = FailureBook()
    with pytest.raises(ValueError, match=r"is|no"):
        book.merge([nonsense], FRONTENDS, WORDS)
    assert not book


@given(
    said=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(list(plain())) | st.text(max_size=4), inner, max_size=8)
        ),
        max_leaves=10,
    )
)
def test_anything_is_merged_or_refused(said: Any) -> None:
    book = FailureBook()
    try:
        book.merge([said], FRONTENDS, WORDS)
    except ValueError:
        pass
    assert not book


def test_long_texts_are_cut() -> None:
    book = FailureBook()
    book.merge([plain(detail="x" * 100_000, name="y" * 100_000)], FRONTENDS, WORDS)
    (one,) = book.top(1)

    assert (len(one["detail"]), len(one["name"])) == (TEXT_MAX, TEXT_MAX)


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    book = FailureBook()
    book.merge([plain(detail="a\x1b[2J\nb", client="\r\x9b", name="\u202e")], FRONTENDS, WORDS)
    (one,) = book.top(1)

    assert (one["detail"], one["client"], one["name"]) == ("a?[2J?b", "??", "?")


def test_no_count_of_a_worker_makes_one_that_json_does_not_have() -> None:
    """The answer to `explain --failures` must stay one."""
    book = FailureBook()
    for _ in range(1000):
        book.merge([plain(count=COUNT_MAX)], FRONTENDS, WORDS)

    assert orjson.loads(orjson.dumps(book.top(1)))[0]["count"] == 1000 * COUNT_MAX


def test_the_book_of_the_master_before_is_added_whole() -> None:
    old, new = FailureBook(), FailureBook()
    old.add(kind("one"))
    old.add(kind("one"))
    new.add(kind("one"))
    new.merge_own(old.take())

    [added] = new.top(5)
    assert added["count"] == 3
