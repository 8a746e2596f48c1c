"""Who is told to write to another file, and when that is done: no process, real files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from termproxy.master.child import Child
from termproxy.master.control import Request
from termproxy.master.generation import Generation
from termproxy.master.log_keeper import PATIENCE, LogKeeper
from termproxy.master.supervisor import WorkerProcess
from termproxy.observability.access_log import AccessLog, open_access_log


@dataclass
class FakeChild:
    """A worker that takes orders, and carries them out when told to."""

    inodes: list[int] = field(default_factory=list)
    obeyed: int = 0

    def order(self, message: bytes, fds: list[int]) -> int:
        assert json.loads(message[4:]) == {"access_log": "reopen", "descriptors": 1}
        self.inodes += [os.fstat(fd).st_ino for fd in fds]
        return len(self.inodes)

    def has_obeyed(self, number: int) -> bool:
        return self.obeyed >= number


@dataclass
class FakeRequest:
    answers: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, answer: dict[str, Any]) -> None:
        self.answers.append(answer)


class Case:
    """Two generations with a log each, and a worker of each."""

    def __init__(self, folder: Path) -> None:
        self.files = {1: folder / "a.log", 2: folder / "b.log"}
        self.logs = {
            number: cast(AccessLog, open_access_log(file)) for number, file in self.files.items()
        }
        self.children = {101: FakeChild(), 102: FakeChild()}
        self.keeper = LogKeeper(cast("dict[int, Child]", self.children))
        self.request = FakeRequest()

    def reopen(self) -> None:
        generations = {
            number: SimpleNamespace(
                config=SimpleNamespace(log=SimpleNamespace(access=self.files[number])),
                user=None,
                access_log=log,
            )
            for number, log in self.logs.items()
        }
        workers = [WorkerProcess(100 + number, 0, number, 0.0, 1.0) for number in generations]
        self.keeper.reopen(
            cast("dict[int, Generation]", generations), workers, cast("Request", self.request), 10.0
        )

    def close(self) -> None:
        for log in self.logs.values():
            log.close()


@pytest.fixture
def case(tmp_path: Path) -> Any:
    made = Case(tmp_path)
    yield made
    made.close()


def test_each_worker_gets_the_file_of_its_generation_and_so_do_those_yet_to_come(case: Case) -> None:
    for file in case.files.values():
        file.rename(file.with_suffix(".old"))
    case.reopen()

    inodes = {number: file.stat().st_ino for number, file in case.files.items()}
    assert [case.children[100 + number].inodes for number in (1, 2)] == [[inodes[1]], [inodes[2]]]
    assert {number: os.fstat(log.fd).st_ino for number, log in case.logs.items()} == inodes


def test_the_answer_comes_when_every_worker_has_obeyed(case: Case) -> None:
    case.reopen()
    case.children[101].obeyed = 1
    case.keeper.tick(11.0)
    assert case.request.answers == []
    case.children[102].obeyed = 1
    case.keeper.tick(12.0)
    case.keeper.tick(13.0)

    assert case.request.answers == [{"reopened": [str(f) for f in case.files.values()], "workers": 2}]


def test_a_worker_that_dies_is_not_waited_for(case: Case) -> None:
    case.reopen()
    case.children[101].obeyed = 1
    del case.children[102]
    case.keeper.tick(11.0)

    assert case.request.answers[0]["workers"] == 2


def test_a_worker_that_does_not_obey_is_named(case: Case) -> None:
    case.reopen()
    case.children[101].obeyed = 1
    case.keeper.tick(10.0 + PATIENCE)

    assert "not every worker has taken the new files: 102 hang" in case.request.answers[0]["error"]


def test_all_files_are_opened_anew_or_none(case: Case) -> None:
    before = case.files[1].stat().st_ino
    for file in case.files.values():
        file.rename(file.with_suffix(".old"))
    case.files[2].mkdir()
    fds = len([*Path("/proc/self/fd").iterdir()])
    case.reopen()

    assert "b.log: Is a directory" in case.request.answers[0]["error"]
    assert os.fstat(case.logs[1].fd).st_ino == before
    assert case.children[101].inodes == case.children[102].inodes == []
    assert len([*Path("/proc/self/fd").iterdir()]) == fds
    case.files[2].rmdir()
