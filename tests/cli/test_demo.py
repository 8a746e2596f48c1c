"""`termproxy demo`: the line it prints works, and nothing is left when it ends."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import TERMPROXY, termproxy
from tests.support.ports import free_port
from tests.support.processes import session_members
from tests.support.waiting import PATIENCE, wait_until


class Demo:
    """A demo in a session of its own, with a folder of its own for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.said_file = folder / "said"
        with self.said_file.open("wb") as said:
            self.process = subprocess.Popen(
                [*TERMPROXY, "demo", "--listen", f"127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | {"TMPDIR": str(self.temporary)},
                start_new_session=True,
            )

    def said(self) -> str:
        return self.said_file.read_text()

    def curl_line(self) -> list[str]:
        """The line it prints, once it serves."""
        pattern = r"^ +(curl .+)$"
        lines = wait_until(lambda: re.findall(pattern, self.said(), re.MULTILINE), "the line to paste")
        return shlex.split(lines[0])

    def folders(self) -> list[str]:
        return os.listdir(self.temporary)  # noqa: PTH208 - names, to compare

    def wait_until_gone(self) -> int:
        status = self.process.wait(PATIENCE / 2)
        wait_until(lambda: not session_members(self.process.pid), "its processes are gone")
        return status


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    for pid in session_members(demo.process.pid):
        os.kill(pid, signal.SIGKILL)
    demo.process.wait()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_it_prints_answers(demo: Demo) -> None:
    result = subprocess.run(
        demo.curl_line(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Hello from behind termproxy." in result.stdout
    assert "GET / HTTP/1.1" in result.stdout
    wait_until(lambda: '"ended":"done"' in demo.said(), "the access line")


def test_its_certificate_is_good_for_this_machine(demo: Demo) -> None:
    ca = demo.curl_line()[2]
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", demo.port), timeout=PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as client,
    ):
        assert client.version() == "TLSv1.3"


def test_the_key_is_for_nobody_else(demo: Demo) -> None:
    demo.curl_line()
    [folder] = demo.temporary.iterdir()
    [key] = [file for file in folder.iterdir() if "PRIVATE KEY" in file.read_text()]
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_it_leaves_no_process_and_no_folder(
    demo: Demo, signum: signal.Signals
) -> None:
    """As the terminal sends Ctrl-C: to the demo, its workers and its backend at once."""
    demo.curl_line()
    assert len(demo.folders()) == 1
    os.killpg(demo.process.pid, signum)
    demo.wait_until_gone()
    assert demo.folders() == []
    assert "Traceback" not in demo.said()


def test_ctrl_c_to_the_demo_alone_is_enough(demo: Demo) -> None:
    demo.curl_line()
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait_until_gone() == 0
    assert demo.folders() == []


def test_a_closed_terminal_ends_it(demo: Demo) -> None:
    """The kernel sends HUP to all of it then; nobody would be left to press Ctrl-C."""
    demo.curl_line()
    os.killpg(demo.process.pid, signal.SIGHUP)
    demo.wait_until_gone()
    assert demo.folders() == []


def test_a_killed_demo_takes_its_processes_along(demo: Demo) -> None:
    demo.curl_line()
    demo.process.kill()
    demo.wait_until_gone()


def test_a_taken_port_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        environment = {"TMPDIR": str(tmp_path)}
        result = termproxy("demo", "--listen", f"127.0.0.1:{port}", environment=environment)
    assert result.returncode == 1
    assert "the port is taken" in result.stderr
    assert list(tmp_path.iterdir()) == []
