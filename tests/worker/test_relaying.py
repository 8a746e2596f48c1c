"""Mode "tcp": every way a connection can end, and what each side sees then."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from termproxy._sockets import Socket
from termproxy.backends.approach import Approach
from termproxy.observability.scoreboard import Column
from termproxy.relay.pump import Pump
from termproxy.worker.connection import LINGER, Phase
from termproxy.worker.relaying import IDLE_CHECKS
from tests.relay.ends import TlsClient, receive, reset, send_all, turns, until
from tests.support.clients import NAME
from tests.support.endings import CutError
from tests.worker.harness import Bench

BIG = bytes(range(256)) * 4096


def refused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def phases(bench: Bench) -> list[str]:
    return [connection.phase for connection in bench.connections]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened


# A life without trouble.


def test_a_connection_goes_through_its_phases(bench: Bench) -> None:
    client = TlsClient(bench.trust, bench.accept())
    (connection,) = bench.connections
    assert connection.phase is Phase.HANDSHAKE

    with client:
        client.handshake()
        until(lambda: connection.phase is Phase.RELAYING, "the relay")
        backend = bench.backend()
        client.send(b"question")
        assert receive(backend) == b"question"
        send_all(backend, b"answer")
        assert client.receive() == b"answer"
        client.say_goodbye()
        assert receive(backend) == b""
        backend.close()
        assert client.receive_all() == b""
    until(lambda: connection.phase is Phase.CLOSED, "the end")
    assert bench.all_is_given_back()


def test_a_finished_connection_leaves_one_record_with_all_that_is_known(bench: Bench) -> None:
    client, backend = bench.relay()
    client.send(b"12345")
    assert receive(backend) == b"12345"
    send_all(backend, b"123")
    assert client.receive() == b"123"
    backend.close()
    assert client.receive_all() == b""
    client.vanish()

    record = bench.record()
    assert record.pop("time").endswith("Z")
    assert record.pop("handshake_seconds") > 0
    assert record.pop("connect_seconds") > 0
    assert record.pop("seconds") > 0
    assert record.pop("group").lower().startswith("x25519")
    assert record == {
        "client": "192.0.2.1:40000",
        "frontend": "web",
        "sni": NAME,
        "version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "resumed": False,
        "resumption": "none_offered",
        "backend": bench.address,
        "bytes_from_client": 5,
        "bytes_from_backend": 3,
        "ended": "done",
        "fault": "none",
    }


def test_what_happened_is_counted(bench: Bench) -> None:
    client, backend = bench.relay()
    assert (bench.count(Column.OPEN), bench.count(Column.ACCEPTED)) == (1, 1)
    client.send(b"12345")
    assert receive(backend) == b"12345"
    backend.close()
    assert client.receive_all() == b""
    client.vanish()
    bench.record()

    assert bench.count(Column.OPEN) == 0
    assert bench.count(Column.HANDSHAKES) == 1
    assert bench.count(Column.HANDSHAKES_RESUMED) == 0
    assert bench.count(Column.HANDSHAKES_FAILED) == 0
    assert bench.count(Column.BACKEND_FAILURES) == 0
    assert bench.count(Column.BYTES_FROM_CLIENTS) == 5
    assert bench.room_made == 1


def test_an_ipv6_client_is_named_in_brackets(bench: Bench) -> None:
    bench.accept(peer=("2001:db8::1", 40000, 0, 0)).close()

    assert bench.record()["client"] == "[2001:db8::1]:40000"


def test_bytes_that_come_with_the_handshake_s_last_are_not_forgotten(bench: Bench) -> None:
    """No event tells of what OpenSSL has read already."""
    raw = bench.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = bench.trust.wrap_bio(incoming, outgoing, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    send_all(raw, outgoing.read())
    while True:
        incoming.write(receive(raw))
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            continue
    tls.write(b"at once")
    send_all(raw, outgoing.read())  # Finished and the first request in one segment

    assert receive(bench.backend()) == b"at once"


# Handshakes that fail.


def test_a_handshake_that_takes_too_long_is_the_client_s_fault(bench: Bench) -> None:
    client = bench.accept()
    bench.pass_time(9.0)
    assert bench.records == []
    bench.pass_time(10.3)

    assert bench.records[0]["ended"] == "handshake_timeout"
    assert bench.records[0]["fault"] == "client"
    assert bench.records[0]["detail"] == "the client sent no whole ClientHello within 10 s"
    assert receive(client) == b""
    assert bench.count(Column.HANDSHAKES_FAILED) == 1
    assert bench.all_is_given_back()


def test_drips_do_not_make_a_handshake_s_time_longer(bench: Bench) -> None:
    """Slowloris: a byte now and then is no progress."""
    client = bench.accept()
    for _ in range(3):
        client.send(b"\x16")
        turns(2)
    bench.pass_time(10.3)

    assert bench.records[0]["ended"] == "handshake_timeout"


def test_plain_http_is_answered_in_its_own_words(bench: Bench) -> None:
    client = bench.accept()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = receive(client)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"https://" in answer
    assert bench.record()["ended"] == "plain_http"
    assert bench.record()["fault"] == "client"
    assert "version" not in bench.record()
    assert receive(client) == b""


def test_what_is_not_tls_is_refused_with_an_alert(bench: Bench) -> None:
    client = bench.accept()
    client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    turns()
    client.shutdown(socket.SHUT_WR)

    assert bench.record()["ended"] in ("not_tls", "protocol_error", "old_client")
    until(bench.all_is_given_back, "the end of the linger")


def test_a_client_that_shares_no_version_is_told_so(bench: Bench) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = TlsClient(context, bench.accept())
    with client, pytest.raises(ssl.SSLError, match=r"(?i)handshake[ _]failure"):
        client.handshake()

    record = bench.record()
    assert record["ended"] == "no_shared_cipher"
    assert (record["alert"], record["alert_from"]) == ("handshake_failure", "proxy")
    assert record["fault"] == "client"


def test_a_client_that_distrusts_us_is_heard(bench: Bench) -> None:
    client = TlsClient(ssl.create_default_context(), bench.accept())
    with client, pytest.raises(ssl.SSLCertVerificationError):
        client.handshake()
    record = bench.record()

    assert record["ended"] == "certificate_rejected"
    assert (record["alert"], record["alert_from"]) == ("unknown_ca", "client")


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_client_that_leaves_before_its_hello_is_counted(bench: Bench, leave: Any) -> None:
    leave(bench.accept())

    assert bench.record()["ended"] == "scanner"
    assert bench.record()["fault"] == "client"
    until(bench.all_is_given_back, "the end")


def test_a_refused_client_that_stays_is_left_after_the_linger(bench: Bench) -> None:
    client = bench.accept()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert receive(client)
    assert phases(bench) == [Phase.LINGERING]
    client.send(b"and more")
    turns()
    bench.pass_time(LINGER + 0.3)

    assert phases(bench) == [Phase.CLOSED]
    assert len(bench.records) == 1
    assert bench.all_is_given_back()


def test_a_refused_client_that_resets_ends_the_linger(bench: Bench) -> None:
    client = bench.accept()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert receive(client)
    reset(client)

    until(bench.all_is_given_back, "the end of the linger")


def test_certificates_that_do_not_fit_are_sent_when_there_is_room(bench: Bench) -> None:
    """The client's window is small: our flight goes in pieces."""
    client = bench.accept()
    (connection,) = bench.connections
    connection._wait_to_write_handshake()
    connection._wait_to_write_handshake()
    turns()
    assert connection._writable is None
    tls = TlsClient(bench.trust, client)
    with tls:
        tls.handshake()
        until(lambda: bench.count(Column.HANDSHAKES) == 1, "our side of the handshake")


