"""Very many connections of every kind in one process: does the binding give back all memory it takes?

Run by scripts/sanitize, whose allocator counts the bytes.  Each turn of the wheel below is one
connection that goes well or badly in its own way, and that checks what it was told; the client is
Python's own TLS, in the same thread.  What is still allocated after the soak, beyond what was after the
warm-up, is divided by the number of connections: less than LIMIT bytes each, or the soak has failed.
"""

from __future__ import annotations

import ctypes
import gc
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from termproxy import clock
from termproxy.errors import TlsError
from termproxy.outcome import CLOSED, WANT_READ
from termproxy.tls._openssl import Connection, Context, Scratch
from tests.support.tls import (
    TLS_1_2,
    TLS_1_3,
    Backend,
    Pair,
    client_context,
    pass_to_backend,
    pass_to_client,
    server_context,
    site,
)

LIMIT = 0.1  # byte per connection: the smallest object, lost at one connection in a hundred, shows
WARM_UP = 2000  # connections; after them Python and OpenSSL have filled what they fill once
REPORTS = 10

REQUEST, ANSWER = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", bytes(range(256)) * 40
LARGE = bytes(range(256)) * 512
CORRUPT = b"\x17\x03\x03\x00\x20" + bytes(32)


class RefusedError(Exception):
    """What the callback raises."""


