"""Workers that crash as soon as they are born cost next to nothing, and harm nobody who serves."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from termproxy import clock
from tests.conftest import Serve, client_context
from tests.support.backends import Backend
from tests.support.server import Server
from tests.support.tampering import Tampering
from tests.support.visitors import Visitors, one_exchange
from tests.support.waiting import wait_until


@pytest.fixture
def tampering(tmp_path_factory: pytest.TempPathFactory) -> Tampering:
    return Tampering(tmp_path_factory.mktemp("tampering"))


@contextmanager
def serving(serve: Serve, tampering: Tampering, workers: int = 2) -> Iterator[Server]:
    with (
        Backend() as backend,
        serve(backend.address, workers=workers, environment=tampering.environment) as server,
    ):
        yield server


def deaths(server: Server) -> list[str]:
    return re.findall(r"worker \d+ was killed by SIGABRT", server.said())


def test_they_are_born_ever_more_seldom_while_the_others_serve_and_are_back_soon_after(
    serve: Serve, tampering: Tampering, ca: trustme.CA
) -> None:
    with serving(serve, tampering) as server:
        healthy, victim = server.workers()
        tampering.let_workers_crash(True)
        os.kill(victim, signal.SIGKILL)
        begun = clock.monotonic()
        with Visitors(one_exchange(server.port, client_context(ca)), pause=0.01) as visitors:
            wait_until(lambda: len(deaths(server)) >= 5, "the fifth crash")
            lasted = clock.monotonic() - begun
            visitors.wait_for_more(50)
            tampering.let_workers_crash(False)
            wait_until(lambda: len(server.workers()) == 2, "the next one lives")
        assert lasted > 0.1 + 0.2 + 0.4 + 0.8
        assert healthy in server.workers()
        # Those of the victim: a client has one connection at a time.
        assert len(visitors.failures) <= 3
        assert {failure.kind for failure in visitors.failures} <= {"reset", "cut short"}


def test_a_generation_of_them_is_dropped_at_the_first_crash_and_the_next_one_may_come(
    serve: Serve, tampering: Tampering, ca: trustme.CA
) -> None:
    with serving(serve, tampering) as server:
        before = server.workers()
        tampering.let_workers_crash(True)
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            for _ in range(3):
                outcome = server.reload(new_workers=True)
                assert not outcome["ok"]
                assert "a new worker failed: was killed by SIGABRT" in outcome["detail"]
            assert server.workers() == before
            tampering.let_workers_crash(False)
            assert server.reload(new_workers=True)["ok"]
            visitors.wait_for_more(20)
        assert visitors.failures == []
        wait_until(lambda: not {*before} & {*server.workers()}, "the new ones serve")


def test_a_bigger_generation_that_fails_loses_no_client_that_came_to_its_sockets(
    serve: Serve, tampering: Tampering, ca: trustme.CA
) -> None:
    """The kernel queues clients at a socket from the moment that it listens."""
    with serving(serve, tampering, workers=1) as server:
        tampering.let_workers_crash(True)
        server.values["workers"] = 8
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            for _ in range(5):
                assert not server.reload()["ok"]
                visitors.wait_for_more(20)
        assert visitors.failures == []
        assert len(server.workers()) == 1


def test_a_first_start_that_crashes_is_refused(serve: Serve, tampering: Tampering) -> None:
    tampering.let_workers_crash(True)
    server = serve("127.0.0.1:9", environment=tampering.environment)
    server.start()
    assert server.wait_until_gone() == 1
    assert "cannot start: was killed by SIGABRT" in server.said()