# Backends that cannot be reached.


def test_a_backend_that_refuses_is_the_backend_s_fault(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = refused_address()
    client = bench.connect(nowhere)
    record = bench.record()

    assert (record["ended"], record["fault"]) == ("backend_refused", "backend")
    assert nowhere in record["detail"]
    assert record["version"] == "TLSv1.3"
    assert "connect_seconds" not in record
    assert bench.count(Column.BACKEND_FAILURES) == 1
    assert f"cluster app: backend_refused: {nowhere}: Connection refused" in caplog.text
    assert client.receive_all() == b""


def test_a_backend_that_refuses_is_passed_over(bench: Bench) -> None:
    client = bench.connect(refused_address(), bench.address)
    backend = bench.backend()
    client.send(b"hello")

    assert receive(backend) == b"hello"
    assert bench.count(Column.BACKEND_FAILURES) == 1


def test_many_refusals_make_one_line_a_second(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = refused_address()
    for _ in range(5):
        bench.connect(nowhere)

    assert caplog.text.count("backend_refused") == 1
    assert bench.count(Column.BACKEND_FAILURES) == 5


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of a listener whose queue is full: connecting to it neither works nor fails."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_backend_that_does_not_answer_is_left_for_the_next_one(bench: Bench, black_hole: str) -> None:
    client = bench.connect(black_hole, bench.address)
    (connection,) = bench.connections
    turns()
    assert connection.phase is Phase.CONNECTING
    bench.pass_time(2.0)
    assert connection.phase is Phase.CONNECTING
    bench.pass_time(3.3)
    backend = bench.backend()
    client.send(b"hello")

    assert receive(backend) == b"hello"


def test_a_last_backend_that_does_not_answer_is_a_timeout_in_the_record(
    bench: Bench, black_hole: str
) -> None:
    bench.connect(black_hole)
    bench.pass_time(3.3)

    assert bench.records[0]["ended"] == "backend_timeout"


# Ends of a relay.


def test_a_client_that_vanishes_resets_its_backend(bench: Bench) -> None:
    """Otherwise the backend takes half a request for a whole one."""
    client, backend = bench.relay()
    client.send(b"half a requ")
    assert receive(backend) == b"half a requ"
    client.vanish()

    assert bench.record()["ended"] == "client_closed"
    assert bench.record()["fault"] == "client"
    with pytest.raises(ConnectionResetError):
        receive(backend)


def test_a_client_that_resets_resets_its_backend(bench: Bench) -> None:
    client, backend = bench.relay()
    client.reset()

    assert bench.record()["ended"] == "client_reset"
    with pytest.raises(ConnectionResetError):
        receive(backend)


def test_a_client_that_resets_after_our_close_notify_has_lost_nothing(bench: Bench) -> None:
    client, backend = bench.relay()
    backend.close()
    assert client.receive_all() == b""
    client.reset()

    assert bench.record()["ended"] == "done"
    assert bench.record()["fault"] == "none"


def test_a_backend_that_resets_leaves_its_client_without_close_notify(bench: Bench) -> None:
    client, backend = bench.relay()
    send_all(backend, b"half an ans")
    assert client.receive() == b"half an ans"
    reset(backend)

    with pytest.raises((CutError, ConnectionResetError)):
        client.receive_all()
    assert bench.record()["ended"] == "backend_reset"
    assert bench.record()["fault"] == "backend"
    assert bench.count(Column.BACKEND_FAILURES) == 1


def test_a_backend_that_resets_while_the_client_sends_leaves_it_without_close_notify(
    bench: Bench,
) -> None:
    """The client must not take half an answer for a whole one, whichever event comes first."""
    client, backend = bench.relay()
    (connection,) = bench.connections
    send_all(backend, b"half an ans")
    assert client.receive() == b"half an ans"
    reset(backend)
    client.send(b"the request goes on")
    # Both sockets are readable; the loop may begin with either.
    assert connection._to_backend is not None
    connection._to_backend.on_readable()

    with pytest.raises((CutError, ConnectionResetError)):
        client.receive_all()


def test_a_backend_that_answers_and_closes_while_the_client_sends_has_its_answer_delivered(
    bench: Bench,
) -> None:
    """HTTP: "413 Content Too Large", and closed with the body unread."""
    client, backend = bench.relay()
    client.send(b"upload")
    assert receive(backend) == b"upload"
    send_all(backend, b"413")
    backend.shutdown(socket.SHUT_WR)
    until(lambda: bench.connections[0]._to_client is not None, "the relay")
    assert client.receive_all() == b"413"
    backend.close()
    client.send(BIG)
    until(lambda: bench.connections[0].phase is Phase.LINGERING, "the answer to be read")

    assert bench.record()["ended"] == "backend_reset"
    bench.connections[0].on_deadline(0.0)
    assert bench.connections[0].phase is Phase.CLOSED


def test_a_full_relay_in_both_directions_ends_as_done(bench: Bench) -> None:
    client, backend = bench.relay()
    client.send(BIG)
    received = b""
    while len(received) < len(BIG):
        received += receive(backend)
    send_all(backend, received)
    backend.shutdown(socket.SHUT_WR)

    assert client.receive_all() == BIG
    client.say_goodbye()
    assert bench.record()["bytes_from_client"] == bench.record()["bytes_from_backend"] == len(BIG)


# Idleness.


def test_a_quiet_connection_is_ended_in_order_after_its_time(bench: Bench) -> None:
    client, backend = bench.relay()
    bench.pass_time(30.0)
    bench.pass_time(59.0)
    assert bench.records == []
    bench.pass_time(60.3)
    record = bench.record()

    assert (record["ended"], record["fault"]) == ("idle_timeout", "none")
    assert record["detail"] == "no byte either way for 60 s"
    assert client.receive_all() == b""
    assert receive(backend) == b""
    assert bench.all_is_given_back()


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_byte_either_way_begins_the_time_anew(bench: Bench, who: str) -> None:
    client, backend = bench.relay()
    for at in (50.0, 100.0, 150.0):
        if who == "client":
            client.send(b".")
            receive(backend)
        else:
            send_all(backend, b".")
            client.receive()
        bench.pass_time(at)
        assert bench.records == []
    for check in range(IDLE_CHECKS + 2):
        bench.pass_time(150.0 + (check + 1) * 60.0 / IDLE_CHECKS)

    assert bench.records[0]["ended"] == "idle_timeout"


# The worker's end.


def test_a_drain_s_end_closes_a_relay(bench: Bench) -> None:
    client, backend = bench.relay()
    bench.connections[0].drain_is_over()

    assert bench.record()["ended"] == "drain_timeout"
    assert bench.record()["fault"] == "none"
    with pytest.raises(ConnectionResetError):
        receive(backend)  # it must not take a part of an upload for the whole
    with pytest.raises((CutError, ConnectionResetError)):
        client.receive_all()


def test_a_drain_s_end_leaves_a_refused_client_s_record_alone(bench: Bench) -> None:
    client = bench.accept()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert receive(client)
    bench.connections[0].drain_is_over()

    assert [record["ended"] for record in bench.records] == ["plain_http"]
    assert bench.all_is_given_back()


# Our own failures.


class Bug(Exception):  # noqa: N818 - of ours, and no error of theirs
    pass


def broken(*_: object) -> None:
    raise Bug


def crash_report(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (report,) = [record for record in caplog.records if record.exc_info]
    assert report.exc_info is not None
    assert report.exc_info[0] is Bug
    assert "please report this" in report.message
    return report


def test_a_bug_in_a_pump_ends_its_connection_and_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client, backend = bench.relay()
    other, other_backend = bench.relay()
    connection = bench.connections[0]
    assert connection._to_backend is not None
    connection._to_backend._move = broken  # type: ignore[assignment]
    client.send(b"boom")
    until(lambda: connection.phase is Phase.CLOSED, "the end")

    assert bench.record()["ended"] == "internal_error"
    assert bench.record()["fault"] == "proxy"
    assert bench.record()["detail"] == "Bug"
    assert "<RelayingConnection web fd=" in crash_report(caplog).message
    with pytest.raises(ConnectionResetError):  # what it has is not all
        receive(backend)
    other.send(b"alive")
    assert receive(other_backend) == b"alive"


class BrokenTimeouts:
    connect = idle = property(broken)


def test_a_bug_after_the_handshake_ends_its_connection(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsClient(bench.trust, bench.accept()) as client:
        monkeypatch.setattr(bench.shared, "timeouts", BrokenTimeouts())
        client.handshake()
        assert bench.record()["ended"] == "internal_error"
    crash_report(caplog)
    assert bench.all_is_given_back()


def test_a_bug_at_a_deadline_ends_its_connection(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.relay()
    monkeypatch.setattr(bench.shared, "timeouts", BrokenTimeouts())
    bench.pass_time(60.0)

    assert bench.record()["ended"] == "internal_error"
    crash_report(caplog)
    assert bench.all_is_given_back()


class BrokenApproach(Approach):
    def advance(self, now: float) -> Socket | None:
        raise Bug


def test_a_bug_while_connecting_ends_its_connection(
    bench: Bench,
    black_hole: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench.connect(black_hole)
    connection: Any
    (connection,) = bench.connections
    assert connection.phase is Phase.CONNECTING
    connection._connecting.close()
    connection._connecting = BrokenApproach(None, connection._served.cluster, b"", 1.0, (broken, broken))
    connection._on_settled()

    assert bench.record()["ended"] == "internal_error"
    crash_report(caplog)


# Nothing is left behind.


def test_a_close_counts_once(bench: Bench) -> None:
    bench.accept()
    (connection,) = bench.connections
    connection.close()
    connection.close()

    assert bench.count(Column.OPEN) == 0
    assert bench.room_made == 1


def test_a_relay_that_is_over_leaves_nothing_to_the_garbage_collector(bench: Bench) -> None:
    """It runs seldom in a worker: what waits for it would be memory of thousands of connections."""
    gc.collect()
    others = [each for each in gc.get_objects() if isinstance(each, Pump)]  # of tests that failed
    gc.disable()
    try:
        client, backend = bench.relay()
        client.send(b"12345")
        assert receive(backend) == b"12345"
        client.vanish()
        until(bench.all_is_given_back, "the end")
        left = [each for each in gc.get_objects() if isinstance(each, Pump) and each not in others]
    finally:
        gc.enable()

    assert left == []


def test_without_an_access_log_connections_are_still_counted(bench: Bench) -> None:
    log, bench.shared.access_log = bench.shared.access_log, None
    client, backend = bench.relay()
    client.send(b"12345")
    assert receive(backend) == b"12345"
    client.vanish()
    until(bench.all_is_given_back, "the end")
    bench.shared.access_log = log

    assert bench.records == []
    assert bench.count(Column.BYTES_FROM_CLIENTS) == 5


def test_no_descriptor_stays_open_whatever_the_end(bench: Bench) -> None:
    bench.relay()
    bench.close()
    bench.__init__(bench.context, bench.trust, bench.log_file.parent)  # type: ignore[misc]
    before = open_descriptors()
    client, backend = bench.relay()
    client.vanish()
    until(bench.all_is_given_back, "one end")
    backend.close()
    client, backend = bench.relay()
    backend.close()
    assert client.receive_all() == b""
    client.say_goodbye()
    until(bench.all_is_given_back, "another end")
    client.vanish()
    client = bench.connect(refused_address())
    until(bench.all_is_given_back, "a third end")
    client.vanish()

    assert open_descriptors() == before


def test_a_connection_says_who_it_is(bench: Bench) -> None:
    bench.accept()

    assert repr(bench.connections[0]).startswith("<RelayingConnection web fd=")
    assert repr(bench.connections[0]).endswith(" handshake>")


def test_what_a_client_names_itself_cannot_break_a_line(site: Path, bench: Bench) -> None:
    """The name is the client's to choose: any byte but NUL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = bench.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="aaaaaaaa.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    send_all(raw, outgoing.read().replace(b"aaaaaaaa", b'\n\x1b[31m\xff"'))
    turns()
    raw.close()

    assert bench.record()["sni"] == '\\x0a\\x1b[31m\\xff".example'


def test_errors_of_the_backend_that_have_no_word_are_failures(bench: Bench) -> None:
    bench.relay()
    bench.connections[0]._report_backend_lost(OSError(errno.EIO, "Input/output error"))

    assert bench.record()["ended"] == "backend_failed"
    assert bench.record()["detail"] == f"{bench.address}: Input/output error"
