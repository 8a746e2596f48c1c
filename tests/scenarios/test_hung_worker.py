"""A worker that hangs is noticed by its silence, and replaced; others take its clients meanwhile."""

from __future__ import annotations

import os
import signal
import time

import pytest
import trustme

from termproxy import clock
from termproxy.master.supervisor import HEARTBEAT_TIMEOUT
from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.processes import session_members, state
from tests.support.tampering import Tampering
from tests.support.visitors import Visitors, one_exchange
from tests.support.waiting import wait_until


def test_clients_of_a_hung_workers_slot_are_served_and_the_worker_is_replaced(
    serve: Serve, dial: Dial
) -> None:
    """Each slot has its own queue; that of a silent slot is adopted by the next living worker."""
    with Backend() as backend, serve(backend.address, workers=2) as server:
        hung, healthy = server.workers()
        os.kill(hung, signal.SIGSTOP)
        for _ in range(16):  # that none of them lands in the hung one's queue: 1 in 65,536
            with dial(server) as client:
                assert exchange(client) == b"ping"
                leave(client)
        assert state(hung) == "T", "all were served while it hung"
        server.wait_for_words(f"worker {hung} hangs: aborting it")
        wait_until(lambda: len(server.workers()) == 2, "the worker is replaced")
        assert healthy in server.workers()
        assert hung not in server.workers()
        assert f"worker {hung} was killed by " in server.said()


@pytest.mark.parametrize("how", ["busy", "blocked"])
def test_a_worker_that_computes_for_ever_or_blocks_in_c_says_where_and_is_replaced(
    serve: Serve, ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    tampering = Tampering(tmp_path_factory.mktemp("tampering"))
    with (
        Backend() as backend,
        serve(backend.address, workers=2, environment=tampering.environment) as server,
    ):
        hung, healthy = server.workers()
        with Visitors(one_exchange(server.port, client_context(ca)), pause=0.01) as visitors:
            visitors.wait_for_more(20)
            tampering.hang(how, hung)
            begun = clock.monotonic()
            server.wait_for_words(f"worker {hung} hangs: aborting it")
            # A tick until it hangs, a tick of the master's, and the clocks of a busy machine.
            assert clock.monotonic() - begun < HEARTBEAT_TIMEOUT + 2
            wait_until(lambda: len(server.workers()) == 2, "the worker is replaced")
            visitors.wait_for_more(20)
        assert healthy in server.workers()
        said = server.said()
        assert f"worker {hung} was killed by SIGABRT" in said
        assert f"in {how}" in said, "where it hung"
        # What it had open when it hung; who came later waited for two seconds at most.
        assert len(visitors.failures) <= 3
        stuck = [s for s in visitors.seconds if s > 2.5]
        assert stuck == []


def test_a_server_that_was_frozen_as_a_whole_thaws_without_killing_its_workers(
    serve: Serve, dial: Dial
) -> None:
    """Ctrl-Z and fg, a paused container, a virtual machine that moves: nobody's heart beat meanwhile."""
    with Backend() as backend, serve(backend.address, workers=2) as server, dial(server) as client:
        exchange(client)
        before = server.workers()
        members = session_members(server.pid)
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6)  # longer than the silence that counts as hanging: there is no event to wait for
        for pid in sorted(members):  # the master first
            os.kill(pid, signal.SIGCONT)
        assert exchange(client) == b"ping"
        wait_until(server.is_answering, "the master answers")
        assert server.workers() == before
        assert "hangs" not in server.said()
        leave(client)


def test_a_hung_worker_does_not_keep_the_server_from_stopping(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2, timeouts={"drain": 1}) as server:
        os.kill(server.workers()[0], signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0
        assert "does not go: killing it" in server.said()
