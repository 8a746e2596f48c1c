"""Signals of every kind to a real master, in any order, beside a model of what must come of them.

What a model knows is how many workers should be there in the end, and that a reload is never lost.  A
signal that is pending already is not queued once more, and pending ones come by number, not by age: what
changes the model waits until it was heard.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path

import trustme
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.conftest import client_context, write_site
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave
from tests.support.processes import session_members, zombies
from tests.support.server import Server
from tests.support.server import settings as server_settings
from tests.support.waiting import wait_until

CONFIGURED = 2
MOST = 6  # with so many configured
SETTLES = 60.0  # seconds; a slot whose workers were killed often and young backs off

DEADLY = [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGINT]


class Storm(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wanted = CONFIGURED
        self.is_resting = False
        self.generation = 1
        self.kills = 0
        self.tickets = 1
        self.open = contextlib.ExitStack()

    @initialize()
    def start(self) -> None:
        folder = Path(self.open.enter_context(tempfile.TemporaryDirectory()))
        ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.context = client_context(ca)
        backend = self.open.enter_context(Backend())
        values = server_settings(
            write_site(ca, folder / "site.pem"), [backend.address], workers=CONFIGURED
        )
        values["timeouts"]["drain"] = 1
        self.server = self.open.enter_context(Server(folder, values))

    # Signals that may come at any time.

    @rule(is_new=st.booleans())
    def reload(self, is_new: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        """Of what takes new workers, or of nothing new, which does at rest only."""
        if is_new:
            self.tickets = 3 - self.tickets
            self.server.values["resumption"] = {"tickets_per_handshake": self.tickets}
            self.server.write_config()
        self.server.signal(signal.SIGHUP)

    @rule()
    def child(self) -> None:
        self.server.signal(signal.SIGCHLD)

    @rule()
    def reopen(self) -> None:
        self._and_wait_for_words(signal.SIGUSR1, "opened anew: ")

    @precondition(lambda self: self.kills < 6)
    @rule(signum=st.sampled_from(DEADLY), which=st.integers(0, 99))
    def end_a_worker(self, signum: signal.Signals, which: int) -> None:
        """Starting, serving or draining, whichever it is."""
        self.kills += 1
        workers = sorted(set(session_members(self.server.pid)) - {self.server.pid})
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[which % len(workers)], signum)

    # Signals that change how many workers there should be.

    @rule()
    def one_more(self) -> None:
        self._until_no_reload_is_on_its_way()
        self._and_wait_for_words(signal.SIGTTIN, "TTIN: ")
        if not self.is_resting:
            self.wanted = min(self.wanted + 1, MOST)
        self.is_resting = False

    @rule()
    def one_fewer(self) -> None:
        self._until_no_reload_is_on_its_way()
        self._and_wait_for_words(signal.SIGTTOU, "TTOU: ")
        self.wanted = max(self.wanted - 1, 1)

    @rule()
    def rest(self) -> None:
        """Also in the middle of a reload, which is then dropped, and says so."""
        self._and_wait_for_words(signal.SIGWINCH, "WINCH: ")
        self._until_no_reload_is_on_its_way()
        self.is_resting = self.server.status()["workers_wanted"] == 0

    # What must be so.

    @rule()
    def settle(self) -> None:
        """Every worker that should be there is ready, and no other is left."""
        self._until_no_reload_is_on_its_way()
        self.kills = 0
        wait_until(self._has_settled, f"workers: {self._expected()}", seconds=SETTLES)
        wait_until(lambda: not zombies(self.server.pid), "every child that has ended is reaped")
        if not self.is_resting:
            with connect(self.server.port, self.context) as client:
                assert exchange(client) == b"ping"
                leave(client)

    @invariant()
    def the_master_answers(self) -> None:
        if hasattr(self, "server"):
            assert self.server.status()["pid"] == self.server.pid

    def teardown(self) -> None:
        """A last HUP is served, whatever came before; TERM in the middle of another one ends it all."""
        with self.open:
            if not hasattr(self, "server"):
                return
            self._until_no_reload_is_on_its_way()
            generation = self.generation
            self.reload(is_new=True)
            wait_until(lambda: self._generation() > generation, "the last reload", seconds=SETTLES)
            self.settle()
            self.reload(is_new=True)
            self.server.signal(signal.SIGTERM)
            assert self.server.wait_until_gone() == 0
            assert "stumbled" not in self.server.said()

    def _expected(self) -> int:
        return 0 if self.is_resting else self.wanted

    def _has_settled(self) -> bool:
        workers = [(each["state"], each["generation"]) for each in self.server.status()["workers"]]
        return workers == [("ready", self.generation)] * self._expected()

    def _generation(self) -> int:
        return int(self.server.status()["generation"])

    def _until_no_reload_is_on_its_way(self) -> None:
        """And none was sent that has not been heard: the master answers after what came before."""
        wait_until(self._is_between_reloads, "the reload's end", seconds=SETTLES)
        generation = self._generation()
        if generation != self.generation:
            self.generation = generation
            self.wanted, self.is_resting = CONFIGURED, False

    def _is_between_reloads(self) -> bool:
        self.server.status()  # a signal is read before, or with, the next question
        return not self.server.status()["reloading"]

    def _and_wait_for_words(self, signum: signal.Signals, words: str) -> None:
        before = self.server.said().count(words)
        self.server.signal(signum)
        wait_until(lambda: self.server.said().count(words) > before, f"{words!r} after {signum.name}")


def storms(count: int, steps: int) -> settings:
    """So many, of so many steps; none is shrunk, since each takes seconds."""
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
