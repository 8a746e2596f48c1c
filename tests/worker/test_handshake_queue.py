"""When handshakes begin, beside other work of the same loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
import pytest

from termproxy import clock
from termproxy.config.schema import Limits
from termproxy.worker import handshake_queue
from termproxy.worker.admission import CREDIT_MAX, SURCHARGE
from termproxy.worker.handshake_queue import ACCEPTING_DEBT, LONG, HandshakeQueue
from tests.relay.ends import turns, until


@dataclass(eq=False)
class Client:
    """A handshake that takes as long as it is told to."""

    name: str
    events: list[str]
    takes: float = 0.0
    waited: list[bool] = field(default_factory=list)

    def begin_handshake(self, *, waited: bool) -> None:
        self.waited.append(waited)
        self.events.append(self.name)
        work(self.takes)
        spent[0] += int(self.takes * 1e9)

    def turn_away(self, limit: str) -> None:
        self.events.append(f"{self.name}: {limit}")


# What fake clients take for real handshakes, in nanoseconds.
spent = [0]


@pytest.fixture(autouse=True)
def instead_of_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_queue, "nanoseconds_in_handshakes", lambda: spent[0])


def work(seconds: float) -> None:
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        pass


class Waiting:
    """A queue, and clients for it."""

    def __init__(self, **limits: float) -> None:
        self.queue = HandshakeQueue(gevent.get_hub().loop, Limits(**limits))  # type: ignore[arg-type]
        self.events: list[str] = []

    def join(self, name: str, *, resumes: bool = False, takes: float = 0.0) -> Client:
        client = Client(name, self.events, takes)
        self.queue.join(client, clock.monotonic(), resumes=resumes)
        return client

    def use_up_credit(self, debt: float = 0.05) -> None:
        spent[0] += int((CREDIT_MAX / SURCHARGE + debt) * 1e9)
        self.queue.holds_back(clock.monotonic())


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    waiting = Waiting()
    yield waiting
    waiting.queue.close()


def test_in_a_worker_with_nothing_to_do_a_handshake_begins_at_once(waiting: Waiting) -> None:
    assert not waiting.queue.holds_back(clock.monotonic())
    client = waiting.join("a")

    assert waiting.events == ["a"]
    assert client.waited == [False]


def test_without_credit_it_waits_until_there_is_nothing_else_to_do(waiting: Waiting) -> None:
    waiting.use_up_credit()
    assert waiting.queue.holds_back(clock.monotonic())
    waiting.join("a")
    assert waiting.events == []
    assert len(waiting.queue) == 1
    turns()

    assert waiting.events == ["a"]
    assert len(waiting.queue) == 0


def test_once_nobody_waits_and_there_is_nothing_else_to_do_a_burst_begins_at_once(
    waiting: Waiting,
) -> None:
    waiting.use_up_credit()
    waiting.join("a")
    turns()
    for name in "bcd":
        waiting.join(name, takes=CREDIT_MAX / (1 + SURCHARGE) / 4)

    assert waiting.events == ["a", "b", "c", "d"]


def test_while_others_wait_there_is_no_more_than_a_grant(waiting: Waiting) -> None:
    waiting.use_up_credit()
    for name in "abcd":
        waiting.join(name, takes=CREDIT_MAX / 2)
    until(lambda: len(waiting.events) == 1, "the first")
    assert waiting.queue.holds_back(clock.monotonic())
    until(lambda: len(waiting.events) == 4, "all")


def test_one_that_has_waited_for_long_is_told_so() -> None:
    """Its client may have left."""
    waiting = Waiting(handshake_queue=10)
    waiting.use_up_credit()
    long, short = waiting.join("long"), Client("short", waiting.events)
    work(LONG + 0.01)
    waiting.queue.join(short, clock.monotonic(), resumes=False)
    until(lambda: len(waiting.events) == 2, "both")

    assert (long.waited, short.waited) == ([True], [False])
    waiting.queue.close()


def test_when_the_first_has_waited_for_long_the_last_goes_first() -> None:
    """In turn, each would begin when its client is about to give up."""
    waiting = Waiting(handshake_queue=10)
    waiting.use_up_credit()
    for name in "ab":
        waiting.join(name)
    work(LONG + 0.01)
    for name in "cd":
        waiting.join(name)
    until(lambda: len(waiting.events) == 4, "all")

    assert waiting.events == ["d", "c", "b", "a"]
    waiting.queue.close()


def test_accepting_that_takes_too_much_of_the_others_time_is_to_rest(waiting: Waiting) -> None:
    waiting.use_up_credit(0.0)
    waiting.join("a")
    now = clock.monotonic()
    assert waiting.queue.charge_accepting(0.001, now) == 0.0
    assert waiting.queue.charge_accepting(0.02, now) > ACCEPTING_DEBT


def test_those_that_resume_go_first_and_else_it_is_in_turn(waiting: Waiting) -> None:
    waiting.use_up_credit()
    waiting.join("full 1")
    waiting.join("full 2")
    waiting.join("resumed 1", resumes=True)
    waiting.join("resumed 2", resumes=True)
    until(lambda: len(waiting.events) == 4, "all")

    assert waiting.events == ["resumed 1", "resumed 2", "full 1", "full 2"]


def test_who_leaves_is_not_begun(waiting: Waiting) -> None:
    waiting.use_up_credit()
    gone = [waiting.join("full"), waiting.join("resumed", resumes=True)]
    waiting.join("stays")
    for client in gone:
        waiting.queue.leave(client)
        waiting.queue.leave(client)
    until(lambda: waiting.events, "the one that stays")

    assert waiting.events == ["stays"]


def test_beside_work_that_never_ends_handshakes_get_a_third_of_the_time(waiting: Waiting) -> None:
    """Each turn of the loop has 1 ms of other work; there are always handshakes of 2 ms waiting."""
    loop = gevent.get_hub().loop
    others = [0.0]
    waiting.use_up_credit(0.0)
    busy = loop.timer(0.0, 0.0001)

    def other_work() -> None:
        begun = clock.monotonic()
        work(0.001)
        others[0] += clock.monotonic() - begun
        if len(waiting.queue) < 2:
            waiting.join("handshake", takes=0.002)

    busy.start(other_work)
    begun = clock.monotonic()
    until(lambda: clock.monotonic() - begun > 0.6, "it has gone on for a while")
    busy.stop()
    busy.close()
    handshakes = len(waiting.events) * 0.002

    assert 0.5 < others[0] / (handshakes + others[0]) < 0.8
    assert handshakes > 0.05


def test_who_has_waited_too_long_is_turned_away() -> None:
    waiting = Waiting(handshake_queue=0.05, handshakes_per_second=1000)
    waiting.use_up_credit()
    waiting.join("slow")
    work(0.06)
    waiting.join("in time")
    until(lambda: len(waiting.events) == 2, "both")

    assert waiting.events == ["slow: handshake_queue", "in time"]
    waiting.queue.close()


def test_above_the_rate_handshakes_wait_and_then_are_turned_away() -> None:
    waiting = Waiting(handshakes_per_second=10, handshake_queue=0.25)
    began = clock.monotonic()
    for number in range(20):
        waiting.join(str(number))
    assert len(waiting.events) in {7, 8}, "a burst, but for what resumed ones may have"
    until(lambda: not len(waiting.queue), "all have been decided")

    away = [event for event in waiting.events if ": handshakes_per_second" in event]
    assert 8 <= len(away) <= 11
    assert len(away) + len([event for event in waiting.events if ":" not in event]) == 20
    assert 0.2 < clock.monotonic() - began < 5
    waiting.queue.close()


def test_full_handshakes_that_wait_for_the_rate_do_not_hold_up_resumed_ones() -> None:
    waiting = Waiting(handshakes_per_second=4, handshake_queue=1.0)
    for number in range(8):
        waiting.join(f"full {number}")
    turns()
    waiting.events.clear()
    waiting.join("resumed", resumes=True)
    until(lambda: waiting.events, "the first")

    assert waiting.events[0] == "resumed"
    waiting.queue.close()


def test_the_loop_sleeps_while_all_wait_for_the_rate() -> None:
    """A worker with nothing to do but wait uses no CPU."""
    waiting = Waiting(handshakes_per_second=1, handshake_queue=0.5)
    for number in range(5):
        waiting.join(str(number))
    turns()
    assert len(waiting.queue) == 4
    assert not waiting.queue._is_awake
    until(lambda: not len(waiting.queue), "they are turned away")
    turns()
    assert not waiting.queue._is_awake
    assert waiting.queue._rest is None
    waiting.queue.close()


def test_a_worker_with_half_of_the_clients_does_half_of_the_handshakes() -> None:
    waiting = Waiting(handshakes_per_second=40, handshake_queue=0.05)
    waiting.queue.take_share(0.5)
    for number in range(40):
        waiting.join(str(number))

    assert len(waiting.events) in {15, 16}
    waiting.queue.close()


def test_limits_that_change_hold_at_once() -> None:
    waiting = Waiting()
    assert not waiting.queue.holds_back(clock.monotonic())
    waiting.queue.use(Limits(handshakes_per_client=1))
    assert waiting.queue.holds_back(clock.monotonic()), "the ClientHello tells what it costs"
    waiting.queue.use(Limits(handshakes_per_second=1))
    waiting.queue.was_full()
    waiting.queue.use(Limits(handshakes_per_second=100))
    assert waiting.queue.holds_back(clock.monotonic())
    waiting.queue.use(Limits())
    assert not waiting.queue.holds_back(clock.monotonic())
    waiting.queue.was_full()
    waiting.queue.close()
