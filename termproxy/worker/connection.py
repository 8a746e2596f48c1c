"""READ FIRST.  One client, from accept to close.

    [PROXY_HEADER]
        ▼
    HANDSHAKE ◀──▶ [WAITING]         for its turn, with the ClientHello read: handshake_queue.py
        │
        ├────────▶ CONNECTING ──▶ RELAYING ─────────▶ CLOSED      relaying.py: mode "tcp"
        │                            │                  ▲
        ├────────────────────────────┴─▶ LINGERING ─────┤
        └──▶ REQUEST ◀──▶ EXCHANGE ──────────┴──────────┘        exchange.py: mode "http"

Here stand the beginning and the end, which all connections have in common; what is in between is a
subclass's.  `phase` names what is awaited, and the methods stand in the order in which they run.  Every
phase has a deadline, kept by the worker's wheel, and there is one way out, `close()`.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, Final

from termproxy import clock
from termproxy._sockets import peek, reset_on_close, shut_down_writing
from termproxy.address import UNIX_CLIENT, is_in
from termproxy.errors import Fault, TlsError
from termproxy.observability.failure_book import Kind
from termproxy.observability.metrics import FAILED, MISSES, count_agreed, count_full, count_resumed
from termproxy.observability.record import ConnectionRecord, printable
from termproxy.observability.scoreboard import Column
from termproxy.outcome import DONE, HELLO, WANT_WRITE
from termproxy.relay.proxy_protocol import HEADER_MAX, BadProxyHeader, SocketName, read_header
from termproxy.relay.pump import Ready
from termproxy.tls._openssl import Connection
from termproxy.tls.client_certificate import ClientCertificate, read_client_certificate
from termproxy.tls.failures import Failure, explain_handshake, timed_out
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.gate import Seat
from termproxy.worker.shared import FailureLine, Shared

log = logging.getLogger("worker")

# A client that is still sending gets this long to read our last words: closing a socket that holds
# unread bytes sends a reset, and a reset destroys what the client has not read yet.
LINGER = 1.0  # seconds
LINGER_READ = 65536  # bytes at a time, thrown away

PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// instead of http://\n"
)


class Phase:
    """Plain words: to find an enum's member takes 0.1 µs in CPython 3.11."""

    PROXY_HEADER: Final = "proxy_header"
    HANDSHAKE: Final = "handshake"
    WAITING: Final = "waiting"
    CONNECTING: Final = "connecting"
    RELAYING: Final = "relaying"
    REQUEST: Final = "request"
    EXCHANGE: Final = "exchange"
    LINGERING: Final = "lingering"
    CLOSED: Final = "closed"


_BEFORE_TLS = (Phase.PROXY_HEADER, Phase.HANDSHAKE, Phase.WAITING)