def without_verifying(context: ssl.SSLContext) -> ssl.SSLContext:
    """The certificates are the tests' own; what counts here is time."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def choose(connection: Connection) -> Context | int | None:
    """One callback for all: the name says what to do."""
    name = (connection.client_hello_extension(0) or b"")[5:]
    if name == b"raise.test":
        raise RefusedError
    if name == b"rubbish.test":
        return name  # type: ignore[return-value]
    if name == b"alert.test":
        return 112
    return CHOSEN if name == b"chosen.test" else None


PLAIN = server_context(alpn=[b"h2", b"http/1.1"])
CHOSEN = server_context(site("chosen.test"), alpn=[b"http/1.1"], tickets=1, groups="P-256")
CHOOSING = server_context(alpn=[b"h2", b"http/1.1"], on_client_hello=choose)
ONLY_1_3 = server_context(min_version=TLS_1_3)

CLIENT = without_verifying(client_context(alpn=["h2", "http/1.1"]))
CLIENT_1_2 = without_verifying(client_context(version=TLS_1_2))
CLIENT_FTP = without_verifying(client_context(alpn=["ftp"]))
VERIFYING = client_context()  # that our name is not the one it asked for, it notices

SCRATCH = Scratch(1 << 18)
SESSIONS: dict[int, ssl.SSLSession | None] = {}


def fails(pair: Pair, alert: int | None, sender: str | None = "proxy") -> None:
    failure = None
    try:
        pair.handshake()
    except TlsError as error:
        failure = error
    assert failure is not None, "the handshake should have failed"
    assert (failure.alert, failure.alert_from) == (alert, sender), vars(failure)


# The wheel: one connection each.


def a_request_and_its_answer(_: Backend) -> None:
    with Pair(PLAIN, CLIENT).handshake() as pair:
        assert pair.server.alpn == b"h2"
        pair.client.send(REQUEST)
        assert pair.read() == (REQUEST, WANT_READ)
        assert pair.server.write(ANSWER) == len(ANSWER)
        pair.server.shutdown()
        assert pair.client.receive() == ANSWER
        pair.client.close_notify()
        assert pair.read() == (b"", CLOSED)


def a_relayed_request(backend: Backend) -> None:
    with Pair(CHOOSING, CLIENT, name="chosen.test").handshake() as pair:
        assert pair.server.context is CHOSEN
        assert (pair.server.alpn, pair.server.group) == (b"http/1.1", "secp256r1")
        pair.client.send(REQUEST)
        assert pass_to_backend(pair, backend, SCRATCH)[0] == REQUEST
        backend.far_end.send(ANSWER)
        assert pass_to_client(pair, backend, SCRATCH)[0] == ANSWER


def a_half_closed_one(backend: Backend) -> None:
    with Pair(CHOOSING, CLIENT).handshake() as pair:
        pair.client.send(REQUEST)
        pair.client.close_notify()
        assert pass_to_backend(pair, backend, SCRATCH) == (REQUEST, CLOSED)
        backend.far_end.send(ANSWER)
        assert pass_to_client(pair, backend, SCRATCH)[0] == ANSWER
        pair.server.shutdown()


def _resuming(client: ssl.SSLContext, version: int) -> None:
    with Pair(CHOOSING, client, session=SESSIONS.get(version)).handshake() as pair:
        assert pair.server.resumed == (version in SESSIONS)
        assert pair.server.sni == b"a.test"
        if version not in SESSIONS:  # once only: Python's own `session` loses 5 KB each time it is read
            SESSIONS[version] = pair.client.session()


def a_resumed_1_2(_: Backend) -> None:
    _resuming(CLIENT_1_2, TLS_1_2)


def a_resumed_1_3(_: Backend) -> None:
    _resuming(CLIENT, TLS_1_3)


def one_that_fills_both_sockets(backend: Backend) -> None:
    with Pair(PLAIN, CLIENT_1_2, wire_size=4096).handshake() as pair, Backend(4096) as small:
        pair.client.send(LARGE)
        assert pass_to_backend(pair, small, SCRATCH)[0] == LARGE
        backend.far_end.send(LARGE)
        assert pass_to_client(pair, backend, SCRATCH)[0] == LARGE


def garbage(_: Backend) -> None:
    with Pair(CHOOSING, CLIENT) as pair:
        pair.client.wire.send(REQUEST)
        with suppress(TlsError):
            pair.server.handshake()
            raise AssertionError("plain HTTP was taken for TLS")


def one_that_leaves_after_half_a_hello(_: Backend) -> None:
    with Pair(CHOOSING, CLIENT) as pair:
        pair.client.wire.send(pair.client.hello()[:100])
        assert pair.server.handshake() == WANT_READ
        pair.client.wire.close()
        with suppress(TlsError):
            pair.server.handshake()
            raise AssertionError("half a hello was enough")


def one_that_leaves_in_the_middle_and_is_not_closed(_: Backend) -> None:
    pair = Pair(CHOOSING, CLIENT, name="chosen.test")
    with pair.wire, pair.client.wire:
        pair.greet()
        assert pair.server.handshake() == WANT_READ
        del pair.server


def one_refused_by_its_name(_: Backend) -> None:
    with Pair(CHOOSING, CLIENT, name="alert.test") as pair:
        fails(pair, 112)


def an_exception_in_the_callback(_: Backend) -> None:
    with Pair(CHOOSING, CLIENT, name="raise.test") as pair, suppress(RefusedError):
        pair.handshake()
        raise AssertionError("the exception was lost")


def rubbish_from_the_callback(_: Backend) -> None:
    with Pair(CHOOSING, CLIENT, name="rubbish.test") as pair, suppress(TypeError):
        pair.handshake()
        raise AssertionError("the rubbish was taken")


def no_protocol_in_common(_: Backend) -> None:
    with Pair(PLAIN, CLIENT_FTP) as pair:
        fails(pair, 120)


def no_version_in_common(_: Backend) -> None:
    with Pair(ONLY_1_3, CLIENT_1_2) as pair:
        fails(pair, 70)


def one_that_does_not_believe_us(_: Backend) -> None:
    with Pair(PLAIN, VERIFYING, name="other.test") as pair:
        fails(pair, 42, "client")


def a_corrupt_record_behind_a_good_one(backend: Backend) -> None:
    with Pair(PLAIN, CLIENT).handshake() as pair:
        pair.client.wire.sendall(pair.client.sealed(REQUEST) + CORRUPT)
        with suppress(TlsError):
            pass_to_backend(pair, backend, SCRATCH)
            raise AssertionError("the corrupt record was taken")
        assert pair.server.plaintext_read == len(REQUEST)
        backend.receive()


def a_context_of_its_own_in_a_cycle(_: Backend) -> None:
    """Connection → context → callback → connection; half of them after a handshake."""
    kept: list[Connection] = []
    context = server_context(alpn=[b"h2"], on_client_hello=kept.append)
    pair = Pair(context, CLIENT_1_2)
    with pair.wire, pair.client.wire:
        pair.handshake()
        with suppress(ValueError):
            server_context(key=site("chosen.test").key)
            raise AssertionError("the wrong key was taken")


WHEEL: list[Callable[[Backend], None]] = [
    a_request_and_its_answer,
    a_relayed_request,
    garbage,
    a_half_closed_one,
    an_exception_in_the_callback,
    a_resumed_1_2,
    one_that_leaves_after_half_a_hello,
    a_resumed_1_3,
    one_refused_by_its_name,
    one_that_leaves_in_the_middle_and_is_not_closed,
    a_relayed_request,
    rubbish_from_the_callback,
    no_protocol_in_common,
    a_half_closed_one,
    no_version_in_common,
    one_that_does_not_believe_us,
    a_corrupt_record_behind_a_good_one,
    a_resumed_1_3,
    one_that_fills_both_sockets,
    a_context_of_its_own_in_a_cycle,
]


# The measurement.


def counter() -> Callable[[], int]:
    """What the whole process has taken from malloc and not given back, as the sanitizer counts it."""
    try:
        count = ctypes.CDLL(None)["__sanitizer_get_current_allocated_bytes"]
    except AttributeError:
        sys.exit("no sanitizer counts the bytes of this process: run scripts/sanitize")
    count.restype = ctypes.c_size_t

    def allocated_bytes() -> int:
        gc.collect()
        return int(count())

    return allocated_bytes


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def turn(connections: int) -> None:
    with Backend() as backend:
        for number in range(connections):
            WHEEL[number % len(WHEEL)](backend)


def main(connections: int) -> None:
    print(f"soak: {connections:,} connections of {len(set(WHEEL))} kinds, after {WARM_UP:,} to warm up")
    allocated_bytes = counter()
    turn(WARM_UP)
    before, descriptors, started = allocated_bytes(), open_descriptors(), clock.monotonic()
    step = -(-connections // REPORTS)
    for done in range(0, connections, step):
        turn(min(step, connections - done))
        grown = allocated_bytes() - before
        seconds = clock.monotonic() - started
        print(
            f"{min(done + step, connections):>9,} done in {seconds:4.0f} s: {grown:+,} bytes", flush=True
        )
    per_connection = grown / connections
    left_open = open_descriptors() - descriptors
    print(
        f"allocated: {before:,} bytes before, {before + grown:,} after: "
        f"{per_connection:+.4f} per connection (limit {LIMIT}); descriptors left open: {left_open}"
    )
    if per_connection >= LIMIT or left_open:
        sys.exit("FAILED: the binding does not give back all that it takes")
    print(f"PASSED: {connections:,} connections without a byte lost")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
