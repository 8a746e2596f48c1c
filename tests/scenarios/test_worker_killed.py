"""A worker that dies takes its own connections with it, and nothing else."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time
from functools import partial

import pytest
import trustme

from termproxy import clock
from termproxy.master.supervisor import YOUNG
from tests.conftest import Dial, Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave, read_to_end
from tests.support.endings import CutError
from tests.support.server import Server
from tests.support.waiting import wait_for_more, wait_until


def worker_of(server: Server, before: dict[int, int]) -> int:
    """Which worker took the connection that has been opened since `before`."""
    now = connections_by_worker(server)
    [pid] = [pid for pid, count in now.items() if count == before.get(pid, 0) + 1]
    return pid


def connections_by_worker(server: Server) -> dict[int, int]:
    return {worker["pid"]: worker["connections"] for worker in server.status()["workers"]}


def one_for_each_worker(server: Server, dial: Dial) -> dict[int, ssl.SSLSocket]:
    """Open connections until every worker has one."""
    found: dict[int, ssl.SSLSocket] = {}
    while len(found) < server.values["workers"]:
        before = connections_by_worker(server)
        client = dial(server)
        exchange(client)
        pid = worker_of(server, before)
        if pid in found:
            leave(client)
            wait_until(lambda: server.open_connections() == len(found), "the spare one is closed")
        else:
            found[pid] = client
    return found


def test_only_the_connections_of_a_killed_worker_are_lost(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        clients = one_for_each_worker(server, dial)
        victim, survivor = clients
        os.kill(victim, signal.SIGKILL)
        with pytest.raises((CutError, ConnectionResetError)):
            read_to_end(clients[victim])
        for _ in range(20):
            assert exchange(clients[survivor]) == b"ping"
        wait_until(lambda: is_replaced(server, victim, 2), "the worker is replaced")
        assert survivor in server.workers()
        assert f"worker {victim} was killed by SIGKILL" in server.said()
        for client in clients.values():
            client.close()


def test_the_replacement_accepts_within_a_second_however_often_one_of_several_dies(
    serve: Serve, dial: Dial
) -> None:
    """That some worker dies every few seconds is bad, but no crash loop."""
    with Backend() as backend, serve(backend.address, workers=4) as server:
        for round_ in range(4):
            victim = server.workers()[0]
            time.sleep(YOUNG)  # it is as old as that: there is no event to wait for
            os.kill(victim, signal.SIGKILL)
            look = partial(is_replaced, server, victim, 4)
            wait_until(look, "it is replaced", seconds=1.0)
            assert server.status()["totals"]["accepted"] == round_
            with dial(server) as client:
                assert exchange(client) == b"ping"


def is_replaced(server: Server, victim: int, count: int) -> bool:
    workers = server.workers()
    return len(workers) == count and victim not in workers


def test_new_clients_are_served_while_a_worker_is_missing(serve: Serve, dial: Dial) -> None:
    """The listening sockets are the master's: those of a dead worker's slot go on queueing."""
    with Backend() as backend, serve(backend.address, workers=2) as server:
        for round_ in range(3):
            os.kill(server.workers()[round_ % 2], signal.SIGKILL)
            for _ in range(10):
                with dial(server) as client:
                    assert exchange(client) == b"ping"
            wait_until(lambda: len(server.workers()) == 2, "the worker is replaced")


def test_the_only_worker_is_replaced_and_clients_waited_in_the_queue(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=1) as server:
        [victim] = server.workers()
        os.kill(victim, signal.SIGKILL)
        with dial(server) as client:
            assert exchange(client) == b"ping"
        assert server.workers() != [victim]


def test_what_a_killed_worker_had_counted_stays_counted(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=1) as server:
        for _ in range(3):
            with dial(server) as client:
                exchange(client)
                leave(client)
        server.wait_for_access(3)
        [victim] = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [victim]), "the worker is replaced")
        totals = server.status()["totals"]
        assert (totals["accepted"], totals["bytes_from_clients"]) == (3, 12)
        assert server.open_connections() == 0


def test_a_worker_that_keeps_dying_is_replaced_ever_more_slowly(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address, workers=1) as server:
        for waits_at_least in (0.1, 0.2, 0.4, 0.8):
            [killed] = server.workers()
            begun = clock.monotonic()
            os.kill(killed, signal.SIGKILL)
            wait_for_another(server, killed)
            assert clock.monotonic() - begun >= waits_at_least


def wait_for_another(server: Server, than: int) -> None:
    wait_until(lambda: server.workers() not in ([], [than]), "the worker is replaced")


def test_under_load_a_kill_costs_only_connections_of_the_victim(serve: Serve, ca: trustme.CA) -> None:
    """No client is refused, and none fails that had not been taken by the victim."""
    refused: list[BaseException] = []
    lost = served = 0
    over = threading.Event()
    lock = threading.Lock()

    def keep_asking(port: int) -> None:
        nonlocal lost, served
        context = client_context(ca)
        while not over.is_set():
            try:
                with connect(port, context) as client:
                    for _ in range(5):
                        exchange(client)
                    leave(client)
                with lock:
                    served += 1
            except (ConnectionRefusedError, TimeoutError) as error:
                refused.append(error)
            except OSError:
                with lock:
                    lost += 1

    with Backend() as backend, serve(backend.address, workers=2) as server:
        threads = [threading.Thread(target=keep_asking, args=(server.port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                wait_for_more(lambda: served, 20, "clients are served")
                wait_until(lambda: len(server.workers()) == 2, "both workers are there")
                os.kill(server.workers()[0], signal.SIGKILL)
            wait_for_more(lambda: served, 20, "clients are served after it")
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert refused == []
    assert lost <= 3 * len(threads)  # a client has one connection at a time
