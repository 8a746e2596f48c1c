"""Over an upgrade, operators and those who watch always find somebody; counters do not go back."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange
from tests.support.ports import free_port
from tests.support.processes import session_members
from tests.support.scrape import Samples, samples, scrape
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

Failures = list[BaseException]


def metrics(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        return samples(answer.read().decode())


def is_ready(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=PATIENCE) as answer:
        return bool(answer.status == 200)


@contextmanager
def always(*works: Callable[[], object]) -> Iterator[Failures]:
    """Do each again and again meanwhile; what went wrong."""
    over, failures = threading.Event(), Failures()

    def go_on(work: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - the test's to judge
            failures.append(error)

    threads = [threading.Thread(target=go_on, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        over.set()
        for thread in threads:
            thread.join()


def admin_of(server: Server) -> int:
    return int(server.status()["processes"]["admin"])


def test_nobody_asks_in_vain(serve: Serve) -> None:
    port = free_port()
    with (
        Backend() as backend,
        serve(backend.address, admin={"listen": f"127.0.0.1:{port}"}) as server,
    ):
        old = admin_of(server)
        asking = (server.status, lambda: scrape(server.control), lambda: metrics(port))
        with always(*asking, lambda: is_ready(port)) as failures:
            for _ in range(3):
                server.upgrade()
                server.wait_until_old_master_is_gone()
        assert failures == []
        assert old not in session_members(server.pid)
        assert admin_of(server) in session_members(server.pid)
        assert [line for line in server.said().splitlines() if " ERROR " in line] == []


def test_the_old_one_s_admin_process_goes_though_it_drains(serve: Serve, dial: Dial) -> None:
    port = free_port()
    with (
        Backend() as backend,
        serve(backend.address, admin={"listen": f"127.0.0.1:{port}"}) as server,
        dial(server) as client,
    ):
        exchange(client)
        old = admin_of(server)
        server.upgrade()
        wait_until(lambda: old not in session_members(server.pid), "it has gone")
        assert server.pid in session_members(server.pid)
        for _ in range(20):
            assert is_ready(port)
        assert exchange(client) == b"ping"


def test_an_address_for_those_who_watch_may_change_with_it(serve: Serve) -> None:
    first, second = free_port(), free_port()
    with (
        Backend() as backend,
        serve(backend.address, admin={"listen": f"127.0.0.1:{first}"}) as server,
    ):
        server.values["admin"] = {"listen": f"127.0.0.1:{second}"}
        server.write_config()
        server.upgrade()
        assert is_ready(second)
        server.wait_until_old_master_is_gone()
        server.values["admin"] = {"listen": f"127.0.0.1:{first}"}
        server.write_config()
        server.upgrade()
        assert is_ready(first)


COUNTERS = ("worker_restarts_total", "reloads_total", "process_cpu_seconds_total")


def counters(server: Server) -> Samples:
    return {key: value for key, value in scrape(server.control).items() if key[0] in COUNTERS}


def test_restarts_reloads_and_time_of_the_cpu_do_not_go_back(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        [worker] = server.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [worker]), "another worker")
        server.reload()
        for _ in range(2):
            with dial(server) as client:
                exchange(client)
                before = counters(server)
                assert {key[0] for key in before} == set(COUNTERS)
                server.upgrade()
                during = counters(server)
            server.wait_until_old_master_is_gone()
            after = counters(server)
            for key, value in before.items():
                assert after[key] >= during[key] >= value, key
            assert after["worker_restarts_total",] == before["worker_restarts_total",] == 1
            assert after["reloads_total", "done"] == before["reloads_total", "done"] == 1
        assert server.status()["restarts"] == 1
