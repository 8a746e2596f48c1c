"""The admin process: it reads what operators and scrapers ask over HTTP, and puts it to the master.

It has no rights, like a worker, and sees no client of ours.  The master answers on a socket pair, and
never waits for this process; whoever is slow, or asks for nonsense, is slow in here.  Each client has a
greenlet, one request, and a deadline for each thing it has to do.

It ends when the master lets go of the pair: when it wants us to, and when it has died.  So signals that
go to every process, as a terminal's do, are left to the master, which still has answers to give.  When
another master takes over we finish: who has come is answered, the next are another process's.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.queue import Queue

from termproxy import messages
from termproxy.admin import routes
from termproxy.admin.routes import RefusedError, Resource
from termproxy.http._wire import MalformedError
from termproxy.http.head import EXPECT, RefusedRequestError, Request, mask, read_request
from termproxy.messages import MessageReader

log = logging.getLogger("admin")

CLIENTS_MAX = 16  # at a time, of each listener
REQUEST_TIMEOUT = 5.0  # seconds to send a request
ANSWER_TIMEOUT = 10.0  # seconds for the master to answer what takes no time
LIVE_TIMEOUT = 1.0  # seconds for it to show life
SEND_TIMEOUT = 10.0  # seconds to take an answer
LINGER = 1.0  # seconds: closing a socket that holds unread bytes could destroy the answer
LAST_WORDS = 2.0  # seconds, when the master has gone, to pass on what it has said
NO_DESCRIPTOR_PAUSE = 0.1  # seconds

BEAT = 1.0  # seconds, from one sign of life to the next
ANSWER_MAX = 1 << 26  # bytes
READ = 1 << 16  # bytes at a time

UNSENT_MAX = 2 * CLIENTS_MAX  # questions that the master has not taken yet

_EXPECT = mask(EXPECT)

Render = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class Door:
    """A listening socket, by its descriptor; a public one has few resources, which change nothing."""

    fd: int
    family: int
    is_public: bool
    names: frozenset[str] = routes.LOCAL  # by which it may be called, besides addresses


def prepare(doors: Sequence[Door], talk_fd: int) -> Callable[[int], None]:
    """What a process with no rights does until the master lets go; imports now what it needs."""
    gevent.get_hub()
    gevent.sleep(0)  # makes the loop
    from termproxy.observability.prometheus import render  # noqa: PLC0415 - the master has no use for it

    return lambda _: run(doors, talk_fd, render)


def run(doors: Sequence[Door], talk_fd: int, render: Render) -> None:
    """Serve at these doors; the descriptors are ours from now on."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    master = Master(socket.socket(fileno=talk_fd))
    desks = [Desk(door, master, render) for door in doors]
    accepting = [gevent.spawn(desk.run) for desk in desks]
    beating = gevent.spawn(master.beat)

    def finish() -> None:
        gevent.killall(accepting)
        for desk in desks:
            desk.take_the_rest()
            desk.close()
        gevent.joinall([client for desk in desks for client in desk.clients])
        master.hang_up()

    master.hear(on_finish=lambda: gevent.spawn(finish))
    # Who is still asking will not be answered.
    gevent.killall([*accepting, beating, *(client for desk in desks for client in desk.asking)])
    for desk in desks:
        desk.close()
    gevent.joinall([client for desk in desks for client in desk.clients], timeout=LAST_WORDS)


class GoneError(Exception):
    """There is nobody left to talk to."""


