"""Mode "http", the backend's side: one request, from its checked head to the end of its answer.

    a server is chosen ─▶ a kept connection, or a new one ─▶ head and body go ─▶ the answer comes back

One accepted request leads to at most one on a backend's connection.  It is sent a second time only when
the connection had been used before and gave no byte of an answer, and when that is safe: nothing of the
request had gone, or its method may be repeated (RFC 9110 §9.2.2) and it had no body.

A backend's connection is kept for others only when all that was asked has been answered on it and
nothing else.  An answer that breaks off leaves the client without its end: the connection is cut.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from termproxy import clock
from termproxy._sockets import reset_on_close
from termproxy.backends.approach import Approach
from termproxy.backends.cluster import Cluster
from termproxy.backends.pool import BackendConnection
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault
from termproxy.http._wire import ChunkedBody, Head, MalformedError
from termproxy.http.answers import answer as own_answer
from termproxy.http.forwarding import response_head
from termproxy.http.head import (
    CHUNKED,
    EXPECT,
    REFERER,
    UNTIL_CLOSE,
    USER_AGENT,
    BadResponseError,
    RefusedRequestError,
    Request,
    Response,
    agreed_upgrade,
    fields_to_remove,
    mask,
    read_response,
    without_fields,
)
from termproxy.observability._tally import Tally
from termproxy.observability.metrics import RESPONSE_SECONDS, RESPONSES, count_connect, count_use
from termproxy.observability.record import ExchangeRecord, printable, without_query
from termproxy.observability.scoreboard import Column
from termproxy.outcome import CLOSED, MORE, SINK_FULL, TRUNCATED
from termproxy.relay.pump import Ready
from termproxy.worker.gateway import Gateway
from termproxy.worker.relaying import BACKEND_LOST, IDLE_CHECKS
from termproxy.worker.shared import HEADROOM

if TYPE_CHECKING:
    from termproxy.worker.http_connection import HttpConnection

# How often the pace of a request's body is looked at.
BODY_LOOK = 5.0  # seconds

INTERIM_MAX = 8  # answers with 1xx before the one that counts

RETRY_AFTER = b"Retry-After: 1\r\n"

# What a client is answered when there is no backend for its request; else it is 502.
_STATUS = {"no_backend": 503, "queue_full": 503, "queue_timeout": 503, "backend_timeout": 504}

_SAFE_TO_REPEAT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


class Exchange:
    """`client` is the connection that it belongs to; `request` is None for one that was refused."""

    __slots__ = (
        "_answer",
        "_answer_end",
        "_approach",
        "_backend",
        "_blocked",
        "_body_since",
        "_chunks",
        "_client",
        "_closes",
        "_cluster",
        "_connected",
        "_first_byte",
        "_held",
        "_interim",
        "_is_kept",
        "_is_over",
        "_keeps_backend",
        "_left",
        "_lost",
        "_out",
        "_quiet_since",
        "_rest",
        "_retries",
        "_seen",
        "_server",
        "_status",
        "_upload_chunks",
        "_upload_left",
        "_uploaded",
        "began",
        "request",
        "request_id",
        "wants_body",
    )

    def __init__(self, client: HttpConnection, request: Request | None, now: float) -> None:
        self._client = client
        self.request = request
        self.began = now
        self.request_id = b""
        self.wants_body = False
        """Whether the request's body has not been read to its end."""
        self._upload_left = 0  # of a body with a length
        self._upload_chunks: ChunkedBody | None = None  # of one in chunks
        self._uploaded = 0
        self._out = b""  # what goes first: the head, and what came of the body with it
        self._rest: memoryview | None = None  # what the backend has not taken yet, and
        self._blocked: Any = None  # the watcher for when it does
        self._lost: OSError | None = None  # why it will not take more
        self._body_since: float  # when the client could begin to send the rest of the body
        self._cluster: Cluster
        self._approach: Approach | None = None
        self._backend: BackendConnection | None = None
        self._server: Server | None = None
        self._retries = 0
        self._held = b""  # what has come of the answer's head
        self._interim = 0
        self._answer: Response | None = None
        self._left = 0  # of its body: bytes, CHUNKED or UNTIL_CLOSE
        self._chunks: ChunkedBody | None = None
        self._closes = False  # the client's connection ends with the answer
        self._keeps_backend = False
        self._is_over = False  # all of the answer has been read
        self._status = 0
        self._connected: float | None = None  # to a backend, anew
        self._is_kept: bool | None = None  # whether the connection to it was there; None: there is none
        self._first_byte: float | None = None
        self._answer_end: tuple[str, Fault, str | None] = _WELL
        self._seen = 0  # bytes that had passed when we last looked, and
        self._quiet_since = now  # since when none has

    # The request.

    def take_body(self, data: Any, start: int, end: int) -> int:
        """Take what has come of the body with the head; where the next request begins.

        MalformedError or RefusedRequestError for a body that must not pass.
        """
        request, most = self.request, self._client.gateway.body_max
        assert request is not None  # noqa: S101 - the caller has read it
        if request.body == 0:
            return start
        if request.body == CHUNKED:
            self._upload_chunks = chunks = ChunkedBody()
            piece = bytearray(data[start:end])
            passes = chunks.feed(piece, 0, len(piece))
            self._out = bytes(piece[:passes])
            self._uploaded = chunks.data_bytes
            self.wants_body = not chunks.is_done
            start += chunks.used
        else:
            here = min(request.body, end - start)
            self._out = bytes(data[start : start + here])
            self._uploaded, self._upload_left = here, request.body - here
            self.wants_body = self._upload_left > 0
            start += here
        if most and max(self._uploaded, request.body) > most:
            raise RefusedRequestError("body_too_large", 413)
        return start

    def begin(self, now: float, candidates: Iterator[Server] | None = None) -> None:
        """Find a backend for the request, and send it there.

        `candidates`: the servers to try, when the cluster has been asked for them already.
        """
        client, request = self._client, self.request
        assert request is not None  # noqa: S101 - refused ones do not begin
        served = client.served_for(request.host)
        if served is None:
            self.answer_ourselves(421, "misdirected_request", Fault.CLIENT)
            return
        self._cluster = client.gateway.routes.find(request.host, request.target) or served.cluster
        self.request_id = client.shared.next_request_id()
        self._out = client.forwarded_head(request, self.request_id) + self._out
        if self.wants_body:
            client.listen(to_client=False)  # until there is somebody to read it
        self._find_backend(now, candidates)

    def take_over(
        self, backend: BackendConnection, cluster: Cluster, out: bytes, request_id: bytes
    ) -> None:
        """Go on with a request that has been sent at once: it is not as plain as it seemed."""
        self._cluster, self._out, self.request_id = cluster, out, request_id
        self._backend, self._server, self._is_kept = backend, backend.server, True
        self._hear(backend)

    def send_failed(self, error: OSError) -> None:
        """Nothing of the request could be sent."""
        if isinstance(error, BlockingIOError):
            self.keep_rest_of_head(0)
        else:
            self.backend_lost(error, nothing_sent=True)

    def keep_rest_of_head(self, sent: int) -> None:
        """So many bytes were taken; the rest has to wait."""
        self._client.await_until(clock.monotonic() + self._client.shared.timeouts.response)
        self._keep_rest(memoryview(self._out)[sent:])

    def _find_backend(
        self,
        now: float,
        candidates: Iterator[Server] | None = None,
        *,
        approach: Approach | None = None,
        fresh: bool = False,
    ) -> None:
        """Take a kept connection, unless it has to be `fresh`, or make one.

        `approach` is one that has waited in the queue, for when it goes on.
        """
        client, cluster = self._client, self._cluster
        key = client.client_address.encode() if cluster.by_client else b""
        if candidates is None:
            candidates = cluster.candidates(now, key)
        server = next(candidates, None)
        if server is not None:
            pool = client.pool_for(cluster)
            backend = None if fresh else pool.take(server)
            if backend is not None:
                if self._may_repeat or backend.is_alive():
                    server.begin()
                    self._use(backend, now)
                    return
                backend.close()
            candidates = chain((server,), candidates)
        if approach is None:
            approach = Approach(
                client.shared.loop,
                cluster,
                key,
                client.shared.timeouts.connect,
                (self._on_settled, self._on_failure),
                candidates,
            )
        else:
            approach.go_on_with(candidates)
        self._approach = approach
        self._go_on_approaching()

    def _on_settled(self) -> None:
        self._client.guarded(self._settle)

    def _settle(self) -> None:
        approach = self._approach
        assert approach is not None  # noqa: S101 - it calls
        if approach.is_called:
            # What made room may be a connection that is kept: a server with room for one only would
            # not answer on another.
            self._approach = None
            self._find_backend(clock.monotonic(), approach=approach)
        else:
            self._go_on_approaching()

    def _on_failure(self, server: Server, error: BackendError) -> None:
        self._client.backend_failed(self._cluster, server, error)

    def _go_on_approaching(self) -> None:
        approach, client = self._approach, self._client
        assert approach is not None  # noqa: S101 - of this phase
        now = clock.monotonic()
        try:
            sock = approach.advance(now)
        except BackendError as error:
            self._server = approach.server
            status = _STATUS.get(error.reason, 502)
            extra = RETRY_AFTER if status == 503 else b""
            self.answer_ourselves(status, error.reason, error.fault, str(error), extra)
            return
        if sock is None:
            client.await_until(approach.deadline)
            return
        assert approach.server is not None  # noqa: S101 - it has a socket
        self._approach = None
        self._connected = now
        watcher = client.shared.loop.io(sock.fileno(), Ready.READABLE)
        self._use(BackendConnection(sock, approach.server, watcher), now)

    def _use(self, backend: BackendConnection, now: float) -> None:
        self._backend, self._server = backend, backend.server
        self._is_kept = backend.uses > 0
        if not backend.uses:
            self._out = self._client.introduction(self._cluster) + self._out
        backend.uses += 1
        self._hear(backend)
        try:
            sent = backend.sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.backend_lost(error, nothing_sent=True)
            return
        self._quiet_since = now
        if self.wants_body:
            self._body_since = now
            self._client.await_until(now + BODY_LOOK)
        else:
            self._client.await_until(now + self._client.shared.timeouts.response)
        if sent < len(self._out):
            self._keep_rest(memoryview(self._out)[sent:])
        elif self.wants_body:
            self._client.listen(to_client=True)

    def _hear(self, backend: BackendConnection) -> None:
        """Be called whenever it has sent something."""
        if backend.watcher.active:
            backend.watcher.callback = self._on_backend
        else:
            backend.watcher.start(self._on_backend)

    @property
    def _may_repeat(self) -> bool:
        request = self.request
        return request is not None and request.body == 0 and request.method in _SAFE_TO_REPEAT

    # The request's body.

    def pass_body_on(self) -> None:
        """The client has sent more of it."""
        if self._backend is None or self._rest is not None:
            self._client.listen(to_client=False)
        elif self._upload_chunks is not None:
            self._pass_chunks_on(self._upload_chunks, self._backend)
        else:
            self._pass_bytes_on(self._backend)

    def _pass_bytes_on(self, backend: BackendConnection) -> None:
        client, tls = self._client, self._client.tls
        before = tls.plaintext_read
        try:
            outcome = tls.decrypt_to(backend.fd, client.shared.scratch, self._upload_left)
        except OSError as error:
            self._upload_failed(error)
            return
        moved = tls.plaintext_read - before
        self._upload_left -= moved
        self._uploaded += moved
        self.wants_body = self._upload_left > 0
        if outcome == SINK_FULL:
            self._keep_rest(memoryview(client.shared.scratch.take_rest()))
        elif outcome in (CLOSED, TRUNCATED):
            self._client_left_in_body()
        elif not self.wants_body:
            self._all_is_sent()
        elif outcome == MORE:
            client.soon(client.on_client)

    def _pass_chunks_on(self, chunks: ChunkedBody, backend: BackendConnection) -> None:
        client = self._client
        buffer = client.shared.buffer
        count = client.tls.read_into(buffer)
        if count <= 0:
            if count in (CLOSED, TRUNCATED):
                self._client_left_in_body()
            return
        try:
            passes = chunks.feed(buffer, 0, count)
        except MalformedError as error:
            self.answer_ourselves(400, error.reason, Fault.CLIENT)
            return
        self._uploaded = chunks.data_bytes
        if client.gateway.body_max and self._uploaded > client.gateway.body_max:
            self.answer_ourselves(413, "body_too_large", Fault.CLIENT)
            return
        if chunks.is_done:
            self.wants_body = False
            if chunks.used < count:
                client.put_back(bytes(buffer[chunks.used : count]))
                client.listen(to_client=False)
        self._pass_piece_on(buffer[:passes], backend)

    def _pass_piece_on(self, piece: memoryview, backend: BackendConnection) -> None:
        client = self._client
        try:
            sent = backend.sock.send(piece) if piece else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._upload_failed(error)
            return
        if sent < len(piece):
            self._keep_rest(memoryview(bytes(piece[sent:])))
        elif not self.wants_body:
            self._all_is_sent()
        elif client.tls.pending():
            client.soon(client.on_client)

    def _keep_rest(self, rest: memoryview) -> None:
        """The backend takes no more now: the client is not read until it does."""
        assert self._backend is not None  # noqa: S101 - it was written to
        self._rest = rest
        self._client.listen(to_client=False)
        self._blocked = self._client.shared.loop.io(self._backend.fd, Ready.WRITABLE)
        self._blocked.start(self._on_backend_writable)

    def _on_backend_writable(self) -> None:
        self._client.guarded(self._push_rest)

    def _push_rest(self) -> None:
        assert self._backend is not None  # noqa: S101 - there is a watcher on it
        assert self._rest is not None  # noqa: S101 - why there is one
        try:
            sent = self._backend.sock.send(self._rest)
        except BlockingIOError:
            return
        except OSError as error:
            self._upload_failed(error)
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            self._stop_pushing()
            self._listen_again()
            if not self.wants_body:
                self._all_is_sent()

    def _listen_again(self) -> None:
        """There was something that the backend had not taken."""
        if not self._client.has_input:
            self._client.listen(to_client=True)

    def _all_is_sent(self) -> None:
        """From now on it is the backend's time."""
        if self._answer is None:
            self._quiet_since = now = clock.monotonic()
            self._client.await_until(now + self._client.shared.timeouts.response)

    def _stop_pushing(self) -> None:
        self._rest = None
        if self._blocked is not None:
            self._blocked.stop()
            self._blocked.close()
            self._blocked = None

    def _upload_failed(self, error: OSError) -> None:
        """The backend takes no more; but it may have said why before, which is the answer.

        So what it has sent is read, to the end.  There is always something that it has not taken.
        """
        self._stop_pushing()
        self._rest, self._lost = _NOTHING, error
        self._client.listen(to_client=False)
        self._closes = self._closes or self.wants_body
        self._all_is_sent()

    def _client_left_in_body(self) -> None:
        self._client.end_early(
            "client_closed", Fault.CLIENT, "the client left in the middle of its request"
        )

    # The answer.

    def _on_backend(self) -> None:
        self._client.guarded(self._backend_is_readable)

    def _backend_is_readable(self) -> None:
        backend = self._backend
        assert backend is not None  # noqa: S101 - it calls
        try:
            if self._answer is None:
                self._read_answer(backend)
            elif self._chunks is not None:
                self._pass_answer_chunks(backend, self._chunks)
            else:
                self._pass_answer_bytes(backend)
        except BlockingIOError:
            pass  # libev's events are hints
        except OSError as error:
            self.backend_lost(error)

    def _read_answer(self, backend: BackendConnection) -> None:
        """Receive the answer's head, and what comes with it."""
        shared = self._client.shared
        buffer, held = shared.buffer, self._held
        if held:
            buffer[HEADROOM : HEADROOM + len(held)] = held
        end = HEADROOM + len(held)
        count = backend.sock.recv_into(buffer[end:] if held else shared.behind_headroom)
        if count == 0:
            self.backend_lost(None)
            return
        self.take_answer(buffer, HEADROOM, end + count)

    def take_answer(self, buffer: memoryview, start: int, end: int) -> None:
        """What is between `start` and `end` in the worker's buffer is how the answer begins."""
        try:
            self._take_answer(buffer, start, end)
        except (MalformedError, BadResponseError) as error:
            self._bad_answer(error.reason)

    def was_answered(self, status: int, now: float, *, closes: bool) -> None:
        """The whole answer has been written to the client, which has not taken all of it yet."""
        self._closes = closes
        self._status, self._first_byte = status, now
        self._is_over = self._keeps_backend = True
        self._written(is_taken=False)

    def _take_answer(self, buffer: memoryview, start: int, end: int) -> None:
        request, client = self.request, self._client
        assert request is not None  # noqa: S101 - it was sent
        while True:
            head = client.gateway.responses.response(buffer, start, end)
            if head is None:
                self._held = bytes(buffer[start:end])
                return
            start += head.length
            if names := fields_to_remove(head):
                head = without_fields(client.gateway.responses, head, names)
            answer = read_response(head, request.method)
            if answer.status >= 200:
                break
            if answer.status == 101:
                self._switch_protocols(answer, bytes(buffer[start:end]))
                return
            self._interim += 1
            if self.wants_body:  # which it may have waited for this to send
                self._body_since = self._quiet_since = clock.monotonic()
            if self._interim > INTERIM_MAX:
                raise BadResponseError("too_many_interim_answers")
            if request.head.minor:  # HTTP/1.0 has none
                interim = response_head(answer, http_1_0=False, close=False, hsts=b"")
                client.send(interim, 0, len(interim))
            if start == end:
                self._held = b""
                return
        self._pass_answer(answer, buffer, start, end)

    def _pass_answer(self, answer: Response, buffer: memoryview, start: int, end: int) -> None:
        """Send the head, and what has come of the body with it."""
        request, client, backend = self.request, self._client, self._backend
        assert request is not None  # noqa: S101 - it was sent
        assert backend is not None  # noqa: S101 - it has answered
        here = 0
        self._left = body = answer.body
        if body > 0:
            here = min(body, end - start)
            self._left -= here
            extra = end - start > here
        elif body == CHUNKED:
            self._chunks = chunks = ChunkedBody(decode=not request.head.minor)
            here = chunks.feed(buffer, start, end)
            extra = chunks.used < end - start
        elif body == UNTIL_CLOSE:
            here, extra = end - start, False
        else:
            extra = end > start
        self._closes = (
            self._closes
            or not request.keep_alive
            or self.wants_body
            or body == UNTIL_CLOSE
            or (body == CHUNKED and not request.head.minor)
            or client.client_has_ended
            or client.shared.draining
        )
        self._keeps_backend = answer.keep_alive and not extra
        self._first_byte = clock.monotonic()
        self._answer, self._status, self._held, self._out = answer, answer.status, b"", b""
        backend.server.succeeded()
        head = response_head(
            answer, http_1_0=not request.head.minor, close=self._closes, hsts=client.gateway.hsts
        )
        self._is_over = self._has_ended()
        if len(head) <= start:
            buffer[start - len(head) : start] = head
            is_taken = client.send(buffer, start - len(head), start + here)
        else:
            is_taken = client.send(head + buffer[start : start + here], 0, len(head) + here)
        if not self._is_over:
            self._time_the_rest()
        self._written(is_taken=is_taken)

    def _time_the_rest(self) -> None:
        """The answer goes on: from now on no byte of it may be waited for too long."""
        assert self._first_byte is not None  # noqa: S101 - it has begun
        client, self._quiet_since = self._client, self._first_byte
        self._seen = client.tls.plaintext_read + client.tls.plaintext_written
        client.await_until(self._first_byte + client.shared.timeouts.idle / IDLE_CHECKS)

    def _has_ended(self) -> bool:
        return self._chunks.is_done if self._chunks is not None else self._left == 0

    def _pass_answer_bytes(self, backend: BackendConnection) -> None:
        """The next of a body with a length, or of one that ends with its connection."""
        client, tls = self._client, self._client.tls
        if self._left == UNTIL_CLOSE:
            outcome = tls.encrypt_from(backend.fd, client.shared.scratch)
            if outcome == CLOSED and self._was_cut:
                self.backend_lost(None)
            elif outcome == CLOSED:
                self._is_over = True
                self._written(is_taken=True)
            elif outcome == SINK_FULL:
                self._client_is_full(backend, client.shared.scratch.take_rest())
            return
        before = tls.plaintext_written
        outcome = tls.encrypt_from(backend.fd, client.shared.scratch, self._left)
        self._left -= tls.plaintext_written - before
        if outcome == SINK_FULL:
            rest = client.shared.scratch.take_rest()
            self._left -= len(rest)
            self._client_is_full(backend, rest)
        elif outcome == CLOSED:
            self.backend_lost(None)
        else:
            self._see_whether_it_is_over(backend)
            self._written(is_taken=True)

    @property
    def _was_cut(self) -> bool:
        """Whether the backend's end may be no end: send() has taken the error that recv() would tell."""
        return self._lost is not None and self._lost.errno != errno.EPIPE  # which comes after an end

    def _see_whether_it_is_over(self, backend: BackendConnection) -> None:
        self._is_over = self._left == 0
        if self._is_over and self._keeps_backend:
            # We have not read further: what stands behind the body would answer the next request.
            self._keeps_backend = backend.is_alive()

    def _client_is_full(self, backend: BackendConnection, rest: bytes) -> None:
        self._see_whether_it_is_over(backend)
        self._client.keep_rest(rest)
        self._written(is_taken=False)

    def _pass_answer_chunks(self, backend: BackendConnection, chunks: ChunkedBody) -> None:
        buffer = self._client.shared.buffer
        count = backend.sock.recv_into(buffer)
        if count == 0:
            self.backend_lost(None)
            return
        try:
            passes = chunks.feed(buffer, 0, count)
        except MalformedError as error:
            self._bad_answer(error.reason)
            return
        self._is_over = chunks.is_done
        self._keeps_backend = self._keeps_backend and chunks.used == count
        self._written(is_taken=self._client.send(buffer, 0, passes))

    def _written(self, *, is_taken: bool) -> None:
        """Something has been given to the client: go on when it has taken it."""
        if not is_taken:
            if self._backend is not None:
                self._backend.watcher.stop()
        elif self._is_over:
            self._finish()

    def on_client_ready(self) -> None:
        """The client has taken all that it was given."""
        if self._is_over:
            self._finish()
        elif self._status == SWITCHING:
            self._hand_over()
        elif self._backend is not None:
            self._hear(self._backend)

    def _finish(self) -> None:
        backend = self._backend
        if backend is not None:
            self._backend = None
            backend.server.end()
            if self._keeps_backend and not self.wants_body and self._rest is None:
                self._hear(backend)  # it was stopped for the client's sake, perhaps
                pool = self._client.pool_for(self._cluster)
                pool.give(backend, self._cluster.settings.idle_connections, clock.monotonic())
            else:
                backend.close()
                if self._rest is not None:
                    self._stop_pushing()
                    self._listen_again()
        self._client.exchange_is_over(*self._answer_end, close=self._closes or self.wants_body)

    # Upgrades.

    def _switch_protocols(self, answer: Response, rest: bytes) -> None:
        """The backend agrees to another protocol (RFC 9110 §7.8): bytes pass from here on."""
        request = self.request
        assert request is not None  # noqa: S101 - it was sent
        protocol = agreed_upgrade(answer.head, request)
        if protocol is None:
            raise BadResponseError("unasked_upgrade")
        more = b"Connection: upgrade\r\nUpgrade: %b\r\n" % protocol
        head = response_head(answer, http_1_0=False, close=False, hsts=b"", more=more)
        self._status, self._first_byte = SWITCHING, clock.monotonic()
        if self._client.send(head + rest, 0, len(head) + len(rest)):
            self._hand_over()
        else:
            self._written(is_taken=False)

    def _hand_over(self) -> None:
        backend, self._backend = self._backend, None
        assert backend is not None  # noqa: S101 - it has agreed
        backend.watcher.stop()
        backend.watcher.close()
        self._client.upgrade(backend.sock, backend.server)

    # Answers of our own, and ends before their time.

    def answer_ourselves(
        self, status: int, reason: str, fault: Fault, detail: str | None = None, extra: bytes = b""
    ) -> None:
        """The client gets an answer of ours, if it has not begun to get another one."""
        client, request = self._client, self.request
        was_held_up = self._rest is not None
        self.abandon()
        if self._has_begun:
            client.end_early(reason, fault, detail)
            return
        self._status, self._answer_end = status, (reason, fault, detail)
        self._closes = (
            self._closes
            or request is None
            or not (request.keep_alive and request.head.minor)  # which would wait for a word on that
            or self.wants_body
            or client.client_has_ended
            or client.shared.draining
        )
        self._is_over = True
        with_body = request is None or request.method != b"HEAD"
        if client.gateway.hsts:
            extra += b"Strict-Transport-Security: %b\r\n" % client.gateway.hsts
        data = own_answer(status, close=self._closes, with_body=with_body, extra=extra)
        if was_held_up:
            self._listen_again()
        self._written(is_taken=client.send(data, 0, len(data)))

    def refuse(self, error: RefusedRequestError) -> None:
        """Answer a request that goes no further.  Where the next one would begin is not looked for."""
        self.wants_body = True
        extra = RETRY_AFTER if error.status == 429 else b""
        self.answer_ourselves(error.status, error.reason, Fault.CLIENT, extra=extra)

    @property
    def _has_begun(self) -> bool:
        """Whether the client has, or gets now, an answer: another one would be taken for its rest."""
        return self._answer is not None or self._is_over or self._status == SWITCHING

    def _bad_answer(self, reason: str) -> None:
        """The backend does not speak HTTP, or says what could be taken in two ways."""
        assert self._server is not None  # noqa: S101 - it has answered
        self._server.failed(clock.monotonic())
        detail = f"{self._server}: its answer is refused: {reason}"
        self.answer_ourselves(502, "bad_answer", Fault.BACKEND, detail)

    def backend_lost(self, error: OSError | None, *, nothing_sent: bool = False) -> None:
        """The backend's connection has ended, or failed, before the answer had."""
        backend, now = self._backend, clock.monotonic()
        assert backend is not None  # noqa: S101 - it was there
        error = error or self._lost
        number = 0 if error is None else error.errno or 0
        reason = "backend_closed" if error is None else BACKEND_LOST.get(number, "backend_failed")
        gave_nothing = self._answer is None and not self._held and not self._interim
        self.abandon()
        was_kept = gave_nothing and backend.uses > 1 and not self._retries
        if was_kept and (nothing_sent or self._may_repeat):
            # It closed while the request was on its way: a kept connection's usual end.
            self._retries += 1
            self._find_backend(now, fresh=True)
            return
        backend.server.failed(now)
        client = self._client
        client.shared.counts.add(_BACKEND_FAILURES)
        detail = f"{backend.server}: {'it hung up' if error is None else error.strerror}"
        self.answer_ourselves(502, reason, Fault.BACKEND, detail)

    def time_is_over(self, now: float) -> None:
        """A deadline has passed: was it for what is awaited now?"""
        client = self._client
        timeouts = client.shared.timeouts
        if self._approach is not None:
            self._approach.time_out(now)
            self._go_on_approaching()
            return
        if self._has_begun:
            self._look_at_the_answer(now, timeouts.idle)
        elif self.wants_body and self._rest is None and not self._awaits_go_ahead:
            self._look_at_the_body(now, timeouts.idle)
        else:
            self._look_for_an_answer(now, timeouts.response)

    def _look_at_the_answer(self, now: float, patience: float) -> None:
        client = self._client
        if self._is_quiet(now, patience):
            fault = Fault.CLIENT if client.is_blocked else Fault.BACKEND
            client.end_early("idle_timeout", fault, f"no byte of the answer for {patience:g} s")
        else:
            client.await_until(min(now + patience / IDLE_CHECKS, self._quiet_since + patience))

    def _look_at_the_body(self, now: float, patience: float) -> None:
        """Whether it comes at all, and as fast on average as it has to."""
        client = self._client
        seconds = now - self._body_since - client.shared.timeouts.request_head
        is_slow = self._uploaded < client.gateway.body_rate * seconds
        if self._is_quiet(now, patience) or is_slow:
            self.answer_ourselves(408, "body_timeout", Fault.CLIENT, "the body came too slowly")
        else:
            client.await_until(now + BODY_LOOK)

    def _look_for_an_answer(self, now: float, patience: float) -> None:
        """The backend has all that there is, or does not take it."""
        if self._blocked is not None:
            self._is_quiet(now, patience)  # as long as it takes some, it has its time anew
        if now - self._quiet_since < patience:
            self._client.await_until(min(now + BODY_LOOK, self._quiet_since + patience))
            return
        if self._server is not None:
            self._server.failed(now)
        detail = f"{self._server}: no answer in {patience:g} s"
        self.answer_ourselves(504, "backend_timeout", Fault.BACKEND, detail)

    def _is_quiet(self, now: float, patience: float) -> bool:
        """Whether no byte has passed for so long, as far as we have looked."""
        client = self._client
        seen = client.tls.plaintext_read + client.tls.plaintext_written
        if seen != self._seen:
            self._seen, self._quiet_since = seen, now
        return now - self._quiet_since >= patience

    @property
    def _awaits_go_ahead(self) -> bool:
        """Whether the client waits to be told that it may send the body (RFC 9110 §10.1.1)."""
        assert self.request is not None  # noqa: S101 - it has a body
        is_asked = self.request.head.seen & _EXPECT and self.request.head.minor
        return bool(is_asked) and not self._uploaded and not self._interim

    def abandon(self) -> None:
        """Let go of the backend, which learns by a reset that nobody waits for it any more."""
        self._stop_pushing()
        if self._approach is not None:
            self._approach.close()
            self._approach = None
        backend = self._backend
        if backend is not None:
            self._backend = None
            backend.server.end()
            reset_on_close(backend.fd)
            backend.close()

    # What is told of it.

    def count(self, counts: Tally, tally: Tally) -> None:
        counts.add(_REQUESTS)
        if self._status:
            tally.add(RESPONSES[self._status // 100])
        if self._is_kept is not None:
            count_use(tally, kept=self._is_kept)
        if self._connected is not None:
            count_connect(tally, self._connected - self.began)
        if self._first_byte is not None:
            tally.observe(RESPONSE_SECONDS, self._first_byte - self.began)

    def describe(self, record: ExchangeRecord, names_agent: bool) -> None:  # noqa: FBT001 - C calls it
        """For the access log: what was asked, by whom it was answered, and when."""
        request = self.request
        if request is not None:
            describe_request(record, request.head, self._client.gateway, names_agent)
            record.host = request.host
        record.status = self._status or None
        record.request_id = self.request_id.decode() or None
        record.backend = None if self._server is None else self._server.name
        record.retries = self._retries
        if self._first_byte is not None:
            record.first_byte_seconds = self._first_byte - self.began


def describe_request(
    record: ExchangeRecord,
    head: Head,
    gateway: Gateway,
    names_agent: bool,  # noqa: FBT001 - as above
) -> None:
    """For the access log: what of a request's head is written down, and its agent if that is, too."""
    record.method, record.minor = head.method.decode(), head.minor  # a token is plain
    record.path = printable(head.target if gateway.logs_query else without_query(head.target))
    if names_agent:
        referer, user_agent = head.value(REFERER), head.value(USER_AGENT)
        record.referer = None if referer is None else printable(referer)
        record.user_agent = None if user_agent is None else printable(user_agent)


SWITCHING = 101

_WELL = ("done", Fault.NONE, None)
_NOTHING = memoryview(b"")
_EXPECT = mask(EXPECT)
_REQUESTS = int(Column.REQUESTS)
_BACKEND_FAILURES = int(Column.BACKEND_FAILURES)
