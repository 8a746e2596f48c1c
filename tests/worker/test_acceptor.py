"""Who watches which listener, and what happens when clients come."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy import clock
from termproxy.address import UNIX_CLIENT
from termproxy.config.schema import Limits
from termproxy.observability.scoreboard import NANOSECONDS, SLOTS, Column
from termproxy.worker.acceptor import BATCH, PAUSE, SILENT_AFTER, Acceptor, slots_to_watch
from tests.relay.ends import turns, until
from tests.worker.harness import Bench

NOW = 1000.0
SILENT = NOW - SILENT_AFTER - 0.1

# Who watches what: no I/O.


def test_everyone_watches_its_own_slot() -> None:
    assert [slots_to_watch(slot, [NOW] * 3, NOW) for slot in range(3)] == [{0}, {1}, {2}]


def test_silent_slots_are_dealt_out_to_the_living() -> None:
    beats = [NOW, SILENT, SILENT, NOW, SILENT]

    assert slots_to_watch(0, beats, NOW) == {0, 1, 4}
    assert slots_to_watch(3, beats, NOW) == {2, 3}


@pytest.mark.parametrize(("slots", "workers"), [(8, 4), (8, 3), (256, 7), (5, 4)])
def test_workers_that_are_fewer_than_they_were_share_what_is_left_evenly(
    slots: int, workers: int
) -> None:
    beats = [NOW] * workers + [SILENT] * (slots - workers)
    shares = [len(slots_to_watch(slot, beats, NOW)) for slot in range(workers)]

    assert max(shares) - min(shares) <= 1


def test_a_slot_without_a_worker_yet_is_silent() -> None:
    assert slots_to_watch(0, [NOW, 0.0, 0.0], NOW) == {0, 1, 2}


def test_a_worker_that_was_silent_itself_watches_its_own_again() -> None:
    assert slots_to_watch(1, [NOW, SILENT, NOW], NOW) == {1}


def test_silence_begins_after_its_time_and_not_before() -> None:
    assert slots_to_watch(0, [NOW, NOW - SILENT_AFTER + 0.001], NOW) == {0}
    assert slots_to_watch(0, [NOW, NOW - SILENT_AFTER], NOW) == {0, 1}


def test_a_worker_without_a_slot_of_its_own_leaves_all_to_the_living() -> None:
    assert slots_to_watch(2, [SILENT, NOW], NOW) == set()
    assert slots_to_watch(1, [SILENT, NOW], NOW) == {0, 1}


def test_a_worker_without_a_slot_of_its_own_survives_that_all_are_silent() -> None:
    assert slots_to_watch(2, [SILENT, SILENT], NOW) <= {0, 1}


@settings(deadline=None)
@given(beats=st.lists(st.sampled_from([NOW, SILENT, 0.0]), min_size=1, max_size=12), data=st.data())
def test_every_slot_is_watched_by_exactly_one_living_worker(
    beats: list[float], data: st.DataObject
) -> None:
    living = {slot for slot, beat in enumerate(beats) if beat == NOW}
    living.add(data.draw(st.integers(0, len(beats) - 1)))
    beats = [NOW if slot in living else beat for slot, beat in enumerate(beats)]
    watched = {slot: slots_to_watch(slot, beats, NOW) for slot in living}

    assert all(slot in watched[slot] for slot in living)
    assert sorted(slot for slots in watched.values() for slot in slots) == list(range(len(beats)))


# With listeners.


class Door:
    """An acceptor on two slots' listeners, in the worker of slot 0."""

    def __init__(self, bench: Bench, connections_max: int = 10) -> None:
        self.bench = bench
        bench.shared.limits = Limits(connections=connections_max)
        self.beats = memoryview(bytearray(SLOTS * 8)).cast("q")
        self.acceptor = Acceptor(bench.shared, 0, self.beats, descriptors=20)
        self.socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for slot, sock in enumerate(self.socks):
            sock.setblocking(False)
            self.acceptor.add(bench.frontend(), sock, slot)
        self.clients: list[socket.socket] = []

    def arrive(self, slot: int = 0, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.socks[slot].getsockname()))

    def watched(self) -> set[int | None]:
        return {listener.slot for listener in self.acceptor._listeners if listener._watching}

    @property
    def open(self) -> int:
        return len(self.bench.shared.connections)


