"""The prober's life, as the master sees it: forks are only counted here."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from termproxy.address import Name, parse_address
from termproxy.backends.board import Board, Head
from termproxy.backends.prober import NameTarget, Target
from termproxy.config import schema
from termproxy.master.landlock import Reach
from termproxy.master.probing import SILENT_MAX, Probing, reach_of
from termproxy.master.spawn import Helper
from termproxy.master.supervisor import BACK_OFF_FIRST, BACK_OFF_MAX, YOUNG

DNS = schema.Dns()
TARGETS = [Target("app", 0, parse_address("127.0.0.1:1"), schema.Health(kind="tcp"))]


class Forks:
    """In place of probers: processes that wait for their end."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.fails = False

    def __call__(self, prepare: Callable[[], Callable[[int], None]], reach: Reach) -> Helper:
        if self.fails:
            raise OSError(11, "Resource temporarily unavailable")
        process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        self.started.append(process)
        return Helper(process.pid, os.open(os.devnull, os.O_RDONLY))

    @property
    def last(self) -> int:
        return self.started[-1].pid

    def reap(self, process: subprocess.Popen[bytes]) -> int:
        return process.wait(20)


@pytest.fixture
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    for process in forks.started:
        process.kill()
        process.wait()


@pytest.fixture
def board() -> Board:
    return Board([("app", "127.0.0.1:1")], 1, is_shared=False)


@pytest.fixture
def probing(forks: Forks) -> Probing:
    return Probing(forks)


def test_with_nothing_to_check_there_is_no_process(probing: Probing, forks: Forks, board: Board) -> None:
    probing.tick(0.0)
    probing.check([], board, DNS, 1.0)
    probing.tick(2.0)
    probing.stop()

    assert forks.started == []


def test_one_process_checks_and_keeps_no_descriptor_here(
    probing: Probing, forks: Forks, board: Board
) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    probing.check(TARGETS, board, DNS, 1.0)
    for now in range(2, 8):
        probing.tick(float(now))

    assert len(forks.started) == 1
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_one_that_dies_is_replaced_later_and_later(
    probing: Probing, forks: Forks, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    probing.check(TARGETS, board, DNS, now)
    for deaths in range(12):
        assert probing.on_exit(forks.last, "was killed by SIGSEGV", now)
        wait = min(BACK_OFF_FIRST * 2**deaths, BACK_OFF_MAX)
        probing.tick(now + wait - 0.01)
        assert len(forks.started) == deaths + 1
        now += wait
        probing.tick(now)
        assert len(forks.started) == deaths + 2

    assert caplog.messages[0] == "the prober of backends was killed by SIGSEGV"


def test_one_that_was_fine_for_long_is_replaced_soon(
    probing: Probing, forks: Forks, board: Board
) -> None:
    probing.check(TARGETS, board, DNS, 0.0)
    for now in (1.0, 2.0, 2.0 + YOUNG + 1):
        probing.on_exit(forks.last, "died", now)
        probing.tick(now + 1)
    probing.on_exit(forks.last, "died", 100.0)
    probing.tick(100.0 + BACK_OFF_FIRST)

    assert len(forks.started) == 5


def test_a_fork_that_fails_is_tried_again(
    probing: Probing, forks: Forks, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    forks.fails = True
    probing.check(TARGETS, board, DNS, 1.0)
    forks.fails = False
    assert "no prober of backends: Resource temporarily unavailable" in caplog.text
    probing.tick(1.0 + BACK_OFF_FIRST)

    assert len(forks.started) == 1


def test_one_that_hangs_is_killed(
    probing: Probing, forks: Forks, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    probing.check(TARGETS, board, DNS, 100.0)
    probing.tick(100.0 + SILENT_MAX)
    board.words[Head.PROBER_BEAT] = int(110e9)
    probing.tick(110.0 + SILENT_MAX)
    assert forks.started[0].poll() is None
    probing.tick(110.1 + SILENT_MAX)

    assert forks.reap(forks.started[0]) == -signal.SIGKILL
    assert "hangs" in caplog.text


def test_other_settings_are_for_another_process(
    probing: Probing, forks: Forks, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    probing.check(TARGETS, board, DNS, 1.0)
    probing.check(TARGETS, board, DNS, 2.0)

    assert len(forks.started) == 2
    assert forks.reap(forks.started[0]) == -signal.SIGKILL
    with caplog.at_level(logging.DEBUG):
        assert probing.on_exit(forks.started[0].pid, "was killed", 3.0)
    assert caplog.messages == []
    assert forks.started[1].poll() is None


def test_other_processes_are_not_ours(probing: Probing, forks: Forks, board: Board) -> None:
    probing.check(TARGETS, board, DNS, 1.0)

    assert not probing.on_exit(1, "died", 2.0)
    probing.tick(100.0 - SILENT_MAX)
    assert len(forks.started) == 1


def test_at_the_end_nothing_is_left(forks: Forks, board: Board) -> None:
    probing = Probing(forks)
    probing.check(TARGETS, board, DNS, 1.0)
    probing.check(TARGETS, board, DNS, 2.0)
    probing.stop()
    probing.stop()
    probing.tick(3.0)

    assert len(forks.started) == 2
    for process in forks.started:
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


# Where a prober has to go.

NAME_TARGET = NameTarget("app", range(1), Name("app.internal", 8443), schema.Health(kind="tcp"))


def test_a_prober_of_addresses_connects_to_their_ports_and_reads_nothing() -> None:
    six = Target("app", 1, parse_address("[::1]:2"), schema.Health(kind="http"))
    unix = Target("app", 2, parse_address("unix:/run/app.sock"), schema.Health(kind="tcp"))
    assert reach_of([*TARGETS, six, unix], DNS) == Reach(frozenset({1, 2}))


def test_a_prober_of_names_also_asks_name_servers_and_reads_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "hosts").touch()
    (tmp_path / "hosts").symlink_to("elsewhere/hosts")
    reach = reach_of([*TARGETS, NAME_TARGET], schema.Dns(hosts=tmp_path / "hosts"))
    assert reach.ports == frozenset({1, 8443, 53})
    assert set(reach.folders) >= {tmp_path, tmp_path / "elsewhere", Path("/etc")}


def test_a_prober_told_whom_to_ask_reads_no_resolv_conf() -> None:
    dns = schema.Dns(servers=(parse_address("127.0.0.1:5353"),), hosts=None)
    assert reach_of([NAME_TARGET], dns) == Reach(frozenset({8443, 5353}))


def test_a_hosts_file_that_leads_in_a_circle_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "hosts").symlink_to("hosts")
    assert tmp_path in reach_of([NAME_TARGET], schema.Dns(hosts=tmp_path / "hosts")).folders
