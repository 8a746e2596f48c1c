"""The admin process as the master has it: forked, replaced when it dies or hangs, and answered.

What it does is in admin/main.py: it reads requests, and puts questions, each with a number; answers go
back when they are there, in any order, and as fast as it takes them.  It is trusted no more than a
worker: it says what may be said, one question at a time, or is replaced.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

from termproxy import clock
from termproxy.admin.main import Door, prepare
from termproxy.admin.routes import LOCAL
from termproxy.master.control import Request
from termproxy.master.spawn import Helper
from termproxy.master.supervisor import BACK_OFF_FIRST, BACK_OFF_MAX, YOUNG
from termproxy.messages import MessageReader, message

log = logging.getLogger("master")

SILENT_MAX = 10.0  # seconds without a word until it counts as hung
SLEPT = 1.0  # seconds between two ticks tell that the master itself was stopped
QUESTION_MAX = 1 << 20  # bytes
OPEN_MAX = 256  # questions that are not answered yet
LAST_WORDS = 3.0  # seconds for it to pass our last answers on, and to go
LAST_WORDS_STEP = 0.005

READ = 1 << 16  # bytes at a time

Fork = Callable[[Callable[[], Callable[[int], None]], Collection[int]], Helper]
OnRequest = Callable[[str, dict[str, Any], Request], None]


class Listener(NamedTuple):
    sock: socket.socket
    is_public: bool
    names: frozenset[str]


class Administration:
    """`fork` forks a process without rights that keeps these descriptors and does what it is given."""

    def __init__(self, fork: Fork, selector: selectors.BaseSelector, on_request: OnRequest) -> None:
        self._fork = fork
        self._selector = selector
        self._on_request = on_request
        self._listeners: list[Listener] = []
        self._talk: Talk | None = None
        self.pid: int | None = None  # until it has been reaped
        self._began = 0.0
        self._start_at = 0.0
        self._young_deaths = 0
        self._ticked = 0.0
        self._is_finishing = False
        self._finish_until = 0.0

    def add(
        self, sock: socket.socket, *, is_public: bool = False, names: frozenset[str] = frozenset()
    ) -> None:
        """Have this served, ours from now on; `names` are such as it may be called by."""
        self._listeners.append(Listener(sock, is_public, names | LOCAL))

    def tick(self, now: float) -> None:
        """Start it when it is time; end one that hangs."""
        slept, self._ticked = now - self._ticked > SLEPT, now
        if self.pid is None:
            if self._listeners and now >= self._start_at:
                self._start(now)
        elif slept:
            self._began = now  # what it has said meanwhile is still to be heard
        elif self._talk is None or now - max(self._talk.heard_at, self._began) > SILENT_MAX:
            log.error("the admin process hangs: killing it")
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so it cannot have become another's
            self._began = now

    def on_exit(self, pid: int, reason: str, now: float) -> bool:
        """A process has been reaped; whether it was this one."""
        if pid != self.pid:
            return False
        self.pid = None
        self._hang_up()
        if self._is_finishing:
            self._start_at = now
        else:
            self._start_again(now)
        log.log(logging.DEBUG if self._is_finishing else logging.WARNING, "the admin process %s", reason)
        return True

    def finish(self) -> None:
        """Another master serves from now on: have those who have come already answered."""
        self._finish()
        self._close_listeners()
        self._listeners.clear()

    def has_to_answer(self, now: float) -> bool:
        """Whether somebody may still wait for an answer of ours, and not in vain."""
        return self.pid is not None and self._is_finishing and now < self._finish_until

    def replace(self, before: socket.socket, after: socket.socket) -> None:
        """Have another socket served in this one's place, where nobody can come any more."""
        self._finish()
        self._listeners = [
            each._replace(sock=after) if each.sock is before else each for each in self._listeners
        ]
        before.close()

    def _finish(self) -> None:
        if self.pid is None and self._listeners:
            self._start(clock.monotonic())  # somebody may be waiting
        if self._talk is not None:
            self._is_finishing = True
            self._finish_until = clock.monotonic() + LAST_WORDS
            self._talk.finish()

    def leave(self) -> None:
        """In a process just forked: this is the master's."""
        if self._talk is not None:
            self._talk.sock.close()
        self._close_listeners()

    def stop(self) -> None:
        """At the end, when all has been answered: it passes that on, and goes."""
        if self._talk is not None:
            self._talk.say_the_rest(LAST_WORDS)
            self._hang_up()
        self._close_listeners()
        if self.pid is None:
            return
        until = clock.monotonic() + LAST_WORDS
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if clock.monotonic() >= until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(LAST_WORDS_STEP)
        self.pid = None

    def _start(self, now: float) -> None:
        ours, theirs = socket.socketpair()
        # Copies: in the child, the master's own are closed with all that is the master's.
        doors = [
            Door(os.dup(sock.fileno()), sock.family, is_public, names)
            for sock, is_public, names in self._listeners
        ]
        self._began = now
        talk_fd = theirs.detach()
        keep = {talk_fd, *(door.fd for door in doors)}
        try:
            helper = self._fork(lambda: prepare(doors, talk_fd), keep)
        except OSError as error:
            log.error("no admin process: %s", error.strerror)
            ours.close()
            self._start_again(now)
            return
        finally:
            for fd in keep:
                os.close(fd)
        os.close(helper.fd)  # it speaks on the pair
        self.pid = helper.pid
        self._is_finishing = False
        self._talk = Talk(ours, self._selector, self._on_request, now)

    def _start_again(self, now: float) -> None:
        if now - self._began >= YOUNG:
            self._young_deaths = 0
        self._start_at = now + min(BACK_OFF_FIRST * 2**self._young_deaths, BACK_OFF_MAX)
        self._young_deaths = min(self._young_deaths + 1, 16)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.sock.close()

    def _hang_up(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None


class Talk:
    """What the two say to each other, on the master's end of their pair."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_request: OnRequest,
        now: float,
    ) -> None:
        self.sock = sock
        self.heard_at = now
        self._selector = selector
        self._on_request = on_request
        self._reader = MessageReader(QUESTION_MAX)
        self._asked: deque[dict[str, Any]] = deque()  # and not yet looked at
        self._open = 0
        self._unsent = bytearray()
        self._is_over = False
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self._on_ready)

    def close(self) -> None:
        if not self._is_over:
            self._selector.unregister(self.sock)
        self._is_over = True
        self.sock.close()

    def finish(self) -> None:
        """Have it answer those who have come, and go."""
        if not self._is_over:
            self._unsent += message({"finish": True})
            self._send()
        self._listen()

    def say_the_rest(self, seconds: float) -> None:
        """At the end, when nobody else is held up by it: wait for it to listen, but not for ever."""
        if self._is_over:
            return
        self.sock.settimeout(seconds)
        try:
            self.sock.sendall(self._unsent)
        except OSError:  # it hangs, or has gone
            pass

    def _on_ready(self, now: float) -> None:
        if self._is_over:
            return  # it was reaped in the same turn of the loop
        self._send()
        if not self._unsent:
            self._hear(now)
        self._look()
        self._listen()

    def _hear(self, now: float) -> None:
        try:
            data = self.sock.recv(READ)
            for question in self._reader.feed(data):
                if question:  # else it only shows life
                    self._asked.append(_checked(question))
        except BlockingIOError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("the admin process says nonsense, and is not heard any more: %s", error)
            data = b""
        self.heard_at = now
        if not data:
            self._end()

    def _look(self) -> None:
        """Answer one after the other, while it takes the answers."""
        while self._asked and not self._unsent and not self._is_over:
            question = self._asked.popleft()
            number = question["id"]
            request = Request(partial(self._answer, number))
            if self._open >= OPEN_MAX:
                self._say(number, {"error": "too many questions are open"})
                continue
            self._open += 1
            self._on_request(question["verb"], question["arguments"], request)

    def _answer(self, number: int, answer: dict[str, Any]) -> None:
        self._open -= 1
        self._say(number, answer)
        if not self._is_over:
            self._listen()

    def _say(self, number: int, answer: dict[str, Any]) -> None:
        if self._is_over:
            return  # it died, and its clients with it
        self._unsent += message({"id": number, "answer": answer})
        self._send()

    def _send(self) -> None:
        """What it takes now; the rest when it takes more."""
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._end()

    def _end(self) -> None:
        """It has gone, or is to go, which it does when nobody speaks to it."""
        if self._is_over:
            return
        self._is_over = True
        self._unsent.clear()
        self._asked.clear()
        self._selector.unregister(self.sock)
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone

    def _listen(self) -> None:
        """Read no more while there is something to say: what is asked for is not piled up."""
        if not self._is_over:
            events = selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ
            self._selector.modify(self.sock, events, self._on_ready)


def _checked(question: dict[str, Any]) -> dict[str, Any]:
    """ValueError, TypeError or KeyError for one that is none."""
    number, verb, arguments = question["id"], question["verb"], question["arguments"]
    if not isinstance(number, int) or not isinstance(verb, str) or not isinstance(arguments, dict):
        raise ValueError("no question")  # noqa: TRY004 - as for all that does not fit
    return question