@pytest.fixture
def doors(bench: Bench) -> Iterator[list[Door]]:
    doors: list[Door] = []
    yield doors
    for door in doors:
        if not door.acceptor._stopped:
            door.acceptor.stop()
        for connection in list(door.bench.shared.connections):
            connection.close()
        for client in door.clients:
            client.close()


@pytest.fixture
def door(bench: Bench, doors: list[Door]) -> Door:
    doors.append(Door(bench))
    door = doors[-1]
    door.beats[1] = int(NOW * NANOSECONDS)
    door.acceptor.tick(NOW)
    return door


def test_clients_of_the_own_slot_are_taken_and_others_are_not(door: Door) -> None:
    door.arrive(slot=0)
    door.arrive(slot=1)
    until(lambda: door.open, "the client")
    turns()

    assert door.open == 1
    assert door.watched() == {0}
    assert door.beats[0] == NOW * NANOSECONDS


def test_a_silent_slot_s_clients_are_taken_until_its_worker_is_back(door: Door) -> None:
    door.arrive(slot=1)
    door.acceptor.tick(NOW + 2)
    assert door.watched() == {0, 1}
    until(lambda: door.open == 1, "the client of the other slot")

    door.beats[1] = int((NOW + 3) * NANOSECONDS)
    door.acceptor.tick(NOW + 3)
    assert door.watched() == {0}


def test_a_crowd_is_taken_in_batches(door: Door) -> None:
    door.arrive(count=1)
    until(lambda: door.open == 1, "the first")
    door.bench.shared.limits = Limits(connections=1000)
    door.acceptor.tick(NOW)
    door.arrive(count=90)
    came = [1]
    while came[-1] < 91:
        door.acceptor._listeners[0]._on_clients()
        came.append(door.open)
    taken = [now - before for before, now in pairwise(came)]
    assert taken == [1] * 3 + [2] * 4 + [4] * 4 + [8] * 4 + [16, 15]
    door.arrive(count=2)
    door.acceptor._listeners[0]._on_clients()
    assert door.open == 92, "one is expected again: there were not as many as could have been"


def test_an_event_without_a_client_is_no_error(door: Door) -> None:
    door.acceptor._listeners[0]._on_clients()

    assert door.open == 0


