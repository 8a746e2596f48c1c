"""A worker's process as the master holds it: real socket pairs and pipes, and no process."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from termproxy.master.child import Child
from termproxy.master.spawn import READY
from termproxy.messages import message
from termproxy.observability.failure_book import FailureBook
from termproxy.observability.metrics import FAILURES
from termproxy.observability.scoreboard import Column, Row


class Known:
    """A child, and the worker's ends."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.failures = FailureBook(1000)
        self.ready: list[float] = []
        self.is_buried = False
        talk, self.talk = socket.socketpair()
        talk.setblocking(False)
        self.talk.setblocking(False)
        startup_fd, self.startup_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.row = Row(["web"])
        self.child = Child(
            self.row,
            startup_fd,
            talk,
            self.selector,
            self.ready.append,
            lambda report: self.failures.merge(report["failures"], ("web",), FAILURES),
        )

    def turn(self, now: float = 1.0) -> int:
        """What the loop does with the events there are: how many."""
        events = self.selector.select(0)
        for key, _ in events:
            key.data(now)
        return len(events)

    def say(self, word: bytes) -> None:
        os.write(self.startup_fd, word)

    def hang_up(self) -> None:
        self.talk.close()
        if self.startup_fd >= 0:
            os.close(self.startup_fd)
            self.startup_fd = -1

    def bury(self) -> str:
        self.is_buried = True
        return self.child.bury()

    def told(self) -> int:
        return sum(kind["count"] for kind in self.failures.top(1000))


@pytest.fixture
def known() -> Iterator[Known]:
    made = Known()
    yield made
    made.hang_up()
    if not made.is_buried:
        made.bury()
    made.row.close()
    made.selector.close()


def failure(**changes: Any) -> dict[str, Any]:
    kind = {
        "frontend": "web",
        "reason": "scanner",
        "detail": "it left",
        "cure": "nothing",
        "count": 1,
        "last": "2026-11-23T08:00:00+00:00",
        "client": "192.0.2.1",
        "name": None,
    }
    return kind | changes


# Its first word.


def test_a_worker_is_ready_when_it_says_so(known: Known) -> None:
    assert known.turn() == 0
    known.say(READY)
    known.turn(7.0)

    assert known.ready == [7.0]
    assert known.turn() == 0, "nobody waits for another word"


def test_the_last_words_are_why_it_never_was_ready(known: Known) -> None:
    known.say(b"no such ")
    known.turn()
    known.say(b"user")
    known.hang_up()

    assert known.bury() == "no such user"
    assert known.ready == []


def test_one_that_was_ready_has_no_last_words(known: Known) -> None:
    known.say(READY)
    known.turn()
    known.hang_up()

    assert known.bury() == ""


def test_a_grandchild_that_holds_the_pipe_holds_up_nothing(known: Known) -> None:
    assert known.bury() == ""


@pytest.mark.parametrize("end", ["startup", "talk"])
def test_what_a_buried_worker_said_in_the_same_turn_of_the_loop_is_passed_over(
    known: Known, end: str
) -> None:
    """Both events were ready; the exit came first, and read the last words already."""
    if end == "startup":
        known.say(READY)
    known.talk.close() if end == "talk" else None
    [(key, _)] = known.selector.select(0)
    known.bury()
    key.data(1.0)

    assert known.ready == []


def test_a_forked_process_closes_what_is_the_master_s(known: Known) -> None:
    """The selector, which it shares with the master, is left as it is."""
    known.is_buried = True
    known.child.leave()

    assert known.talk.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        known.say(READY)


# Reports and orders.


def test_what_a_worker_reports_is_counted(known: Known) -> None:
    known.talk.send(message({"failures": [failure(count=2), failure(detail="another")]}))
    said = message({"failures": [failure(count=40)]})
    known.talk.send(said[:10])
    known.turn()
    assert known.told() == 3
    known.talk.send(said[10:])
    known.turn()
    assert known.told() == 43


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 100,
        (4).to_bytes(4) + b"nope",
        message({"failures": [failure(reason="a word of its own")]}),
        message({"failures": [failure(frontend="another")]}),
        message({"failures": [failure(count=-1)]}),
        message({"failures": [failure(count=2**63)]}),
        message({"failures": ["text"]}),
        message({"failures": 7}),
        message({"failures": None}),
        message({}),
        message([]),  # type: ignore[arg-type]
        message(7),  # type: ignore[arg-type]
        message({"failures": [failure(detail={})]}),
    ],
)
def test_a_worker_that_reports_nonsense_is_heard_no_more(
    known: Known, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    known.talk.send(nonsense)
    known.turn()
    assert caplog.text.count("reports nonsense") == 1
    known.talk.send(message({"failures": [failure()]}))

    assert known.turn() == 0, "nobody listens"
    known.child.order(b"order")
    known.bury()
    assert known.told() == 0
    assert caplog.text.count("reports nonsense") == 1


def test_a_worker_that_reports_nonsense_still_gets_its_orders(known: Known) -> None:
    known.talk.send(b"\xff" * 100)
    known.turn()
    order = b"x" * (1 << 20)
    known.child.order(order)
    received = 0
    while received < len(order):
        received += len(known.talk.recv(1 << 20))
        known.turn()

    assert known.turn() == 0


def test_a_worker_s_end_is_no_nonsense(known: Known, caplog: pytest.LogCaptureFixture) -> None:
    known.talk.send(message({"failures": [failure()]}))
    known.hang_up()
    known.turn()
    known.turn()

    assert known.told() == 1
    assert known.turn() == 0
    assert caplog.text == ""


def test_orders_and_reports_pass_each_other(known: Known) -> None:
    order = b"o" * (1 << 20)
    known.child.order(order)
    known.talk.send(message({"failures": [failure()]}))
    known.turn()

    assert known.told() == 1
    assert 0 < len(known.talk.recv(1 << 21)) < len(order)


def test_descriptors_go_with_their_order_however_slowly_the_worker_takes_it(known: Known) -> None:
    files = [os.memfd_create(f"file-{number}") for number in range(3)]
    orders = [b"1" * (1 << 20), b"2" * (1 << 20), b"3"]
    for order, fds in zip(orders, (files[:1], (), files[1:]), strict=True):
        known.child.order(order, fds)
    inodes = [os.fstat(fd).st_ino for fd in files]
    for fd in files:
        os.close(fd)
    received, came = 0, []
    while received < sum(map(len, orders)):
        data, fds, _, _ = socket.recv_fds(known.talk, 1 << 20, 10)
        came += [(received // (1 << 20), os.fstat(fd).st_ino) for fd in fds]
        received += len(data)
        for fd in fds:
            os.close(fd)
        known.turn()

    assert [inode for _, inode in came] == inodes
    assert came[0][0] == 0, "with the first byte of the first order"


def test_descriptors_of_orders_that_are_not_taken_are_let_go(known: Known) -> None:
    ours, its = os.pipe()
    known.child.order(b"x" * (1 << 22))
    known.child.order(b"y", [its])
    os.close(its)
    known.bury()

    assert os.read(ours, 1) == b""
    os.close(ours)


def test_an_order_is_obeyed_when_the_worker_has_counted_it(known: Known) -> None:
    first, second = known.child.order(b"1"), known.child.order(b"2")
    assert not known.child.has_obeyed(first)
    known.row.words[Column.ORDERS] = 1
    assert known.child.has_obeyed(first)
    assert not known.child.has_obeyed(second)


def test_an_order_to_a_worker_that_has_gone_is_dropped(known: Known) -> None:
    known.talk.close()
    known.child.order(b"order")
    known.turn()

    assert known.bury() == ""
