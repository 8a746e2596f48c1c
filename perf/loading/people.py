"""Users of locust: what people do on a connection, and how each operation is told.

An operation either got its right answer or is a loss; both are told to locust, so that its reports are
complete, and losses also to the ledger, with the connection they were on.  A handshake is an operation
of its own.  Every profile's locustfile takes its people from here.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from locust import User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WORKER_REPORT_INTERVAL, MasterRunner, WorkerRunner

from loading.client import Connection, Target, make_contexts
from loading.content import PLACES, digest, piece
from loading.habits import KIB, Habits, size_between
from loading.ledger import Ledger, Loss, Trouble, WrongError, classify
from loading.profiles import CA, RESULT
from loading.websocket import Opcode
from tests.support.http_messages import CutError, MalformedError, Response

LEDGER = Ledger()
LOSSES = (OSError, WrongError, CutError, MalformedError)


class VisitOverError(Exception):
    """An operation was lost, and has been told: its visit ends."""


class Person(User):
    """Comes, does something on a connection or two, and leaves; then comes again."""

    abstract = True
    habits = Habits()
    receive_buffer = 0
    # Of all people of this process.
    contexts: dict[str, Any] = {}  # noqa: RUF012 - filled once, before the first of them
    is_closing_time = False

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # What forked processes share is the state of `random`.
        self.random = Random(os.urandom(16))
        self.target = Target.of(self.host)
        self.cookie = f"Cookie: session={'c' * size_between(self.habits.cookie, self.random)}"
        self.version = "1.2" if self.habits.offers_tls12(self.random) else "1.3"
        self.session = None
        self.connection: Connection | None = None

    @task
    def come(self) -> None:
        if self.is_closing_time:
            # locust ends who waits between two visits, and that may reach them in the next one: an
            # operation would be cut off, and nobody would know what became of it.
            raise StopUser
        try:
            self.visit()
        except VisitOverError:
            pass  # it has been told
        finally:
            self.leave()
        self.think()

    def visit(self) -> None:
        raise NotImplementedError

    def think(self) -> None:
        time.sleep(self.habits.think_time(self.random))

    # Connections.

    def connect(self) -> Connection:
        """Open one, or VisitOverError."""
        offered = self.session if self.habits.offers_session(self.random) else None
        began, connection = time.perf_counter(), None
        operation = ("TLS", f"{self.version} {'full' if offered is None else 'resumed'}")
        try:
            connection = Connection(self.target, receive_buffer=self.receive_buffer)
            resumed = connection.shake_hands(self.contexts[self.version], offered)
        except LOSSES as error:
            self.lose(operation, began, error, connection)
            if connection is not None:
                connection.abandon()
            raise VisitOverError from error
        LEDGER.shook_hands(self.version, offered=offered is not None, resumed=resumed)
        self.tell(("TLS", f"{self.version} {'resumed' if resumed else 'full'}"), began)
        return connection

    def leave(self, *, politely: bool = True) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        self.session = connection.session() or self.session
        if politely and not self.habits.is_rude(self.random):
            connection.close()
        else:
            connection.abandon()

    def is_staying(self) -> bool:
        """Whether there is time for another operation on this connection."""
        if self.is_closing_time:
            return False
        connection = self.connection
        return connection is None or time.perf_counter() - connection.opened < self.habits.patience

    # Operations.

    def perform(
        self, operation: tuple[str, str], act: Callable[[Connection], int], *, may_repeat: bool = True
    ) -> None:
        """Do it on the connection that is open, or on a new one; VisitOverError when it is lost."""
        if may_repeat and self.connection is not None and self.connection.has_ended():
            LEDGER.ended_idle += 1
            self.leave(politely=False)
        while True:
            connection = self.connection = self.connection or self.connect()
            began = time.perf_counter()
            connection.begin()
            try:
                size = act(connection)
            except LOSSES as error:
                if may_repeat and is_stale(connection, error):
                    may_repeat = False
                    LEDGER.note(trouble(operation, error, connection, asked_again=True))
                    self.leave(politely=False)
                    continue
                self.lose(operation, began, error, connection)
                self.leave(politely=False)
                raise VisitOverError from error
            self.tell(operation, began, size)
            if not connection.is_kept:
                self.leave()
            return

    def get(self, *, chunked: bool = False) -> None:
        at, size = self.random.choice(PLACES), size_between(self.habits.download, self.random)

        def act(connection: Connection) -> int:
            how = "chunks" if chunked else "bytes"
            connection.send(self.head("GET", f"/{how}/{size}?at={at}"))
            return check_piece(connection.response(), at, size)

        self.perform(("GET", f"{how_large(size)}{', chunked' if chunked else ''}"), act)

    def put(self, *, chunked: bool, pause: float = 0.0, pieces: int = 4, slow: str = "") -> None:
        at, size = self.random.choice(PLACES), size_between(self.habits.upload, self.random)
        body = piece(at, size)
        step = size // pieces + 1

        def act(connection: Connection) -> int:
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            head = self.head("PUT", "/digest", framing)
            for part in cut(head, 10) if pause else [head]:
                connection.send(part)
                time.sleep(pause)
            for start in range(0, size, step):
                part = body[start : start + step]
                connection.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                time.sleep(pause)
            if chunked:
                connection.send(b"0\r\n\r\n")
            said = check_status(connection.response()).body.decode("latin-1")
            if said != f"{digest(at, size)} {size}":
                raise WrongError(Loss.HASH, f"of an upload of {size} bytes")
            return size

        self.perform(("PUT", slow or ("chunked" if chunked else "with length")), act)

    def head(self, method: str, target: str, *fields: str) -> bytes:
        always = (f"{method} {target} HTTP/1.1", f"Host: {self.target.host}", "User-Agent: locust")
        return "".join(f"{line}\r\n" for line in (*always, self.cookie, *fields, "")).encode()

    # Telling.

    def tell(self, operation: tuple[str, str], began: float, size: int = 0) -> None:
        self._fire(operation, began, size, None)

    def lose(
        self, operation: tuple[str, str], began: float, error: Exception, connection: Connection | None
    ) -> None:
        found = trouble(operation, error, connection, opened=began)
        LEDGER.note(found)
        # Without ports and sizes: locust counts those alike that read alike.
        self._fire(operation, began, 0, RuntimeError(found.loss.value))

    def _fire(
        self, operation: tuple[str, str], began: float, size: int, error: Exception | None
    ) -> None:
        self.environment.events.request.fire(
            request_type=operation[0],
            name=operation[1],
            response_time=1000 * (time.perf_counter() - began),
            response_length=size,
            exception=error,
            context={},
        )


class Visitor(Person):
    """A browser: some requests on a connection, as many as people look at."""

    abstract = True

    def visit(self) -> None:
        for _ in range(self.habits.request_count(self.random)):
            self.get(chunked=self.random.random() < 0.3)
            if not self.is_staying():
                return
            self.think()


class Uploader(Person):
    """Sends bodies, with their length or in chunks."""

    abstract = True

    def visit(self) -> None:
        for _ in range(self.habits.request_count(self.random)):
            self.put(chunked=self.random.random() < 0.5)
            if not self.is_staying():
                return
            self.think()


class Talker(Person):
    """Upgrades to a WebSocket and says something now and then."""

    abstract = True

    def visit(self) -> None:
        talks: list[Any] = []

        def upgrade(connection: Connection) -> int:
            talks[:] = [connection.upgrade("/socket")]
            return 0

        self.perform(("WS", "open"), upgrade)
        talk = talks[0]
        for _ in range(self.habits.request_count(self.random)):
            opcode = self.random.choice((Opcode.TEXT, Opcode.BINARY, Opcode.BINARY, Opcode.PING))
            self.say(talk, opcode)
            if not self.is_staying():
                break
            self.think()
        self.perform(("WS", "close"), lambda _: talk.close(), may_repeat=False)
        self.leave()

    def say(self, talk: Any, opcode: Opcode) -> None:
        if opcode is Opcode.BINARY:
            said = piece(self.random.choice(PLACES), size_between(self.habits.message, self.random))
        else:
            said = f"is there anybody {self.random.random()}".encode()

        def echo(_: Connection) -> int:
            talk.echo(opcode, said)
            return 2 * len(said)

        self.perform(("WS", "message"), echo, may_repeat=False)


class SlowReader(Person):
    """Takes a large answer in small bites, with a small window, so that everybody behind has to wait."""

    abstract = True
    receive_buffer = 8 * KIB

    def visit(self) -> None:
        at, size = self.random.choice(PLACES), 192 * KIB

        def act(connection: Connection) -> int:
            connection.pause = 0.1  # for a record, so 160 KiB a second at most
            connection.send(self.head("GET", f"/bytes/{size}?at={at}"))
            return check_piece(connection.response(), at, size)

        self.perform(("GET", "slow reader"), act)


class SlowSender(Person):
    """Sends head and body in small pieces: above termproxy's least rate, and not by much."""

    abstract = True
    habits = Habits(upload=(512, 4 * KIB))

    def visit(self) -> None:
        chunked = self.random.random() < 0.5
        self.put(chunked=chunked, pause=0.1, pieces=20, slow="slow sender")


