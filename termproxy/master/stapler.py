"""Keep fresh OCSP responses at hand: have a helper ask for them, keep them on disk, say what changed.

What to ask and what to believe is decided in staple_book.py and tls/ocsp.py.
"""

from __future__ import annotations

import logging
import os
import random
import selectors
import signal
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from termproxy import clock
from termproxy.master.landlock import Reach
from termproxy.master.ocsp_helper import plain_problem, prepare, reach_of
from termproxy.master.spawn import Helper
from termproxy.master.staple_book import Question, StapleBook
from termproxy.master.state_dir import StateDir
from termproxy.messages import MessageReader
from termproxy.tls.certificates import Certificate
from termproxy.tls.ocsp import RESPONSE_MAX, Staple

log = logging.getLogger("master")

HELPER_MAX = 600.0  # seconds: a round of questions, each at its slowest, and some
READ = 1 << 16  # bytes at a time
MESSAGE_MAX = 8 * RESPONSE_MAX  # a response as JSON, which makes six bytes of some

SUFFIX = ".ocsp"

Changes = dict[str, tuple[bytes, float] | None]
"""By the certificate's SHA-256: the response and when it expires (seconds since 1970); None: no more."""

Fork = Callable[[Callable[[], Callable[[int], None]], Reach], Helper]


class Stapler:
    """`fork_helper` starts a helper; `on_change` is told what is to be shown from now on."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fork_helper: Fork,
        on_change: Callable[[Changes], None],
    ) -> None:
        self._selector = selector
        self._fork_helper = fork_helper
        self._on_change = on_change
        self._book = StapleBook(random.random)
        self._shown: dict[str, Staple] = {}
        self._helper: Helper | None = None
        self._alive: int | None = None  # the helper's process, until it has been reaped
        self._unanswered: set[str] = set()
        self._reader = MessageReader(MESSAGE_MAX)
        self._until = 0.0
        self._kept: StateDir | None = None

    def keep_in(self, kept: StateDir | None, certificates: Sequence[Certificate]) -> None:
        """At the start: where responses outlive us, and what is there of use now."""
        self._kept = kept
        now = clock.utc_now()
        self._book.want(certificates, now)
        if kept is not None:
            self._recall_all(kept, now)
        self._shown = self._book.staples()
        if self._shown:
            self._on_change({sha256: _shown(staple) for sha256, staple in self._shown.items()})

    def want(self, certificates: Iterable[Certificate]) -> None:
        """Staple these from now on, and no others."""
        self._book.want(certificates, clock.utc_now())
        self._show()

    def state(self, sha256: str) -> str | None:
        """How a certificate's stapling is, for the operator's eyes."""
        return self._book.state(sha256, clock.utc_now())

    def staples(self) -> dict[str, Staple]:
        """The responses at hand, by the certificate's SHA-256."""
        return self._book.staples()

    def tick(self, now: float) -> None:
        """Ask what is due; end a helper that takes too long."""
        if self._alive is not None:
            if now >= self._until:
                log.error("the OCSP helper does not end: killing it")
                self.stop()
            return
        if self._helper is not None:
            return  # it has been reaped before its last words were read
        questions = self._book.due(clock.utc_now())
        if questions:
            self._ask(questions, now)

    def on_exit(self, pid: int) -> bool:
        """A process has been reaped; whether it was the helper."""
        if pid != self._alive:
            return False
        self._alive = None
        return True

    def stop(self) -> None:
        """End the helper, if there is one."""
        if self._alive is not None:
            os.kill(self._alive, signal.SIGKILL)  # not reaped yet, so it cannot have become another's

    def close(self) -> None:
        """In a worker: this is the master's."""
        if self._helper is not None:
            os.close(self._helper.fd)

    def _ask(self, questions: list[Question], now: float) -> None:
        self._unanswered = {question.sha256 for question in questions}
        try:
            self._helper = helper = self._fork_helper(lambda: prepare(questions), reach_of(questions))
        except OSError as error:
            log.error("no OCSP helper: %s", error.strerror)
            self._give_up_on_the_rest()
            return
        self._alive, self._until = helper.pid, now + HELPER_MAX
        self._reader = MessageReader(MESSAGE_MAX)
        self._selector.register(helper.fd, selectors.EVENT_READ, lambda _: self._hear(helper))

    def _hear(self, helper: Helper) -> None:
        data = os.read(helper.fd, READ)
        try:
            for answer in self._reader.feed(data):
                self._take(answer)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("the OCSP helper says nonsense: %s", error)
            data = b""
        if not data:
            self._selector.unregister(helper.fd)
            os.close(helper.fd)
            self._helper = None
            self._give_up_on_the_rest()
        self._show()

    def _take(self, answer: dict[str, Any]) -> None:
        sha256, now = str(answer["sha256"]), clock.utc_now()
        if "response" in answer:
            problem = self._book.answered(sha256, answer["response"].encode("latin-1"), now)
        else:
            problem = self._book.failed(sha256, plain_problem(str(answer["problem"])), now)
        self._unanswered.discard(sha256)
        if problem is not None:
            log.warning("%s", problem)

    def _give_up_on_the_rest(self) -> None:
        """The helper ended before its time: what it has not told of is asked again soon."""
        for sha256 in self._unanswered:
            problem = self._book.failed(sha256, "the helper ended before the answer", clock.utc_now())
            if problem is not None:
                log.warning("%s", problem)
        self._unanswered = set()

    def _show(self) -> None:
        """Tell what has changed, and keep it."""
        now_shown = self._book.staples()
        changes: Changes = {}
        for sha256 in set(self._shown) - set(now_shown):
            changes[sha256] = None
            self._forget(sha256)
        for sha256, staple in now_shown.items():
            if self._shown.get(sha256) != staple:
                changes[sha256] = _shown(staple)
                self._keep(sha256, staple)
        self._shown = now_shown
        if changes:
            self._on_change(changes)

    # On disk.  Names are made of SHA-256s in hexadecimal, so they are plain ones.

    def _keep(self, sha256: str, staple: Staple) -> None:
        if self._kept is None:
            return
        try:
            self._kept.write(sha256 + SUFFIX, staple.response)
        except OSError as error:
            log.warning("cannot keep an OCSP response in %s: %s", self._kept.path, error.strerror)

    def _forget(self, sha256: str) -> None:
        """What is shown no more must not come back with a restart."""
        if self._kept is None:
            return
        try:
            self._kept.remove(sha256 + SUFFIX)
        except OSError as error:
            log.warning("cannot remove an OCSP response from %s: %s", self._kept.path, error.strerror)

    def _recall_all(self, kept: StateDir, now: datetime) -> None:
        try:
            names = list(kept.names(SUFFIX))
        except OSError as error:
            log.warning("cannot look into %s: %s", kept.path, error.strerror)
            return
        for name in names:
            try:
                self._recall(kept, name, now)
            except OSError as error:
                log.warning("%s/%s is left alone: %s", kept.path, name, error)

    def _recall(self, kept: StateDir, name: str, now: datetime) -> None:
        response = kept.read(name, RESPONSE_MAX)
        if response is None:
            return
        problem = self._book.recall(name.removesuffix(SUFFIX), response, now)
        if problem is not None:
            log.info("%s/%s is removed: %s", kept.path, name, problem)
            kept.remove(name)


def _shown(staple: Staple) -> tuple[bytes, float]:
    return staple.response, staple.next_update.timestamp()
