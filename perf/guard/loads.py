"""What is counted: one client, one thing at a time, so that each run takes the same way.

The backend and the client are Python's: they have time, the server runs fifty times
slower than it can.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 60.0
REQUEST = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n"


@dataclass(frozen=True, slots=True)
class Client:
    """Knows where to connect, and whom to trust."""

    port: int
    trust: Path

    @contextmanager
    def connect(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> Iterator[ssl.SSLSocket]:
        """Both sides end in order: the server closes because it was asked to.

        It has time to finish its part of the handshake before it is asked for anything: whether it finds
        one message or two when it looks would be chance.
        """
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        with followed_by_rest(1):
            connection = context.wrap_socket(plain, server_hostname="localhost", session=session)
        with connection:
            yield connection
            # A server in mode http need not wait for our close_notify.
            with suppress(OSError):
                connection.unwrap().close()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trust)


def ask(connection: ssl.SSLSocket) -> None:
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"hello, world\n"):
        received = connection.recv(4096)
        if not received:
            raise ConnectionError(f"an answer ended early: {answer!r}")
        answer += received


def keep_alive(client: Client, times: int) -> None:
    with client.connect(client.context()) as connection:
        for _ in range(times):
            ask(connection)


@contextmanager
def followed_by_rest(times: float) -> Iterator[None]:
    """Rest afterwards, so many times as long as it took."""
    began = time.perf_counter()
    yield
    time.sleep(times * (time.perf_counter() - began))


def at_leisure() -> AbstractContextManager[None]:
    """Leave the server alone after a handshake.

    A worker that spends half of its time in handshakes lets the next ones wait for their turn, which
    takes a longer way; and here each one takes fifty times longer than it should.
    """
    return followed_by_rest(2)


def full_handshakes(client: Client, times: int) -> None:
    context = client.context()
    for _ in range(times):
        with at_leisure(), client.connect(context) as connection:
            ask(connection)
            assert not connection.session_reused


def resumed_handshakes(client: Client, times: int) -> None:
    """Resume TLS 1.3, with the ticket that the connection before was given."""
    context = client.context()
    with client.connect(context) as connection:
        ask(connection)
        session = connection.session
    for _ in range(times):
        with at_leisure(), client.connect(context, session) as connection:
            ask(connection)
            assert connection.session_reused
            session = connection.session


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    name: str
    title: str
    mode: str
    run: Callable[[Client, int], None]
    times: int
    access_log: bool = False


LOADS = (
    Load(name="tcp-keepalive", title="tcp: request", mode="tcp", run=keep_alive, times=4000),
    Load(name="http-keepalive", title="http: request", mode="http", run=keep_alive, times=4000),
    Load(
        name="http-access-log",
        title="http: request, with the access log",
        mode="http",
        run=keep_alive,
        times=4000,
        access_log=True,
    ),
    Load(name="tcp-full", title="tcp: full handshake", mode="tcp", run=full_handshakes, times=200),
    Load(
        name="tcp-resumed",
        title="tcp: resumed handshake",
        mode="tcp",
        run=resumed_handshakes,
        times=200,
    ),
    Load(
        name="http-resumed",
        title="http: resumed handshake",
        mode="http",
        run=resumed_handshakes,
        times=200,
    ),
)
# Makes every worker alike before it is counted: what the first clients cost is not of interest.
WARM_UP = 2


@contextmanager
def backend() -> Iterator[int]:
    """Answer every read with the same answer; return the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=accept_from, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        # Wakes the thread that waits in accept().
        listener.shutdown(socket.SHUT_RDWR)


def accept_from(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=answer, args=(client,), daemon=True).start()


def answer(client: socket.socket) -> None:
    with client, suppress(OSError):
        while client.recv(65536):
            client.sendall(ANSWER)
