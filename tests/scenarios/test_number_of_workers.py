"""Operators have one worker more, one fewer, or none for a while; the worn-out are replaced.  No client
is lost by any of it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading

import trustme

from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.processes import state
from tests.support.server import Server
from tests.support.visitors import Visitors, one_exchange
from tests.support.waiting import PATIENCE, wait_until


def have(server: Server, count: int) -> None:
    def look() -> bool:
        status = server.status()
        states = [worker["state"] for worker in status["workers"]]
        return states == ["ready"] * count and status["workers_wanted"] == count

    wait_until(look, f"{count} workers, and none that drains")


def test_one_more_and_one_fewer_lose_no_client(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            for signum, count in [("TTIN", 3), ("TTIN", 4), ("TTOU", 3), ("TTOU", 2), ("TTOU", 1)]:
                server.signal(signal.Signals[f"SIG{signum}"])
                have(server, count)
                visitors.wait_for_more(50)
        assert visitors.failures == []


def test_the_last_worker_stays(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        [worker] = server.workers()
        server.signal(signal.SIGTTOU)
        server.wait_for_words("TTOU: workers: 1")
        assert server.workers() == [worker]


def test_there_are_not_more_than_there_may_be(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        for count in (2, 3, 4):
            server.signal(signal.SIGTTIN)
            have(server, count)
        server.signal(signal.SIGTTIN)
        server.wait_for_words("TTIN: 4 workers are all there may be; for more set `workers`, and HUP")
        have(server, 4)


def test_a_new_worker_serves_its_own_queue_and_others_do_when_it_hangs(serve: Serve, dial: Dial) -> None:
    """Those who were there before it have its sockets, too."""
    with Backend() as backend, serve(backend.address) as server:
        [first] = server.workers()
        server.signal(signal.SIGTTIN)
        have(server, 2)
        second = server.workers()[1]
        held = []
        while accepted(server)[second] == 0:
            held.append(dial(server))
            exchange(held[-1])
        os.kill(second, signal.SIGSTOP)
        for _ in range(16):
            with dial(server) as client:
                assert exchange(client) == b"ping"
        assert state(second) == "T", "all were served while it hung"
        assert first in server.workers()
        for client in held:
            client.close()


def accepted(server: Server) -> dict[int, int]:
    return {worker["pid"]: worker["accepted"] for worker in server.status()["workers"]}


def test_clients_in_the_queue_of_a_slot_that_goes_are_served(serve: Serve, ca: trustme.CA) -> None:
    """They have connected: the kernel would reset them, were the slot's socket closed."""
    with Backend() as backend, serve(backend.address, workers=3) as server:
        workers = server.workers()
        os.kill(workers[2], signal.SIGSTOP)  # its queue fills
        os.kill(workers[0], signal.SIGSTOP)
        os.kill(workers[1], signal.SIGSTOP)
        waiting = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(60)]
        server.signal(signal.SIGTTOU)
        server.wait_for_words("TTOU: workers: 2")
        os.kill(workers[2], signal.SIGKILL)  # it had no chance to accept them
        for pid in workers[:2]:
            os.kill(pid, signal.SIGCONT)
        context = client_context(ca)
        for raw in waiting:
            with context.wrap_socket(raw, server_hostname="site.test") as client:
                assert exchange(client) == b"ping"
                leave(client)
        have(server, 2)


def test_workers_rest_and_clients_wait_until_they_are_back(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        with dial(server) as old:
            exchange(old)
            server.signal(signal.SIGWINCH)
            server.wait_for_words("WINCH: the workers drain")
            assert exchange(old) == b"ping"
            leave(old)
        have(server, 0)
        assert server.exit_status is None
        answers: list[bytes] = []

        def come() -> None:
            with dial(server) as client:
                answers.append(exchange(client))

        waiting = threading.Thread(target=come)
        waiting.start()
        server.signal(signal.SIGTTIN)
        have(server, 2)
        waiting.join()
        assert answers == [b"ping"]


def test_a_reload_ends_the_rest(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        server.signal(signal.SIGWINCH)
        have(server, 0)
        assert server.reload()["ok"]
        have(server, 2)
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_a_reload_with_new_workers_goes_back_to_the_configured_number(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        server.signal(signal.SIGTTIN)
        have(server, 2)
        assert server.reload()["ok"]
        have(server, 2)
        assert server.reload(new_workers=True)["ok"]
        have(server, 1)


def test_a_stop_at_rest_is_a_stop(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        server.signal(signal.SIGWINCH)
        have(server, 0)
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0


def test_a_signal_that_every_process_gets_is_the_master_s_alone(serve: Serve) -> None:
    """As pkill sends it."""
    with serve("127.0.0.1:9", workers=2) as server:
        before = server.workers()
        for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
            for worker in server.workers():
                os.kill(worker, signum)
        assert {state(worker) for worker in before} <= {"S", "R"}
        assert server.workers() == before


# The worn-out.


def test_a_worn_out_worker_is_replaced_and_no_client_lost(serve: Serve, ca: trustme.CA) -> None:
    limits = {"recycle_after": 100}
    with Backend() as backend, serve(backend.address, workers=2, limits=limits) as server:
        first = server.workers()
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            visitors.wait_for_more(600)
            wait_until(lambda: not {*first} & {*accepted(server)}, "those of the start have gone")
            visitors.wait_for_more(50)
        assert visitors.failures == []
        have(server, 2)
        assert server.status()["totals"]["accepted"] >= 650


def test_the_old_one_serves_until_the_new_one_is_ready_and_then_drains(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, limits={"recycle_after": 10}) as server:
        [old] = server.workers()
        with dial(server) as client:
            exchange(client)
            for _ in range(11):
                with dial(server) as each:
                    exchange(each)
                    leave(each)
            wait_until(lambda: server.workers("draining") == [old], "the old one drains")
            [new] = server.workers()
            assert exchange(client) == b"ping"
            leave(client)
        have(server, 1)
        assert server.workers() == [new]
        assert {worker["slot"] for worker in server.status()["workers"]} == {0}


def test_without_the_setting_nobody_wears_out(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address) as server:
        [worker] = server.workers()
        with Visitors(one_exchange(server.port, client_context(ca))) as visitors:
            visitors.wait_for_more(200)
        assert server.workers() == [worker]
