"""The binding: bytes pass unchanged, in order, and their end is told as what it was."""

from __future__ import annotations

import errno
import os
import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.errors import TlsError
from termproxy.outcome import CLOSED, DONE, MORE, SINK_FULL, TRUNCATED, WANT_READ, WANT_WRITE
from termproxy.tls._openssl import Context, Scratch
from tests.support.tls import (
    TLS_1_2,
    TLS_1_3,
    Backend,
    Pair,
    client_context,
    fill,
    pass_to_backend,
    pass_to_client,
    server_context,
)

RECORD = 16384  # bytes: the most plaintext in one record (RFC 8446 §5.1)
SMALL = 4096  # bytes asked for a socket's buffer, so that it fills soon
LARGE = bytes(range(256)) * 2048

CONTEXT = server_context()
CLIENT = client_context()

# A record of application data that no key has sealed.
CORRUPT = b"\x17\x03\x03\x00\x20" + bytes(32)

BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


def greeted(wire_size: int | None = None, context: Context = CONTEXT) -> Pair:
    """After the handshake, the tickets read."""
    pair = Pair(context, CLIENT, wire_size=wire_size).handshake()
    pair.client.receive()
    return pair


# read_into() and write().


def test_what_the_client_writes_is_read() -> None:
    with greeted() as pair:
        pair.client.send(LARGE[:100_000])
        assert pair.read() == (LARGE[:100_000], WANT_READ)
        assert pair.server.plaintext_read == 100_000


def test_a_read_gives_one_record_at_most() -> None:
    with greeted() as pair:
        pair.client.send(b"one")
        pair.client.send(b"two")
        buffer = bytearray(100)
        assert pair.server.read_into(buffer) == 3
        assert buffer[:3] == b"one"
        assert pair.server.pending() or pair.server.read_into(buffer) == 3


def test_what_a_small_buffer_leaves_is_pending() -> None:
    """No event on the socket would announce it: OpenSSL has it already."""
    with greeted() as pair:
        pair.client.send(b"abc")
        assert pair.server.read_into(bytearray(1)) == 1
        assert pair.server.pending()
        assert pair.server.read_into(memoryview(bytearray(5))) == 2
        assert not pair.server.pending()


def test_what_the_server_writes_arrives() -> None:
    with greeted() as pair:
        assert pair.server.write(memoryview(b"answer")) == 6
        assert pair.client.receive() == b"answer"
        assert pair.server.plaintext_written == 6


def test_a_write_of_nothing_sends_nothing() -> None:
    with greeted() as pair:
        before = len(pair.client.heard)
        assert pair.server.write(b"") == 0
        pair.client.receive()
        assert len(pair.client.heard) == before


def test_a_write_may_take_a_part() -> None:
    """SSL_MODE_ENABLE_PARTIAL_WRITE: the count is what to go on from."""
    with greeted() as pair:
        assert pair.server.write(LARGE) == RECORD


def test_a_full_socket_wants_the_same_bytes_again() -> None:
    with greeted(SMALL) as pair:
        taken, arrived, was_full = 0, bytearray(), 0
        while taken < len(LARGE):
            count = pair.server.write(LARGE[taken:])  # another object each time: only the bytes count
            if count == WANT_WRITE:
                was_full += 1
                arrived += pair.client.receive()
            else:
                assert count > 0
                taken += count
        arrived += pair.client.receive()
    assert was_full
    assert bytes(arrived) == LARGE


# The end.


def test_the_clients_close_notify_is_an_end() -> None:
    with greeted() as pair:
        pair.client.send(b"last")
        pair.client.close_notify()
        assert pair.read() == (b"last", CLOSED)
        assert pair.server.read_into(bytearray(1)) == CLOSED


def test_a_bare_end_of_stream_is_a_truncation() -> None:
    """RFC 8446 §6.1: without close_notify, what came may not be all."""
    with greeted() as pair:
        pair.client.send(b"last?")
        pair.client.wire.close()
        assert pair.read() == (b"last?", TRUNCATED)


def test_after_the_clients_close_notify_the_server_may_go_on() -> None:
    """RFC 8446 §6.1: each direction ends by itself."""
    with greeted() as pair:
        pair.client.close_notify()
        assert pair.read() == (b"", CLOSED)
        assert pair.server.write(b"the answer") == 10
        assert pair.client.receive() == b"the answer"


def test_our_close_notify_is_sent_once() -> None:
    with greeted() as pair:
        assert pair.server.shutdown() == DONE
        pair.client.receive()
        heard = len(pair.client.heard)
        assert pair.client.was_told_the_end
        assert pair.server.shutdown() == DONE
        pair.client.receive()
        assert len(pair.client.heard) == heard


