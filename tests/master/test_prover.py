"""What becomes of a proof: a helper's word, its silence, its death."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from termproxy import clock
from termproxy.config.load import FlagSource
from termproxy.master.generation import Generation, build, check
from termproxy.master.proof import plan
from termproxy.master.prover import GRACE, Prover
from termproxy.master.spawn import Helper
from termproxy.messages import message
from termproxy.tls.context import Stores
from tests.conftest import write_site

GOOD = {"shown": 3, "resumed": 1, "unproved": [], "failures": []}


@pytest.fixture(scope="module")
def generation(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    site = write_site(ca, tmp_path_factory.mktemp("proof") / "site.pem")
    frontend = {"name": "web", "listen": ["127.0.0.1:1"], "cluster": "app", "certificates": [str(site)]}
    values = {
        "log": {"access": "off"},
        "frontend": [frontend],
        "cluster": {"app": {"servers": ["127.0.0.1:2"]}},
    }
    checked = check(FlagSource(values, {}), uid=1, now=clock.utc_now(), stores=Stores())
    return build(checked, 7)


@dataclass
class Case:
    """A prover whose helper is this test; `killed` are the processes that it has killed."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    ended: list[tuple[int, str]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    has_no_memory: bool = False

    def __post_init__(self) -> None:
        self.prover = Prover(self.selector, lambda *end: self.ended.append(end))
        self.workers = [self.prover.channel(slot) for slot in range(2)]
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)

    def fork(self, _: Callable[[], Any], keep: set[int]) -> Helper:
        if self.has_no_memory:
            raise OSError(12, "no memory")
        self.kept = keep
        return Helper(4711, self.read_fd)

    def say(self, data: bytes) -> None:
        os.write(self.write_fd, data)
        self.turn()

    def end(self) -> None:
        os.close(self.write_fd)
        self.turn()
        self.turn()

    def turn(self) -> None:
        for key, _ in self.selector.select(0):
            key.data(0.0)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    made = Case()
    monkeypatch.setattr("os.kill", lambda pid, _: made.killed.append(pid))
    yield made
    for sock in made.workers:
        sock.close()


def has_ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_proof_that_holds_is_told_without_a_reason(case: Case, generation: Generation) -> None:
    case.prover.prove(generation, case.fork)
    assert len(case.kept) == 2
    assert case.prover.generation == 7
    case.say(message(GOOD))
    case.end()
    assert case.ended == [(7, "")]
    assert [has_ended(sock) for sock in case.workers] == [True, True], "nothing is asked any more"


def test_a_proof_that_fails_says_why(case: Case, generation: Generation) -> None:
    case.prover.prove(generation, case.fork)
    case.say(message(GOOD | {"failures": ["one", "two\x1b[31m"]}))
    case.end()
    assert case.ended == [(7, "one; two\\x1b[31m")]


@pytest.mark.parametrize("said", [b"", b"\0\0\0\x02{}", b"\0\0\0\x01?", b"\xff" * 8])
def test_without_an_answer_there_is_no_proof(case: Case, generation: Generation, said: bytes) -> None:
    case.prover.prove(generation, case.fork)
    if said:
        case.say(said)
    if not case.ended:
        case.end()
    ((number, reason),) = case.ended
    assert number == 7
    assert reason.startswith("its helper")


def test_without_a_helper_there_is_no_proof(case: Case, generation: Generation) -> None:
    case.has_no_memory = True
    case.prover.prove(generation, case.fork)
    assert case.ended == [(7, "no helper: no memory")]


def test_a_helper_that_does_not_end_is_killed(case: Case, generation: Generation) -> None:
    case.prover.prove(generation, case.fork)
    late = plan([site.assembly for site in generation.sites], 2, resumes=True).seconds + GRACE
    case.prover.tick(clock.monotonic() + late - 1)
    assert case.killed == []
    case.prover.tick(clock.monotonic() + late)
    assert case.killed == [4711]
    case.end()
    assert case.ended == [(7, "it took too long")]


def test_what_is_given_up_is_not_heard(case: Case, generation: Generation) -> None:
    case.prover.prove(generation, case.fork)
    case.prover.give_up()
    assert case.killed == [4711]
    assert case.ended == []
    assert not case.selector.get_map()
    assert case.prover.on_exit(4711)
    assert not case.prover.on_exit(4711)
    case.prover.give_up()
    assert case.killed == [4711], "it may be another's by now"
