"""A TLS client and the binding's Connection, joined by a socket pair and driven in turns by one thread.

The client is Python's own `ssl`, in memory: what it has to say is put on the wire when a test asks, so
that a test can hold back, split, damage or count it.  No thread, no sleep, no loop without a bound.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import select
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self

import trustme

from termproxy import clock
from termproxy.outcome import DONE, MORE, SINK_FULL
from termproxy.tls._openssl import RING_SIZE, Connection, Context, Scratch, TicketKeys, TicketRing
from termproxy.tls.tickets import new_ring
from tests.support.endings import CutError, tell_cuts

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304

NAME = "a.test"
GROUPS = "X25519:P-256:P-384"

# No exchange of the tests needs as many turns: one that does, hangs.
TURNS = 2000

RECORD_HEADER = 5  # bytes: type, version, length (RFC 8446 §5.1)
ALERT_RECORD, HANDSHAKE_RECORD, DATA_RECORD = 21, 22, 23
SERVER_KEY_EXCHANGE = 12


@dataclass(frozen=True, slots=True)
class Site:
    """A certificate chain and its key, as PEM."""

    chain: bytes
    key: bytes


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def site(name: str = NAME, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Site:
    leaf = authority().issue_cert(name, key_type=key_type)
    chain = b"".join(certificate.bytes() for certificate in leaf.cert_chain_pems)
    return Site(chain, leaf.private_key_pem.bytes())


@functools.cache
def ticket_ring(seed: bytes = b"any seed") -> TicketRing:
    """With keys made from `seed`; the same seed, the same keys."""
    ring = new_ring(seed.ljust(32), int(clock.utc_now().timestamp()), lifetime=7200, rotate=7200)
    memory = TicketRing(bytearray(RING_SIZE))
    memory.write(
        (key.number, key.id, key.secret, key.issue_from, key.issue_until, key.redeem_until)
        for key in ring.keys
    )
    return memory


@functools.cache
def ticket_keys(group: bytes = b"termproxy") -> TicketKeys:
    """For the contexts of this session id context."""
    return TicketKeys(ticket_ring(), hashlib.sha256(group).digest())


def server_context(of: Site | None = None, **policy: Any) -> Context:
    """A Context for `of` (NAME's certificate), with the given parts of the policy changed.

    `chain` and `key` replace those of `of`, `identities` all of it.  It makes tickets, except with a
    cache of sessions.
    """
    of = of or site()
    identity = policy.pop("chain", of.chain), policy.pop("key", of.key)
    given: dict[str, Any] = {"identities": [identity], "groups": GROUPS}
    if "session_cache" not in policy:
        given["ticket_keys"] = ticket_keys(policy.get("session_id_context", b"termproxy"))
    return Context(**given | policy)


def client_context(
    *,
    version: int | None = None,
    ciphers: str | None = None,
    alpn: list[str] | None = None,
    group: str | None = None,
    tickets: bool = True,
    trusts: trustme.CA | None = None,
) -> ssl.SSLContext:
    """A client that trusts `trusts` (our authority); `version` is the only one that it speaks."""
    context = tell_cuts(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    (trusts or authority()).configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    if group is not None:
        context.set_ecdh_curve(group)
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    return context


class Client:
    """The client's end.  `heard` is every byte that came from the server, as it was on the wire."""

    def __init__(
        self,
        wire: socket.socket,
        context: ssl.SSLContext,
        name: str | None,
        session: ssl.SSLSession | None,
    ) -> None:
        self.wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=name, session=session
        )
        self._unsent = b""
        self.heard = bytearray()
        self.handshaken = False
        self.error: ssl.SSLError | None = None
        self.was_told_the_end = False

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while received := self.wire.recv(1 << 18):
                self.heard += received
                self._incoming.write(received)
            self._incoming.write_eof()

    def unsaid(self) -> bytes:
        """What it would put on the wire now; the caller's to send, or not."""
        unsaid, self._unsent = self._unsent + self._outgoing.read(), b""
        return unsaid

    def speak(self) -> None:
        """Put on the wire what it has to say, as far as the wire takes it."""
        unsaid = self.unsaid()
        try:
            sent = self.wire.send(unsaid) if unsaid else 0
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            return
        self._unsent = unsaid[sent:]

    def step(self) -> None:
        """Take the handshake as far as what has come allows, saying nothing yet."""
        if self.handshaken or self.error is not None:
            return
        try:
            self.tls.do_handshake()
            self.handshaken = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error

    def advance(self) -> None:
        self.listen()
        self.step()
        self.speak()

    def hello(self) -> bytes:
        """The ClientHello, not sent."""
        self.step()
        return self.unsaid()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.speak()

    def sealed(self, data: bytes) -> bytes:
        """`data` in TLS records, not sent."""
        self.tls.write(data)
        return self.unsaid()

    def receive(self) -> bytes:
        """All that has come; `was_told_the_end` when a close_notify was the last of it."""
        self.listen()
        plaintext = bytearray()
        try:
            while chunk := self.tls.read(1 << 16):
                plaintext += chunk
            self.was_told_the_end = True
        except (ssl.SSLWantReadError, CutError):
            pass
        except ssl.SSLZeroReturnError:
            self.was_told_the_end = True
        except ssl.SSLError as error:
            self.error = error
        self.speak()
        return bytes(plaintext)

    def close_notify(self) -> None:
        """Say that that was all, and do not wait for an answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.speak()

    def session(self) -> ssl.SSLSession | None:
        """What a next connection may resume; in TLS 1.3 it comes after the handshake."""
        self.receive()
        return self.tls.session

    def alert(self) -> int | None:
        """The alert that came last, in the clear: what refuses a handshake at its beginning."""
        self.listen()
        alerts = [body[1] for kind, body in records(self.heard) if kind == ALERT_RECORD]
        return alerts[-1] if alerts else None


class Pair:
    """A client and a server, not yet greeted.  `server` is on the non-blocking socket `wire`."""

    def __init__(
        self,
        context: Context,
        client: ssl.SSLContext | None = None,
        *,
        name: str | None = NAME,
        session: ssl.SSLSession | None = None,
        wire_size: int | None = None,
    ) -> None:
        client_wire, self.wire = socket.socketpair()
        client_wire.setblocking(False)
        self.wire.setblocking(False)
        if wire_size is not None:
            self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wire_size)
        self.server = Connection(context, self.wire.fileno())
        self.client = Client(client_wire, client or client_context(), name, session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self.wire.close()
        self.client.wire.close()

    def handshake(self) -> Self:
        """In turns, until both are done.  Raises the server's failure, else the client's."""
        for _ in range(TURNS):
            self.client.advance()
            outcome = self.server.handshake()
            if outcome == DONE and self.client.handshaken:
                return self
            if self.client.error is not None:
                raise self.client.error
        raise AssertionError("the handshake does not end")

    def greet(self) -> None:
        """Send the ClientHello, and no more."""
        self.client.wire.sendall(self.client.hello())

    def read(self) -> tuple[bytes, int]:
        """All plaintext at hand, and the outcome that ended it."""
        plaintext, buffer = bytearray(), bytearray(1 << 14)
        for _ in range(TURNS):
            count = self.server.read_into(buffer)
            if count <= 0:
                return bytes(plaintext), count
            plaintext += buffer[:count]
        raise AssertionError("the client's bytes do not end")


class Backend:
    """The plaintext side: `fd` is the proxy's end of it, non-blocking."""

    def __init__(self, size: int | None = None) -> None:
        self.proxy_end, self.far_end = socket.socketpair()
        self.proxy_end.setblocking(False)
        self.far_end.setblocking(False)
        if size is not None:
            self.proxy_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        self.fd = self.proxy_end.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy_end.close()
        self.far_end.close()

    def receive(self) -> bytes:
        received = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := self.far_end.recv(1 << 18):
                received += chunk
        return bytes(received)