class ClientConnection:
    __slots__ = (
        "_accepted",
        "_destination",
        "_fd",
        "_frontend",
        "_handshaken",
        "_peer",
        "_proxy_header",
        "_readable",
        "_served",
        "_shared",
        "_tls",
        "_writable",
        "bucket",
        "deadline",
        "own_port",
        "phase",
        "seat",
    )

    def __init__(self, shared: Shared, frontend: Frontend, fd: int, peer: Any) -> None:
        self._shared = shared
        self._frontend = frontend
        self._fd = fd  # ours to close; a socket object would cost more than it does for us
        self._peer = peer
        self._destination: SocketName | None = None  # where a PROXY header says it has connected to
        self._proxy_header = b""  # what has come of it
        self._tls = Connection(frontend.entry, self._fd)
        self._served: Served = frontend.default
        self._readable: Any = shared.loop.io(self._fd, Ready.READABLE)
        self._writable: Any = None
        self._accepted = clock.monotonic()
        self._handshaken: float | None = None
        self.phase: str = Phase.HANDSHAKE
        self.own_port = 0  # that the client has connected to
        self.seat: Seat | None = None  # None: it is not counted as a client's
        self.deadline = 0.0
        self.bucket = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._frontend.name} fd={self._fd} {self.phase}>"

    @property
    def began(self) -> float:
        """When the client came."""
        return self._accepted

    # Handshake.

    def start(self) -> None:
        shared = self._shared
        shared.connections.add(self)
        shared.counts.add(_OPEN)
        shared.counts.add(_ACCEPTED)
        shared.deadlines.set(self, self._accepted + shared.timeouts.handshake)
        proxies = self._frontend.proxies
        if proxies and is_in(self._peer[0], proxies):
            self.phase = Phase.PROXY_HEADER
            self._readable.start(self._on_proxy_header)
            return
        self._readable.start(self._on_handshake)
        self._begin_or_ask(self._accepted)

    # Before it, a balancer that is trusted says whom the connection is from.

    def _on_proxy_header(self) -> None:
        try:
            self._read_proxy_header()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _read_proxy_header(self) -> None:
        """Take the header off the socket, and not a byte more: the rest is OpenSSL's."""
        begun = self._proxy_header
        try:
            seen = peek(self._fd, HEADER_MAX - len(begun))
            header = read_header(begun + seen) if seen else None
            os.read(self._fd, len(seen) if header is None else header.length - len(begun))
        except BlockingIOError:
            return
        except OSError:
            seen, header = b"", None
        except BadProxyHeader as error:
            self._proxy_header_failed("bad_proxy_header", f"{error.reason}: {error}")
            return
        if not seen:
            self._proxy_header_failed("no_proxy_header", "it hung up before its PROXY header was whole")
        elif header is None:
            self._proxy_header = begun + seen
            if len(self._proxy_header) >= HEADER_MAX:
                detail = f"no PROXY header in {HEADER_MAX} bytes"
                self._proxy_header_failed("bad_proxy_header", detail)
        else:
            self._proxy_header = b""
            if header.source is not None:  # else the balancer speaks for itself
                self._peer, self._destination = header.source, header.destination
                if self._shared.gate.is_on and not self._takes_seat():
                    return
            self.phase = Phase.HANDSHAKE
            self._readable.stop()
            self._readable.start(self._on_handshake)
            self._on_handshake()

    def _proxy_header_failed(self, reason: str, detail: str) -> None:
        cure = "have it send a PROXY header on every connection, or take it out of accept_proxy_from"
        self._report_failure(Failure(reason, detail, cure, Fault.CLIENT, None, None))
        self.close()

    def _takes_seat(self) -> bool:
        """Whether the client that the header has told of may have one more connection."""
        shared, now = self._shared, clock.monotonic()
        may_tell = self._frontend.gateway is not None and not shared.handshakes.is_busy(now)
        seat = shared.gate.enter(self._peer[0], now, may_tell=may_tell)
        if isinstance(seat, str):
            self.turn_away(seat)
            return False
        self.seat = seat
        return True

    def _on_handshake(self) -> None:
        if self._tls.offer is None:
            self._begin_or_ask(clock.monotonic())
        else:
            self._go_on_with_handshake()

    def _begin_or_ask(self, now: float) -> None:
        """Take the handshake's first step; or only read the ClientHello, when there is a lot to do."""
        self._tls.stops_at_hello = self._shared.handshakes.holds_back(now)
        self._go_on_with_handshake()

    def _go_on_with_handshake(self) -> None:
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
        if outcome == DONE:
            self._handshake_done()
        elif outcome == WANT_WRITE:
            self._wait_to_write_handshake()
        elif outcome == HELLO:
            self._ask_to_begin()

    # The ClientHello has come, no crypto has been done: whether to begin, and when.

    def _ask_to_begin(self) -> None:
        shared, now, resumes = self._shared, clock.monotonic(), self._tls.offers_session
        if not shared.gate.may_begin(self.seat, now, resumes=resumes):
            self.turn_away("handshakes_per_client")
            return
        if not shared.handshakes.join(self, now, resumes=resumes):
            self.phase = Phase.WAITING
            self._readable.stop()

    def begin_handshake(self, *, waited: bool) -> None:
        """It is this client's turn; one that has left while it `waited` is not worth the crypto."""
        try:
            was_waiting, self.phase = self.phase == Phase.WAITING, Phase.HANDSHAKE
            if waited and self._has_left():
                detail = "the client left while its handshake waited to begin"
                cure = "nothing, if it is rare; else the server has too much to do"
                self._report_failure(
                    Failure("client_closed", detail, cure, Fault.CLIENT, None, None, client_left=True)
                )
                self.close()
                return
            if was_waiting:
                self._readable.start(self._on_handshake)
            self._advance_handshake()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _has_left(self) -> bool:
        try:
            return not peek(self._fd, 1)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def turn_away(self, limit: str) -> None:
        """A limit does not let this client in: it is cut off without a word, which costs least."""
        self._shared.count_drop(self._frontend.tally, limit, self._peer[0])
        reset_on_close(self._fd)
        self.close()

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
        tls, counts = self._tls, self._shared.counts
        self._handshaken = now = clock.monotonic()
        counts.add(_HANDSHAKES)
        tally, seconds, cpu = self._frontend.tally, now - self._accepted, tls.handshake_nanoseconds
        if tls.resumed:
            counts.add(_RESUMED)
            count_resumed(tally, seconds, cpu, tls.ticket_age, from_cache=tls.from_cache)
        else:
            count_full(tally, seconds, cpu, tls.miss)
            if tls.offers_session:
                self._shared.handshakes.was_full()
                self._shared.gate.was_full(self.seat, now)
        count_agreed(tally, tls.cipher_number, tls.group_number)
        choice = tls.note
        if choice is not None:
            self._served = choice.served
        self._begin()

    def _begin(self) -> None:
        """Go on to what a subclass is for; the client's watcher is stopped."""
        raise NotImplementedError

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
        shared.counts.add(_HANDSHAKES_FAILED)
        self._frontend.tally.add(FAILED[reason])
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
            shut_down_writing(self._fd)
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

    # Deadlines and the way out.

    def on_deadline(self, now: float) -> None:
        """The worker's call: the time of this phase is over."""
        try:
            self._deadline_passed(now)
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _deadline_passed(self, now: float) -> None:
        if self.phase == Phase.PROXY_HEADER:
            timeout = self._shared.timeouts.handshake
            self._proxy_header_failed("no_proxy_header", f"not whole within {timeout:g} s")
        elif self.phase == Phase.WAITING:
            self.turn_away("handshake_queue")
        elif self.phase == Phase.HANDSHAKE:
            timeout = self._shared.timeouts.handshake
            self._report_failure(timed_out(timeout, self._tls.offer))
            self.close()
        elif self.phase == Phase.LINGERING:
            self.close()
        else:
            self._time_is_over(now)

    def _time_is_over(self, now: float) -> None:
        """The time of a subclass's phase is over."""
        raise NotImplementedError

    def drain(self) -> None:
        """The worker takes no more clients: end as soon as nothing is lost by it, and what is idle when
        `shared.idle_until` has come.
        """

    def drain_is_over(self) -> None:
        """The worker stops and cannot wait longer."""
        try:
            detail = "the worker stopped before the client did"
            if self.phase in _BEFORE_TLS:
                self._report_failure(
                    Failure("drain_timeout", detail, "raise timeouts.drain", Fault.NONE, None, None)
                )
            elif self.phase != Phase.LINGERING:
                self._cut_off("drain_timeout", Fault.NONE, detail)
            self.close()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _crashed(self, error: Exception) -> None:
        """A bug of ours ends this connection, and nothing else."""
        log.error("%r failed; please report this", self, exc_info=error)
        name = type(error).__name__
        if self.phase in _BEFORE_TLS:
            cure = "report this, with the traceback in the log"
            self._report_failure(Failure("internal_error", name, cure, Fault.PROXY, None, None))
        elif self.phase not in (Phase.LINGERING, Phase.CLOSED):
            self._cut_off("internal_error", Fault.PROXY, name)
        self.close()

    def _cut_off(self, ended: str, fault: Fault, detail: str) -> None:
        """What goes on does not end by itself: report it, and let the backend know."""
        self._report(ended, fault, detail)

    def _shut_down_tls(self) -> None:
        """Tell the client that what it has is all."""
        try:
            self._tls.shutdown()
        except TlsError:  # it has gone already
            pass

    def close(self) -> None:
        """Give everything back, once.  What is to be said to either side has been said before."""
        if self.phase == Phase.CLOSED:
            return
        shared = self._shared
        if self.phase == Phase.WAITING:
            shared.handshakes.leave(self)
        self.phase = Phase.CLOSED
        self._stop(self._readable)
        self._stop(self._writable)
        self._readable = self._writable = None
        self._tls.close()
        os.close(self._fd)
        self._give_back()
        if self.seat is not None:
            shared.gate.leave(self.seat)
        shared.deadlines.forget(self)
        shared.connections.discard(self)
        shared.counts.add(_OPEN, -1)
        shared.on_closed()

    def _give_back(self) -> None:
        """What a subclass holds."""

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
        shared.counts.add(_FROM_CLIENTS, tls.plaintext_read)
        shared.counts.add(_FROM_BACKENDS, tls.plaintext_written)
        if shared.access_log is None:
            return
        shared.access_log.write(self._record(ended, fault, detail, alert, alert_from))

    def _record(
        self,
        ended: str,
        fault: Fault,
        detail: str | None,
        alert: str | None,
        alert_from: str | None,
    ) -> ConnectionRecord:
        tls = self._tls
        seconds = clock.monotonic() - self._accepted
        sni, alpn = tls.sni, tls.alpn
        record = ConnectionRecord(clock.wall() - seconds, name_of(self._peer), self._frontend.name)
        record.sni = self._asked_name() or (None if sni is None else printable(sni))
        record.alpn = None if alpn is None else printable(alpn)
        record.bytes_from_client, record.bytes_from_backend = tls.plaintext_read, tls.plaintext_written
        record.seconds = seconds
        record.ended, record.fault, record.detail = ended, fault, detail
        record.alert, record.alert_from = alert, alert_from
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
        elif ended == "certificate_rejected":
            record.certificate = self._served.label_of(tls.own_certificate)
        return record

    def client_certificate(self) -> ClientCertificate | None:
        """What the client has shown and we have verified; None: it showed none."""
        der = self._tls.peer_certificate
        return None if der is None else read_client_certificate(der)

    def _asked_name(self) -> str | None:
        """As our callback read it: OpenSSL tells a resumed session's, and none when we refused."""
        return None if self._tls.note is None else self._tls.note.name

    def _own_address(self) -> SocketName:
        """Where the client has connected to; OSError when the kernel does not know any more."""
        if self._destination is not None:
            return self._destination
        sock = socket.socket(fileno=self._fd)
        try:
            address: SocketName = UNIX_CLIENT if sock.family is socket.AF_UNIX else sock.getsockname()
        finally:
            sock.detach()
        return address


def name_of(peer: Any) -> str:
    """A client, as the access log has it."""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_OPEN = int(Column.OPEN)
_ACCEPTED = int(Column.ACCEPTED)
_HANDSHAKES = int(Column.HANDSHAKES)
_RESUMED = int(Column.HANDSHAKES_RESUMED)
_HANDSHAKES_FAILED = int(Column.HANDSHAKES_FAILED)
_FROM_CLIENTS = int(Column.BYTES_FROM_CLIENTS)
_FROM_BACKENDS = int(Column.BYTES_FROM_BACKENDS)
