"""The proof's questions, asked of what workers are made of."""

from __future__ import annotations

import pytest

from termproxy.config.schema import Host
from termproxy.master import proof_helper
from termproxy.master.proof import plan
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from tests.support.proving import carry_out, prove
from tests.tls.pki import NOW
from tests.worker.test_assembly import CLUSTERS, GUARD, PEM, A, B, certificate, frontend, serving

RSA = certificate("a.test", key="rsa")
WILD = certificate("*.w.test")


def test_what_is_in_order_is_proved() -> None:
    made = serving(frontend(), A, B, WILD, RSA)
    assert prove([[made, made], [made, made]], resumes=False) == {
        "shown": 10,
        "resumed": 0,
        "unproved": [],
        "failures": [],
    }


def test_sessions_are_resumed_at_another_worker() -> None:
    stores = Stores()
    made = Assembly(frontend(), CLUSTERS, PEM, Resumption(stores, with_tickets=False, session_cache=100))
    made.serve([A, B], PEM, NOW)

    assert prove([[made], [made]])["resumed"] == 1


def test_sessions_that_another_worker_does_not_know_are_told() -> None:
    def worker() -> Assembly:
        resumption = Resumption(Stores(), with_tickets=False, session_cache=100)
        made = Assembly(frontend(), CLUSTERS, PEM, resumption)
        made.serve([A], PEM, NOW)
        return made

    (failure,) = prove([[worker()], [worker()]])["failures"]
    assert "the session was not resumed" in failure


@pytest.mark.parametrize("versions", [{}, {"max_version": "1.2"}, {"min_version": "1.3"}])
def test_who_demands_a_certificate_proves_what_it_shows(versions: dict[str, str]) -> None:
    made = serving(frontend(Host(names=("b.test",), **GUARD | versions)), A, B)
    report = prove([[made]], resumes=False)
    assert (report["shown"], report["failures"]) == (2, [])


def test_another_certificate_than_is_expected_is_told() -> None:
    right, wrong = serving(frontend(), A), serving(frontend(), B)
    (failure,) = carry_out(plan([right], 1, resumes=False), [[wrong]])["failures"]
    assert failure == f"frontend web, no name: another certificate is shown, {B.sha256}"


def test_a_name_that_is_not_served_is_told() -> None:
    todo = plan([serving(frontend(), A, B)], 1, resumes=False)
    report = carry_out(todo, [[serving(frontend(unknown_name="reject"), A)]])
    assert [failure.partition(":")[0] for failure in report["failures"]] == [
        "frontend web, no name",
        "frontend web, b.test",
    ]
    assert "unrecognized name" in report["failures"][1]


def test_a_worker_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_helper, "TIMEOUT", 0.1)
    monkeypatch.setattr("termproxy.worker.probes.Probes._on_packet", lambda _: None)
    (failure,) = prove([[serving(frontend(), A)]], resumes=False)["failures"]
    assert "timed out" in failure


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termproxy.master.proof.TIME", 0.0)
    monkeypatch.setattr("termproxy.master.proof.TIME_EACH", 0.0)
    report = prove([[serving(frontend(), A, B)]], resumes=False)
    assert report["failures"][-1] == "not done within 0 s"
