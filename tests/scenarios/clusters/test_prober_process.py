"""The process that checks backends: one, without rights, replaced when it dies, gone with the master."""

from __future__ import annotations

import os
import pwd
import signal

import pytest

from tests.conftest import Serve
from tests.scenarios.clusters.app import HEALTH, App, children, cluster, rows, wait_for_checks
from tests.support.processes import descriptors, session_members, status
from tests.support.server import Server
from tests.support.waiting import wait_until


def prober(server: Server) -> int:
    """The one process that is neither master nor worker."""
    [pid] = wait_until(lambda: children(server), "a prober")
    return pid


def test_without_checks_there_is_none(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        assert children(server) == set()


def test_one_that_is_killed_is_replaced(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        first = prober(server)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: children(server) not in (set(), {first}), "another one")
        wait_for_checks(server, app.address, 2)
        assert len(children(server)) == 1
        assert "the prober of backends was killed by SIGKILL" in server.said()


def test_one_that_hangs_is_replaced(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        first = prober(server)
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: children(server) not in (set(), {first}), "another one", seconds=40)
        wait_for_checks(server, app.address, 2)
        assert "the prober of backends hangs: killing it" in server.said()


def test_a_reload_leaves_one(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        first = prober(server)
        for _ in range(3):
            assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: len(children(server)) == 1, "one prober")
        assert children(server) != {first}
        wait_for_checks(server, app.address, 2)
        assert "the prober of backends" not in server.said()


def test_a_reload_that_is_refused_leaves_it_alone(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        first = prober(server)
        server.values["cluster"] = cluster(app.address, health={"kind": "icmp"})
        assert not server.reload()["ok"]
        wait_for_checks(server, app.address, 2)
        assert children(server) == {first}


def test_it_goes_with_a_master_that_is_killed(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        prober(server)
        os.kill(server.pid, signal.SIGKILL)
        server.wait_until_gone()


def test_a_signal_to_every_process_stops_the_server_as_one_to_the_master_does(serve: Serve) -> None:
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH)) as server:
        wait_for_checks(server, app.address)
        for pid in session_members(server.pid):
            os.kill(pid, signal.SIGTERM)
        assert server.wait_until_gone() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_has_no_rights_and_holds_nothing_of_the_master_s(serve: Serve) -> None:
    user = pwd.getpwnam("nobody")
    with App() as app, serve(cluster=cluster(app.address, health=HEALTH), user="nobody") as server:
        wait_for_checks(server, app.address)
        pid = prober(server)
        lines = status(pid)
        assert lines["Uid"].split() == [str(user.pw_uid)] * 4
        assert lines["Gid"].split() == [str(user.pw_gid)] * 4
        assert {int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert lines["NoNewPrivs"] == "1"

        def leads_to() -> list[str]:
            found = [where for fd, where in descriptors(pid).items() if fd > 2]
            return [w for w in found if not w.startswith(("anon_inode:[event", "socket:", "pipe:"))]

        assert leads_to() == []
        sockets = [where for where in descriptors(pid).values() if where.startswith("socket:")]
        assert len(sockets) <= 1  # a check's


def test_many_checks_leave_no_descriptor(serve: Serve) -> None:
    with App() as app:
        health = HEALTH | {"interval": 0.1, "jitter": 0}
        absent = {"address": "127.0.0.1:9"}
        with serve(cluster=cluster(app.address, absent, health=health)) as server:
            wait_for_checks(server, app.address, 3)
            pid = prober(server)
            before = len(os.listdir(f"/proc/{pid}/fd")) if os.getuid() == 0 else 0  # noqa: PTH208
            wait_for_checks(server, app.address, 20)
            after = len(os.listdir(f"/proc/{pid}/fd")) if os.getuid() == 0 else 0  # noqa: PTH208
            assert abs(after - before) <= 2
            assert rows(server)["127.0.0.1:9"]["state"] == "down"
