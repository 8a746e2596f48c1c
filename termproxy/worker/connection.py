"""READ FIRST.  One client, from accept to close.

    HANDSHAKE ──▶ CONNECTING ──▶ RELAYING ──────▶ CLOSED
        │                            │                ▲
        └────────────────────────────┴─▶ LINGERING ───┘

`phase` names what is awaited, and the methods below stand in the order in which they run.  Every phase
has a deadline, kept by the worker's wheel.  The two pumps do the copying; this file decides what an end
or a failure of one means for the other, and there is one way out, `close()`.

An abort stays an abort: a client that vanishes without close_notify resets its backend, and a backend
that resets leaves its client without close_notify, so that neither takes a part for the whole.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from datetime import timedelta
from enum import Enum
from typing import Any

from termproxy import clock
from termproxy.backends.connect import Connecting
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault, TlsError
from termproxy.observability.failure_book import Kind
from termproxy.observability.metrics import FAILED, MISSES, count_full, count_resumed
from termproxy.observability.record import ConnectionRecord, printable
from termproxy.observability.scoreboard import Column
from termproxy.outcome import Outcome
from termproxy.relay.pump import Pump, Ready, relay
from termproxy.tls._openssl import Connection
from termproxy.tls.client_certificate import ClientCertificate, read_client_certificate
from termproxy.tls.failures import Failure, explain, explain_handshake, timed_out
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.shared import FailureLine, Shared

log = logging.getLogger("worker")

# A client that is still sending gets this long to read our last words: closing a socket that holds
# unread bytes sends a reset, and a reset destroys what the client has not read yet.
LINGER = 1.0  # seconds
LINGER_READ = 65536  # bytes at a time, thrown away

# How many times within the idle timeout we look whether bytes have passed.
IDLE_CHECKS = 8

PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// instead of http://\n"
)

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds (socket(7))

_BACKEND_LOST = {
    errno.ECONNRESET: "backend_reset",
    errno.EPIPE: "backend_reset",
    errno.ENOTCONN: "backend_reset",
    errno.ETIMEDOUT: "backend_timeout",
}


class Phase(Enum):
    HANDSHAKE = "handshake"
    CONNECTING = "connecting"
    RELAYING = "relaying"
    LINGERING = "lingering"
    CLOSED = "closed"


class ClientConnection:
    __slots__ = (
        "_accepted",
        "_backend",
        "_backend_lost",
        "_bytes_seen",
        "_connected",
        "_connecting",
        "_fd",
        "_frontend",
        "_handshaken",
        "_peer",
        "_quiet_since",
        "_readable",
        "_served",
        "_server",
        "_shared",
        "_tls",
        "_to_backend",
        "_to_client",
        "_writable",
        "bucket",
        "deadline",
        "phase",
    )

    def __init__(self, shared: Shared, frontend: Frontend, fd: int, peer: Any) -> None:
        self._shared = shared
        self._frontend = frontend
        self._fd = fd  # ours to close; a socket object would cost more than it does for us
        self._peer = peer
        self._tls = Connection(frontend.entry, self._fd)
        self._served: Served = frontend.default
        self._readable: Any = shared.loop.io(self._fd, Ready.READABLE)
        self._writable: Any = None
        self._connecting: Connecting | None = None
        self._server: Server | None = None
        self._backend: socket.SocketType | None = None
        self._backend_lost: OSError | None = None
        self._to_backend: Pump | None = None
        self._to_client: Pump | None = None
        self._bytes_seen = 0
        self._accepted = self._quiet_since = clock.monotonic()
        self._handshaken: float | None = None
        self._connected: float | None = None
        self.phase = Phase.HANDSHAKE
        self.deadline = 0.0
        self.bucket = 0

    def __repr__(self) -> str:
        return f"<ClientConnection {self._frontend.name} fd={self._fd} {self.phase.name}>"

    # Handshake.

    def start(self) -> None:
        shared = self._shared
        shared.connections.add(self)
        shared.row[_OPEN] += 1
        shared.row[_ACCEPTED] += 1
        shared.deadlines.set(self, self._accepted + shared.timeouts.handshake)
        self._readable.start(self._on_handshake)
        self._on_handshake()

    def _on_handshake(self) -> None:
        try:
            self._advance_handshake()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _advance_handshake(self) -> None:
        try:
            outcome = self._tls.handshake()
        except TlsError as error:
            self._handshake_failed(error)
            return
        if outcome == Outcome.DONE:
            self._handshake_done()
        elif outcome == Outcome.WANT_WRITE:
            self._wait_to_write_handshake()

    def _wait_to_write_handshake(self) -> None:
        """Our certificates do not fit into the socket's buffer."""
        if self._writable is None:
            self._readable.stop()
            self._writable = self._shared.loop.io(self._fd, Ready.WRITABLE)
            self._writable.start(self._on_writable_handshake)

    def _on_writable_handshake(self) -> None:
        self._stop(self._writable)
        self._writable = None
        self._readable.start(self._on_handshake)
        self._on_handshake()

    def _handshake_done(self) -> None:
        self._readable.stop()
        tls, row = self._tls, self._shared.row
        self._handshaken = now = clock.monotonic()
        row[_HANDSHAKES] += 1
        tally, seconds, cpu = self._frontend.tally, now - self._accepted, tls.handshake_nanoseconds
        if tls.resumed:
            row[_RESUMED] += 1
            count_resumed(tally, seconds, cpu, tls.ticket_age, from_cache=tls.from_cache)
        else:
            count_full(tally, seconds, cpu, tls.miss)
        choice = tls.note
        if choice is not None:
            self._served = choice.served
        self.phase = Phase.CONNECTING
        self._connecting = Connecting(
            self._shared.loop,
            self._served.cluster.candidates(),
            self._on_settled,
            self._on_backend_failure,
        )
        self._connect()

    def _handshake_failed(self, error: TlsError) -> None:
        choice = self._tls.note
        if choice is not None and choice.served is not None:
            self._served = choice.served
        failure = explain_handshake(error, self._tls.offer, self._served.accepts)
        self._report_failure(failure)
        if failure.client_left:
            self.close()
            return
        self._linger(PLAIN_HTTP_ANSWER if failure.reason == "plain_http" else b"")

    def _report_failure(self, failure: Failure) -> None:
        """Count a failed handshake, and write its line, unless this client has many such ones."""
        shared, reason = self._shared, failure.reason
        shared.row[_HANDSHAKES_FAILED] += 1
        self._frontend.tally[FAILED[reason]] += 1
        client = self._peer[0]
        shared.failures.add(
            Kind(
                frontend=self._frontend.name,
                reason=reason,
                detail=failure.detail,
                cure=failure.cure,
                count=1,
                last=clock.utc_now().isoformat(timespec="seconds"),
                client=client,
                name=self._asked_name(),
            )
        )
        line = FailureLine(client, self._frontend.name, reason, failure.fault)
        if shared.failure_lines.admits(line, clock.monotonic()):
            self._report(reason, failure.fault, failure.detail, failure.alert, failure.alert_from)

    # Linger: the connection is over and reported, but the client has not read our last words yet.

    def _linger(self, last_words: bytes) -> None:
        self.phase = Phase.LINGERING
        self._tls.close()
        try:
            if last_words:
                os.write(self._fd, last_words)
            _shut_down_writing(self._fd)
        except OSError:  # the client has gone: nothing to linger for
            self.close()
            return
        self._shared.deadlines.set(self, clock.monotonic() + LINGER)
        self._stop(self._readable)
        self._readable = self._shared.loop.io(self._fd, Ready.READABLE)
        self._readable.start(self._on_last_bytes)

    def _on_last_bytes(self) -> None:
        try:
            if not os.read(self._fd, LINGER_READ):
                self.close()
        except BlockingIOError:
            pass
        except OSError:  # a reset: over, too
            self.close()

    # Connect.

    def _on_settled(self) -> None:
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _connect(self) -> None:
        assert self._connecting is not None  # noqa: S101 - of this phase
        try:
            backend = self._connecting.advance()
        except BackendError as error:
            self._server = self._connecting.server
            self._shut_down_tls()
            self._report(error.reason, error.fault, str(error))
            self.close()
            return
        if backend is not None:
            self._relay(backend)
        else:
            timeout = self._shared.timeouts.connect
            self._shared.deadlines.set(self, clock.monotonic() + timeout)

    def _on_backend_failure(self, server: Server, error: BackendError) -> None:
        shared, now = self._shared, clock.monotonic()
        shared.row[_BACKEND_FAILURES] += 1
        if shared.warnings.admits(f"failures of server {server}", now):
            log.warning("cluster %s: %s", self._served.cluster.name, error)

    # Relay.

    def _relay(self, backend: socket.SocketType) -> None:
        assert self._connecting is not None  # noqa: S101 - of the phase before
        shared = self._shared
        self.phase = Phase.RELAYING
        self._backend = backend
        self._server, self._connecting = self._connecting.server, None
        self._connected = self._quiet_since = now = clock.monotonic()
        if self.deadline > now + shared.timeouts.idle:
            shared.deadlines.set(self, now + shared.timeouts.idle / IDLE_CHECKS)
        # Else the deadline of the phase before, which comes early enough, is the first look.
        client = (self._tls, self._fd)
        callbacks = (self._on_end, self._on_relay_failure)
        self._to_backend, self._to_client = relay(
            shared.loop, shared.scratch, client, backend, callbacks
        )
        self._to_client.start(shared.loop.io(backend.fileno(), Ready.READABLE))
        readable, self._readable = self._readable, None
        self._to_backend.start(readable)
        if self._tls.pending():  # it came with the handshake's last bytes: no event will tell
            self._to_backend.on_readable()

    def _on_end(self, _: Pump) -> None:
        """One direction is done; the other lives on until it is, too."""
        assert self._to_client is not None  # noqa: S101 - of this phase
        assert self._to_backend is not None  # noqa: S101 - of this phase
        if self._to_client.ended and self._to_backend.ended:
            if self._backend_lost is not None:
                # What the client is still sending is of no use, but it has an answer to read.
                self._report_backend_lost(self._backend_lost)
                self._linger(b"")
            else:
                self._report("done", Fault.NONE)
                self.close()

    def _on_relay_failure(self, pump: Pump, error: Exception) -> None:
        if isinstance(error, TlsError):
            self._client_failed(error)
        elif not isinstance(error, OSError):
            self._crashed(error)
        elif pump is self._to_backend:
            # It will not read more, but what it has sent before may still be on its way.
            self._backend_lost = error
            if error.errno != errno.EPIPE and self._to_client is not None:
                # send() took the socket's error: recv() will call the cut an end (EPIPE came after one).
                self._to_client.source_was_cut = True
            pump.close()
            self._on_end(pump)
        else:
            self._report_backend_lost(error)
            self.close()

    def _client_failed(self, error: TlsError) -> None:
        assert self._to_client is not None  # noqa: S101 - of this phase
        assert self._to_backend is not None  # noqa: S101 - of this phase
        failure = explain(error)
        if self._to_client.ended and failure.reason == "client_reset":
            # It had our close_notify, and hangs up on us: it lost nothing.
            self._report("done", Fault.NONE)
        else:
            self._report(
                failure.reason, failure.fault, failure.detail, failure.alert, failure.alert_from
            )
            self._reset_backend()
        self.close()

    def _report_backend_lost(self, error: OSError) -> None:
        reason = _BACKEND_LOST.get(error.errno or 0, "backend_failed")
        self._shared.row[_BACKEND_FAILURES] += 1
        self._report(reason, Fault.BACKEND, f"{self._server}: {error.strerror}")

    # Deadlines and the way out.

    def on_deadline(self, now: float) -> None:
        """The worker's call: the time of this phase is over."""
        try:
            self._deadline_passed(now)
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _deadline_passed(self, now: float) -> None:
        timeouts = self._shared.timeouts
        if self.phase is Phase.HANDSHAKE:
            self._report_failure(timed_out(timeouts.handshake, self._tls.offer))
            self.close()
        elif self.phase is Phase.CONNECTING and self._connecting is not None:
            self._connecting.time_out()
            self._connect()
        elif self.phase is Phase.RELAYING:
            self._look_for_idleness(now)
        else:
            self.close()

    def _look_for_idleness(self, now: float) -> None:
        """Bytes that have passed show in the binding's counters, so the byte path keeps no time."""
        idle = self._shared.timeouts.idle
        seen = self._tls.plaintext_read + self._tls.plaintext_written
        if seen != self._bytes_seen:
            self._bytes_seen, self._quiet_since = seen, now
        if now - self._quiet_since >= idle:
            self._shut_down_tls()
            self._report("idle_timeout", Fault.NONE, f"no byte either way for {idle:g} s")
            self.close()
            return
        next_look = min(now + idle / IDLE_CHECKS, self._quiet_since + idle)
        self._shared.deadlines.set(self, next_look)

    def drain_is_over(self) -> None:
        """The worker stops and cannot wait longer."""
        try:
            detail = "the worker stopped before the client did"
            if self.phase is Phase.HANDSHAKE:
                self._report_failure(
                    Failure("drain_timeout", detail, "raise timeouts.drain", Fault.NONE, None, None)
                )
            elif self.phase is not Phase.LINGERING:
                self._report("drain_timeout", Fault.NONE, detail)
            self._reset_backend()
            self.close()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _crashed(self, error: Exception) -> None:
        """A bug of ours ends this connection, and nothing else."""
        log.error("%r failed; please report this", self, exc_info=error)
        name = type(error).__name__
        if self.phase is Phase.HANDSHAKE:
            cure = "report this, with the traceback in the log"
            self._report_failure(Failure("internal_error", name, cure, Fault.PROXY, None, None))
        elif self.phase in (Phase.CONNECTING, Phase.RELAYING):
            self._report("internal_error", Fault.PROXY, name)
        self.close()

    def _shut_down_tls(self) -> None:
        """Tell the client that what it has is all."""
        try:
            self._tls.shutdown()
        except TlsError:  # it has gone already
            pass

    def _reset_backend(self) -> None:
        if self._backend is not None:
            self._backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def close(self) -> None:
        """Give everything back, once.  What is to be said to either side has been said before."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        shared = self._shared
        for part in (self._to_backend, self._to_client, self._connecting):
            if part is not None:
                part.close()
        self._stop(self._readable)
        self._stop(self._writable)
        self._to_backend = self._to_client = self._connecting = None
        self._readable = self._writable = None
        self._tls.close()
        os.close(self._fd)
        if self._backend is not None:
            self._backend.close()
        shared.deadlines.forget(self)
        shared.connections.discard(self)
        shared.row[_OPEN] -= 1
        shared.on_closed()

    @staticmethod
    def _stop(watcher: Any) -> None:
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def _report(
        self,
        ended: str,
        fault: Fault,
        detail: str | None = None,
        alert: str | None = None,
        alert_from: str | None = None,
    ) -> None:
        """Count, and write the connection's one line."""
        tls, shared = self._tls, self._shared
        shared.row[_FROM_CLIENTS] += tls.plaintext_read
        shared.row[_FROM_BACKENDS] += tls.plaintext_written
        if shared.access_log is None:
            return
        seconds = clock.monotonic() - self._accepted
        sni, alpn = tls.sni, tls.alpn
        record = ConnectionRecord(
            time=clock.utc_now() - timedelta(seconds=seconds),
            client=self._client_name(),
            frontend=self._frontend.name,
            sni=self._asked_name() or (None if sni is None else printable(sni)),
            alpn=None if alpn is None else printable(alpn),
            backend=None if self._server is None else str(self._server),
            bytes_from_client=tls.plaintext_read,
            bytes_from_backend=tls.plaintext_written,
            seconds=seconds,
            ended=ended,
            fault=fault,
            detail=detail,
            alert=alert,
            alert_from=alert_from,
        )
        if self._handshaken is not None:
            record.version, record.cipher = tls.version, tls.cipher
            record.group, record.resumed = tls.group, tls.resumed
            if record.resumed:
                record.resumption = "session_id" if tls.from_cache else "ticket"
                record.ticket_age = tls.ticket_age
            else:
                record.resumption = MISSES[tls.miss]
                record.certificate = self._served.label_of(tls.own_certificate)
            shown = self.client_certificate()
            if shown is not None:
                record.client_certificate = shown.sha256
                record.client_subject, record.client_serial = shown.subject, shown.serial
            record.handshake_seconds = self._handshaken - self._accepted
            if self._connected is not None:
                record.connect_seconds = self._connected - self._handshaken
        elif ended == "certificate_rejected":
            record.certificate = self._served.label_of(tls.own_certificate)
        shared.access_log.write(record)

    def client_certificate(self) -> ClientCertificate | None:
        """What the client has shown and we have verified; None: it showed none."""
        der = self._tls.peer_certificate
        return None if der is None else read_client_certificate(der)

    def _asked_name(self) -> str | None:
        """As our callback read it: OpenSSL tells a resumed session's, and none when we refused."""
        return None if self._tls.note is None else self._tls.note.name

    def _client_name(self) -> str:
        host, port = self._peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _shut_down_writing(fd: int) -> None:
    sock = socket.socket(fileno=fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.detach()


_OPEN = int(Column.OPEN)
_ACCEPTED = int(Column.ACCEPTED)
_HANDSHAKES = int(Column.HANDSHAKES)
_RESUMED = int(Column.HANDSHAKES_RESUMED)
_HANDSHAKES_FAILED = int(Column.HANDSHAKES_FAILED)
_BACKEND_FAILURES = int(Column.BACKEND_FAILURES)
_FROM_CLIENTS = int(Column.BYTES_FROM_CLIENTS)
_FROM_BACKENDS = int(Column.BYTES_FROM_BACKENDS)
