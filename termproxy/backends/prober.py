"""Check every server, and look up every name, in one process for all workers; write it on the board.

Each server has a greenlet of its own.  A check has one deadline, from the connect to the answer's last
header, and reads no more than an answer's head.  The process has no rights, like a worker; its first
word on a server decides at once, then it takes `rise` or `fall` results in a row to change its mind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import random
from typing import Any, NamedTuple

import gevent
from gevent.event import Event

from termproxy import clock
from termproxy.address import Address, Name
from termproxy.backends.board import LINE, Board, Head, PlaceWord, ProbeWord
from termproxy.backends.connect import Connecting
from termproxy.backends.health import RESULTS, Health, RiseAndFall
from termproxy.backends.names import PLACES, RETRY, Found, next_look, placed, wanted
from termproxy.backends.resolver import Resolver
from termproxy.backends.server import Server
from termproxy.config import schema
from termproxy.errors import BackendError
from termproxy.observability.scoreboard import NANOSECONDS

log = logging.getLogger("health")

READABLE, WRITABLE = 1, 2  # libev's

BEAT = 1.0  # seconds, from one sign of life to the next
FIRST_WITHIN = 0.2  # seconds, in which the first checks of all servers begin
LEAST_PAUSE = 0.05  # seconds between a server's checks, however long they take

HEAD_MAX = 1 << 14  # bytes of an answer, with its interim ones; the rest is not read
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Target:
    """A server to check, and where it stands on the board."""

    cluster: str
    index: int
    address: Address
    settings: schema.Health


@dataclass(frozen=True, slots=True)
class NameTarget:
    """A name to look up, and the places on the board for its addresses."""

    cluster: str
    places: range
    name: Name
    settings: schema.Health


class Result(NamedTuple):
    word: str  # one of health.RESULTS
    status: int = 0  # of the answer


PASSED = "passed"


def prepare(
    targets: Sequence[Target | NameTarget], board: Board, dns: schema.Dns
) -> Callable[[int], None]:
    """What a process with no rights does for ever; imports now what it needs."""
    hub = gevent.get_hub()
    gevent.sleep(0)  # makes the loop
    if not any(isinstance(target, NameTarget) for target in targets):
        return lambda _: run(targets, board, lambda _: Found(None, None))
    resolver, threads = Resolver(dns), hub.threadpool
    return lambda _: run(targets, board, lambda host: threads.apply(resolver.look_up, (host,)))


def run(targets: Sequence[Target | NameTarget], board: Board, look_up: Callable[[str], Found]) -> None:
    """Check these until the process ends; `look_up` lets the others go on while it waits."""
    for target in targets:
        if isinstance(target, NameTarget):
            gevent.spawn(NameWatch(target, board, look_up).run)
        else:
            gevent.spawn(Watch(target, board).run)
    while True:
        board.words[Head.PROBER_BEAT] = int(clock.monotonic() * NANOSECONDS)
        gevent.sleep(BEAT)


class NameWatch:
    """One name's look-ups, one after the other, and the checks of its addresses."""

    def __init__(self, target: NameTarget, board: Board, look_up: Callable[[str], Found]) -> None:
        self._target = target
        self._board = board
        self._look_up = look_up
        self._watches: dict[int, gevent.Greenlet] = {}
        self._told = ""  # the last problem

    def run(self) -> None:
        for index, ip in self._held().items():
            if ip is not None:
                self._watch(index, ip)
        while True:
            try:
                found = self._look_up(self._target.name.host)
                self.take(found, clock.monotonic())
                pause = next_look(found)
            except Exception:
                log.exception("a look-up of %s failed; please report this", self._target.name)
                pause = RETRY
            gevent.sleep(pause)

    def take(self, found: Found, now: float) -> None:
        """Write down what a look-up found, and say what that changes."""
        board, held = self._board, self._held()
        addresses = wanted(found, [ip for ip in held.values() if ip is not None])
        free = [board.active(index) == 0 for index in held]
        places = dict(zip(held, placed(list(held.values()), free, addresses), strict=True))
        look_ups = board.place(self._target.places.start)
        is_first = not look_ups[PlaceWord.LOOK_UPS]
        for index, ip in places.items():
            if ip != held[index]:
                self._move_in(index, ip, 0.0 if is_first else now)
        look_ups[PlaceWord.LOOK_UPS] += 1
        if is_first or places != held:
            board.probes_changed()
        self._tell(found, addresses, is_new=places != held)

    def _held(self) -> dict[int, str | None]:
        """Which address each place has."""
        read = ((index, self._board.address(index)) for index in self._target.places)
        return {index: None if known is None else known[1] for index, known in read}

    def _move_in(self, index: int, ip: str | None, risen: float) -> None:
        watch = self._watches.pop(index, None)
        if watch is not None:
            watch.kill()
        probe = self._board.probe(index)
        probe[:] = _NOTHING
        probe[ProbeWord.RISEN] = int(risen * NANOSECONDS)  # it begins slowly, as one that comes back
        self._board.set_address(index, ip)
        if ip is not None:
            self._watch(index, ip)

    def _watch(self, index: int, ip: str) -> None:
        target = self._target
        if target.settings.kind != "off":
            settings = replace(target.settings, host=target.settings.host or str(target.name))
            watch = Watch(Target(target.cluster, index, target.name.at(ip), settings), self._board)
            self._watches[index] = gevent.spawn(watch.run)

    def _tell(self, found: Found, addresses: Sequence[str], *, is_new: bool) -> None:
        who = f"cluster {self._target.cluster}: {self._target.name}"
        if is_new:
            log.info("%s is %s now", who, ", ".join(addresses))
            if len(addresses) > len(self._target.places):
                log.warning("%s: of %d addresses %d are used", who, len(addresses), PLACES)
        if found.problem and found.problem != self._told:
            stays = "its addresses stay" if addresses else "it counts as down until it does"
            log.warning("%s does not resolve: %s; %s", who, found.problem, stays)
        elif self._told and not found.problem:
            log.info("%s resolves again", who)
        self._told = found.problem