def test_at_the_limit_clients_wait_until_there_is_room(
    bench: Bench, doors: list[Door], caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(bench, connections_max=2)
    doors.append(door)
    door.acceptor.tick(NOW)
    door.arrive(count=3)
    until(lambda: door.acceptor._full, "the limit")
    turns()
    assert door.open == 2
    assert door.watched() == set()
    assert "2 connections: the limit; new ones wait" in caplog.text

    next(iter(bench.shared.connections)).close()
    until(lambda: bench.count(Column.ACCEPTED) == 3, "the third client")
    assert door.open == 2


def test_at_the_limit_the_log_stays_short(
    bench: Bench, doors: list[Door], caplog: pytest.LogCaptureFixture
) -> None:
    """Under load one ends and one comes thousands of times a second."""
    door = Door(bench, connections_max=1)
    doors.append(door)
    door.acceptor.tick(NOW)
    door.arrive(count=6)
    for served in range(1, 6):
        until(lambda served=served: bench.count(Column.ACCEPTED) == served, "a client")  # type: ignore[misc]
        until(lambda: door.acceptor._full, "the limit")
        next(iter(bench.shared.connections)).close()

    assert caplog.text.count("the limit; new ones wait") == 1


def test_a_full_worker_s_clients_are_left_to_those_with_room(bench: Bench, doors: list[Door]) -> None:
    """Nobody waits in a queue that nobody reads: not while a neighbour is idle, either."""
    door = Door(bench, connections_max=1)
    doors.append(door)
    door.acceptor.tick(NOW)
    door.arrive(count=2)
    until(lambda: door.acceptor._full, "the limit")
    later = NOW + 2 * SILENT_AFTER
    door.acceptor.tick(later)

    assert slots_to_watch(1, [door.beats[0] / NANOSECONDS, later], later) == {0, 1}


def test_without_descriptors_clients_wait_a_moment(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Accepting again at once would spin."""
    door.acceptor.lacks(OSError(errno.EMFILE, "Too many open files"))
    assert door.watched() == set()
    door.acceptor.lacks(OSError(errno.EMFILE, "Too many open files"))

    assert caplog.text.count("cannot accept clients: Too many open files; they wait") == 1

    door.acceptor.tick(clock.monotonic() + PAUSE)
    assert door.watched() == {0, 1}


def test_the_timer_s_end_is_the_pause_s_end(door: Door) -> None:
    door.acceptor.lacks(OSError(errno.EMFILE, "Too many open files"))
    door.acceptor._on_pause_over()

    assert 0 in door.watched()


def test_a_client_that_cannot_begin_stops_nobody(
    door: Door, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("termproxy.worker.connection.Connection", None)
        door.arrive()
        until(lambda: caplog.records, "the report")
    assert "a connection could not begin; please report this" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR
    door.clients[0].settimeout(5)
    assert door.clients[0].recv(1) == b""

    door.arrive()
    until(lambda: door.open == 1, "the next client")


def test_a_stop_takes_who_waits_already_and_lets_go(door: Door) -> None:
    door.arrive()
    fds = [sock.fileno() for sock in door.socks]
    door.acceptor.stop()
    door.acceptor.tick(NOW + 1)

    assert door.open == 1
    assert [sock.fileno() for sock in door.socks] == [-1, -1]
    assert door.beats[0] == 0, "others look after the slot at once"
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_stop_leaves_the_slot_to_the_next_generation_when_that_has_it(door: Door) -> None:
    door.beats[0] = theirs = int((NOW + 0.1) * NANOSECONDS)
    door.acceptor.stop()

    assert door.beats[0] == theirs


def test_sockets_that_come_after_the_stop_are_let_go(door: Door) -> None:
    door.acceptor.stop()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        door.acceptor.add(door.socks[0], sock, 1)  # type: ignore[arg-type]  # no frontend is looked at
        assert sock.fileno() == -1


def test_a_stop_takes_all_who_wait_already(door: Door) -> None:
    """They have connected: closing the last listener resets them."""
    door.bench.shared.limits = Limits(connections=1000)
    door.acceptor.tick(NOW)
    door.arrive(count=BATCH + 4)
    door.acceptor.stop()

    assert door.open == BATCH + 4


def test_a_pause_that_ends_after_the_stop_changes_nothing(door: Door) -> None:
    door.acceptor.lacks(OSError(errno.ENOMEM, "Cannot allocate memory"))
    door.acceptor.stop()
    door.acceptor._on_pause_over()

    assert door.watched() == set()


def test_what_all_slots_share_is_watched_as_long_as_there_is_room(
    bench: Bench, doors: list[Door], tmp_path: Path
) -> None:
    """By every worker, whatever the others do; clients of a Unix socket are of this machine."""
    door = Door(bench, connections_max=1)
    doors.append(door)
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        sock.setblocking(False)
        door.acceptor.add(bench.frontend(), sock.dup(), None)
        now = clock.monotonic()
        door.beats[1] = int(now * NANOSECONDS)
        door.acceptor.tick(now)
        assert door.watched() == {0, None}

        client.connect(str(tmp_path / "s"))
        until(lambda: door.open == 1, "the client")
        [connection] = bench.shared.connections
        assert connection._peer == UNIX_CLIENT  # type: ignore[attr-defined]
        assert connection.own_port == 0
        door.acceptor.has_room()
        assert door.watched() == set()
        connection.close()
        assert door.watched() == {0, None}
