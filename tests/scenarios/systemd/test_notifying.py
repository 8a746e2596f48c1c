"""What systemd hears of a service of Type=notify-reload, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from tests.conftest import Serve
from tests.scenarios.systemd.manager import Manager
from tests.support.backends import Backend
from tests.support.waiting import wait_until


def environment(manager: Manager, **others: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.path), **others}


def test_ready_reloading_and_stopping_are_told_in_their_order(serve: Serve, tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, Backend() as backend:
        with serve(backend.address, environment=environment(manager)) as server:
            manager.wait_for(lambda said: said == f"READY=1\nMAINPID={server.pid}", "it is ready")
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert server.reload()["ok"]
            told = manager.wait_for(lambda said: said.startswith("RELOADING=1"), "it reloads")
            found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told)
            assert found is not None
            assert before <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            server.signal(signal.SIGTERM)
            assert server.wait_until_gone() == 0
        said = [each for each in manager.listen() if not each.startswith("STATUS")]
        assert [each.partition("\n")[0] for each in said] == [
            "READY=1",
            "RELOADING=1",
            "READY=1",
            "STOPPING=1",
        ]


def test_a_refused_reload_ends_for_systemd_too(serve: Serve, tmp_path: Path) -> None:
    with (
        Manager(tmp_path) as manager,
        Backend() as backend,
        serve(backend.address, environment=environment(manager)) as server,
    ):
        server.values["workers"] = 0
        assert not server.reload()["ok"]
        wait_until(lambda: "READY=1" in manager.listen(), "it is ready again")


def test_the_status_says_what_goes_on(serve: Serve, tmp_path: Path) -> None:
    with (
        Manager(tmp_path) as manager,
        Backend() as backend,
        serve(backend.address, workers=2, environment=environment(manager)),
    ):
        expected = "STATUS=generation 1, 2 workers, 0 connections"
        manager.wait_for(lambda said: said == expected, "the status")


def test_the_watchdog_hears_a_master_that_turns_and_not_one_that_hangs(
    serve: Serve, tmp_path: Path
) -> None:
    with (
        Manager(tmp_path) as manager,
        Backend() as backend,
        serve(backend.address, environment=environment(manager, WATCHDOG_USEC="600000")) as server,
    ):
        wait_until(lambda: manager.listen().count("WATCHDOG=1") >= 3, "the beats")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            heard = len(manager.listen())
            time.sleep(1.0)  # more than its time: that is what is looked at
            assert len(manager.listen()) == heard
        finally:
            os.kill(server.pid, signal.SIGCONT)
        count = manager.listen().count("WATCHDOG=1")
        wait_until(lambda: manager.listen().count("WATCHDOG=1") > count, "beats again")


def test_children_do_not_inherit_what_systemd_asks_with(serve: Serve, tmp_path: Path) -> None:
    """An upgrade's master is asked, all the same, and says nothing before the old one has named it."""
    with (
        Manager(tmp_path) as manager,
        Backend() as backend,
        serve(backend.address, environment=environment(manager, WATCHDOG_USEC="600000")) as server,
    ):
        old = server.pid
        new = server.upgrade()["new"]["pid"]
        manager.wait_for(lambda said: said == f"READY=1\nMAINPID={new}", "the new one is ready")
        facts = [each for each in manager.listen() if "PID" in each]
        assert facts == [f"READY=1\nMAINPID={old}", f"MAINPID={new}", f"READY=1\nMAINPID={new}"]
        count = manager.listen().count("WATCHDOG=1")
        wait_until(lambda: manager.listen().count("WATCHDOG=1") > count + 2, "the new one beats")
        assert "STOPPING=1" not in manager.listen()
