"""The admin process's life and its questions, as the master sees them: forks are only counted here."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

from termproxy import clock
from termproxy.master.administration import LAST_WORDS, OPEN_MAX, SILENT_MAX, Administration
from termproxy.master.control import Request
from termproxy.master.spawn import Helper
from termproxy.master.supervisor import BACK_OFF_FIRST
from termproxy.messages import MessageReader, message
from tests.support.waiting import PATIENCE

SLEEP = "import signal; signal.pause()"
UNTIL_EOF = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]))\nwhile s.recv(99): pass"


class Forks:
    """In place of admin processes: such as keep the pair open, and do nothing."""

    def __init__(self) -> None:
        self.code = SLEEP
        self.started: list[subprocess.Popen[bytes]] = []
        self.talks: list[socket.socket] = []
        self.kept: Collection[int] = ()
        self.fails = False

    def __call__(self, prepare: Callable[[], Callable[[int], None]], keep: Collection[int]) -> Helper:
        if self.fails:
            raise OSError(11, "Resource temporarily unavailable")
        self.kept = keep
        # The pair's end is the one that is connected.
        for fd in keep:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    self.talks.append(sock.dup())
        talk_fd = self.talks[-1].fileno()
        process = subprocess.Popen([sys.executable, "-c", self.code, str(talk_fd)], pass_fds=[talk_fd])
        self.started.append(process)
        return Helper(process.pid, os.open(os.devnull, os.O_RDONLY))


class Master:
    def __init__(self) -> None:
        self.forks = Forks()
        self.selector = selectors.DefaultSelector()
        self.asked: list[tuple[str, dict[str, Any], Request]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answers: dict[str, Any] | None = {}
        self.administration = Administration(self.forks, self.selector, self._on_request)
        self.administration.add(self.listener)
        self._reader = MessageReader(1 << 26)
        self._told: list[dict[str, Any]] = []

    def _on_request(self, verb: str, arguments: dict[str, Any], request: Request) -> None:
        self.asked.append((verb, arguments, request))
        if self.answers is not None:
            request.answer(self.answers)

    def turn(self, now: float = 1.0) -> None:
        """All that is ready now, until nothing is."""
        while events := self.selector.select(0):
            for key, _ in events:
                key.data(now)

    @property
    def talk(self) -> socket.socket:
        return self.forks.talks[-1]

    def say(self, *questions: dict[str, Any], now: float = 1.0) -> None:
        self.talk.sendall(b"".join(map(message, questions)))
        self.turn(now)

    def told(self) -> dict[str, Any]:
        self.talk.settimeout(PATIENCE)
        while not self._told:
            self._told += self._reader.feed(self.talk.recv(1 << 16))
            self.turn()
        return self._told.pop(0)

    def close(self) -> None:
        for process in self.forks.started:
            process.kill()
            process.wait()
        if self.administration.pid is not None:
            self.administration.on_exit(self.administration.pid, "", 0.0)
        self.administration.stop()
        self.selector.close()
        for sock in (*self.forks.talks, self.listener):
            sock.close()


@pytest.fixture
def master() -> Iterator[Master]:
    master = Master()
    yield master
    master.close()


def question(number: int, verb: str = "status", **arguments: Any) -> dict[str, Any]:
    return {"id": number, "verb": verb, "arguments": arguments}


# Its life.


def test_without_a_listener_there_is_no_process(master: Master) -> None:
    idle = Administration(master.forks, master.selector, master._on_request)
    idle.tick(1.0)

    assert master.forks.started == []


def test_it_keeps_the_listeners_and_its_end_of_the_pair_and_we_keep_no_copies(master: Master) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    master.administration.tick(1.0)

    assert len(master.forks.kept) == 2
    # Ours of the pair, and the test's copy of the other.
    assert len(os.listdir("/proc/self/fd")) == before + 2  # noqa: PTH208


def test_one_that_dies_is_replaced_and_the_listeners_stay(master: Master) -> None:
    master.administration.tick(1.0)
    first = master.forks.started[0]
    assert master.administration.on_exit(first.pid, "was killed by SIGKILL", 2.0)
    master.administration.tick(2.0 + BACK_OFF_FIRST - 0.01)
    assert len(master.forks.started) == 1
    master.administration.tick(2.0 + BACK_OFF_FIRST)

    assert len(master.forks.started) == 2
    assert master.listener.fileno() != -1


def test_one_that_cannot_be_forked_is_tried_again(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    master.forks.fails = True
    master.administration.tick(1.0)
    assert "no admin process: Resource temporarily unavailable" in caplog.text
    master.forks.fails = False
    master.administration.tick(1.0 + BACK_OFF_FIRST)

    assert len(master.forks.started) == 1


def test_another_process_is_none_of_its_business(master: Master) -> None:
    master.administration.tick(1.0)

    assert not master.administration.on_exit(1, "exited", 2.0)


def ticks(master: Master, first: float, last: float) -> None:
    now = first
    while now <= last:
        master.administration.tick(now)
        now += 0.25


def test_one_that_shows_no_life_is_killed(master: Master) -> None:
    ticks(master, 1.0, 5.0)
    master.say({}, now=5.0)
    ticks(master, 5.0, 5.0 + SILENT_MAX)
    assert master.forks.started[0].poll() is None
    ticks(master, 5.25 + SILENT_MAX, 5.5 + SILENT_MAX)

    assert master.forks.started[0].wait(PATIENCE) == -signal.SIGKILL


def test_when_the_master_itself_was_stopped_nobody_is_blamed_for_it(master: Master) -> None:
    ticks(master, 1.0, 2.0)
    ticks(master, 100.0, 100.0 + SILENT_MAX)

    assert master.forks.started[0].poll() is None


def test_at_the_end_it_hears_the_rest_and_is_waited_for(master: Master) -> None:
    master.forks.code = UNTIL_EOF
    master.answers = None
    master.administration.tick(1.0)
    master.say(question(1, "stop"))
    master.asked[0][2].answer({"stopped": True})
    assert master.told() == {"id": 1, "answer": {"stopped": True}}
    master.talk.close()
    master.administration.stop()

    assert master.administration.pid is None
    assert master.listener.fileno() == -1


# Questions.


def test_a_question_is_answered_under_its_number(master: Master) -> None:
    master.administration.tick(1.0)
    master.answers = {"a": 1}
    master.say(question(7, "explain", sni="a"))

    assert master.told() == {"id": 7, "answer": {"a": 1}}
    assert [each[:2] for each in master.asked] == [("explain", {"sni": "a"})]


def test_an_answer_may_come_later_and_out_of_turn(master: Master) -> None:
    master.administration.tick(1.0)
    master.answers = None
    master.say(question(1, "stop"), question(2))
    master.asked[1][2].answer({"second": True})
    master.asked[0][2].answer({"first": True})

    assert [master.told()["id"], master.told()["id"]] == [2, 1]


def test_an_answer_for_one_that_died_is_nobody_s(master: Master) -> None:
    master.administration.tick(1.0)
    master.answers = None
    master.say(question(1, "stop"))
    master.administration.on_exit(master.forks.started[0].pid, "died", 2.0)
    master.asked[0][2].answer({"stopped": True})


def test_no_more_is_read_while_answers_wait_to_be_taken(master: Master) -> None:
    """Whoever asks without listening would have us keep all answers."""
    master.administration.tick(1.0)
    master.answers = {"much": "x" * 1_000_000}
    master.say(*(question(number) for number in range(50)))
    assert len(master.asked) == 1
    for number in range(50):
        assert master.told()["id"] == number
    assert len(master.asked) == 50


def test_too_many_open_questions_are_refused(master: Master) -> None:
    master.administration.tick(1.0)
    master.answers = None
    master.say(*(question(number, "stop") for number in range(OPEN_MAX + 1)))

    assert master.told() == {"id": OPEN_MAX, "answer": {"error": "too many questions are open"}}
    assert len(master.asked) == OPEN_MAX
    for _, _, request in master.asked:
        request.answer({})
    master.answers = {"again": True}
    master.say(question(1000))
    assert len(master.asked) == OPEN_MAX + 1


def test_it_is_told_to_finish_and_its_listeners_are_let_go(master: Master) -> None:
    master.administration.tick(1.0)
    pid = master.administration.pid
    assert pid is not None
    master.administration.finish()
    assert master.told() == {"finish": True}
    assert master.listener.fileno() == -1
    master.say(question(1))
    assert master.told() == {"id": 1, "answer": {}}
    master.administration.on_exit(pid, "exited with status 0", 2.0)
    master.administration.tick(1000.0)
    assert len(master.forks.started) == 1


def test_the_end_waits_for_those_who_have_come_but_not_for_ever(master: Master) -> None:
    master.administration.tick(1.0)
    now = clock.monotonic()
    assert not master.administration.has_to_answer(now)
    master.administration.finish()
    assert master.administration.has_to_answer(now + 1.0)
    assert not master.administration.has_to_answer(clock.monotonic() + LAST_WORDS)
    assert master.administration.pid is not None
    master.administration.on_exit(master.administration.pid, "exited with status 0", now)
    assert not master.administration.has_to_answer(now)


def test_when_there_is_none_one_is_started_to_finish(master: Master) -> None:
    master.administration.finish()
    assert len(master.forks.started) == 1
    assert master.told() == {"finish": True}


def test_another_socket_is_another_process_s_at_once(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    master.administration.tick(1.0)
    with socket.create_server(("127.0.0.1", 0)) as after:
        first = master.administration.pid
        assert first is not None
        master.administration.replace(master.listener, after)
        assert master.told() == {"finish": True}
        master.administration.tick(2.0)
        assert len(master.forks.started) == 1
        master.administration.on_exit(first, "exited with status 0", 3.0)
        master.administration.tick(3.0)
        assert len(master.forks.started) == 2
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
        master.administration.stop()


@pytest.mark.parametrize(
    "said",
    [
        message({"verb": "status"}),
        message({"id": "1", "verb": "status", "arguments": {}}),
        message({"id": 1, "verb": ["status"], "arguments": {}}),
        message({"id": 1, "verb": "status", "arguments": []}),
        b"\xff\xff\xff\xff",
        b"\0\0\0\1x",
        b"\0\0\0\3[1]",
    ],
)
def test_one_that_says_nonsense_is_let_go(
    master: Master, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    master.administration.tick(1.0)
    master.talk.sendall(said)
    master.turn()

    assert "says nonsense, and is not heard any more" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
    assert master.asked == []
    assert master.talk.recv(1) == b""  # which is its sign to go
