"""What a generation's workers have to show before they get clients, and what their answers mean.

Every certificate is shown once, by one worker or another, and every worker shows something at each
frontend; in each policy group a session of one worker is resumed at the next.  Sends nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from termproxy.worker.assembly import Assembly
from termproxy.worker.frontend import Frontend, Served

LABEL = "termproxy-proof"  # for a wildcard
TOLD = 5  # failures that an operator is told of

# For the whole proof, in seconds: helpers and workers may have to share a busy machine.
TIME = 15.0
TIME_EACH = 0.02

# What the proof's client, Python's ssl, offers when nothing else is asked of it.
_SUITES = {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}

# Alerts (RFC 8446 §6.2) that name the missing client certificate, and the one that says so in TLS 1.2.
_CERTIFICATE_REQUIRED = "certificate required"
_HANDSHAKE_FAILURE = "handshake failure"


@dataclass(frozen=True, slots=True)
class Question:
    """A ClientHello to send, and the certificates (SHA-256 of the leaf) of which one is to be shown."""

    frontend: int
    frontend_name: str
    name: str | None
    expected: frozenset[str]
    ciphers: str = "ALL"  # of TLS 1.2, as OpenSSL writes lists
    only_1_2: bool = False
    demands_certificate: bool = False
    is_narrow: bool = False  # by the operator's choice: the proof's client may have nothing to offer

    def __str__(self) -> str:
        return f"frontend {self.frontend_name}, {self.name or 'no name'}"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a handshake went."""

    shown: str | None = None  # the leaf's SHA-256
    error: str = ""  # why it was not finished, in OpenSSL's words
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked what: workers by their number."""

    handshakes: tuple[tuple[int, Question], ...]
    resumptions: tuple[tuple[int, int, Question], ...]  # from one worker, at another

    @property
    def seconds(self) -> float:
        """What it may take."""
        return TIME + TIME_EACH * (len(self.handshakes) + len(self.resumptions))


@dataclass(slots=True)
class Findings:
    """What has been found so far."""

    shown: int = 0
    resumed: int = 0
    unproved: list[Question] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        return {
            "shown": self.shown,
            "resumed": self.resumed,
            "unproved": [str(question) for question in self.unproved[:TOLD]],
            "failures": self.failures[:TOLD],
        }

    def on_handshake(self, question: Question, answer: Answer) -> None:
        if answer.shown in question.expected and (not answer.error or _lacks_one(question, answer)):
            self.shown += 1
        elif answer.shown is not None and answer.shown not in question.expected:
            self.failures.append(f"{question}: another certificate is shown, {answer.shown}")
        elif question.is_narrow and _HANDSHAKE_FAILURE in answer.error:
            self.unproved.append(question)
        else:
            self.failures.append(f"{question}: the handshake failed: {answer.error}")

    def on_resumption(self, question: Question, answer: Answer) -> None:
        if answer.resumed:
            self.resumed += 1
        else:
            why = answer.error or "the session was not resumed"
            self.failures.append(f"{question}: a session of one worker at another: {why}")


def _lacks_one(question: Question, answer: Answer) -> bool:
    """Whether it failed for want of a client certificate, which the proof has not, and nothing else."""
    words = (_CERTIFICATE_REQUIRED, _HANDSHAKE_FAILURE)
    return question.demands_certificate and any(word in answer.error for word in words)


def plan(assemblies: Sequence[Assembly], workers: int, *, resumes: bool) -> Plan:
    """`resumes`: whether sessions are resumed at all."""
    handshakes: list[tuple[int, Question]] = []
    resumptions: list[tuple[int, int, Question]] = []
    turn = 0
    for index, assembly in enumerate(assemblies):
        groups: set[bytes] = set()
        for number, (question, group) in enumerate(_questions(index, assembly.frontend)):
            asked = range(workers) if number == 0 else [turn % workers]
            handshakes += [(worker, question) for worker in asked]
            turn += 1
            if resumes and group not in groups and not question.demands_certificate:
                groups.add(group)
                resumptions.append((turn % workers, (turn + 1) % workers, question))
    return Plan(tuple(handshakes), tuple(resumptions))


def _questions(index: int, frontend: Frontend) -> Iterator[tuple[Question, bytes]]:
    """One for each context, or for each type of key where it has several; and its policy group."""
    seen: set[int] = set()
    for name, served in _entries(frontend):
        if id(served.context) in seen:
            continue
        seen.add(id(served.context))
        for question in _of(index, frontend.name, name, served):
            yield question, served.policy_group


def _entries(frontend: Frontend) -> Iterator[tuple[str | None, Served]]:
    if not frontend.rejects_unknown:
        yield None, frontend.default
    for pattern, served in frontend.names():
        name = pattern
        if pattern.startswith("*."):
            name = f"{LABEL}.{pattern[2:]}"
            if frontend.match(name) != pattern:
                continue  # a name of its own; nobody means that
        yield name, served


def _of(index: int, frontend: str, name: str | None, served: Served) -> Iterator[Question]:
    policy = served.policy
    digests = {
        kind: hashlib.sha256(der).hexdigest()
        for kind, der in zip(served.key_types, served.labels, strict=True)
    }
    rsa = frozenset(digest for kind, digest in digests.items() if kind == "rsa")
    others = frozenset(digests.values()) - rsa
    demands = policy.client_auth.demand == "required"
    chosen = (policy.ciphers, policy.ciphersuites, policy.groups, policy.signature_algorithms)
    common: _Common = {"demands_certificate": demands, "is_narrow": any(chosen)}
    has_1_2 = policy.min_version == "1.2"
    if rsa and others and has_1_2 and not any(chosen):
        # In TLS 1.2 a client's ciphers choose the type of key.
        yield Question(index, frontend, name, others, "aECDSA", only_1_2=True, **common)
        yield Question(index, frontend, name, rsa, "aRSA", only_1_2=True, **common)
        return
    lacks_suites = bool(policy.ciphersuites) and _SUITES.isdisjoint(policy.ciphersuites)
    yield Question(index, frontend, name, rsa | others, only_1_2=lacks_suites and has_1_2, **common)


class _Common(TypedDict):
    demands_certificate: bool
    is_narrow: bool


def certificate_in(flight: bytes | bytearray) -> bytes | None:
    """The leaf, as DER, in what a TLS 1.2 server has sent; None when there is none (RFC 5246 §7.4.2)."""
    messages = b"".join(_bodies(flight, 22))
    while len(messages) >= 4:
        length = int.from_bytes(messages[1:4])
        if messages[0] == 11:
            leaf = 4 + 3 + 3  # the message's header, the list's length, the first one's
            size = int.from_bytes(messages[leaf - 3 : leaf])
            return bytes(messages[leaf : leaf + size]) if len(messages) >= leaf + size else None
        messages = messages[4 + length :]
    return None


def _bodies(flight: bytes | bytearray, wanted: int) -> Iterable[bytes]:
    start = 0
    while start + 5 <= len(flight):
        end = start + 5 + int.from_bytes(flight[start + 3 : start + 5])
        if flight[start] == wanted:
            yield bytes(flight[start + 5 : end])
        start = end