def is_stale(connection: Connection, error: Exception) -> bool:
    """Whether a kept connection ended between two requests: nothing of an answer has come."""
    ended = classify(error) in {Loss.CLOSED, Loss.RESET}
    return ended and connection.answers > 0 and not connection.is_answered


def trouble(
    operation: tuple[str, str],
    error: Exception,
    connection: Connection | None,
    *,
    opened: float = 0.0,
    asked_again: bool = False,
) -> Trouble:
    return Trouble(
        operation=" ".join(operation),
        loss=classify(error),
        detail=str(error)[:200],
        client=connection.name if connection else "",
        opened=connection.opened if connection else opened,
        ended=time.perf_counter(),
        asked_again=asked_again,
    )


def check_status(response: Response) -> Response:
    if response.status != 200:
        raise WrongError(Loss.STATUS, str(response.status))
    return response


def check_piece(response: Response, at: int, size: int) -> int:
    body = check_status(response).body
    if len(body) != size:
        raise WrongError(Loss.SHORT, f"{len(body)} of {size} bytes")
    if hashlib.sha256(body).hexdigest() != digest(at, size):
        raise WrongError(Loss.HASH, f"of {size} bytes")
    return size


def how_large(size: int) -> str:
    return "to 1 KiB" if size <= KIB else "to 16 KiB" if size <= 16 * KIB else "larger"


