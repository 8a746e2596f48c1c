"""Mode "http", the client's side: reads requests, one after the other, and gives each to an Exchange.

    REQUEST ──a whole head──▶ EXCHANGE ──answered──▶ REQUEST …
                                  └──101──▶ RELAYING (an upgraded connection; see relaying.py)

Requests are answered in the order in which they came; of what a client sends ahead of its answer one
record is read and kept.  What is refused is answered before a byte of it has gone to a backend, and the
connection ends there: where the next message would begin is then anybody's guess.

Nearly all requests and answers are plain: a GET with nothing rare in its head, for which a kept
connection is there, and an answer that comes whole.  They pass as an `_Express`, which takes two fifths
off what a small request costs; at the first thing that is not plain an Exchange goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from termproxy import clock
from termproxy._sockets import Socket
from termproxy.backends.cluster import Cluster
from termproxy.backends.pool import BackendConnection, Pool
from termproxy.backends.server import Server
from termproxy.errors import Fault, TlsError
from termproxy.http._wire import Head, MalformedError
from termproxy.http.forwarding import Forwarder
from termproxy.http.head import (
    AUTHORITY_MAX,
    HOST,
    RefusedRequestError,
    Request,
    fields_to_remove,
    read_authority,
    read_request,
    without_fields,
)
from termproxy.observability.metrics import KEPT, RESPONSE_SECONDS, RESPONSES
from termproxy.observability.record import ConnectionRecord, ExchangeRecord, Facts
from termproxy.observability.scoreboard import Column
from termproxy.outcome import CLOSED, DONE, TRUNCATED, WANT_WRITE
from termproxy.relay.pump import Ready
from termproxy.tls.failures import explain
from termproxy.worker.connection import LINGER, Phase
from termproxy.worker.exchange import Exchange, describe_request
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.gateway import Gateway
from termproxy.worker.relaying import RelayingConnection
from termproxy.worker.shared import HEADROOM, Shared

NOTHING = memoryview(b"")

# A client that sends on, as the rest of a body that was refused, is read for so long in all: many look
# at their answer only when they have sent everything.  nginx's lingering_time.
LINGER_MAX = 30.0  # seconds


class _Way(NamedTuple):
    """How plain requests for a host pass, when nothing is to be decided for each of them."""

    host: bytes
    cluster: Cluster | None  # None: they do not
    without: int = 0  # the mask of the fields that they lose
    added: bytes = b""  # the lines that they get
    is_numbered: bool = False


# A plain request that has been sent, and awaits its answer: its head and when it came; on what it has
# been sent, and for which cluster; what has been sent, and the number of its id.
_Express = tuple[Head, float, BackendConnection, Cluster, bytes, int]


NO_WAY = _Way(b"", None)


class HttpConnection(RelayingConnection):
    __slots__ = (
        "_bytes_read",
        "_bytes_written",
        "_exchange",
        "_express",
        "_facts",
        "_forwarder",
        "_input",
        "_lingers_until",
        "_own_pool",
        "_rest",
        "_served_requests",
        "_way",
        "client_has_ended",
        "gateway",
    )

    def __init__(self, shared: Shared, frontend: Frontend, fd: int, peer: Any) -> None:
        super().__init__(shared, frontend, fd, peer)
        assert frontend.gateway is not None  # noqa: S101 - of this mode
        self.gateway: Gateway = frontend.gateway
        self.client_has_ended = False
        self._served_requests = 0
        self._exchange: Exchange | None = None
        self._express: _Express | None = None
        self._way = NO_WAY  # for the last host
        self._input = b""  # what has come of requests that are not under way
        self._rest = NOTHING  # what the client has not taken yet
        self._forwarder: Forwarder | None = None
        self._own_pool: Pool | None = None  # of connections on which a backend was told who it is
        self._facts: Facts | None = None  # of the handshake, for the access log
        self._bytes_read = self._bytes_written = 0  # when the last exchange ended
        self._lingers_until = self._accepted

    # Requests.

    def _begin(self) -> None:
        self.phase = Phase.REQUEST
        self.await_until((self._handshaken or 0.0) + self._shared.timeouts.request_head)
        self._readable.start(self.on_client)
        if self._tls.pending():  # it came with the handshake's last bytes: no event will tell
            self.on_client()

    def on_client(self) -> None:
        try:
            if self.phase == Phase.REQUEST:
                self._read_request()
            else:
                self._client_is_readable()
        except TlsError as error:
            self._client_failed(error)
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _client_is_readable(self) -> None:
        """In the middle of an exchange."""
        exchange = self._exchange or self._leave_express()
        if exchange.wants_body:
            exchange.pass_body_on()
        else:
            self._read_ahead()

    def _read_request(self) -> None:
        buffer = self._shared.buffer
        count = self._tls.read_into(buffer)
        if count <= 0:
            if count in (CLOSED, TRUNCATED):
                self._no_more_requests(count)
        elif not self._input:
            self._take_request(buffer, count)
        else:
            fresh = bytes(buffer[:count])
            self._input += fresh
            # A head is read again for each of its lines at most, not for each byte that drips in.
            if b"\n" in fresh or len(self._input) >= self.gateway.head_max:
                self._take_input()
            else:
                self._read_on()

    def _follow(self) -> Gateway:
        """The settings have changed: from this request on they hold here, too."""
        assert self._frontend.gateway is not None  # noqa: S101 - of this mode
        self.gateway = self._frontend.gateway
        self._forwarder, self._way = None, NO_WAY
        now_served = self._frontend.served_for(self._asked_name() or "")
        if now_served.policy_group == self._served.policy_group:
            self._served = now_served
        return self.gateway

    def _take_input(self) -> None:
        data, self._input = self._input, b""
        self._take_request(data, len(data), is_known=True)

    def _take_request(self, data: Any, end: int, *, is_known: bool = False) -> None:
        """Begin the exchange that `data` asks for, or keep it until its head is whole."""
        now = clock.monotonic()
        gateway = self.gateway if self.gateway is self._frontend.gateway else self._follow()
        try:
            if self.seat is not None and self.seat.is_over:
                self._refuse_seat()
            head = gateway.requests.request(data, 0, end)
            if head is None:
                self._input = bytes(data[:end])
                if self._served_requests and not is_known:
                    # The head has its own time, from its first byte on.
                    self._shared.deadlines.set(self, now + self._shared.timeouts.request_head)
                self._read_on()
                return
            length = head.length
            candidates: Iterator[Server] | None = None
            if head.is_plain and length == end:
                is_sent, candidates = self._send_at_once(head, end, now)
                if is_sent:
                    return
            if names := fields_to_remove(head):
                head = without_fields(gateway.requests, head, names)
            request = read_request(head, gateway.underscores)
        except (MalformedError, RefusedRequestError) as error:
            self._refuse(error, now)
            return
        exchange = Exchange(self, request, now)
        try:
            used = exchange.take_body(data, length, end)
        except (MalformedError, RefusedRequestError) as error:
            self._refuse(error, now, request)
            return
        if used < end:
            self._input = bytes(data[used:end])
            self._readable.stop()
        else:
            self._input = b""
        self._exchange = exchange
        self._served_requests += 1
        self.phase = Phase.EXCHANGE
        exchange.begin(now, candidates)

    def _refuse_seat(self) -> None:
        """The client has too many connections, and few enough to be told so."""
        self._shared.count_drop(self._frontend.tally, "connections_per_client", self._peer[0])
        raise RefusedRequestError("too_many_connections")

    # Plain ones.

    def _send_at_once(self, head: Head, end: int, now: float) -> tuple[bool, Iterator[Server] | None]:
        """Send a plain request on a kept connection: whether that could be, and if not, the servers to
        try, when the cluster has been asked for them.
        """
        shared = self._shared
        number = next(shared.request_numbers)
        host, cluster, without, added, is_numbered = self._way
        out = head.forward_plain(end, host, without, added, number if is_numbered else -1)
        if out is None:
            host, cluster, without, added, is_numbered = self._find_way(head)
            out = head.forward_plain(end, host, without, added, number if is_numbered else -1)
        if cluster is None or out is None or self._tls.pending():  # pending: no event will tell of that
            return False, None
        candidates = cluster.candidates(now)
        server = next(candidates, None)
        if server is None:
            return False, candidates
        backend = shared.pool.take(server)
        if backend is None:
            return False, chain((server,), candidates)
        backend.uses += 1
        server.begin()
        self._express = (head, now, backend, cluster, out, number)
        self._served_requests += 1
        self.phase = Phase.EXCHANGE
        try:
            sent = backend.sock.send(out)
        except OSError as error:
            self._leave_express().send_failed(error)
            return True, None
        if sent < len(out):
            self._leave_express().keep_rest_of_head(sent)
            return True, None
        backend.watcher.callback = self._on_plain_answer
        self.await_until(now + shared.timeouts.response)
        return True, None

    def _on_plain_answer(self) -> None:
        try:
            self._pass_plain_answer()
        except TlsError as error:
            self._client_failed(error)
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def _pass_plain_answer(self) -> None:
        express = self._express
        assert express is not None  # noqa: S101 - it has been sent
        head, began, backend, cluster, _, number = express
        shared, gateway = self._shared, self.gateway
        try:
            count = backend.sock.recv_into(shared.behind_headroom)
        except BlockingIOError:
            return  # libev's events are hints
        except OSError as error:
            self._leave_express().backend_lost(error)
            return
        if not count:
            self._leave_express().backend_lost(None)
            return
        buffer, end, begin = shared.buffer, HEADROOM + count, -1
        closes = head.closes
        if not shared.draining:
            added = gateway.added_at_end if closes else gateway.added
            begin, status = gateway.responses.pass_plain_answer(
                buffer, HEADROOM, end, gateway.hidden, added
            )
        if begin < 0:
            self._leave_express().take_answer(buffer, HEADROOM, end)
            return
        taken = self._tls.write_all(buffer, begin, end)
        now = clock.monotonic()
        server = backend.server
        server.succeeded()
        if taken < end - begin:
            self._leave_express().was_answered(status, now, closes=closes)
            self.keep_rest(bytes(buffer[begin + taken : end]))
            return
        server.end()
        shared.pool.give(backend, cluster.settings.idle_connections, now)
        self._express = None
        shared.counts.add(_REQUESTS)
        tally = self._frontend.tally
        tally.add(RESPONSES[status // 100])
        tally.add(KEPT)
        tally.observe(RESPONSE_SECONDS, now - began)
        if shared.access_log is not None:
            self._report_plain(head, began, backend, number, status, now)
        if closes:
            self._end(linger=False)
            return
        self.phase = Phase.REQUEST
        self.await_until(now + shared.timeouts.idle)

    def _leave_express(self) -> Exchange:
        """Go on with an Exchange."""
        express, self._express = self._express, None
        assert express is not None  # noqa: S101 - there is something under way
        head, began, backend, cluster, out, number = express
        exchange = Exchange(self, read_request(head), began)
        exchange.take_over(backend, cluster, out, self._shared.request_id(number))
        self._exchange = exchange
        return exchange

    def _find_way(self, head: Head) -> _Way:
        """The way of this one's host; the one that we have, when that is its host already."""
        host = head.value(HOST) or b""
        if host != self._way.host:
            cluster = self._usual_cluster(host)
            if cluster is None:
                self._way = _Way(host, None)
            else:
                if self._forwarder is None:
                    self._forwarder = self._make_forwarder()
                way = self._forwarder.plain_way(host, self._shared.request_prefix)
                self._way = _Way(host, cluster, *way)
        return self._way

    def _usual_cluster(self, authority: bytes) -> Cluster | None:
        """Where plain requests for this host go, when nothing is to be decided for each of them."""
        gateway, cluster = self.gateway, self._served.cluster
        is_usual = (
            self._frontend.is_uniform
            and not gateway.routes
            and not gateway.trusts(self.client_address)
            and not cluster.by_client
            and cluster.settings.send_proxy == "off"
            and len(authority) <= AUTHORITY_MAX
            and read_authority(authority) is not None
        )
        return cluster if is_usual else None

    # What is no request.

    def _refuse(
        self, error: MalformedError | RefusedRequestError, now: float, request: Request | None = None
    ) -> None:
        """Answer what is no request of ours, and end.  `request` is what could be read of it."""
        if isinstance(error, MalformedError):
            error = RefusedRequestError(error.reason)
        self._input = b""
        self._served_requests += 1
        self.phase = Phase.EXCHANGE
        exchange = self._exchange = Exchange(self, request, now)
        exchange.refuse(error)

    def _read_on(self) -> None:
        if self._tls.pending():
            self.soon(self.on_client)

    def _no_more_requests(self, outcome: int) -> None:
        if self._input:
            self._report(
                "client_closed", Fault.CLIENT, "the client left in the middle of a request's head"
            )
        elif not self._served_requests:
            self._report("no_request", Fault.NONE)
        if outcome == CLOSED:
            self._shut_down_tls()
        self.close()

    def _read_ahead(self) -> None:
        """While an answer is on its way: the next requests, or that the client leaves."""
        buffer = self._shared.buffer
        count = self._tls.read_into(buffer)
        if count > 0:
            self._input += bytes(buffer[:count])
            self._readable.stop()  # that will do for now
        elif count == CLOSED:
            # It has no more to ask, but it may still read.
            self.client_has_ended = True
            self._readable.stop()
        elif count == TRUNCATED:
            self.end_early("client_closed", Fault.CLIENT, "the client left before its answer was whole")

    # What an exchange needs of its client.

    @property
    def shared(self) -> Shared:
        return self._shared

    @property
    def tls(self) -> Any:
        return self._tls

    @property
    def client_address(self) -> str:
        host: str = self._peer[0]
        return host

    @property
    def is_blocked(self) -> bool:
        """Whether the client has not taken all that it was sent."""
        return bool(self._rest)

    def served_for(self, host: str) -> Served | None:
        """What the frontend has for a Host; None when it is of another policy group than the handshake's
        name: what was demanded of this client then is not what that host demands.
        """
        if self._frontend.is_uniform or not host:
            return self._served
        served = self._frontend.served_for(host)
        return served if served.policy_group == self._served.policy_group else None

    def await_until(self, deadline: float) -> None:
        """What is awaited next has until `deadline`.  A later one is only noted: see deadlines.py."""
        if self.bucket and deadline >= self.deadline:
            self.deadline = deadline
        else:
            self._shared.deadlines.set(self, deadline)

    def guarded(self, step: Callable[[], None]) -> None:
        """Do `step`: the guard around this connection's callbacks."""
        try:
            step()
        except TlsError as error:
            self._client_failed(error)
        except Exception as error:  # noqa: BLE001 - see _crashed
            self._crashed(error)

    def soon(self, step: Callable[[], None]) -> None:
        """Do `step` in the loop's next turn, when this connection still is."""
        self._shared.loop.run_callback(self._if_open, step)

    def _if_open(self, step: Callable[[], None]) -> None:
        if self.phase not in (Phase.CLOSED, Phase.LINGERING):
            step()

    def listen(self, *, to_client: bool) -> None:
        """Whether what the client sends is read now."""
        if to_client:
            self._readable.start(self.on_client)
            self._read_on()
        else:
            self._readable.stop()

    @property
    def has_input(self) -> bool:
        """Whether it has sent more than the request that is under way."""
        return bool(self._input)

    def put_back(self, ahead: bytes) -> None:
        """What was read behind a request's body is the next request's."""
        self._input = ahead + self._input

    def forwarded_head(self, request: Request, request_id: bytes) -> bytes:
        more = b""
        if self._forwarder is None:
            self._forwarder = self._make_forwarder()
        if not request.authority:  # HTTP/1.0 may leave it out, which goes on as 1.1
            more = b"Host: %b\r\n" % (self._asked_name() or "").encode()
        return self._forwarder.head(request, request_id, more)

    def send(self, buffer: Any, start: int, end: int) -> bool:
        """Whether the client has taken all that is from `start` to `end`.  If not, the rest is kept, and
        the exchange hears of it when it has gone.
        """
        if self._rest:
            self._rest = memoryview(bytes(self._rest) + bytes(buffer[start:end]))
            return False
        taken = self._tls.write_all(buffer, start, end)
        if taken == end - start:
            return True
        self.keep_rest(bytes(memoryview(buffer)[start + taken : end]))
        return False

    def keep_rest(self, rest: bytes) -> None:
        self._rest = memoryview(rest)
        if self._writable is None:
            self._writable = self._shared.loop.io(self._fd, Ready.WRITABLE)
            self._writable.start(self._on_writable)

    def _on_writable(self) -> None:
        self.guarded(self._client_is_writable)

    def _client_is_writable(self) -> None:
        taken = self._tls.write_all(self._rest, 0, len(self._rest))
        self._rest = self._rest[taken:]
        if not self._rest:
            self._rest = NOTHING
            self._stop(self._writable)
            self._writable = None
            if self._exchange is not None:
                self._exchange.on_client_ready()

    # After an exchange.

    def exchange_is_over(self, ended: str, fault: Fault, detail: str | None, *, close: bool) -> None:
        """All of the answer has been written: on to the next request, or to the end."""
        exchange, now = self._exchange, clock.monotonic()
        assert exchange is not None  # noqa: S101 - it calls
        self._report(ended, fault, detail)
        self._exchange = None
        # An answer that began before a drain did not say that it is the last: the next one does.
        if close or (now >= self._shared.idle_until and not self._input):
            # A client that did not mean to stop may be sending, and would lose the answer to a reset.
            request = exchange.request
            sends_on = exchange.wants_body or bool(self._input)
            self._end(linger=sends_on or request is None or request.keep_alive)
        elif self._input:
            self.phase = Phase.REQUEST
            self.await_until(now + self._shared.timeouts.request_head)
            self._readable.start(self.on_client)
            self.soon(self._next_request)
        elif self.client_has_ended:
            self._end(linger=False)
        else:
            self.phase = Phase.REQUEST
            self.await_until(min(now + self._shared.timeouts.idle, self._shared.idle_until))
            self._read_on()

    def _next_request(self) -> None:
        if self.phase == Phase.REQUEST and self._input:
            self.guarded(self._take_input)

    def _end(self, *, linger: bool) -> None:
        try:
            outcome = self._tls.shutdown()
        except TlsError:  # it has gone already
            outcome = DONE
        if outcome == WANT_WRITE:
            self._wait_to_end(linger=linger)
        elif linger:
            self._lingers_until = clock.monotonic() + LINGER_MAX
            self._linger(b"")
        else:
            self.close()

    def _wait_to_end(self, *, linger: bool) -> None:
        """The client has taken its answer, but has no room for our close_notify: without that, a body
        that ends with its connection would not be whole.
        """
        self.phase = Phase.LINGERING
        self._readable.stop()
        self._shared.deadlines.set(self, clock.monotonic() + self._shared.timeouts.idle)
        self._writable = self._shared.loop.io(self._fd, Ready.WRITABLE)
        self._writable.start(self.guarded, partial(self._end_at_last, linger=linger))

    def _end_at_last(self, *, linger: bool) -> None:
        self._stop(self._writable)
        self._writable = None
        self._end(linger=linger)

    def _on_last_bytes(self) -> None:
        super()._on_last_bytes()
        if self.phase == Phase.LINGERING:
            self.deadline = min(clock.monotonic() + LINGER, self._lingers_until)

    def upgrade(self, backend: Socket, server: Server) -> None:
        """The protocol has changed: from here on bytes pass as in mode "tcp"."""
        ahead, self._input = self._input, b""
        self._stop(self._writable)
        self._writable = None
        self._relay(backend, server, ahead)

    def _idle_timeout(self) -> float:
        return self._shared.timeouts.tunnel

    # Deadlines and the way out.

    def _time_is_over(self, now: float) -> None:
        if self.phase == Phase.RELAYING:
            super()._time_is_over(now)
        elif self.phase == Phase.EXCHANGE:
            (self._exchange or self._leave_express()).time_is_over(now)
        elif self._input:
            self._refuse(RefusedRequestError("request_head_timeout", 408), now)
        elif self._served_requests:
            self._let_go()
        else:
            self._report("no_request", Fault.NONE, "no request in time")
            self._end(linger=False)

    def drain(self) -> None:
        """A client is told to go elsewhere with its next answer: to end between two requests would lose
        what it is sending just then, and a POST is not sent again.  Who asks for nothing is let go.
        """
        if self._is_between_requests():
            idle_until = self._shared.idle_until
            if clock.monotonic() >= idle_until:
                self._let_go()
            else:
                self.await_until(min(self.deadline, idle_until))

    def _let_go(self) -> None:
        """End between two requests.  One that has come already is answered; one that crosses our words
        sees a clean end, and no reset, so that it may be sent again elsewhere.
        """
        self.on_client()
        if self._is_between_requests():
            self._end(linger=True)

    def _is_between_requests(self) -> bool:
        return self.phase == Phase.REQUEST and self._served_requests > 0 and not self._input

    def _cut_off(self, ended: str, fault: Fault, detail: str) -> None:
        if self._is_between_requests():
            self._shut_down_tls()  # all has been told
        else:
            super()._cut_off(ended, fault, detail)

    def _client_failed(self, error: TlsError) -> None:
        if self.phase == Phase.RELAYING:
            super()._client_failed(error)
            return
        failure = explain(error)
        self.end_early(failure.reason, failure.fault, failure.detail, failure.alert, failure.alert_from)

    def end_early(
        self,
        ended: str,
        fault: Fault,
        detail: str | None,
        alert: str | None = None,
        alert_from: str | None = None,
    ) -> None:
        """It cannot go on; a client that still is there sees that what it has is not all."""
        if self.phase in (Phase.CLOSED, Phase.LINGERING):
            return
        if self._express is not None:
            self._leave_express()
        if self._exchange is not None or not self._served_requests:
            self._report(ended, fault, detail, alert, alert_from)
        self._reset_backend()
        self.close()

    def _give_back(self) -> None:
        self._count_bytes()
        if self._express is not None:
            self._leave_express()
        if self._exchange is not None:
            self._exchange.abandon()
            self._exchange = None
        if self._own_pool is not None:
            self._own_pool.close()
        super()._give_back()

    # What is told of it.

    def _report(
        self,
        ended: str,
        fault: Fault,
        detail: str | None = None,
        alert: str | None = None,
        alert_from: str | None = None,
    ) -> None:
        """Count, and write the exchange's line; a connection without an exchange has one of its own."""
        if self._express is not None:
            self._leave_express()
        exchange, shared = self._exchange, self._shared
        if exchange is None:
            shared.counts.add(_FROM_CLIENTS, -self._bytes_read)  # which have been counted
            shared.counts.add(_FROM_BACKENDS, -self._bytes_written)
            super()._report(ended, fault, detail, alert, alert_from)
            self._bytes_read, self._bytes_written = self._tls.plaintext_read, self._tls.plaintext_written
            return
        exchange.count(shared.counts, self._frontend.tally)
        received, sent = self._count_bytes()
        if shared.access_log is not None:
            record = self._exchange_record(exchange.began, clock.monotonic(), received, sent)
            record.ended, record.fault, record.detail = ended, fault, detail
            record.alert, record.alert_from = alert, alert_from
            exchange.describe(record, shared.access_log.names_agent)
            shared.access_log.write(record)

    def _report_plain(  # noqa: PLR0913, PLR0917 - what an _Express has
        self,
        head: Head,
        began: float,
        backend: BackendConnection,
        number: int,
        status: int,
        now: float,
    ) -> None:
        """As _report(), for what needed no Exchange."""
        access_log = self._shared.access_log
        assert access_log is not None  # noqa: S101 - the caller has looked
        received, sent = self._count_bytes()
        record = self._exchange_record(began, now, received, sent)
        record.status, record.backend = status, backend.server.name
        record.request_id = self._shared.request_id(number).decode()
        record.first_byte_seconds = now - began
        describe_request(record, head, self.gateway, access_log.names_agent)
        record.host = read_authority(head.value(HOST) or b"")
        access_log.write(record)

    def _exchange_record(self, began: float, now: float, received: int, sent: int) -> ExchangeRecord:
        if self._facts is None:
            self._facts = Facts(self._record("", Fault.NONE, None, None, None).as_line())
        record = ExchangeRecord(self._facts, clock.wall() - (now - began), now - began)
        record.bytes_from_client, record.bytes_to_client = received, sent
        return record

    def _count_bytes(self) -> tuple[int, int]:
        """What has passed since the last time, from the client and to it; the worker counts it."""
        tls, counts = self._tls, self._shared.counts
        received = tls.plaintext_read - self._bytes_read
        sent = tls.plaintext_written - self._bytes_written
        self._bytes_read, self._bytes_written = tls.plaintext_read, tls.plaintext_written
        counts.add(_FROM_CLIENTS, received)
        counts.add(_FROM_BACKENDS, sent)
        return received, sent

    def _record(
        self,
        ended: str,
        fault: Fault,
        detail: str | None,
        alert: str | None,
        alert_from: str | None,
    ) -> ConnectionRecord:
        record = super()._record(ended, fault, detail, alert, alert_from)
        record.bytes_from_client -= self._bytes_read
        record.bytes_from_backend -= self._bytes_written
        return record

    def _make_forwarder(self) -> Forwarder:
        gateway, tls = self.gateway, self._tls
        facts: dict[str, str | None] = {}
        if gateway.forwarding.fact_fields:
            facts = {
                "tls_version": tls.version,
                "tls_cipher": tls.cipher,
                "tls_name": self._asked_name(),
                "tls_resumed": "true" if tls.resumed else "false",
            }
            shown, der = self.client_certificate(), tls.peer_certificate
            if shown is not None and der is not None:
                facts |= {
                    "client_subject": shown.subject,
                    "client_issuer": shown.issuer,
                    "client_serial": shown.serial,
                    "client_sha256": shown.sha256,
                    "client_names": ",".join(shown.names),
                    "client_certificate": f":{base64.b64encode(der).decode()}:",
                }
        client = self.client_address
        return Forwarder(
            gateway.forwarding, client, self._port_asked_for(), facts, is_trusted=gateway.trusts(client)
        )

    def _port_asked_for(self) -> int:
        return self.own_port if self._destination is None else self._destination[1]

    def pool_for(self, cluster: Cluster) -> Pool:
        """Where connections to its servers are kept: those that say who the client is, for this one."""
        if cluster.settings.send_proxy == "off":
            return self._shared.pool
        if self._own_pool is None:
            self._own_pool = Pool()
        return self._own_pool


_REQUESTS = int(Column.REQUESTS)
_FROM_CLIENTS = int(Column.BYTES_FROM_CLIENTS)
_FROM_BACKENDS = int(Column.BYTES_FROM_BACKENDS)
