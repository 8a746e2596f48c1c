"""The client on real sockets: what it checks, resumes, and takes for a loss."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from loading.client import Connection, Target, make_contexts
from loading.ledger import Loss, classify
from loading.server import make_site
from loading.websocket import Opcode, accept_for, encode
from tests.support.http_messages import MessageReader

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
PATIENCE = 10.0

Script = Callable[[ssl.SSLSocket, MessageReader], None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_site(folder)
    return folder


@contextmanager
def serving(site: Path, script: Script) -> Iterator[int]:
    """Serve connections one after another, in a thread; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site / "site.pem")

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:  # shut down: the test is over
                return
            plain.settimeout(PATIENCE)
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
                script(sock, MessageReader(lambda: sock.recv(1 << 16)))

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join, PATIENCE)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield listener.getsockname()[1]


@contextmanager
def connected(site: Path, port: int) -> Iterator[Connection]:
    connection = Connection(Target.of(f"https://localhost:{port}"))
    try:
        connection.shake_hands(make_contexts(site / "ca.pem")["1.3"], None)
        yield connection
    finally:
        connection.abandon()


def ask(connection: Connection) -> bytes:
    connection.begin()
    connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.response().body


def answers(*answers: bytes) -> Script:
    """Answer one request with each of these, then end with close_notify."""

    def script(sock: ssl.SSLSocket, reader: MessageReader) -> None:
        for answer in answers:
            reader.request()
            sock.sendall(answer)
        sock.unwrap()

    return script


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed_by_the_next_connection(site: Path, version: str) -> None:
    context = make_contexts(site / "ca.pem")[version]
    with serving(site, answers(ANSWER)) as port:
        target = Target.of(f"https://localhost:{port}")
        session, resumed = None, []
        for _ in range(3):
            connection = Connection(target)
            resumed.append(connection.shake_hands(context, session))
            assert ask(connection) == b"hello"
            session = connection.session()
            connection.close()
    assert resumed == [False, True, True]


def test_a_certificate_of_another_ca_is_a_loss(site: Path, tmp_path: Path) -> None:
    make_site(tmp_path)
    with (
        serving(site, answers()) as port,
        pytest.raises(ssl.SSLCertVerificationError) as found,
        connected(tmp_path, port),
    ):
        pass
    assert classify(found.value) is Loss.CERTIFICATE


def test_a_kept_connection_is_seen_to_have_ended(site: Path) -> None:
    go_on = threading.Event()

    def script(sock: ssl.SSLSocket, reader: MessageReader) -> None:
        reader.request()
        sock.sendall(ANSWER)
        assert go_on.wait(PATIENCE)
        sock.unwrap()

    with serving(site, script) as port, connected(site, port) as connection:
        assert ask(connection) == b"hello"
        assert not connection.has_ended()
        go_on.set()
        while not connection.has_ended():
            pass


def test_bytes_that_nobody_asked_for_are_no_answer(site: Path) -> None:
    with (
        serving(site, answers(ANSWER + b"surplus", ANSWER)) as port,
        connected(site, port) as connection,
    ):
        assert ask(connection) == b"hello"
        connection.has_ended()
        with pytest.raises(Exception, match="no status line") as found:
            ask(connection)
        assert classify(found.value) is Loss.MALFORMED


@pytest.mark.parametrize(
    ("answer", "loss"),
    [(b"", Loss.CLOSED), (ANSWER[:20], Loss.CLOSED), (ANSWER[:-2], Loss.SHORT)],
)
def test_an_answer_that_is_cut_is_a_loss(site: Path, answer: bytes, loss: Loss) -> None:
    with serving(site, answers(answer)) as port, connected(site, port) as connection:
        with pytest.raises(Exception, match="end") as found:
            ask(connection)
        assert classify(found.value) is loss


@pytest.mark.parametrize("said", [b"hello", b"other"])
def test_what_a_websocket_says_is_compared(site: Path, said: bytes) -> None:
    def script(sock: ssl.SSLSocket, reader: MessageReader) -> None:
        request = reader.request()
        assert request is not None
        [key] = request.values(b"sec-websocket-key")
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(key) + encode(Opcode.TEXT, said)
        )
        sock.recv(100)

    with serving(site, script) as port, connected(site, port) as connection:
        talk = connection.upgrade("/socket")
        if said == b"hello":
            talk.echo(Opcode.TEXT, b"hello")
            return
        with pytest.raises(Exception, match="another message") as found:
            talk.echo(Opcode.TEXT, b"hello")
        assert classify(found.value) is Loss.HASH


@pytest.mark.parametrize("url", ["http://localhost:80", "localhost:443", "https://localhost/path"])
def test_a_target_is_an_https_address(url: str) -> None:
    with pytest.raises(ValueError, match="https://localhost:8443"):
        Target.of(url)