def cut(data: bytes, pieces: int) -> list[bytes]:
    step = len(data) // pieces + 1
    return [data[at : at + step] for at in range(0, len(data), step)]


# What locust has to do besides.
#
# With several processes, its master waits half a second for the last reports, and by then people are in
# the middle of something: what they see after that would be told to nobody.  So, before that, the master
# has them closed, and each says when its last report is out.

CLOSING, CLOSED = "load_closing", "load_closed"
WORKERS_CLOSED: set[str] = set()
BUGS: list[dict[str, Any]] = []


@events.init.add_listener
def on_init(environment: Environment, **_: object) -> None:
    ca = os.environ.get(CA)
    Person.contexts.update(make_contexts(Path(ca) if ca else None))
    match environment.runner:
        case WorkerRunner() as worker:
            worker.register_message(CLOSING, on_closing, concurrent=True)
        case MasterRunner() as master:
            master.register_message(CLOSED, lambda msg, **_: WORKERS_CLOSED.add(msg.node_id))


def on_closing(environment: Environment, **_: object) -> None:
    Person.is_closing_time = True
    while environment.runner.user_count:
        time.sleep(0.1)
    time.sleep(WORKER_REPORT_INTERVAL + 0.5)
    environment.runner.send_message(CLOSED)


def close_workers(master: MasterRunner, patience: float) -> None:
    master.send_message(CLOSING)
    deadline = time.perf_counter() + patience
    while len(WORKERS_CLOSED) < master.worker_count and time.perf_counter() < deadline:
        time.sleep(0.1)
    if unheard := master.worker_count - len(WORKERS_CLOSED):
        BUGS.append(
            {"count": unheard, "traceback": "the last report of a worker of locust has not come"}
        )


@events.test_start.add_listener
def on_start(**_: object) -> None:
    Person.is_closing_time = False


@events.test_stopping.add_listener
def on_stopping(environment: Environment, **_: object) -> None:
    Person.is_closing_time = True
    if isinstance(environment.runner, MasterRunner):
        close_workers(environment.runner, environment.stop_timeout + 2 * WORKER_REPORT_INTERVAL)


@events.report_to_master.add_listener
def on_report(data: dict[str, Any], **_: object) -> None:
    data["ledger"] = LEDGER.take()


@events.worker_report.add_listener
def on_worker_report(data: dict[str, Any], **_: object) -> None:
    if "ledger" in data:
        LEDGER.add(data["ledger"])


@events.quitting.add_listener
def on_quitting(environment: Environment, **_: object) -> None:
    """Write what `perf/load` reads: the process that has all the figures does."""
    file = os.environ.get(RESULT)
    if not file or isinstance(environment.runner, WorkerRunner):
        return
    stats = environment.stats
    entries = [
        {
            "kind": entry.method,
            "name": entry.name,
            "count": entry.num_requests,
            "failures": entry.num_failures,
            "p50": entry.get_response_time_percentile(0.50) / 1000,
            "p95": entry.get_response_time_percentile(0.95) / 1000,
            "p99": entry.get_response_time_percentile(0.99) / 1000,
        }
        for entry in stats.entries.values()
    ]
    total = stats.total
    result = {
        "entries": entries,
        "seconds": (total.last_request_timestamp or 0) - total.start_time,
        "bugs": BUGS
        + [
            {"count": found["count"], "traceback": found["msg"] + "\n" + found["traceback"]}
            for found in environment.runner.exceptions.values()
        ],
        "ledger": LEDGER.take(),
    }
    Path(file).write_text(json.dumps(result))