def is_readable(wire: socket.socket) -> bool:
    poll = select.poll()
    poll.register(wire, select.POLLIN)
    return bool(poll.poll(0))


def fill(wire: socket.socket) -> None:
    """Send until no more is taken; what is sent is rubbish."""
    with contextlib.suppress(BlockingIOError):
        while wire.send(b"rubbish"):
            pass


def pass_to_backend(pair: Pair, backend: Backend, scratch: Scratch) -> tuple[bytes, int]:
    """decrypt_to() as the pump calls it, until it waits or ends: what arrived, and the outcome.

    After a count it waits for an event; one comes only if the socket, not OpenSSL, holds more.
    """
    arrived = bytearray()
    for _ in range(TURNS):
        outcome = pair.server.decrypt_to(backend.fd, scratch)
        arrived += backend.receive()
        if outcome == SINK_FULL:
            rest = scratch.take_rest()
            while rest:
                rest = rest[backend.proxy_end.send(rest) :]
                arrived += backend.receive()
        elif outcome != MORE and not (outcome > 0 and is_readable(pair.wire)):
            return bytes(arrived), outcome
    raise AssertionError("the client's bytes do not end")


def pass_to_client(pair: Pair, backend: Backend, scratch: Scratch) -> tuple[bytes, int]:
    """encrypt_from() as the pump calls it, until the backend has no more: what arrived, the outcome."""
    arrived = bytearray()
    for _ in range(TURNS):
        outcome = pair.server.encrypt_from(backend.fd, scratch)
        arrived += pair.client.receive()
        if outcome == SINK_FULL:
            rest = scratch.take_rest()
            while rest:
                rest = rest[max(pair.server.write(rest), 0) :]
                arrived += pair.client.receive()
        elif outcome <= 0:
            return bytes(arrived), outcome
    raise AssertionError("the backend's bytes do not end")


def records(wire: bytes | bytearray) -> list[tuple[int, bytes]]:
    """The TLS records in `wire`: the type and the body of each."""
    found, start = [], 0
    while start + RECORD_HEADER <= len(wire):
        body = start + RECORD_HEADER
        end = body + int.from_bytes(wire[body - 2 : body])
        found.append((wire[start], bytes(wire[body:end])))
        start = end
    return found


def signature_scheme(wire: bytes | bytearray) -> int:
    """What a TLS 1.2 server signed its key exchange with (RFC 8422 §5.4, RFC 8446 §4.2.3)."""
    messages = b"".join(body for kind, body in records(wire) if kind == HANDSHAKE_RECORD)
    while messages[0] != SERVER_KEY_EXCHANGE:
        messages = messages[4 + int.from_bytes(messages[1:4]) :]
    point = 4 + 3  # the message's header; the curve's type and name
    scheme = point + 1 + messages[point]
    return int.from_bytes(messages[scheme : scheme + 2])
