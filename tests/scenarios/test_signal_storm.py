"""Signals of every kind, in any order: the server settles in one generation, and ends when told to."""

from __future__ import annotations

import contextlib
import os
import random
import signal

import pytest

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.processes import session_members
from tests.support.server import Server
from tests.support.storm import Storm, storms
from tests.support.waiting import wait_until

OTHERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD]


@pytest.mark.parametrize("seed", range(3))
def test_after_a_storm_one_generation_serves_and_term_ends_it(
    serve: Serve, dial: Dial, seed: int
) -> None:
    rand = random.Random(seed)
    with Backend() as backend, serve(backend.address, workers=2, timeouts={"drain": 1}) as server:
        for _ in range(60):
            match rand.randrange(4):
                case 0 | 1:
                    reload(server, rand)
                case 2:
                    server.signal(rand.choice(OTHERS))
                case _:
                    end_some_worker(server, rand)
        server.values["resumption"] = {"tickets_per_handshake": 3}  # which takes new workers
        server.write_config()
        server.signal(signal.SIGHUP)
        wait_until(lambda: has_settled(server), "one generation is left, and whole", seconds=40)
        for _ in range(10):
            with dial(server) as client:
                assert exchange(client) == b"ping"
        reload(server, rand)
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0


def reload(server: Server, rand: random.Random) -> None:
    """Of what takes new workers, or of what the running ones follow, or of nothing new."""
    server.values["resumption"] = {"tickets_per_handshake": rand.randint(1, 2)}
    server.values["timeouts"]["idle"] = rand.randint(50, 52)
    server.write_config()
    server.signal(signal.SIGHUP)


def end_some_worker(server: Server, rand: random.Random) -> None:
    """Starting, serving or draining, whichever it is."""
    workers = [pid for pid in session_members(server.pid) if pid != server.pid]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rand.choice(workers), rand.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGABRT]))


def has_settled(server: Server) -> bool:
    status = server.status()
    return (
        status["starting_generation"] is None
        and [(worker["state"], worker["generation"]) for worker in status["workers"]]
        == [("ready", status["generation"])] * 2
    )


TestStorm = Storm.TestCase
TestStorm.settings = storms(3, 30)
