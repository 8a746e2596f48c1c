"""A termproxy as an operator runs it: its own processes, a configuration file, signals and logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from termproxy.cli.control import ask
from termproxy.errors import ControlError
from tests.support.ports import free_port
from tests.support.processes import session_members
from tests.support.waiting import PATIENCE, wait_until

Settings = dict[str, Any]


def settings(site: Path, servers: Iterable[str], **changes: Any) -> Settings:
    """A configuration with one frontend on a free port.  Tables in `changes` are merged in."""
    values: Settings = {
        "workers": 1,
        "control": "control",
        "pidfile": "pid",
        "log": {"level": "debug", "access": "access.log"},
        "timeouts": {"handshake": 10, "connect": 5, "idle": 60, "drain": 10},
        "limits": {"connections": 4000},
        "frontend": [
            {
                "name": "main",
                "listen": [f"127.0.0.1:{free_port()}"],
                "cluster": "main",
                "certificates": [str(site)],
            }
        ],
        "cluster": {"main": {"servers": list(servers)}},
    }
    for name, change in changes.items():
        values[name] = values[name] | change if isinstance(values.get(name), dict) else change
    return values


def write_toml(values: Mapping[str, Any]) -> str:
    """TOML with every table inline: JSON's literals are TOML's, but for those of tables."""
    return "".join(f"{key} = {_literal(value)}\n" for key, value in values.items())


def _literal(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


class Server:
    """Entering starts it and waits until it serves; leaving stops it and looks for leftovers."""

    def __init__(
        self, folder: Path, values: Settings, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.values = values
        self.file = folder / "termproxy.toml"
        self.said_file = folder / "stderr.log"
        self.inherit: tuple[int, ...] = ()  # descriptors that it finds open
        self.launcher: tuple[str, ...] = ()  # a command that becomes what stands behind it
        self.environment = dict(environment or {})  # besides our own
        self._process: subprocess.Popen[bytes] | None = None

    # Life.

    def start(self) -> None:
        """Start without waiting.  What an earlier one said in this folder is forgotten."""
        self.write_config()
        command = [*self.launcher, sys.executable, "-m", "termproxy", "run", "-c", str(self.file)]
        with self.said_file.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=dict(os.environ) | self.environment,
                cwd=self.folder,
                start_new_session=True,
                pass_fds=self.inherit,
            )

    def wait_until_serving(self) -> None:
        def serves() -> bool:
            assert self.exit_status is None, f"it ended with {self.exit_status}:\n{self.said()}"
            return " serves; " in self.said()

        wait_until(serves, "the server serves")

    def wait_until_gone(self, seconds: float = PATIENCE) -> int:
        """The exit status, once no process of it is left."""
        status = self.process.wait(seconds)
        wait_until(lambda: not session_members(self.pid), "its processes are gone", seconds=seconds)
        return status

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_serving()
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self.master in session_members(self.pid):
                    self.signal(signal.SIGINT)
                self.wait_until_gone()
                assert "Traceback" not in self.said(), self.said()
                assert "please report this" not in self.said(), self.said()
            elif self.said_file.exists():
                print(self.said())
        finally:
            self._kill_all()

    def _kill_all(self) -> None:
        for pid in session_members(self.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    # Asking and telling.

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def master(self) -> int:
        """The process that serves now: after an upgrade another one than was started."""
        try:
            return int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return self.pid

    @property
    def exit_status(self) -> int | None:
        return self.process.poll()

    @property
    def port(self) -> int:
        """The first address's."""
        return int(self.values["frontend"][0]["listen"][0].rpartition(":")[2])

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def write_config(self) -> None:
        """In one step: a reload that is under way reads all of the old one, or of the new."""
        new = self.file.with_suffix(".new")
        new.write_text(write_toml(self.values))
        new.rename(self.file)

    def signal(self, signum: signal.Signals) -> None:
        """To the master, as the pidfile tells it."""
        if self.master == self.pid:
            self.process.send_signal(signum)
        else:
            os.kill(self.master, signum)

    def upgrade(self) -> dict[str, Any]:
        """Have what is installed take over; ControlError when it does not."""
        return ask(self.control, {"verb": "upgrade"}, timeout=90.0)

    def wait_until_old_master_is_gone(self) -> None:
        wait_until(lambda: self.status()["before"] is None, "the old master has drained")

    def said(self) -> str:
        """All that it wrote on standard error, and on standard output."""
        return self.said_file.read_text(errors="replace")

    def wait_for_words(self, words: str, seconds: float = PATIENCE) -> str:
        """What it said, once `words` are in it."""

        def look() -> str:
            said = self.said()
            return said if words in said else ""

        try:
            return wait_until(look, repr(words), seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.said()}") from None

    def status(self) -> dict[str, Any]:
        return ask(self.control, {"verb": "status"}, timeout=PATIENCE)

    def is_answering(self) -> bool:
        try:
            return bool(self.status())
        except ControlError:
            return False

    def workers(self, state: str = "ready") -> list[int]:
        """The processes of workers in a state, oldest slot first."""
        found = sorted(self.status()["workers"], key=lambda worker: int(worker["slot"]))
        return [int(worker["pid"]) for worker in found if worker["state"] == state]

    def open_connections(self) -> int:
        return sum(int(worker["connections"]) for worker in self.status()["workers"])

    def reload(self, *, new_workers: bool = False) -> dict[str, Any]:
        """Have it read what `values` say now; how that went."""
        self.write_config()
        if new_workers:
            return ask(self.control, {"verb": "reload", "new_workers": True}, timeout=PATIENCE)
        before = self.status()["last_reload"]
        count = self.said().count("reloaded")
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.said().count("reloaded") > count, "the reload is decided")
        after: dict[str, Any] = self.status()["last_reload"]
        assert after is not None, f"no reload is known of, before there was {before}"
        return after

    # The access log.

    def access_lines(self) -> list[dict[str, Any]]:
        file = self.folder / "access.log"
        if not file.exists():
            return []
        # What is being written may be seen in part.
        whole, _, _ = file.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for_access(
        self, count: int = 1, *, that: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> list[dict[str, Any]]:
        """The lines that are so, once there are `count` of them."""

        def look() -> list[dict[str, Any]]:
            lines = [line for line in self.access_lines() if that(line)]
            return lines if len(lines) >= count else []

        try:
            return wait_until(look, f"{count} lines in the access log")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.access_lines()}") from None