def test_after_our_close_notify_we_read_on_but_write_no_more() -> None:
    with greeted() as pair:
        assert pair.server.shutdown() == DONE
        pair.client.send(b"still here")
        assert pair.read() == (b"still here", WANT_READ)
        with pytest.raises(TlsError):
            pair.server.write(b"no")


def test_a_close_notify_waits_for_a_full_socket() -> None:
    with greeted(SMALL) as pair:
        while pair.server.write(b"x") > 0:
            pass
        pair.client.receive()
        assert pair.server.write(b"x") == 1  # what was refused comes first: it is sealed already
        fill(pair.wire)
        assert pair.server.shutdown() == WANT_WRITE


@BOTH_VERSIONS
def test_writing_to_a_client_that_said_its_end_and_left_is_a_failure(version: int) -> None:
    """OpenSSL calls it an end (SSL_ERROR_ZERO_RETURN), as if there were something to read."""
    with Pair(CONTEXT, client_context(version=version)).handshake() as pair, Backend() as backend:
        pair.client.close_notify()
        assert pair.read() == (b"", CLOSED)
        pair.client.wire.close()
        with pytest.raises(TlsError) as failure:
            pair.server.write(b"the answer")
        assert failure.value.errno in (errno.EPIPE, errno.ECONNRESET)
        backend.far_end.send(b"more of it")
        with pytest.raises(TlsError):
            pair.server.encrypt_from(backend.fd, Scratch(RECORD))
        with pytest.raises(TlsError):
            pair.server.shutdown()


def test_a_failed_connection_does_not_end_well_when_asked_again() -> None:
    """TRUNCATED would say that the socket has ended; it was the bytes that were wrong."""
    with greeted() as pair:
        pair.client.wire.send(CORRUPT)
        for _ in range(3):
            with pytest.raises(TlsError):
                pair.server.read_into(bytearray(100))


# decrypt_to().


def test_the_count_is_what_was_passed_on() -> None:
    with greeted() as pair, Backend() as backend:
        pair.client.send(b"request")
        assert pair.server.decrypt_to(backend.fd, Scratch(RECORD)) == 7
        assert backend.receive() == b"request"
        assert pair.server.decrypt_to(backend.fd, Scratch(RECORD)) == WANT_READ


def test_more_than_the_scratch_holds_takes_more_calls() -> None:
    with greeted() as pair, Backend() as backend:
        pair.client.send(bytes(3 * RECORD))
        scratch = Scratch(RECORD)
        assert pair.server.decrypt_to(backend.fd, scratch) == MORE
        assert len(backend.receive()) == RECORD
        assert pass_to_backend(pair, backend, scratch) == (bytes(2 * RECORD), RECORD)


def test_what_a_full_backend_refuses_is_in_the_scratch() -> None:
    with greeted() as pair, Backend(SMALL) as backend:
        pair.client.send(LARGE[:100_000])
        scratch = Scratch(1 << 18)
        assert pair.server.decrypt_to(backend.fd, scratch) == SINK_FULL
        rest = scratch.take_rest()
        arrived = backend.receive()
        assert arrived
        assert arrived + rest == LARGE[:100_000]
        assert pair.server.plaintext_read == 100_000
        assert scratch.take_rest() == b""


def test_a_backend_that_takes_nothing_at_all_leaves_everything_in_the_scratch() -> None:
    with greeted() as pair, Backend(SMALL) as backend:
        fill(backend.proxy_end)
        pair.client.send(b"waits")
        scratch = Scratch(RECORD)
        assert pair.server.decrypt_to(backend.fd, scratch) == SINK_FULL
        assert scratch.take_rest() == b"waits"


def test_a_rest_is_not_overwritten() -> None:
    """Whoever forgets take_rest() hears of it, not the backend."""
    with greeted() as pair, Backend(SMALL) as backend:
        scratch = Scratch(1 << 18)
        pair.client.send(LARGE[:100_000])
        assert pair.server.decrypt_to(backend.fd, scratch) == SINK_FULL
        pair.client.send(b"next")
        with pytest.raises(RuntimeError, match="take_rest"):
            pair.server.decrypt_to(backend.fd, scratch)
        with pytest.raises(RuntimeError, match="take_rest"):
            pair.server.encrypt_from(backend.fd, scratch)
        assert backend.receive() + scratch.take_rest() == LARGE[:100_000]
        assert pass_to_backend(pair, backend, scratch) == (b"next", 4)


@BOTH_VERSIONS
def test_data_before_a_close_notify_is_passed_on_first(version: int) -> None:
    with Pair(CONTEXT, client_context(version=version)).handshake() as pair, Backend() as backend:
        pair.client.send(b"last")
        pair.client.close_notify()
        scratch = Scratch(RECORD)
        assert pass_to_backend(pair, backend, scratch) == (b"last", CLOSED)
        assert pair.server.decrypt_to(backend.fd, scratch) == CLOSED