class Master:
    """The master, as seen from here: questions have numbers, and so answers may come in any order."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._numbers = count(1)
        self._waiting: dict[int, AsyncResult] = {}
        self._unsent: Queue[bytes] = Queue()
        gevent.spawn(self._write)

    def ask(self, verb: str, arguments: dict[str, Any]) -> Question:
        if self._unsent.qsize() >= UNSENT_MAX:
            raise RefusedError(503, "the master does not listen")
        number = next(self._numbers)
        answer = self._waiting[number] = AsyncResult()
        self._unsent.put(messages.message({"id": number, "verb": verb, "arguments": arguments}))
        return Question(answer, lambda: self._waiting.pop(number, None))

    def beat(self) -> None:
        """Show life, for ever."""
        while True:
            if self._unsent.empty():
                self._unsent.put(messages.message({}))
            gevent.sleep(BEAT)

    def hear(self, on_finish: Callable[[], object]) -> None:
        """Hand out answers until the master lets go; hear that we are to finish."""
        reader = MessageReader(ANSWER_MAX)
        try:
            while data := self._sock.recv(READ):
                for told in reader.feed(data):
                    if "finish" in told:
                        on_finish()
                        continue
                    answer = self._waiting.pop(told["id"], None)
                    if answer is not None:  # else whoever asked has gone
                        answer.set(told["answer"])
        except OSError:
            pass  # it was killed
        for answer in self._waiting.values():
            answer.set(None)  # an exception would have gevent import modules, which we may not read

    def hang_up(self) -> None:
        """Have hear() end: there is nothing left to do."""
        try:
            self._sock.shutdown(SHUT_RDWR)
        except OSError:
            pass  # it has gone

    def _write(self) -> None:
        """One after the other: a client whose patience ends must not leave half a message behind."""
        try:
            while True:
                self._sock.sendall(self._unsent.get())
        except OSError:
            pass  # it has gone; hear() finds out


@dataclass(slots=True)
class Question:
    answer: AsyncResult
    forget: Callable[[], object]


class Desk:
    """Serves the clients of one listener."""

    def __init__(self, door: Door, master: Master, render: Render) -> None:
        self._sock: Any = socket.socket(door.family, socket.SOCK_STREAM, fileno=door.fd)
        self._door = door
        self._master = master
        self._render = render
        self.clients: set[gevent.Greenlet] = set()
        self.asking: set[gevent.Greenlet] = set()  # of them, whose request is not whole

    def run(self) -> None:
        """Take clients, for ever."""
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # no descriptor is left, or the client has gone already
                gevent.sleep(NO_DESCRIPTOR_PAUSE)
                continue
            self._take(sock)

    def take_the_rest(self) -> None:
        """Those who wait at a door that others cannot come to any more; a public one stays open."""
        if self._door.is_public:
            return
        self._sock.settimeout(0)
        try:
            while True:
                sock, _ = self._sock.accept()
                self._take(sock)
        except OSError:
            pass  # nobody waits

    def _take(self, sock: Any) -> None:
        if len(self.clients) >= CLIENTS_MAX:
            _turn_away(sock)
            return
        client = gevent.spawn(self._serve, sock)
        self.clients.add(client)
        client.link(self.clients.discard)

    def close(self) -> None:
        self._sock.close()

    def _serve(self, sock: Any) -> None:
        with sock:
            try:
                answer = self._answer(sock)
                with gevent.Timeout(SEND_TIMEOUT):
                    sock.sendall(answer)
                with gevent.Timeout(LINGER):
                    _linger(sock)
            except (OSError, GoneError, gevent.Timeout):
                pass  # one of the two has gone, or does not listen
            except Exception:
                log.exception("a request failed; please report this")

    def _answer(self, sock: Any) -> bytes:
        """The whole response to what the client asks.  GoneError when it has left."""
        asked = _Asked()
        try:
            deadline = gevent.Timeout(REQUEST_TIMEOUT)
            with deadline, self._is_asking():
                resource, arguments = self._read(sock, asked)
            status, kind, body = self._ask(sock, resource, arguments)
        except RefusedError as error:
            status, kind, body = error.status, routes.JSON, routes.problem(error.why)
            return routes.response(status, kind, body, with_body=asked.with_body, allow=error.allow)
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            body = routes.problem(f"no request within {REQUEST_TIMEOUT:g} seconds")
            return routes.response(408, routes.JSON, body)
        return routes.response(status, kind, body, with_body=asked.with_body)

    @contextmanager
    def _is_asking(self) -> Iterator[None]:
        client = gevent.getcurrent()
        self.asking.add(client)
        try:
            yield
        finally:
            self.asking.discard(client)

    def _read(self, sock: Any, asked: _Asked) -> tuple[Resource, dict[str, Any]]:
        """One request.  RefusedError for one that is not put to the master."""
        received, request = b"", None
        while request is None:
            piece = sock.recv(READ)
            if not piece:
                raise GoneError
            received += piece
            request = _request_in(received)
        asked.with_body = request.method != b"HEAD"
        routes.check_sender(request, self._door.names)
        resource = routes.find(request, is_public=self._door.is_public)
        length = routes.body_length(request, resource)
        body = received[request.head.length :]
        if len(body) < length and request.head.seen & _EXPECT:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(body) < length:
            piece = sock.recv(length - len(body))
            if not piece:
                raise GoneError
            body += piece
        return resource, routes.arguments(resource, request.target, body[:length])

    def _ask(self, sock: Any, resource: Resource, arguments: dict[str, Any]) -> tuple[int, str, bytes]:
        question = self._master.ask(resource.verb, arguments)
        timeout = LIVE_TIMEOUT if resource.verb == "live" else ANSWER_TIMEOUT
        leaving = gevent.spawn(_wait_for_end, sock)
        try:
            gevent.wait([question.answer, leaving], None if resource.waits else timeout, count=1)
            if not question.answer.ready():
                if leaving.dead:
                    raise GoneError
                is_probe = resource.verb in {"live", "ready"}
                why = f"the master has not answered within {timeout:g} seconds"
                raise RefusedError(503 if is_probe else 504, why)
            answer = question.answer.get()
            if answer is None:
                raise GoneError
        finally:
            question.forget()
            leaving.kill()
        if resource.verb == "metrics" and "error" not in answer:
            return 200, routes.METRICS, self._render(answer)
        status, body = routes.shown(resource, answer)
        return status, routes.JSON, body


@dataclass(slots=True)
class _Asked:
    """What has to be known of a request to refuse it."""

    with_body: bool = True


def _request_in(received: bytes) -> Request | None:
    """None: its head has not all come yet."""
    try:
        head = routes.REQUESTS.request(received, 0, len(received))
        return None if head is None else read_request(head)
    except MalformedError as error:
        raise routes.refused(RefusedRequestError(error.reason)) from None
    except RefusedRequestError as error:
        raise routes.refused(error) from None


def _turn_away(sock: Any) -> None:
    with sock:
        sock.setblocking(False)
        try:
            body = routes.problem(f"more than {CLIENTS_MAX} ask at once; try again")
            sock.send(routes.response(503, routes.JSON, body))
            sock.shutdown(SHUT_WR)
        except OSError:
            pass  # it has gone already


def _wait_for_end(sock: Any) -> None:
    """Until the client leaves; what it still says is not heard."""
    try:
        while sock.recv(READ):
            pass
    except OSError:
        pass


def _linger(sock: Any) -> None:
    sock.shutdown(SHUT_WR)
    _wait_for_end(sock)
