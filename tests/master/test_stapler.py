"""The master's side of stapling: one helper at a time, whatever it says, and what is kept on disk.

The helper is the test itself, at the other end of the pipe; a harmless process stands for its pid.
"""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from termproxy import clock
from termproxy.master.landlock import Reach
from termproxy.master.ocsp_helper import PROBLEM_MAX
from termproxy.master.spawn import Helper
from termproxy.master.stapler import HELPER_MAX, MESSAGE_MAX, Changes, Stapler
from termproxy.master.state_dir import StateDir
from termproxy.messages import message
from termproxy.tls.certificates import Certificate
from termproxy.tls.ocsp import RESPONSE_MAX
from tests.support.ocsp import DAY, REVOKED, Issuer, as_certificate, respond, this_second
from tests.support.pki import Issued
from tests.support.waiting import PATIENCE

ISSUER = Issuer()
MINUTE = timedelta(minutes=1)


class Case:
    """A Stapler, its clock, and the helper that it forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = this_second()
        self.monotonic = 1000.0
        self.changes: list[Changes] = []
        self.forks = 0
        self.fork_error: OSError | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._write_fd: int | None = None
        self.restart()

    def restart(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.stapler = Stapler(self.selector, self._fork, self.changes.append)
        self.changes.clear()

    def _fork(self, prepare: Callable[[], Callable[[int], None]], reach: Reach) -> Helper:
        if self.fork_error is not None:
            raise self.fork_error
        assert callable(prepare())
        read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK)
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._processes.append(process)
        self.forks += 1
        return Helper(process.pid, read_fd)

    # What the master does.

    def tick(self, later: timedelta = timedelta(0)) -> None:
        self.now += later
        self.monotonic += later.total_seconds()
        self.stapler.tick(self.monotonic)

    def hear(self) -> None:
        """A turn of the loop."""
        for key, _ in self.selector.select(0):
            key.data(self.monotonic)

    def reap(self) -> bool:
        process = self._processes[-1]
        process.communicate(b"\n", timeout=PATIENCE)
        return self.stapler.on_exit(process.pid)

    # What the helper does.

    def tell(self, data: bytes) -> None:
        assert self._write_fd is not None
        for at in range(0, len(data), 1 << 14):
            os.write(self._write_fd, data[at : at + (1 << 14)])
            self.hear()

    def answer(self, certificate: Certificate, response: bytes) -> None:
        body = {"sha256": certificate.sha256, "response": response.decode("latin-1")}
        self.tell(message(body))

    def fail(self, certificate: Certificate, problem: str = "no route") -> None:
        self.tell(message({"sha256": certificate.sha256, "problem": problem}))

    def end(self) -> None:
        """The helper has told everything, and goes."""
        self.hang_up()
        assert self.reap()

    def hang_up(self) -> None:
        assert self._write_fd is not None
        os.close(self._write_fd)
        self._write_fd = None
        self.hear()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate(timeout=PATIENCE)
        for key in list(self.selector.get_map().values()):
            os.close(key.fd)
        if self._write_fd is not None:
            os.close(self._write_fd)
        self.selector.close()

    # What there is.

    def shown(self) -> dict[str, bytes]:
        """What the workers show, after all that they were told."""
        held: dict[str, bytes] = {}
        for changes in self.changes:
            for sha256, change in changes.items():
                if change is None:
                    held.pop(sha256, None)
                else:
                    held[sha256] = change[0]
        return held

    def kept(self) -> dict[str, bytes]:
        folder = self.folder / "state"
        return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}

    def keep(self, certificates: list[Certificate], *, on_disk: bool = True) -> None:
        state = StateDir(self.folder / "state") if on_disk else None
        self.stapler.keep_in(state, certificates)


@pytest.fixture
def case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Case]:
    caplog.set_level(logging.DEBUG, "master")
    case = Case(tmp_path)

    def utc_now() -> datetime:
        return case.now

    monkeypatch.setattr(clock, "utc_now", utc_now)
    yield case
    case.close()


Pair = tuple[Issued, Certificate]


def a_pair() -> Pair:
    leaf = ISSUER.issue(responder="http://127.0.0.1:1/")
    return leaf, as_certificate(leaf)


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def a_response(case: Case, leaf: Issued, **options: Any) -> bytes:
    times = {"this_update": case.now, "next_update": case.now + 4 * DAY}
    return respond(leaf, ISSUER, **(times | options))


# Asking.


def test_what_is_answered_is_shown_and_kept(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    leaf, certificate = a_pair()
    response = a_response(case, leaf)
    case.keep([certificate])
    case.tick()
    assert case.forks == 1
    case.answer(certificate, response)
    expires = (case.now + 4 * DAY).timestamp()
    assert case.changes == [{certificate.sha256: (response, expires)}]
    assert case.kept() == {f"{certificate.sha256}.ocsp": response}
    case.end()
    assert len(case.changes) == 1
    assert str(case.stapler.state(certificate.sha256)).startswith("good until ")
    assert said(caplog) == []


def test_nothing_is_forked_while_nothing_is_due(case: Case) -> None:
    case.keep([as_certificate(ISSUER.issue(responder=None))])
    case.tick()
    case.tick(100 * DAY)
    assert case.forks == 0


def test_there_is_one_helper_at_a_time(case: Case) -> None:
    (_, one), (_, other) = a_pair(), a_pair()
    case.keep([one])
    case.tick()
    case.stapler.want([one, other])
    case.tick(MINUTE)
    assert case.forks == 1
    case.fail(one)
    case.end()
    case.tick()
    assert case.forks == 2


def test_an_answer_may_come_in_pieces_and_two_at_once(case: Case) -> None:
    (leaf, one), (other_leaf, other) = a_pair(), a_pair()
    responses = {one.sha256: a_response(case, leaf), other.sha256: a_response(case, other_leaf)}
    case.keep([one, other])
    case.tick()
    words = b"".join(
        message({"sha256": sha256, "response": response.decode("latin-1")})
        for sha256, response in responses.items()
    )
    for at in range(0, len(words), 97):
        case.tell(words[at : at + 97])
    case.end()
    assert case.shown() == responses


def test_without_a_state_dir_nothing_is_kept(case: Case) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate], on_disk=False)
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    assert case.shown()
    assert case.kept() == {}


def test_a_disk_that_takes_nothing_costs_no_staple(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    (case.folder / "state").rmdir()
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    assert case.shown()
    assert said(caplog) == [
        f"cannot keep an OCSP response in {case.folder}/state: No such file or directory"
    ]


def test_it_is_asked_for_anew_half_way_and_the_new_one_is_shown(case: Case) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    case.end()
    case.tick(DAY)
    assert case.forks == 1
    case.tick(2 * DAY)
    assert case.forks == 2
    newer = a_response(case, leaf)
    case.answer(certificate, newer)
    assert case.shown() == {certificate.sha256: newer}
    assert list(case.kept().values()) == [newer]


def test_the_same_response_again_is_no_news(case: Case) -> None:
    leaf, certificate = a_pair()
    response = a_response(case, leaf)
    case.keep([certificate])
    case.tick()
    for _ in range(3):
        case.answer(certificate, response)
    assert len(case.changes) == 1


# Answers that are none.


def test_a_revocation_takes_the_staple_away_everywhere(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    case.now += MINUTE
    for _ in range(3):
        case.answer(certificate, a_response(case, leaf, status=REVOKED))
    assert case.changes[-1] == {certificate.sha256: None}
    assert case.shown() == {}
    assert [line for line in said(caplog) if "revoked" in line] == said(caplog)
    assert len(said(caplog)) == 1


def test_what_was_revoked_does_not_come_back_with_a_restart(case: Case) -> None:
    """The good response on disk has not expired."""
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    case.answer(certificate, a_response(case, leaf, status=REVOKED))
    case.end()
    assert case.kept() == {}
    case.restart()
    case.keep([certificate])
    assert case.changes == []


def test_a_failure_leaves_the_staple_and_is_told_once(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    for _ in range(3):
        case.fail(certificate)
    assert case.shown()
    assert said(caplog) == ["site.pem: no OCSP response from http://127.0.0.1:1/: no route"]


def test_what_a_helper_says_is_made_safe_and_short(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """It may have been taken over by a responder."""
    _, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.fail(certificate, "evil\r\n2026-01-01 INFO \x1b[2J\x85" + "x" * 10_000)
    [line] = said(caplog)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < PROBLEM_MAX + 100
    state = str(case.stapler.state(certificate.sha256))
    assert state.isprintable()
    assert len(state) <= PROBLEM_MAX


def test_answers_about_what_nobody_asked_are_ignored(case: Case) -> None:
    (_, certificate), (stranger, unknown) = a_pair(), a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(unknown, a_response(case, stranger))
    case.fail(unknown)
    case.tell(message({"sha256": "../../etc/passwd", "response": "x"}))
    case.answer(certificate, a_response(case, stranger))
    assert case.changes == []
    assert case.kept() == {}


NONSENSE = [
    message({"sha256": "ab"}),
    message({"response": "x"}),
    message({}),
    b"\0\0\0\x02[]",
    b"\0\0\0\x04null",
    b"\0\0\0\x01{",
    b"\0\0\0\x00",
    (MESSAGE_MAX + 1).to_bytes(4),
    b"\xff\xff\xff\xff",
    message({"sha256": "KNOWN", "response": 5}),
    message({"sha256": "KNOWN", "response": None}),
    message({"sha256": "KNOWN", "response": "\u20ac"}),
    message({"sha256": ["KNOWN"], "response": {}}),
]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_helper_that_says_nonsense_is_heard_no_more(
    case: Case, caplog: pytest.LogCaptureFixture, nonsense: bytes
) -> None:
    """What it said before counts; what it was to ask is asked again soon."""
    (leaf, one), (_, other) = a_pair(), a_pair()
    response = a_response(case, leaf)
    case.keep([one, other])
    case.tick()
    case.answer(one, response)
    if b"KNOWN" in nonsense:
        body = nonsense[4:].replace(b"KNOWN", other.sha256.encode())
        nonsense = len(body).to_bytes(4) + body
    case.tell(nonsense)
    assert not case.selector.get_map()
    assert any(line.startswith("the OCSP helper says nonsense") for line in said(caplog))
    assert case.shown() == {one.sha256: response}
    assert case.reap()
    case.tick(2 * MINUTE)
    assert case.forks == 2


@pytest.mark.parametrize("body", [bytes(RESPONSE_MAX), b"\x1f" * RESPONSE_MAX, b"\xff" * RESPONSE_MAX])
def test_no_answer_of_a_responder_is_nonsense(
    case: Case, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    _, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, body)
    assert case.selector.get_map(), "it is still heard"
    [line] = said(caplog)
    assert "not an OCSP response" in line


def test_a_helper_that_ends_before_its_time_is_followed_by_another_soon(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    (leaf, one), (_, other) = a_pair(), a_pair()
    case.keep([one, other])
    case.tick()
    case.answer(one, a_response(case, leaf))
    case.end()
    assert case.stapler.state(other.sha256) == "the helper ended before the answer"
    assert len(said(caplog)) == 1
    case.tick(2 * MINUTE)
    assert case.forks == 2


def test_a_helper_that_does_not_end_is_killed(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    _, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.tick(timedelta(seconds=HELPER_MAX - 1))
    assert said(caplog) == []
    case.tick(timedelta(seconds=1))
    assert said(caplog) == ["the OCSP helper does not end: killing it"]
    assert case._processes[-1].wait(PATIENCE) == -9
    case.end()
    case.tick(2 * MINUTE)
    assert case.forks == 2


def test_a_fork_that_fails_is_tried_again_soon(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    _, certificate = a_pair()
    case.keep([certificate])
    case.fork_error = BlockingIOError(11, "no more processes")
    case.tick()
    assert said(caplog)[0] == "no OCSP helper: no more processes"
    case.fork_error = None
    case.tick(2 * MINUTE)
    assert case.forks == 1


def test_a_helper_that_is_reaped_is_heard_to_its_end_before_there_is_another(case: Case) -> None:
    (leaf, one), (_, other) = a_pair(), a_pair()
    response = a_response(case, leaf)
    case.keep([one])
    case.tick()
    words = message({"sha256": one.sha256, "response": response.decode("latin-1")})
    case.tell(words[:100])
    assert case.reap()
    case.stapler.want([one, other])
    case.tick()
    assert case.forks == 1
    case.tell(words[100:])
    case.hang_up()
    assert case.shown() == {one.sha256: response}
    case.tick()
    assert case.forks == 2


def test_another_process_that_ends_is_not_the_helper(case: Case) -> None:
    _, certificate = a_pair()
    assert not case.stapler.on_exit(1)
    case.keep([certificate])
    case.tick()
    assert not case.stapler.on_exit(1)
    case.fail(certificate)
    case.end()
    assert not case.stapler.on_exit(case._processes[-1].pid), "its pid may be another's by now"
    case.stapler.stop()  # kills nobody


def test_a_worker_lets_go_of_the_pipe(case: Case) -> None:
    _, certificate = a_pair()
    case.stapler.close()
    case.keep([certificate])
    case.tick()
    [key] = case.selector.get_map().values()
    in_a_worker = os.dup(key.fd)
    case.stapler.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(key.fd)
    os.dup2(in_a_worker, key.fd)
    os.close(in_a_worker)


# Certificates that come and go.


def test_what_is_not_wanted_any_more_is_not_shown_nor_kept(case: Case) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    case.stapler.want([])
    assert case.changes[-1] == {certificate.sha256: None}
    assert case.kept() == {}
    assert case.stapler.state(certificate.sha256) is None


def test_wanting_the_same_changes_nothing(case: Case) -> None:
    leaf, certificate = a_pair()
    case.keep([certificate])
    case.tick()
    case.answer(certificate, a_response(case, leaf))
    for _ in range(3):
        case.stapler.want([certificate])
    assert len(case.changes) == 1


# The disk.


@pytest.fixture
def with_one_kept(case: Case) -> tuple[Case, Certificate, bytes]:
    """A master that was stopped with a response on disk, and a new one."""
    leaf, certificate = a_pair()
    response = a_response(case, leaf)
    case.keep([certificate])
    case.tick()
    case.answer(certificate, response)
    case.end()
    case.restart()
    return case, certificate, response


WithOneKept = tuple[Case, Certificate, bytes]


def test_what_is_on_disk_is_shown_at_once_and_not_written_again(
    with_one_kept: WithOneKept, caplog: pytest.LogCaptureFixture
) -> None:
    """Each write waits for the disk, and there may be thousands."""
    case, certificate, response = with_one_kept
    file = case.folder / "state" / f"{certificate.sha256}.ocsp"
    before = file.stat()
    case.keep([certificate])
    assert case.shown() == {certificate.sha256: response}
    case.tick()
    assert case.forks == 1, "and not asked for"
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert said(caplog, logging.INFO) == []


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "not an OCSP response"), (b"damaged", "not an OCSP response")]
)
def test_a_damaged_file_is_removed_with_a_line(
    with_one_kept: WithOneKept, caplog: pytest.LogCaptureFixture, content: bytes, why: str
) -> None:
    case, certificate, _ = with_one_kept
    file = case.folder / "state" / f"{certificate.sha256}.ocsp"
    file.write_bytes(content)
    case.keep([certificate])
    assert case.shown() == {}
    [line] = said(caplog, logging.INFO)
    assert line.startswith(f"{file} is removed: {why}")
    assert case.kept() == {}
    case.tick()
    assert case.forks == 2, "it is asked for"


def test_a_response_that_expired_meanwhile_is_removed(with_one_kept: WithOneKept) -> None:
    case, certificate, _ = with_one_kept
    case.now += 5 * DAY
    case.keep([certificate])
    assert case.shown() == {}
    assert case.kept() == {}


def test_the_response_of_a_certificate_that_has_gone_is_removed(with_one_kept: WithOneKept) -> None:
    case, _, _ = with_one_kept
    (case.folder / "state" / "README").write_text("for whoever looks")
    _, other = a_pair()
    case.keep([other])
    assert case.shown() == {}
    assert list(case.kept()) == ["README"], "what is not ours stays"


def test_the_response_of_one_certificate_is_not_taken_for_another(with_one_kept: WithOneKept) -> None:
    case, certificate, _ = with_one_kept
    _, other = a_pair()
    folder = case.folder / "state"
    (folder / f"{certificate.sha256}.ocsp").rename(folder / f"{other.sha256}.ocsp")
    case.keep([other, certificate])
    assert case.shown() == {}


@pytest.mark.parametrize("what", ["writable", "link", "fifo", "folder", "large", "foreign"])
def test_a_file_that_is_not_to_be_trusted_is_left_alone_with_a_line(
    with_one_kept: WithOneKept, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    case, certificate, response = with_one_kept
    file = case.folder / "state" / f"{certificate.sha256}.ocsp"
    match what:
        case "writable":
            file.chmod(0o666)
        case "link":
            file.rename(case.folder / "elsewhere")
            file.symlink_to(case.folder / "elsewhere")
        case "fifo":
            file.unlink()
            os.mkfifo(file, 0o600)
        case "folder":
            file.unlink()
            file.mkdir(0o700)
        case "large":
            file.write_bytes(response + bytes(RESPONSE_MAX))
        case _:
            if os.getuid() != 0:
                pytest.skip("only root can give a file away")
            os.chown(file, 12345, -1)
    case.keep([certificate])
    assert case.shown() == {}
    [line] = said(caplog)
    assert line.startswith(f"{file} is left alone: ")
    assert file.exists()
    case.tick()
    assert case.forks == 2


def test_names_that_are_no_digests_do_no_harm(
    with_one_kept: WithOneKept, caplog: pytest.LogCaptureFixture
) -> None:
    case, certificate, response = with_one_kept
    for name in ("x.ocsp", f"{certificate.sha256.upper()}.ocsp", "\udcff.ocsp", "a\nb.ocsp"):
        (case.folder / "state" / name).write_bytes(response)
        (case.folder / "state" / name).chmod(0o600)
    case.keep([certificate])
    assert case.shown() == {certificate.sha256: response}
    assert list(case.kept()) == [f"{certificate.sha256}.ocsp"]