def test_data_before_a_truncation_is_passed_on_first() -> None:
    with greeted() as pair, Backend() as backend:
        pair.client.send(b"last?")
        pair.client.wire.close()
        scratch = Scratch(RECORD)
        assert pass_to_backend(pair, backend, scratch) == (b"last?", TRUNCATED)
        assert pair.server.decrypt_to(backend.fd, scratch) == TRUNCATED


def test_data_before_a_corrupt_record_is_passed_on_first() -> None:
    with greeted() as pair, Backend() as backend:
        pair.client.wire.sendall(pair.client.sealed(b"good") + CORRUPT)
        scratch = Scratch(RECORD)
        with pytest.raises(TlsError) as failure:
            pass_to_backend(pair, backend, scratch)
        assert (failure.value.alert, failure.value.alert_from) == (20, "proxy")
        assert pair.server.plaintext_read == 4


def test_an_end_behind_a_full_backend_waits_for_the_rest() -> None:
    with greeted() as pair, Backend(SMALL) as backend:
        pair.client.send(LARGE[:100_000])
        pair.client.close_notify()
        assert pass_to_backend(pair, backend, Scratch(1 << 18)) == (LARGE[:100_000], CLOSED)


def test_a_backend_that_left_is_an_oserror() -> None:
    with greeted() as pair, Backend() as backend:
        backend.far_end.close()
        pair.client.send(b"request")
        with pytest.raises(BrokenPipeError):
            pair.server.decrypt_to(backend.fd, Scratch(RECORD))


@pytest.mark.parametrize("most", [1, 5, 20_000, 99_999])
def test_no_more_is_passed_on_than_was_asked_for(most: int) -> None:
    """The rest is another message's: it stays where it is, and is told to be there."""
    with greeted() as pair, Backend() as backend:
        pair.client.send(LARGE[:100_000])
        scratch, passed = Scratch(1 << 18), 0
        while passed < most:
            before = pair.server.plaintext_read
            pair.server.decrypt_to(backend.fd, scratch, most - passed)
            passed += pair.server.plaintext_read - before
        assert backend.receive() == LARGE[:most]
        assert pair.read() == (LARGE[most:100_000], WANT_READ)


# write_all().


def test_all_that_is_between_is_written() -> None:
    with greeted() as pair:
        assert pair.server.write_all(LARGE, 10, 100_010) == 100_000
        assert pair.client.receive() == LARGE[10:100_010]
        assert pair.server.plaintext_written == 100_000
        assert pair.server.write_all(LARGE, 5, 5) == 0


def test_what_a_full_socket_refuses_is_to_be_written_again() -> None:
    with greeted(SMALL) as pair:
        taken, received = pair.server.write_all(LARGE, 0, len(LARGE)), b""
        assert taken < len(LARGE)
        assert pair.server.write_all(LARGE, taken, len(LARGE)) == 0
        while taken < len(LARGE):
            received += pair.client.receive()
            taken += pair.server.write_all(LARGE, taken, len(LARGE))
        assert received + pair.client.receive() == LARGE


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (2, 1), (0, 11), (11, 11)])
def test_what_is_not_in_the_buffer_is_refused(start: int, end: int) -> None:
    with greeted() as pair, pytest.raises(ValueError, match="is not in a buffer"):
        pair.server.write_all(b"0123456789", start, end)


# encrypt_from().


@pytest.mark.parametrize("most", [1, 5, 20_000])
def test_no_more_is_written_than_was_asked_for(most: int) -> None:
    with greeted() as pair, Backend() as backend:
        backend.far_end.send(LARGE[:40_000])
        assert pair.server.encrypt_from(backend.fd, Scratch(1 << 18), most) == most
        assert pair.client.receive() == LARGE[:most]


@pytest.mark.parametrize("most", [0, -1, -(1 << 40)])
@pytest.mark.parametrize("move", ["decrypt_to", "encrypt_from"])
def test_less_than_a_byte_cannot_be_moved(move: str, most: int) -> None:
    with greeted() as pair, Backend() as backend, pytest.raises(ValueError, match="no number of bytes"):
        getattr(pair.server, move)(backend.fd, Scratch(RECORD), most)


def test_the_count_is_what_was_written() -> None:
    with greeted() as pair, Backend() as backend:
        scratch = Scratch(RECORD)
        assert pair.server.encrypt_from(backend.fd, scratch) == WANT_READ
        backend.far_end.send(b"answer")
        assert pair.server.encrypt_from(backend.fd, scratch) == 6
        assert pair.client.receive() == b"answer"


