"""Mode "tcp": connect to a backend of the cluster, and relay bytes both ways until both ends have ended.

The two pumps do the copying; this file decides what an end or a failure of one means for the other.  An
abort stays an abort: a client that vanishes without close_notify resets its backend, and a backend that
resets leaves its client without close_notify, so that neither takes a part for the whole.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from termproxy import clock
from termproxy._sockets import Socket, reset_on_close
from termproxy.backends.approach import Approach
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault, TlsError
from termproxy.observability.metrics import count_connect
from termproxy.observability.record import ConnectionRecord
from termproxy.observability.scoreboard import Column
from termproxy.relay.proxy_protocol import ShownCertificate, TlsFacts, header_v1, header_v2
from termproxy.relay.pump import Pump, Ready, relay
from termproxy.tls.certificates import algorithms_of
from termproxy.tls.failures import explain
from termproxy.worker.connection import ClientConnection, Phase
from termproxy.worker.frontend import Frontend
from termproxy.worker.shared import Shared

log = logging.getLogger("worker")

# How many times within the idle timeout we look whether bytes have passed.
IDLE_CHECKS = 8

BACKEND_LOST = {
    errno.ECONNRESET: "backend_reset",
    errno.EPIPE: "backend_reset",
    errno.ENOTCONN: "backend_reset",
    errno.ETIMEDOUT: "backend_timeout",
}


class RelayingConnection(ClientConnection):
    __slots__ = (
        "_backend",
        "_backend_lost",
        "_bytes_seen",
        "_connected",
        "_connecting",
        "_quiet_since",
        "_server",
        "_to_backend",
        "_to_client",
    )

    def __init__(self, shared: Shared, frontend: Frontend, fd: int, peer: Any) -> None:
        super().__init__(shared, frontend, fd, peer)
        self._connecting: Approach | None = None
        self._server: Server | None = None
        self._backend: Socket | None = None
        self._backend_lost: OSError | None = None
        self._to_backend: Pump | None = None
        self._to_client: Pump | None = None
        self._bytes_seen = 0
        self._quiet_since = 0.0
        self._connected: float | None = None

    def _begin(self) -> None:
        self.phase = Phase.CONNECTING
        self._connecting = Approach(
            self._shared.loop,
            self._served.cluster,
            self._balancing_key(),
            self._shared.timeouts.connect,
            (self._on_settled, self.on_backend_failure),
        )
        self._connect()

    # Connect.

    def _on_settled(self) -> None:
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _connect(self) -> None:
        assert self._connecting is not None  # noqa: S101 - of this phase
        try:
            backend = self._connecting.advance(clock.monotonic())
        except BackendError as error:
            self._server = self._connecting.server
            self._shut_down_tls()
            self._report(error.reason, error.fault, str(error))
            self.close()
            return
        if backend is not None:
            assert self._connecting.server is not None  # noqa: S101 - it has accepted
            server, self._connecting = self._connecting.server, None
            self._relay(backend, server, self.introduction(self._served.cluster))
        else:
            self._shared.deadlines.set(self, self._connecting.deadline)

    def on_backend_failure(self, server: Server, error: BackendError) -> None:
        self.backend_failed(self._served.cluster, server, error)

    def backend_failed(self, cluster: Cluster, server: Server, error: BackendError) -> None:
        shared, now = self._shared, clock.monotonic()
        shared.counts.add(_BACKEND_FAILURES)
        if shared.warnings.admits(f"failures of server {server}", now):
            log.warning("cluster %s: %s", cluster.name, error)

    # Relay.

    def _relay(self, backend: Socket, server: Server, ahead: bytes = b"") -> None:
        """Pass bytes both ways; `ahead` is to be sent before what the client sends."""
        shared = self._shared
        if ahead:
            # It nearly always fits, which saves the waiting.
            try:
                ahead = ahead[backend.send(ahead) :]
            except OSError:
                pass  # the pump meets it again
        self.phase = Phase.RELAYING
        self._backend = backend
        self._server = server
        self._connected = self._quiet_since = now = clock.monotonic()
        if self._handshaken is not None:
            count_connect(self._frontend.tally, now - self._handshaken)
        idle = self._idle_timeout()
        if self.deadline > now + idle:
            shared.deadlines.set(self, now + idle / IDLE_CHECKS)
        # Else the deadline of the phase before, which comes early enough, is the first look.
        client = (self._tls, self._fd)
        callbacks = (self._on_end, self._on_relay_failure)
        self._to_backend, self._to_client = relay(
            shared.loop, shared.scratch, client, backend, callbacks
        )
        self._to_client.start(shared.loop.io(backend.fileno(), Ready.READABLE))
        readable, self._readable = self._readable, None
        self._to_backend.start(readable, ahead)
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
                self._backend_was_good()
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

    def _backend_was_good(self) -> None:
        if self._server is not None:
            self._server.succeeded()

    def _report_backend_lost(self, error: OSError) -> None:
        if self._server is not None and not self._tls.plaintext_written:
            self._server.failed(clock.monotonic())
        reason = BACKEND_LOST.get(error.errno or 0, "backend_failed")
        self._shared.counts.add(_BACKEND_FAILURES)
        self._report(reason, Fault.BACKEND, f"{self._server}: {error.strerror}")

    # Deadlines and the way out.

    def _time_is_over(self, now: float) -> None:
        if self.phase == Phase.CONNECTING and self._connecting is not None:
            self._connecting.time_out(now)
            self._connect()
        else:
            self._look_for_idleness(now)

    def _look_for_idleness(self, now: float) -> None:
        """Bytes that have passed show in the binding's counters, so the byte path keeps no time."""
        idle = self._idle_timeout()
        seen = self._tls.plaintext_read + self._tls.plaintext_written
        if seen != self._bytes_seen:
            self._bytes_seen, self._quiet_since = seen, now
            if self._tls.plaintext_written:
                self._backend_was_good()
        if now - self._quiet_since >= idle:
            self._shut_down_tls()
            self._report("idle_timeout", Fault.NONE, f"no byte either way for {idle:g} s")
            self.close()
            return
        next_look = min(now + idle / IDLE_CHECKS, self._quiet_since + idle)
        self._shared.deadlines.set(self, next_look)

    def introduction(self, cluster: Cluster) -> bytes:
        """What a connection to a server of `cluster` begins with: a PROXY header, or nothing."""
        version = cluster.settings.send_proxy
        if version == "off":
            return b""
        try:
            destination = self._own_address()
        except OSError:  # the client has gone
            return header_v2(None, None) if version == "v2" else header_v1(None, None)
        if version == "v1":
            return header_v1(self._peer, destination)
        unique_id = self._shared.next_request_id()
        return header_v2(self._peer, destination, self._tls_facts(), unique_id)

    def _tls_facts(self) -> TlsFacts:
        tls = self._tls
        shown, own = self.client_certificate(), tls.own_certificate
        signature, key = (None, None) if own is None else algorithms_of(own)
        return TlsFacts(
            version=tls.version,
            cipher=tls.cipher,
            group=tls.group,
            alpn=tls.alpn,
            sni=self._asked_name(),
            signature_algorithm=signature,
            key_algorithm=key,
            client_certificate=None
            if shown is None
            else ShownCertificate(
                is_verified=True,
                on_this_connection=not tls.resumed,
                common_name=shown.common_name or None,
            ),
        )

    def _balancing_key(self) -> bytes:
        """Who asks, for a cluster that wants to know."""
        return self._peer[0].encode() if self._served.cluster.by_client else b""

    def _idle_timeout(self) -> float:
        return self._shared.timeouts.idle

    def _cut_off(self, ended: str, fault: Fault, detail: str) -> None:
        super()._cut_off(ended, fault, detail)
        self._reset_backend()

    def _reset_backend(self) -> None:
        if self._backend is not None:
            reset_on_close(self._backend.fileno())

    def _give_back(self) -> None:
        for part in (self._to_backend, self._to_client, self._connecting):
            if part is not None:
                part.close()
        self._to_backend = self._to_client = self._connecting = None
        if self._backend is not None:
            self._backend.close()
            if self._tls.plaintext_written:
                self._backend_was_good()
            if self._server is not None:
                self._server.end()

    def _record(
        self,
        ended: str,
        fault: Fault,
        detail: str | None,
        alert: str | None,
        alert_from: str | None,
    ) -> ConnectionRecord:
        record = super()._record(ended, fault, detail, alert, alert_from)
        record.backend = None if self._server is None else self._server.name
        if self._connected is not None and self._handshaken is not None:
            record.connect_seconds = self._connected - self._handshaken
        return record


_BACKEND_FAILURES = int(Column.BACKEND_FAILURES)
