"""Started as root with `user` set: workers have no rights left, and no way back to them."""

from __future__ import annotations

import os
import pwd
import re
import signal
from pathlib import Path

import pytest

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.processes import descriptors, status
from tests.support.server import Server

USER = "nobody"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Server:
    return serve(f"unix:{tmp_path}/app.sock", user=USER, workers=2)


def test_a_worker_runs_as_the_user_and_in_no_other_group(server: Server) -> None:
    user = pwd.getpwnam(USER)
    with server:
        for pid in server.workers():
            lines = status(pid)
            assert lines["Uid"].split() == [str(user.pw_uid)] * 4
            assert lines["Gid"].split() == [str(user.pw_gid)] * 4
            assert lines["Groups"] == ""
        assert status(server.pid)["Uid"].split()[0] == "0"


def test_a_worker_has_no_capability_and_can_gain_none(server: Server) -> None:
    with server:
        for pid in server.workers():
            lines = status(pid)
            assert {int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
            assert lines["NoNewPrivs"] == "1"


def test_a_worker_leaves_no_core_file_and_is_nobodys_to_read(server: Server) -> None:
    """Keys are in its memory.  What is not dumpable belongs to root in /proc, and takes no debugger."""
    with server:
        for pid in server.workers():
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0


def test_a_worker_holds_the_descriptors_it_needs_and_no_other(server: Server, site: Path) -> None:
    """Listeners, the standard three, the access log, the master's orders and the loop's own."""
    expected = [
        (r"/dev/null", 1),  # standard input
        (re.escape(str(server.said_file)), 2),  # standard output and error
        (re.escape(str(server.folder / "access.log")), 1),
        # A listener for each slot, and where the master's orders come.
        (r"socket:\[\d+\]", server.values["workers"] + 1),
        (r"anon_inode:\[eventpoll\]", 1),
        (r"anon_inode:\[(eventfd|timerfd)\]", None),
    ]
    with server:
        for pid in server.workers():
            found = list(descriptors(pid).values())
            for pattern, count in expected:
                matching = [target for target in found if re.fullmatch(pattern, target)]
                assert count in (None, len(matching)), (pattern, found)
                found = [target for target in found if target not in matching]
            assert found == []
        assert site.stat().st_mode & 0o777 == 0o600, "which the workers' user cannot read"


def test_what_the_starter_left_open_does_not_reach_a_worker(server: Server, tmp_path: Path) -> None:
    """A descriptor without close-on-exec comes along into whatever is started."""
    secret = tmp_path / "secret"
    secret.write_text("")
    fd = os.open(secret, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        server.inherit = (fd,)
        with server:
            assert str(secret) in descriptors(server.pid).values()
            for pid in server.workers():
                assert str(secret) not in descriptors(pid).values()
    finally:
        os.close(fd)


def test_it_serves_and_a_killed_worker_is_replaced_with_as_few_rights(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, user=USER) as server:
        [first] = server.workers()
        os.kill(first, signal.SIGKILL)
        with dial(server) as client:
            assert exchange(client) == b"ping"
            leave(client)
        [second] = server.workers()
        assert int(status(second)["CapEff"], 16) == 0
        server.wait_for_access()


def test_a_reload_reads_keys_that_the_workers_may_not(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, user=USER) as server:
        assert server.reload()["ok"]
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_root_without_a_user_is_warned(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        assert "workers run as root: set `user`" in server.said()
        for pid in server.workers():
            assert status(pid)["NoNewPrivs"] == "1"
