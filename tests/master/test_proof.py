"""What is asked of new workers, and what their answers mean."""

from __future__ import annotations

import pytest

from termproxy.config.schema import Host
from termproxy.master.proof import Answer, Findings, Plan, Question, certificate_in, plan
from tests.support.tls import Pair
from tests.worker.test_assembly import GUARD, A, B, certificate, frontend, serving
from tests.worker.test_frontend import client

WILD = certificate("*.w.test")
RSA = certificate("a.test", key="rsa")


def names(todo: Plan) -> list[tuple[int, str | None]]:
    return [(worker, question.name) for worker, question in todo.handshakes]


# What is asked.


def test_every_certificate_is_asked_for_once_and_every_worker_something() -> None:
    todo = plan([serving(frontend(), A, B, WILD)], 3, resumes=True)

    assert names(todo) == [(0, None), (1, None), (2, None), (1, "b.test"), (2, "termproxy-proof.w.test")]
    assert [question.expected for _, question in todo.handshakes[3:]] == [{B.sha256}, {WILD.sha256}]


def test_a_frontend_that_refuses_unknown_names_is_asked_by_name() -> None:
    todo = plan([serving(frontend(unknown_name="reject"), A)], 1, resumes=False)

    assert names(todo) == [(0, "a.test")]


def test_a_session_of_each_policy_group_goes_from_one_worker_to_another() -> None:
    made = serving(frontend(Host(names=("b.test",), **GUARD | {"client_auth": "optional"})), A, B)
    todo = plan([made, made], 2, resumes=True)

    assert [question.name for _, _, question in todo.resumptions] == [None, "b.test"] * 2
    assert all(one != other for one, other, _ in todo.resumptions)
    assert plan([made], 2, resumes=False).resumptions == ()


def test_of_who_demands_a_certificate_no_session_is_expected() -> None:
    todo = plan([serving(frontend(**GUARD), A)], 2, resumes=True)

    assert todo.resumptions == ()
    assert todo.handshakes[0][1].demands_certificate


def test_each_type_of_key_is_asked_for() -> None:
    todo = plan([serving(frontend(), A, RSA)], 1, resumes=False)

    assert [(q.ciphers, q.only_1_2, q.expected) for _, q in todo.handshakes] == [
        ("aECDSA", True, frozenset({A.sha256})),
        ("aRSA", True, frozenset({RSA.sha256})),
    ]


def test_where_the_client_s_ciphers_choose_nothing_any_of_them_will_do() -> None:
    todo = plan([serving(frontend(min_version="1.3"), A, RSA)], 1, resumes=False)

    assert [q.expected for _, q in todo.handshakes] == [{A.sha256, RSA.sha256}]


def test_ten_thousand_handshakes_have_their_time() -> None:
    question = Question(0, "web", None, frozenset())
    assert Plan(((0, question),) * 10_000, ()).seconds > 100


# What the answers mean.

OPEN = Question(0, "web", "a.test", frozenset({"aa"}))
GUARDED = Question(0, "web", "a.test", frozenset({"aa"}), demands_certificate=True)
NARROW = Question(0, "web", "a.test", frozenset({"aa"}), is_narrow=True)


@pytest.mark.parametrize(
    ("question", "answer", "failure"),
    [
        (OPEN, Answer("aa"), ""),
        (OPEN, Answer("bb"), "another certificate is shown, bb"),
        (OPEN, Answer("aa", "tlsv1 alert internal error"), "failed: tlsv1 alert internal error"),
        (OPEN, Answer(None, "timed out"), "failed: timed out"),
        (OPEN, Answer(None, "sslv3 alert handshake failure"), "failed: sslv3"),
        (GUARDED, Answer("aa", "tlsv13 alert certificate required"), ""),
        (GUARDED, Answer("aa", "sslv3 alert handshake failure"), ""),
        (GUARDED, Answer("aa", "tlsv1 alert internal error"), "internal error"),
        (GUARDED, Answer("bb", "tlsv13 alert certificate required"), "another certificate"),
        (GUARDED, Answer(None, "sslv3 alert handshake failure"), "failed: sslv3"),
        (OPEN, Answer("aa", "tlsv13 alert certificate required"), "certificate required"),
    ],
)
def test_an_answer_is_a_proof_or_a_failure(question: Question, answer: Answer, failure: str) -> None:
    findings = Findings()
    findings.on_handshake(question, answer)

    assert (findings.shown == 1) is (not failure)
    assert [failure in each for each in findings.failures] == ([True] if failure else [])


def test_what_an_operator_s_policy_keeps_the_proof_from_is_no_failure() -> None:
    findings = Findings()
    findings.on_handshake(NARROW, Answer(None, "sslv3 alert handshake failure"))

    assert findings.as_plain() == {
        "shown": 0,
        "resumed": 0,
        "unproved": ["frontend web, a.test"],
        "failures": [],
    }


def test_a_session_that_is_not_resumed_is_a_failure() -> None:
    findings = Findings()
    findings.on_resumption(OPEN, Answer("aa", resumed=True))
    findings.on_resumption(OPEN, Answer("aa"))

    assert findings.resumed == 1
    assert findings.failures == [
        "frontend web, a.test: a session of one worker at another: the session was not resumed"
    ]


def test_a_few_failures_tell_enough() -> None:
    findings = Findings()
    for _ in range(10_000):
        findings.on_handshake(OPEN, Answer(None, "timed out"))

    assert len(findings.as_plain()["failures"]) == 5


# Certificates on the wire.


def test_the_certificate_of_a_handshake_that_fails_is_read_off_the_wire() -> None:
    made = serving(frontend(max_version="1.2", **GUARD), A)
    with Pair(made.frontend.entry, client(), name="a.test") as pair:
        pair.client.advance()
        pair.server.handshake()
        pair.client.listen()
        heard = bytes(pair.client.heard)

    assert certificate_in(heard) == A.leaf_der
    for length in range(len(heard)):
        assert certificate_in(heard[:length]) in {None, A.leaf_der}


@pytest.mark.parametrize("flight", [b"", b"\x16", b"\x15\x03\x03\x00\x02\x02\x28", bytes(100)])
def test_what_holds_no_certificate_tells_none(flight: bytes) -> None:
    assert certificate_in(flight) is None
