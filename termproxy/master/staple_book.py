"""Which OCSP responses are wanted, which are at hand, and when to ask for one.  No I/O.

A response is asked for when there is none, and again half-way through its life.  A failure is tried
again, at first soon and then less often; what is at hand is good until it expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from termproxy.tls.certificates import Certificate
from termproxy.tls.ocsp import NotGoodError, OcspError, Staple, make_request, verify

RETRY_FIRST = timedelta(minutes=1)
RETRY_MAX = timedelta(hours=1)
# Certificates that were issued together are not all asked about at the same second.
SPREAD = 0.1  # of the time until then, at most

ROUND_MAX = 50  # asked about at a time


@dataclass(frozen=True, slots=True)
class Question:
    """For the helper: where to send what, and of which certificate (SHA-256) the answer is."""

    sha256: str
    url: str
    request: bytes


@dataclass(slots=True)
class _Page:
    certificate: Certificate
    staple: Staple | None
    ask_at: datetime
    newest: datetime | None = None  # what was proven and is older counts no more
    failures: int = 0
    problem: str | None = None


class StapleBook:
    """`random()` gives a number from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._pages: dict[str, _Page] = {}

    def want(self, certificates: Iterable[Certificate], now: datetime) -> None:
        """Staple these from now on, and no others."""
        wanted = {each.sha256: each for each in certificates if each.ocsp_responder is not None}
        for sha256 in set(self._pages) - set(wanted):
            del self._pages[sha256]
        for sha256, certificate in wanted.items():
            self._pages.setdefault(sha256, _Page(certificate, None, now))

    def recall(self, sha256: str, response: bytes, now: datetime) -> str | None:
        """Take a response that was kept on disk: why it is of no use; None when it is."""
        page = self._pages.get(sha256)
        if page is None:
            return "its certificate is not served"
        try:
            self._take(page, response, now)
        except OcspError as error:
            return str(error)
        return None

    def due(self, now: datetime) -> list[Question]:
        """Whom to ask now.  They count as asked: an answer, or none, decides when they are due again."""
        questions: list[Question] = []
        for sha256, page in self._pages.items():
            if page.ask_at <= now and len(questions) < ROUND_MAX:
                leaf, issuer = _leaf_and_issuer(page.certificate)
                responder = page.certificate.ocsp_responder or ""
                questions.append(Question(sha256, responder, make_request(leaf, issuer)))
                page.ask_at = now + RETRY_MAX
        return questions

    def answered(self, sha256: str, response: bytes, now: datetime) -> str | None:
        """A responder has answered: what is wrong with it, the first time; None when it serves."""
        page = self._pages.get(sha256)
        if page is None:
            return None  # the certificate has gone meanwhile
        try:
            self._take(page, response, now)
        except OcspError as error:
            return self.failed(sha256, str(error), now)
        return None

    def failed(self, sha256: str, problem: str, now: datetime) -> str | None:
        """A responder did not answer, or is not to be believed: the problem, when it is a new one."""
        page = self._pages.get(sha256)
        if page is None:
            return None
        pause = min(RETRY_FIRST * 2 ** min(page.failures, 10), RETRY_MAX)
        page.failures += 1
        page.ask_at = now + pause * (1 + SPREAD * self._random())
        is_new, page.problem = problem != page.problem, problem
        if not is_new:
            return None
        asked = page.certificate.ocsp_responder
        return f"{page.certificate.chain_file}: no OCSP response from {asked}: {problem}"

    def staples(self) -> dict[str, Staple]:
        """What is at hand, by the certificate's SHA-256."""
        return {sha256: page.staple for sha256, page in self._pages.items() if page.staple is not None}

    def state(self, sha256: str, now: datetime) -> str | None:
        """For the operator's eyes; None for a certificate that has nobody to ask."""
        page = self._pages.get(sha256)
        if page is None:
            return None
        if page.staple is not None and page.staple.is_fresh(now):
            return f"good until {page.staple.next_update:%Y-%m-%d %H:%M} UTC"
        return page.problem or "not asked yet"

    def _take(self, page: _Page, response: bytes, now: datetime) -> None:
        leaf, issuer = _leaf_and_issuer(page.certificate)
        try:
            staple = verify(response, leaf, issuer, now)
        except NotGoodError as error:
            page.staple, page.newest = None, max(error.this_update, page.newest or error.this_update)
            raise
        if page.newest is not None and staple.this_update < page.newest:
            raise OcspError("the response is older than the one before")
        page.staple, page.newest, page.failures, page.problem = staple, staple.this_update, 0, None
        page.ask_at = max(staple.refresh_at(), now + RETRY_FIRST)
        page.ask_at += (page.ask_at - now) * SPREAD * self._random()


def _leaf_and_issuer(certificate: Certificate) -> tuple[x509.Certificate, x509.Certificate]:
    leaf, issuer = x509.load_pem_x509_certificates(certificate.chain)[:2]
    return leaf, issuer
