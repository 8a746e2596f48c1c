"""Ask a generation's workers to show what they can, in a process of its own: the master must not wait.

It has no rights, blocks with deadlines, and tells the master what it found in one message.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from termproxy import clock
from termproxy.master.proof import Answer, Findings, Plan, Question, certificate_in
from termproxy.messages import message

TIMEOUT = 5.0  # seconds for one handshake
READ = 1 << 16  # bytes at a time

# A worker may sit between two turns of its keys, or a session's second be over, once.
RESUMPTION_TRIES = 3


def prepare(plan: Plan, channels: Sequence[socket.socket]) -> Callable[[int], None]:
    """What to do with the descriptor that the master reads; imports now what it needs.

    `channels` are the workers', by their number: see worker/probes.py.
    """
    import encodings.idna  # noqa: F401, PLC0415 - looked up by name, when a client asks for one
    import ssl  # noqa: PLC0415 - the master has no use for it

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # OpenSSL reads its files now, too
    client = _Client(ssl, clock.monotonic() + plan.seconds)

    def work(fd: int) -> None:
        findings = Findings()
        for worker, question in plan.handshakes:
            answer, _ = client.ask(channels[worker], question)
            findings.on_handshake(question, answer)
            if client.is_late():
                break
        for one, other, question in plan.resumptions:
            if question in findings.unproved:
                continue
            answer = _resume(client, channels[one], channels[other], question)
            findings.on_resumption(question, answer)
            if client.is_late():
                break
        if client.is_late():
            findings.failures.append(f"not done within {plan.seconds:g} s")
        os.write(fd, message(findings.as_plain()))  # it fits into the pipe

    return work


def _resume(client: _Client, one: socket.socket, other: socket.socket, question: Question) -> Answer:
    answer = Answer()
    for _ in range(RESUMPTION_TRIES):
        answer, session = client.ask(one, question)
        if session is not None:
            answer, _ = client.ask(other, question, session)
        if answer.resumed or client.is_late():
            break
    return answer


class _Client:
    """Makes handshakes, one after the other; verifies nothing but what is asked for."""

    def __init__(self, ssl: Any, deadline: float) -> None:
        self._ssl = ssl
        self._deadline = deadline
        self._contexts: dict[tuple[str, bool], Any] = {}

    def is_late(self) -> bool:
        return clock.monotonic() >= self._deadline

    def ask(self, channel: socket.socket, question: Question, session: Any = None) -> tuple[Answer, Any]:
        """How it went, and the session that came of it."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                try:
                    channel.settimeout(TIMEOUT)
                    socket.send_fds(channel, [b"%d" % question.frontend], [theirs.fileno()])
                except OSError as error:
                    return Answer(error=f"the worker does not answer: {error}"), None
            ours.settimeout(TIMEOUT)
            return self._greet(ours, question, session)

    def _greet(self, sock: socket.socket, question: Question, session: Any) -> tuple[Answer, Any]:
        ssl, incoming, outgoing = self._ssl, self._ssl.MemoryBIO(), self._ssl.MemoryBIO()
        tls = self._context(question).wrap_bio(
            incoming, outgoing, server_hostname=question.name, session=session
        )
        heard = bytearray()  # of TLS 1.2 that fails, the only place where the certificate stands

        def until_done(step: Callable[[], object]) -> None:
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    pass
                else:
                    _send(sock, outgoing.read())
                    return
                _send(sock, outgoing.read())
                received = sock.recv(READ)
                heard.extend(received)
                incoming.write(received) if received else incoming.write_eof()

        der, error = None, ""
        try:
            until_done(tls.do_handshake)
            der = tls.getpeercert(binary_form=True)
            until_done(lambda: tls.read(1))  # the tickets, and close_notify
        except ssl.SSLZeroReturnError:
            pass
        except (ssl.SSLError, OSError) as failure:
            error = _words(failure)
        der = der or certificate_in(heard)
        shown = None if der is None else hashlib.sha256(der).hexdigest()
        if error:
            return Answer(shown, error), None
        return Answer(shown, resumed=bool(tls.session_reused)), tls.session

    def _context(self, question: Question) -> Any:
        ssl, key = self._ssl, (question.ciphers, question.only_1_2)
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if question.only_1_2:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"{question.ciphers}:@SECLEVEL=0")  # what is weak is not for us to say
            self._contexts[key] = context
        return self._contexts[key]


def _send(sock: socket.socket, data: bytes) -> None:
    """What a worker that has hung up does not take is no matter: why it did is to be read."""
    try:
        if data:
            sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def _words(error: OSError) -> str:
    """OpenSSL's reason, as in "certificate required"."""
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).lower().replace("_", " ")
