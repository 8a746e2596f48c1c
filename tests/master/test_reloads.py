"""Reloads as the master sees them: who asks, who waits, what is told.  What workers do with them is in
tests/scenarios/test_following.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from typing import Any

import pytest

from termproxy.admin.routes import request_for
from termproxy.master.control import Request
from termproxy.master.reloads import WAITING_MAX, Reloads
from tests.support.masters import Master, Start
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def master(start: Start) -> Master:
    return start()


def asking(master: Master, **question: Any) -> socket.socket:
    """Ask, and do not wait."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(master.folder / "c.sock"))
    sock.sendall(request_for(question))
    return sock


def answer(sock: socket.socket) -> dict[str, Any]:
    received = b""
    with sock:
        while piece := sock.recv(65536):
            received += piece
    told: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return told


def test_who_asks_is_told_what_has_changed_once_every_worker_has_it(master: Master) -> None:
    master.write(timeouts={"drain": 7})
    told = master.ask(verb="reload")

    assert told == {
        "ok": True,
        "detail": "the workers of generation 1 follow",
        "changes": ["timeouts.drain 5 -> 7"],
    }
    last = master.status()["last_reload"]
    assert last["changes"] == ["timeouts.drain 5 -> 7"]
    assert master.status()["generation"] == 1


def test_who_asks_is_told_why_not(master: Master) -> None:
    master.write(workers=0)
    told = master.ask(verb="reload")

    assert not told["ok"]
    assert "workers" in told["detail"]
    assert not master.status()["last_reload"]["ok"]


def test_many_who_ask_at_once_are_all_told(master: Master) -> None:
    """Those who came while one was under way by the one after it: it has read what they wrote."""
    master.write(workers=3)
    first = asking(master, verb="reload")
    wait_until(lambda: "of generation 2" in master.said() or master.status()["generation"] == 2, "it is")
    others = [asking(master, verb="reload") for _ in range(5)]

    assert answer(first)["detail"] == "generation 2 serves"
    details = {answer(sock)["detail"] for sock in others}
    assert details <= {"nothing has changed", "generation 2 serves"}


def test_more_than_may_wait_are_turned_away() -> None:
    class Busy:
        """An arbiter with a generation under way."""

        class supervisor:  # noqa: N801 - as the arbiter has it
            stopping, candidate = False, 2

        class succession:  # noqa: N801 - too
            class upgrade:  # noqa: N801 - too
                @staticmethod
                def why_no_change() -> None:
                    """None is under way."""

    told: list[dict[str, Any]] = []
    reloads = Reloads(Busy(), lambda: None)  # type: ignore[arg-type,return-value]
    for _ in range(WAITING_MAX + 1):
        reloads.ask(Request(told.append))
    assert told == [{"error": "too many wait for a reload already"}]

    reloads.give_up("termproxy is stopping")
    assert told[1:] == [{"error": "termproxy is stopping"}] * WAITING_MAX


def test_a_stop_answers_who_waits_for_a_reload(master: Master) -> None:
    pid = master.pids()[0]
    master.write(timeouts={"drain": 7})
    os.kill(pid, signal.SIGSTOP)
    waiting = asking(master, verb="reload")
    wait_until(lambda: master.ask(verb="status"), "it is under way")
    master.process.send_signal(signal.SIGTERM)
    assert answer(waiting) == {"error": "termproxy is stopping"}
    os.kill(pid, signal.SIGCONT)
    assert master.end() == 0


def test_new_workers_come_when_they_are_asked_for(master: Master, trust: ssl.SSLContext) -> None:
    told = master.ask(verb="reload", new_workers=True)

    assert (told["ok"], told["detail"], told["changes"]) == (True, "generation 2 serves", [])
    master.greet(trust)


def test_generations_are_told_of(master: Master) -> None:
    (generation,) = master.status()["generations"]
    assert (generation["number"], generation["state"], generation["workers"]) == (1, "serving", 2)
    assert generation["why"] is None
    assert generation["since"]
