"""The talk of two masters, of which the second is a real process that says what a test has it say."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from termproxy import __version__, clock
from termproxy.errors import StartError
from termproxy.master import upgrade as module
from termproxy.master.control import Request
from termproxy.master.handover import Handover, encode
from termproxy.master.upgrade import IN_FORCE_WITHIN, KILL_AFTER, VARIABLE, Predecessor, Talk, Upgrade
from tests.support.waiting import wait_until

TAKES_OVER = """
report = predecessor.ask_for_place()
assert report["count"] == 1, report
predecessor.take_place()
"""

NEW = """
import os, sys, time
from termproxy.errors import StartError
from termproxy.master.upgrade import Predecessor
predecessor = Predecessor.of(os.environ)
assert "TERMPROXY_HANDOVER" not in os.environ
"""


class Old:
    """An old master, without anything but its side of the talk."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.refusal: str | None = None
        self.in_force: int | None = None
        self.failed = ""
        self.told_to_end = self.told_to_reopen = 0
        self.count = 0
        self.shared = os.memfd_create("shared")
        self.upgrade = Upgrade(
            self.selector,
            may_not=lambda: self.refusal,
            make_handover=self._handover,
            environment=lambda: os.environ,
            make_report=self._report,
            on_in_force=self._on_in_force,
            on_failed=self._on_failed,
            on_told_to_end=self._on_told_to_end,
            on_told_to_reopen=self._on_told_to_reopen,
        )
        self.answers: list[dict[str, Any]] = []
        self.request = Request(self.answers.append)

    def _handover(self, talk: int) -> Handover:
        return Handover(
            pid=os.getpid(),
            version="0.9",
            talk=talk,
            started="2026-11-23T00:00:00+00:00",
            generation=3,
            activated={"shared": [self.shared]},
            ring={"seed": "5ec4e7"},
        )

    def _report(self) -> dict[str, Any]:
        self.count += 1
        return {"count": self.count}

    def _on_in_force(self, pid: int) -> None:
        self.in_force = pid

    def _on_failed(self, reason: str) -> None:
        self.failed = reason

    def _on_told_to_end(self) -> None:
        self.told_to_end += 1

    def _on_told_to_reopen(self) -> None:
        self.told_to_reopen += 1

    def begin(self) -> None:
        self.upgrade.begin(self.request)

    def turn(self) -> None:
        """Of the loop: what the other one says, and whether it has gone."""
        for key, _ in self.selector.select(0.01):
            key.data(clock.monotonic())
        if self.upgrade._pid is not None:
            pid, status = os.waitpid(self.upgrade._pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.upgrade.on_exit(pid, f"exited with status {code}")

    def turn_until(self, what: str) -> None:
        def look() -> bool:
            self.turn()
            return bool(getattr(self, what))

        wait_until(look, what)

    def answer(self) -> dict[str, Any]:
        [answer] = self.answers
        return answer


@pytest.fixture
def old() -> Iterator[Old]:
    old = Old()
    yield old
    old.upgrade.close()
    if old.upgrade._pid is not None:
        try:
            os.kill(old.upgrade._pid, signal.SIGKILL)
            os.waitpid(old.upgrade._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    old.selector.close()
    os.close(old.shared)


def becomes(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What is installed now does this."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", NEW + code])


def test_the_new_one_takes_over_and_hears_until_the_old_one_has_gone(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(
        monkeypatch,
        TAKES_OVER
        + """
import selectors
selector, heard, gone = selectors.DefaultSelector(), [], []
predecessor.listen(selector, heard.append, lambda: gone.append(1))
predecessor.end()
while not gone:
    for key, _ in selector.select(10):
        key.data(0.0)
assert [each["count"] for each in heard] == [2, 3], heard
""",
    )
    old.begin()
    old.turn_until("in_force")
    assert old.answer() == {
        "old": {"pid": os.getpid(), "version": __version__},
        "new": {"pid": old.in_force, "version": __version__},
    }
    assert old.upgrade.is_done
    assert not old.upgrade.is_under_way
    old.upgrade.tick(100.0)
    old.upgrade.tick(100.1)  # too soon for another report
    old.turn_until("told_to_end")
    pid = old.in_force
    assert pid is not None
    old.upgrade.say_last()
    _, status = os.waitpid(pid, 0)
    assert status == 0


def test_it_inherits_what_it_is_left_and_nothing_else(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(
        monkeypatch,
        """
assert predecessor.handover.version == "0.9" and predecessor.handover.ring == {"seed": "5ec4e7"}
[fd] = predecessor.handover.activated["shared"]
assert not any(map(os.get_inheritable, [fd, predecessor.handover.talk]))
names = []
for number in os.listdir("/proc/self/fd"):
    try:
        names.append(os.readlink(f"/proc/self/fd/{number}"))
    except FileNotFoundError:
        pass  # of the listing itself
assert not [name for name in names if "handover" in name], names
assert [name for name in names if "shared" in name], names
predecessor.say_failed("that was all")
""",
    )
    old.begin()
    old.turn_until("failed")
    assert old.failed == "that was all"


def test_nothing_secret_stays_in_the_memory_that_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with_secret = os.memfd_create("handover")
    kept = os.dup(with_secret)
    ours, theirs = socket.socketpair()
    talk = os.dup(theirs.fileno())
    handover = Handover(pid=1, version="1", talk=talk, started="", generation=1, ring={"seed": "5ec4e7"})
    os.write(with_secret, encode(handover))
    environ = {VARIABLE: str(with_secret)}
    predecessor = Predecessor.of(environ)
    try:
        assert predecessor is not None
        assert predecessor.handover == handover
        assert environ == {}
        assert set(os.pread(kept, 10_000, 0)) == {0}
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(with_secret)
    finally:
        if predecessor is not None:
            predecessor.close()
        ours.close()
        theirs.close()
        os.close(kept)


@pytest.mark.parametrize("number", ["", "many", "-1", "99999"])
def test_a_variable_that_leads_nowhere_is_refused(number: str) -> None:
    with pytest.raises(StartError, match=f"{VARIABLE}={number}"):
        Predecessor.of({VARIABLE: number})


def test_without_it_there_is_no_old_master() -> None:
    assert Predecessor.of({}) is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("predecessor.say_failed('no such cluster'); sys.exit(1)", "no such cluster"),
        ("sys.exit(7)", "the new executable exited with status 7; what it said is in the log"),
        ("predecessor.close(); sys.exit(3)", "the new executable exited with status 3;"),
        ("predecessor.ask_for_place(); os._exit(4)", "the new executable exited with status 4;"),
        ("import no_such_module", "the new executable exited with status 1;"),
    ],
)
def test_when_it_does_not_come_up_the_old_one_knows_why(
    code: str, reason: str, old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(monkeypatch, code)
    old.begin()
    old.turn_until("failed")

    assert reason in old.failed
    assert old.answer()["error"].startswith(f"not upgraded: {reason}")
    assert old.in_force is None
    assert not old.upgrade.is_under_way
    assert not old.selector.get_map()


def test_when_there_is_nothing_to_execute(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    old.begin()

    assert old.answer() == {
        "error": "not upgraded: cannot execute /nowhere/python: No such file or directory"
    }
    assert not old.upgrade.is_under_way
    assert not old.selector.get_map()


def test_one_that_takes_too_long_is_asked_to_go_and_then_killed(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(
        monkeypatch,
        """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
predecessor._talk.say({"failed": ""})  # it lives
time.sleep(60)
""",
    )
    old.begin()
    wait_until(lambda: old.selector.select(0.01), "it lives")
    now = clock.monotonic()
    old.upgrade.tick(now)
    old.upgrade.tick(now + IN_FORCE_WITHIN + 1)
    old.turn()
    assert old.upgrade.is_under_way
    old.upgrade.tick(now + IN_FORCE_WITHIN + 2)  # it has some time
    old.turn()
    assert not old.failed
    old.upgrade.tick(now + IN_FORCE_WITHIN + 1 + KILL_AFTER)
    old.turn_until("failed")
    assert old.failed == f"it does not serve within {IN_FORCE_WITHIN:g} s"


def test_one_that_is_ready_too_late_is_refused(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(
        monkeypatch,
        """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    predecessor.ask_for_place()
except StartError as error:
    assert str(error) == "the old master goes on: it stops", error
    sys.exit(5)
""",
    )
    old.begin()
    old.upgrade.call_off("it stops")
    old.turn_until("failed")
    assert old.failed == "it stops"
    assert old.in_force is None


def test_one_that_is_called_off_when_it_has_taken_its_place_already_goes(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(
        monkeypatch,
        """
predecessor.ask_for_place()
try:
    predecessor.take_place()
except StartError as error:
    assert str(error) == "the old master goes on: it stops", error
    sys.exit(5)
""",
    )
    old.begin()
    old.turn_until("count")
    old.upgrade.call_off("it stops")
    old.turn_until("failed")
    assert old.failed == "it stops"
    assert old.in_force is None


def test_one_that_dies_when_it_has_taken_its_place_never_served(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(monkeypatch, "predecessor._talk.say({'in_force': True}); os._exit(4)")
    old.begin()
    assert old.upgrade._pid is not None
    pid, _ = os.waitpid(old.upgrade._pid, 0)
    old.upgrade.on_exit(pid, "exited with status 4")

    assert old.in_force is None
    assert old.failed.startswith("the new executable exited with status 4")


def test_one_upgrade_at_a_time(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, "time.sleep(0.5)")
    old.upgrade.begin()
    old.begin()

    assert old.answer() == {"error": "not upgraded: an upgrade is under way already"}


def test_after_one_that_failed_comes_another(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, "sys.exit(1)")
    old.upgrade.begin()
    old.turn_until("failed")
    becomes(monkeypatch, TAKES_OVER)
    old.begin()
    old.turn_until("in_force")


def test_none_when_there_is_a_reason_against_it(old: Old) -> None:
    old.refusal = "a generation is just starting"
    old.begin()

    assert old.answer() == {"error": "not upgraded: a generation is just starting"}


def test_none_of_process_1(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is the container's."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    old.begin()

    assert "this is process 1, with which its container ends: start a new" in old.answer()["error"]


def test_none_once_it_has_been_done(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, TAKES_OVER)
    old.upgrade.begin()
    old.turn_until("in_force")
    old.begin()

    assert "has taken over already, this one only drains" in old.answer()["error"]


@pytest.fixture
def pair() -> Iterator[tuple[Talk, Talk]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    yield Talk(one), Talk(other)
    one.close()
    other.close()


def test_long_messages_arrive_in_pieces(pair: tuple[Talk, Talk]) -> None:
    one, other = pair
    text = "x" * 3_000_000
    one.say({"text": text})
    assert one.has_unsent
    heard: list[dict[str, Any]] = []
    while not heard:
        heard = other.hear() or []
        one.send()
    assert heard == [{"text": text}]
    assert not one.has_unsent


def test_what_follows_a_word_that_was_waited_for_is_not_lost(pair: tuple[Talk, Talk]) -> None:
    one, other = pair
    for number in range(3):
        one.say({f"word{number}": number})
    one.sock.close()

    assert other.wait_for("word1") == {"word1": 1}
    assert other.hear() == [{"word2": 2}]
    assert other.hear() is None


def test_nobody_waits_for_a_word_for_ever(
    pair: tuple[Talk, Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN", 0.05)
    _, other = pair
    with pytest.raises(StartError, match=r"the old master has not answered within 0\.05 s"):
        other.wait_for("go")


def test_one_that_has_gone_is_no_error(pair: tuple[Talk, Talk]) -> None:
    one, other = pair
    one.sock.close()
    other.say({"word": 1})
    other.say_last({"word": 2})

    assert other.wait_for("go") is None