def test_the_backends_end_of_stream_is_an_end() -> None:
    with greeted() as pair, Backend() as backend:
        backend.far_end.send(b"answer")
        backend.far_end.close()
        assert pass_to_client(pair, backend, Scratch(RECORD)) == (b"answer", CLOSED)
        assert not pair.client.was_told_the_end


def test_what_a_full_client_refuses_is_in_the_scratch() -> None:
    """All that was not counted as written, also what OpenSSL has sealed already: write() it next."""
    with greeted(SMALL) as pair, Backend() as backend:
        backend.far_end.send(LARGE[:100_000])
        scratch = Scratch(1 << 18)
        assert pair.server.encrypt_from(backend.fd, scratch) == SINK_FULL
        rest = scratch.take_rest()
        assert pair.server.plaintext_written + len(rest) == 100_000
        arrived = pair.client.receive()
        while rest:
            rest = rest[max(pair.server.write(rest), 0) :]
            arrived += pair.client.receive()
        assert arrived == LARGE[:100_000]
        assert pair.server.plaintext_written == 100_000


def test_a_backend_that_reset_is_an_oserror() -> None:
    with greeted() as pair, Backend() as backend:
        backend.proxy_end.send(b"never read")
        backend.far_end.close()
        with pytest.raises(ConnectionResetError):
            pair.server.encrypt_from(backend.fd, Scratch(RECORD))


def test_a_client_that_left_is_a_tlserror() -> None:
    with greeted() as pair, Backend() as backend:
        pair.client.wire.close()
        backend.far_end.send(b"answer")
        with pytest.raises(TlsError) as failure:
            pair.server.encrypt_from(backend.fd, Scratch(RECORD))
        assert failure.value.errno in (errno.EPIPE, errno.ECONNRESET)


@pytest.mark.parametrize("move", ["decrypt_to", "encrypt_from"])
def test_a_descriptor_that_is_none_is_an_oserror(move: str) -> None:
    with greeted() as pair:
        closed = os.dup(pair.wire.fileno())
        os.close(closed)
        for fd in (closed, -1):
            pair.client.send(b"request")
            with pytest.raises(OSError, match="Bad file descriptor"):
                getattr(pair.server, move)(fd, Scratch(RECORD))


def test_a_descriptor_that_is_no_socket_is_an_oserror() -> None:
    with greeted() as pair, open(os.devnull, "rb") as device:  # noqa: PTH123 - for its descriptor
        pair.client.send(b"request")
        with pytest.raises(OSError, match="non-socket"):
            pair.server.decrypt_to(device.fileno(), Scratch(RECORD))
        with pytest.raises(OSError, match="non-socket"):
            pair.server.encrypt_from(device.fileno(), Scratch(RECORD))


# Any bytes, in any pieces.

PIECES = st.lists(st.binary(max_size=40_000) | st.integers(1, 60_000).map(bytes), max_size=6)
FULL_OR_NOT = st.sampled_from([SMALL, None])


@settings(deadline=None, max_examples=200)
@given(
    pieces=PIECES,
    cuts=st.lists(st.integers(1, 100_000), max_size=8),
    backend_size=FULL_OR_NOT,
    scratch_size=st.sampled_from([RECORD, RECORD + 1, 1 << 18]),
)
def test_a_request_passes_unchanged(
    pieces: list[bytes], cuts: list[int], backend_size: int | None, scratch_size: int
) -> None:
    """However the client cuts its records, and the network the records."""
    with greeted() as pair, Backend(backend_size) as backend:
        scratch, arrived = Scratch(scratch_size), b""
        wire = b"".join(pair.client.sealed(piece) for piece in pieces if piece)
        marks = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
        for start, end in pairwise(marks):
            for step in range(start, end, 1 << 16):
                pair.client.wire.sendall(wire[step : min(end, step + (1 << 16))])
                arrived += pass_to_backend(pair, backend, scratch)[0]
        assert arrived == b"".join(pieces)
        assert pair.server.plaintext_read == len(arrived)


@settings(deadline=None, max_examples=200)
@given(
    pieces=PIECES,
    wire_size=FULL_OR_NOT,
    scratch_size=st.sampled_from([RECORD, RECORD + 1, 1 << 18]),
)
def test_an_answer_passes_unchanged(
    pieces: list[bytes], wire_size: int | None, scratch_size: int
) -> None:
    with greeted(wire_size) as pair, Backend() as backend:
        scratch, arrived = Scratch(scratch_size), b""
        for piece in pieces:
            backend.far_end.sendall(piece)
            arrived += pass_to_client(pair, backend, scratch)[0]
        backend.far_end.shutdown(socket.SHUT_WR)
        assert pass_to_client(pair, backend, scratch) == (b"", CLOSED)
        assert arrived == b"".join(pieces)
        assert pair.server.plaintext_written == len(arrived)