class Watch:
    """One server's checks, one after the other."""

    def __init__(self, target: Target, board: Board) -> None:
        self._target = target
        self._board = board
        self._words = board.probe(target.index)
        settings = target.settings
        self._health = RiseAndFall(settings.rise, settings.fall, Health(self._words[ProbeWord.HEALTH]))

    def run(self) -> None:
        settings = self._target.settings
        gevent.sleep(random() * min(FIRST_WITHIN, settings.interval))  # noqa: S311 - no secret
        while True:
            began = clock.monotonic()
            try:
                self.take(check(self._target.address, settings), clock.monotonic())
            except Exception:
                log.exception("a check of %s failed; please report this", self._target.address)
            pause = settings.interval * (1 + settings.jitter * (2 * random() - 1))  # noqa: S311
            gevent.sleep(max(began + pause - clock.monotonic(), LEAST_PAUSE))

    def take(self, result: Result, now: float) -> None:
        """Write down how a check ended, and say what that changes."""
        words, passed = self._words, result.word == PASSED
        words[ProbeWord.CHECKED] = nanoseconds = int(now * NANOSECONDS)
        words[ProbeWord.RESULT], words[ProbeWord.STATUS] = RESULTS.index(result.word), result.status
        words[ProbeWord.CHECKS] += 1
        words[ProbeWord.FAILED] += not passed
        before = self._health.health
        if not self._health.on_result(passed=passed):
            return
        words[ProbeWord.RISEN] = nanoseconds if before is Health.DOWN else 0
        words[ProbeWord.SINCE] = nanoseconds
        words[ProbeWord.HEALTH] = self._health.health
        self._board.probes_changed()
        self._tell(before, result)

    def _tell(self, before: Health, result: Result) -> None:
        target, settings = self._target, self._target.settings
        who = f"cluster {target.cluster}: server {target.address}"
        if self._health.health is Health.UP:
            if before is Health.DOWN:
                log.info("%s is up: %d checks in a row passed", who, settings.rise)
            return
        why = f"{result.word} ({result.status})" if result.status else result.word
        if before is Health.UNKNOWN:
            log.warning("%s is down: its first check failed: %s", who, why)
        else:
            log.warning("%s is down: %d checks in a row failed, the last: %s", who, settings.fall, why)


_NOTHING = memoryview(bytes(8 * LINE)).cast("q")


def check(address: Address, settings: schema.Health) -> Result:
    """One check."""
    deadline = gevent.Timeout(settings.timeout)
    try:
        with deadline, _connected(address) as sock:
            if settings.kind == "tcp":
                return Result(PASSED)
            return _judged(_asked(sock, request(address, settings)), settings.expect)
    except gevent.Timeout as timeout:
        if timeout is not deadline:
            raise
        return Result("backend_timeout")
    except BackendError as error:
        return Result(error.reason)
    except (ConnectionResetError, BrokenPipeError):
        return Result("backend_reset")
    except OSError:
        return Result("backend_failed")


def request(address: Address, settings: schema.Health) -> bytes:
    host = settings.host or ("localhost" if address.is_unix else str(address))
    return (
        f"GET {settings.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: termproxy-health\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()


@contextmanager
def _connected(address: Address) -> Iterator[Any]:
    news = Event()
    connecting = Connecting(gevent.get_hub().loop, iter([Server(address)]), news.set, lambda *_: None)
    try:
        while (sock := connecting.connect()) is None:
            news.wait()
            news.clear()
    finally:
        connecting.close()
    try:
        yield sock
    finally:
        sock.close()


def _asked(sock: Any, question: bytes) -> int:
    """The status of the answer to a request; 0 when what comes is not HTTP."""
    while question:
        try:
            question = question[sock.send(question) :]
        except BlockingIOError:
            _wait(sock, WRITABLE)
    received, buffer = b"", bytearray(HEAD_MAX)
    while True:
        try:
            piece = bytes(buffer[: sock.recv_into(buffer)])
        except BlockingIOError:
            _wait(sock, READABLE)
            continue
        if not piece and not received:
            raise ConnectionResetError  # it hung up without an answer
        received += piece
        status = status_of(received)
        if status is not None:
            return status
        if not piece or len(received) >= HEAD_MAX:
            return 0


def status_of(received: bytes) -> int | None:
    """An answer's status, past interim ones; None: its head is not whole yet; 0: it is not HTTP."""
    while True:
        if received[:7] != b"HTTP/1."[: len(received)]:
            return 0
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            return None
        line = STATUS_LINE.match(head + end)
        if line is None:
            return 0
        if line[1][:1] != b"1":
            return int(line[1])
        received = rest


def _wait(sock: Any, events: int) -> None:
    hub = gevent.get_hub()
    watcher = hub.loop.io(sock.fileno(), events)
    try:
        hub.wait(watcher)
    finally:
        watcher.close()


def _judged(status: int, expect: Sequence[str]) -> Result:
    if not status:
        return Result("not_http")
    for each in expect:
        first, _, last = each.partition("-")
        if int(first) <= status <= int(last or first):
            return Result(PASSED, status)
    return Result("wrong_status", status)
