"""USR2 and `termproxy upgrade`: the executable that is installed now takes over, and nobody notices."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy import __version__
from termproxy.cli.control import ask
from termproxy.errors import ControlError
from tests.conftest import Dial, Serve
from tests.scenarios.resumption.visits import KINDS, client_of, keys, told, visit
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.processes import descriptors, session_members
from tests.support.server import Server
from tests.support.waiting import PATIENCE, Unchanged, wait_until


def test_the_verb_says_who_took_over_from_whom(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        command = [sys.executable, "-m", "termproxy", "upgrade", "--control", str(server.control)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

        assert done.stdout == (
            f"upgraded from termproxy {__version__} (process {server.pid}) "
            f"to termproxy {__version__} (process {server.master})\n"
        )
        assert server.master != server.pid
        with dial(server) as client:
            assert exchange(client) == b"ping"
        assert server.process.wait(20) == 0


def test_usr2_does_the_same(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.signal(signal.SIGUSR2)
        wait_until(lambda: server.master != server.pid, "the pidfile names another process")
        assert server.status()["pid"] == server.master
        assert server.status()["last_upgrade"]["ok"]


def test_what_is_open_stays_open_until_it_is_done(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server, dial(server) as old:
        exchange(old)
        answer = server.upgrade()
        assert answer["old"]["pid"] == server.pid
        assert answer["new"]["pid"] == server.master
        wait_until(lambda: (server.status()["before"] or {}).get("connections") == 1, "one is left")
        with dial(server) as new:
            assert exchange(old) == exchange(new) == b"ping"
            leave(new)
        assert server.exit_status is None
        leave(old)
        server.wait_until_old_master_is_gone()
        assert server.process.wait(20) == 0


def test_the_old_master_s_drain_has_an_end(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve(backend.address, timeouts={"drain": 1}) as server,
        dial(server) as client,
    ):
        exchange(client)
        server.upgrade()
        assert server.process.wait(20) == 0
        with pytest.raises(ssl.SSLEOFError):
            client.recv(1)


def test_term_ends_an_old_master_that_drains(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve(backend.address, timeouts={"drain": 60}) as server,
        dial(server) as client,
    ):
        exchange(client)
        server.upgrade()
        os.kill(server.pid, signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.is_answering()
        assert (server.folder / "pid").exists()


def test_stopping_at_once_ends_both(serve: Serve, dial: Dial) -> None:
    with Backend() as backend:
        server = serve(backend.address, timeouts={"drain": 60})
        with server, dial(server) as client:
            exchange(client)
            server.upgrade()
            server.signal(signal.SIGINT)
            server.wait_until_gone()
        assert not (server.folder / "pid").exists()
        assert not server.control.exists()


def test_totals_never_go_back_and_lose_nothing(serve: Serve, dial: Dial) -> None:
    """Not even what is counted while the old master drains, in the second upgrade from here."""
    with Backend() as backend, serve(backend.address, workers=2) as server:
        before = server.status()["totals"]
        for round_ in range(2):
            with dial(server) as old:
                exchange(old, bytes(1000))
                counted = server.status()["totals"]
                assert counted["accepted"] == before["accepted"] + 1
                server.upgrade()
                after = server.status()["totals"]
                assert all(after[name] >= counted[name] for name in counted), (counted, after)
                exchange(old, bytes(5000))
                leave(old)
            server.wait_until_old_master_is_gone()
            totals = server.status()["totals"]
            assert totals["accepted"] == totals["handshakes"] == round_ + 1
            assert totals["bytes_from_clients"] == totals["bytes_from_backends"] == 6000 * (round_ + 1)
            [frontend] = server.status()["frontends"]
            assert sum(frontend["totals"]["handshakes"].values()) == round_ + 1
            before = totals


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_of_before_resume_after(serve: Serve, ca: trustme.CA, kind: str) -> None:
    context = client_of(ca, kind)
    with Backend() as backend, serve(backend.address, workers=2) as server:
        session = visit(server.port, context).session
        told(server, "rotate")
        before = keys(server)
        server.upgrade()
        assert keys(server) == before
        again = visit(server.port, context, session)
        assert again.resumed
        server.wait_until_old_master_is_gone()
        server.upgrade()
        assert visit(server.port, context, again.session).resumed


def test_the_operator_s_word_on_a_backend_stays(serve: Serve, dial: Dial) -> None:
    with Backend() as one, Backend() as two, serve(one.address, two.address) as server:
        wish(server, "drain", f"main/{one.address}")
        with dial(server) as client:
            exchange(client)
            server.upgrade()
            rows = backends(server)
            assert [row["state"] for row in rows] == ["draining", "up"]
            assert [row["active"] for row in rows] == [0, 1]
            leave(client)
        server.wait_until_old_master_is_gone()
        assert [row["active"] for row in backends(server)] == [0, 0]
        assert [row["total"] for row in backends(server)] == [0, 1]
        server.upgrade()
        assert [row["total"] for row in backends(server)] == [0, 1]


def wish(server: Server, do: str, target: str) -> None:
    ask(server.control, {"verb": "backends", "do": do, "target": target}, timeout=PATIENCE)


def backends(server: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ask(server.control, {"verb": "backends"}, timeout=PATIENCE)["backends"]
    return rows


def failures(server: Server) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = ask(server.control, {"verb": "failures"}, timeout=PATIENCE)["failures"]
    return kinds


def test_a_limit_counts_what_the_old_workers_have_open(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve({"address": backend.address, "max_connections": 1}) as server,
        dial(server) as old,
    ):
        exchange(old)
        server.upgrade()
        with dial(server) as new:
            new.settimeout(1)
            with pytest.raises(TimeoutError):
                exchange(new)
            leave(old)
            new.settimeout(20)
            assert new.recv(4) == b"ping"


def test_the_new_master_reads_the_configuration_anew(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=1) as server:
        server.values["workers"] = 3
        server.write_config()
        server.upgrade()
        assert len(server.workers()) == 3
        for _ in range(6):
            with dial(server) as client:
                assert exchange(client) == b"ping"


def test_fewer_workers_leave_no_queue_unread(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=4) as server:
        server.values["workers"] = 1
        server.write_config()
        server.upgrade()
        server.wait_until_old_master_is_gone()
        for _ in range(16):
            with dial(server, timeout=8) as client:
                assert exchange(client) == b"ping"


def test_a_second_upgrade_waits_for_the_end_of_the_first(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        server.upgrade()
        with pytest.raises(ControlError, match=f"process {server.pid}, of the upgrade before, still dr"):
            server.upgrade()
        leave(client)
        server.wait_until_old_master_is_gone()
        first = server.master
        assert server.upgrade()["old"]["pid"] == first


def test_no_descriptor_gathers(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address, workers=2, state_dir="state") as server:
        server.upgrade()
        server.wait_until_old_master_is_gone()
        first = settled(server.master)
        server.upgrade()
        server.wait_until_old_master_is_gone()
        assert settled(server.master) == first
        for worker in server.workers():
            held = descriptors(worker).values()
            assert not [each for each in held if "termproxy-handover" in each or "sessions" in each]


def settled(pid: int) -> int:
    """How many descriptors a process has, when it has done with our questions."""

    def count() -> int:
        return len(descriptors(pid))

    wait_until(Unchanged(count), "it has as many for a while")
    return count()


def test_nothing_secret_stands_in_arguments_or_environment(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.upgrade()
        environment = Path(f"/proc/{server.master}/environ").read_bytes().split(b"\0")
        [number] = [each for each in environment if each.startswith(b"TERMPROXY")]
        assert number.partition(b"=")[2].isdigit()
        old, new = (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (server.pid, server.master))
        assert new == old or not old  # the old one may have gone


def test_a_killed_old_master_takes_nothing_with_it_but_what_it_had_open(
    serve: Serve, dial: Dial
) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        server.upgrade()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(20)
        server.wait_until_old_master_is_gone()
        assert exchange(client) == b"ping"  # its worker drains
        leave(client)
        with dial(server) as new:
            assert exchange(new) == b"ping"
        # Master, worker and admin process.
        wait_until(lambda: len(session_members(server.pid)) == 3, "its worker has gone")


def test_the_failures_of_before_are_told(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
            raw.recv(1000)
        wait_until(lambda: failures(server), "it is told")
        server.upgrade()
        server.wait_until_old_master_is_gone()
        [failure] = failures(server)
        assert failure["reason"] == "plain_http"
