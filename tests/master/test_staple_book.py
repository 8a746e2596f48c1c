"""When to ask for an OCSP response, what to keep, and what to tell, once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from termproxy.master.staple_book import (
    RETRY_FIRST,
    RETRY_MAX,
    ROUND_MAX,
    SPREAD,
    StapleBook,
)
from termproxy.tls.certificates import Certificate
from tests.support.ocsp import DAY, GOOD, REVOKED, UNKNOWN, Issuer, as_certificate, respond, this_second
from tests.support.pki import Issued

NOW = this_second()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
URL = "http://ocsp.test/"
ISSUER = Issuer()


class Case:
    """A book with one certificate in it."""

    def __init__(self, drawn: float = 0.0) -> None:
        self.book = StapleBook(lambda: drawn)
        self.leaf = ISSUER.issue(responder=URL)
        self.certificate = as_certificate(self.leaf)
        self.sha256 = self.certificate.sha256
        self.book.want([self.certificate], NOW)

    def response(self, **options: object) -> bytes:
        times = {"this_update": NOW, "next_update": NOW + 4 * DAY}
        return respond(self.leaf, ISSUER, **(times | options))  # type: ignore[arg-type]

    def answered(self, at: timedelta = timedelta(0), **options: object) -> str | None:
        return self.book.answered(self.sha256, self.response(**options), NOW + at)

    def failed(self, at: timedelta = timedelta(0), problem: str = "no route") -> str | None:
        return self.book.failed(self.sha256, problem, NOW + at)

    def due_at(self, since: timedelta) -> timedelta:
        """When it is asked about next, to the second: not a second before."""
        low, high = since, since + 400 * DAY
        while high - low > SECOND:
            middle = low + (high - low) / 2
            low, high = (low, middle) if self._would_ask(middle) else (middle, high)
        return high

    def _would_ask(self, at: timedelta) -> bool:
        page = self.book._pages[self.sha256]
        before = page.ask_at
        asks = bool(self.book.due(NOW + at))
        page.ask_at = before
        return asks

    def shown(self) -> bytes | None:
        staple = self.book.staples().get(self.sha256)
        return None if staple is None else staple.response


@pytest.fixture
def case() -> Case:
    return Case()


def about(when: timedelta) -> object:
    return pytest.approx(when.total_seconds(), abs=2)


# When it asks.


def test_what_is_new_is_asked_about_at_once(case: Case) -> None:
    [question] = case.book.due(NOW)
    assert (question.sha256, question.url) == (case.sha256, URL)
    asked = ocsp.load_der_ocsp_request(question.request)
    assert asked.serial_number == case.leaf.certificate.serial_number


def test_a_question_is_not_asked_twice_while_its_answer_is_awaited(case: Case) -> None:
    assert case.book.due(NOW)
    assert not case.book.due(NOW + RETRY_MAX - SECOND)
    assert case.book.due(NOW + RETRY_MAX), "an answer that never came is not waited for for ever"


def test_a_certificate_with_nobody_to_ask_is_left_out() -> None:
    book = StapleBook(lambda: 0.0)
    alone = ISSUER.issue(responder=URL)
    certificates = [
        as_certificate(ISSUER.issue(responder=None)),
        as_certificate(Issued(alone.certificate, alone.private_key)),  # its issuer is not known
    ]
    book.want(certificates, NOW)
    assert book.due(NOW) == []
    assert [book.state(each.sha256, NOW) for each in certificates] == [None, None]


def test_it_asks_again_half_way_through_a_responses_life(case: Case) -> None:
    assert case.answered() is None
    assert case.due_at(timedelta(0)).total_seconds() == about(2 * DAY)


def test_a_response_that_is_half_way_over_when_it_comes_is_not_asked_for_at_once(case: Case) -> None:
    """Many responders hand out the same one for days."""
    at = 3 * DAY
    assert case.answered(at) is None
    assert case.due_at(at).total_seconds() == about(at + RETRY_FIRST)


def test_it_tries_again_soon_and_then_less_often(case: Case) -> None:
    at, pauses = timedelta(0), []
    for _ in range(9):
        case.failed(at)
        after = case.due_at(at)
        pauses.append(round((after - at).total_seconds() / 60))
        at = after
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_many_failures_do_not_overflow(case: Case) -> None:
    for _ in range(2000):
        case.failed()
    assert case.due_at(timedelta(0)).total_seconds() == about(RETRY_MAX)


def test_after_a_success_patience_begins_anew(case: Case) -> None:
    for _ in range(5):
        case.failed()
    case.answered()
    case.failed(2 * DAY)
    assert case.due_at(2 * DAY).total_seconds() == about(2 * DAY + RETRY_FIRST)


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_what_would_fall_together_is_spread(drawn: float) -> None:
    waiting, failing = Case(drawn), Case(drawn)
    waiting.answered()
    assert waiting.due_at(timedelta(0)).total_seconds() == about(2 * DAY * (1 + SPREAD * drawn))
    failing.failed()
    assert failing.due_at(timedelta(0)).total_seconds() == about(RETRY_FIRST * (1 + SPREAD * drawn))


def test_the_spread_never_comes_near_the_end_of_a_responses_life() -> None:
    case = Case(1.0)
    case.answered()
    assert case.due_at(timedelta(0)) < 4 * DAY * 0.75


@functools.cache
def many() -> Sequence[Certificate]:
    return [as_certificate(ISSUER.issue(responder=URL)) for _ in range(2 * ROUND_MAX + 1)]


def test_a_round_has_a_bound_and_everybody_has_a_turn() -> None:
    book = StapleBook(lambda: 0.0)
    book.want(many(), NOW)
    rounds = [[question.sha256 for question in book.due(NOW)] for _ in range(4)]
    assert [len(each) for each in rounds] == [ROUND_MAX, ROUND_MAX, 1, 0]
    assert set().union(*rounds) == {each.sha256 for each in many()}


# What it keeps.


def test_a_good_response_is_shown(case: Case) -> None:
    response = case.response()
    assert case.shown() is None
    assert case.book.answered(case.sha256, response, NOW) is None
    assert case.shown() == response


@pytest.mark.parametrize("status", [REVOKED, UNKNOWN])
def test_a_response_that_is_not_good_takes_the_good_one_away(
    case: Case, status: ocsp.OCSPCertStatus
) -> None:
    case.answered()
    told = case.answered(HOUR, status=status, this_update=NOW + HOUR)
    assert told == (
        f"site.pem: no OCSP response from {URL}: "
        f"the issuer says that the certificate is {status.name.lower()}"
    )
    assert case.shown() is None
    assert case.due_at(HOUR).total_seconds() == about(HOUR + RETRY_FIRST)


def test_a_revocation_counts_from_whenever_it_is(case: Case) -> None:
    """A good response that is newer may come from a responder that has not heard of it."""
    case.answered(this_update=NOW)
    case.answered(status=REVOKED, this_update=NOW - HOUR)
    assert case.shown() is None


def test_after_a_revocation_an_older_good_response_is_not_believed(case: Case) -> None:
    """Whoever is on the way to the responder may have kept it."""
    case.answered(HOUR, status=REVOKED, this_update=NOW + HOUR)
    told = case.answered(HOUR, status=GOOD, this_update=NOW)
    assert told is not None
    assert "older" in told
    assert case.shown() is None
    assert case.answered(2 * HOUR, status=GOOD, this_update=NOW + 2 * HOUR) is None, "a hold was lifted"
    assert case.shown() is not None


@pytest.mark.parametrize("what", ["failure", "garbage", "expired", "of another", "older"])
def test_any_other_failure_leaves_the_good_one(case: Case, what: str) -> None:
    case.answered()
    before, at = case.shown(), HOUR
    match what:
        case "failure":
            case.failed(at)
        case "garbage":
            assert case.book.answered(case.sha256, b"<html>", NOW + at)
        case "expired":
            assert case.answered(at, this_update=NOW - 2 * DAY, next_update=NOW - DAY)
        case "of another":
            response = respond(ISSUER.issue(), ISSUER, this_update=NOW + at)
            assert case.book.answered(case.sha256, response, NOW + at)
        case _:
            assert case.answered(at, this_update=NOW - HOUR)
    assert case.shown() == before
    assert case.due_at(at).total_seconds() == about(at + RETRY_FIRST)


def test_the_same_response_again_is_no_failure(case: Case) -> None:
    """Responders that sign ahead give it until they have a newer one."""
    response = case.response()
    assert [case.book.answered(case.sha256, response, NOW + HOUR) for _ in range(2)] == [None, None]


def test_a_newer_one_takes_the_place_of_the_one_before(case: Case) -> None:
    case.answered()
    newer = case.response(this_update=NOW + HOUR)
    assert case.book.answered(case.sha256, newer, NOW + HOUR) is None
    assert case.shown() == newer


def test_certificates_that_go_are_forgotten(case: Case) -> None:
    case.answered()
    case.book.want([], NOW)
    assert case.book.staples() == {}
    assert case.book.due(NOW + 400 * DAY) == []
    assert case.book.state(case.sha256, NOW) is None
    assert case.answered() is None
    assert case.failed() is None
    assert case.book.staples() == {}


def test_one_that_comes_back_is_new(case: Case) -> None:
    case.answered()
    case.book.want([], NOW)
    case.book.want([case.certificate], NOW)
    assert case.shown() is None
    assert len(case.book.due(NOW)) == 1


def test_what_is_wanted_still_is_not_asked_about_again(case: Case) -> None:
    case.answered()
    before = case.shown()
    case.book.want([as_certificate(ISSUER.issue()), case.certificate, case.certificate], NOW + HOUR)
    assert case.shown() == before
    assert case.sha256 not in {question.sha256 for question in case.book.due(NOW + HOUR)}


# What was on disk.


def test_a_response_from_the_disk_is_shown_and_asked_for_half_way(case: Case) -> None:
    response = case.response()
    assert case.book.recall(case.sha256, response, NOW + DAY) is None
    assert case.shown() == response
    assert case.due_at(timedelta(0)).total_seconds() == about(2 * DAY)


def test_a_response_from_the_disk_is_believed_no_more_than_one_from_the_net(case: Case) -> None:
    stranger = Issuer()
    for response, why in (
        (case.response(status=REVOKED), "revoked"),
        (case.response(signer=stranger), "not signed"),
        (b"", "not an OCSP response"),
        (case.response(this_update=NOW - 2 * DAY, next_update=NOW), "expired"),
    ):
        assert why in str(case.book.recall(case.sha256, response, NOW))
        assert case.shown() is None
    assert case.book.recall("ab" * 32, case.response(), NOW) == "its certificate is not served"
    assert case.book.due(NOW), "it is asked about all the same, at once"


# What is told.


def test_each_problem_is_told_once(case: Case) -> None:
    assert case.failed() == f"site.pem: no OCSP response from {URL}: no route"
    assert case.failed() is None
    assert case.failed(problem="refused") == f"site.pem: no OCSP response from {URL}: refused"
    assert case.failed(problem="refused") is None
    case.answered()
    assert case.failed(problem="refused"), "after a success it is news"


def test_a_revocation_is_told_once(case: Case) -> None:
    told = [case.answered(status=REVOKED) for _ in range(5)]
    assert told[0] is not None
    assert told[1:] == [None] * 4


def test_the_state_is_said_in_a_few_words(case: Case) -> None:
    def state(at: timedelta = timedelta(0)) -> str | None:
        return case.book.state(case.sha256, NOW + at)

    assert state() == "not asked yet"
    case.failed()
    assert state() == "no route"
    case.answered()
    end = NOW + 4 * DAY
    assert state(4 * DAY - SECOND) == f"good until {end:%Y-%m-%d %H:%M} UTC"
    case.failed(3 * DAY)
    assert state(4 * DAY - SECOND) == f"good until {end:%Y-%m-%d %H:%M} UTC", "it still is"
    assert state(4 * DAY) == "no route"
    case.answered(HOUR, status=REVOKED, this_update=NOW + HOUR)
    assert state() == "the issuer says that the certificate is revoked"


def test_the_digest_is_that_of_the_leaf(case: Case) -> None:
    assert case.sha256 == case.leaf.certificate.fingerprint(hashes.SHA256()).hex()
