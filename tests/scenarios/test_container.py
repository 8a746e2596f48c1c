"""termproxy as process 1, as in a container: it reaps what is handed to it, drains on TERM, and says why
it cannot upgrade.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from termproxy.errors import ControlError
from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.processes import session_members, status
from tests.support.waiting import wait_until

NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def can_make_a_namespace() -> bool:
    if os.getuid() != 0 or shutil.which("nsenter") is None:
        return False
    return subprocess.run([*NEW_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_make_a_namespace(), reason="only root makes a pid namespace")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_as_process_1(serve: Serve, dial: Dial) -> None:
    with Backend() as backend:
        # Its pidfile would say 1, and the tests signal whom that names.
        server = serve(backend.address, pidfile="", log={"access": "-"})
        server.launcher = NEW_NAMESPACE
        with server, dial(server) as client:
            assert server.status()["pid"] == 1
            [master] = children(server.pid)
            with pytest.raises(ControlError, match="this is process 1, with which its container ends"):
                server.upgrade()

            # Besides a worker and the admin process.
            orphan = ("nsenter", f"--target={master}", "--pid", "sh", "-c", "sleep 1 & true")
            subprocess.run(orphan, check=True)
            wait_until(lambda: len(children(master)) == 3, "an orphan is handed to it")
            wait_until(lambda: len(children(master)) == 2, "the orphan has been reaped")

            exchange(client)
            os.kill(master, signal.SIGTERM)
            server.wait_for_words("stopping: draining")
            assert status(master)["NSpid"].split()[-1] == "1"
            assert exchange(client) == b"ping"
            leave(client)
            assert server.process.wait(20) == 0
            assert not session_members(server.pid)
        assert '"ended":"done"' in server.said()
