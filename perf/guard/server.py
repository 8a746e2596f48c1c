"""termproxy under callgrind, with one start for all loads.

callgrind tells a process's total when it ends, and a forked process's total begins
with that of its parent.  So each load gets a worker of its own: WINCH ends the one before, and HUP
brings another.  Between any two loads there is a worker without a load: what a load
costs is its worker's total less the mean of its two neighbours', which grow alike with
the master's.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from comparison.processes import free_port
from guard.callgrind import instructions_of_ours
from guard.loads import WARM_UP, Client, Load, full_handshakes, keep_alive, resumed_handshakes

TERMPROXY = Path(sys.executable).with_name("termproxy")
# Starting takes 10 s alone, and much longer on a busy machine.
PATIENCE = 180.0
WAITING_SECONDS = 6.0
WAITS = 3
CONFIG = """\
{user}workers = 1
[log]
access = "{access_log}"
[limits]
connections = 1000
[timeouts]
drain = 1
{frontends}
[cluster.web]
servers = ["127.0.0.1:{backend_port}"]
"""
FRONTEND = """\
[[frontend]]
name = "{mode}"
mode = "{mode}"
listen = ["127.0.0.1:{port}"]
cluster = "web"
certificates = ["{certificate}"]
"""


class ServerError(Exception):
    """termproxy did not start, or a worker's total is missing."""


@dataclass(frozen=True, slots=True)
class Server:
    directory: Path
    certificate: Path
    process: psutil.Process
    ports: dict[str, int]
    backend_port: int

    def client(self, mode: str) -> Client:
        return Client(self.ports[mode], self.certificate)

    def new_worker(self, *, access_log: bool) -> int:
        """End the one worker there is, and have another one: a reload alone might keep it."""
        self.end_worker()
        write_config(
            self.directory, self.certificate, self.ports, self.backend_port, access_log=access_log
        )
        self.process.send_signal(signal.SIGHUP)
        wait_for("a new worker", lambda: len(self.workers()) == 1)
        [worker] = self.workers()
        return worker

    def end_worker(self) -> None:
        self.process.send_signal(signal.SIGWINCH)
        wait_for("the worker's end", lambda: not self.workers())

    def workers(self) -> set[int]:
        return {child.pid for child in self.process.children()}

    def warm_up(self) -> None:
        for mode in self.ports:
            client = self.client(mode)
            wait_for("an answer", partial(answers, client))
            for load in (keep_alive, full_handshakes, resumed_handshakes):
                load(client, WARM_UP)

    def total_of(self, worker: int) -> int:
        """Return what a worker that has ended has cost, and its parents before it."""
        try:
            with (self.directory / f"totals.{worker}").open() as lines:
                return instructions_of_ours(lines)
        except FileNotFoundError as error:
            # A valgrind that passes Landlock on to the kernel is under it itself.
            raise ServerError(
                "a worker has left no total: does Landlock keep it from writing?"
            ) from error


@contextmanager
def started(directory: Path, certificate: Path, backend_port: int) -> Iterator[Server]:
    """Run termproxy under callgrind until the block ends."""
    # Workers write their totals when they are nobody already.
    directory.chmod(0o777)
    ports = {mode: free_port() for mode in ("tcp", "http")}
    config = write_config(directory, certificate, ports, backend_port, access_log=False)
    log = directory / "log"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/totals.%p"]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*command, str(TERMPROXY), "run", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(directory, certificate, psutil.Process(child.pid), ports, backend_port)
    try:
        wait_for("an answer", lambda: child.poll() is not None or answers(server.client("tcp")))
        if child.poll() is not None:
            raise ServerError(f"termproxy ended:\n{log.read_text(errors='replace')[-2000:]}")
        yield server
    finally:
        left = [server.process, *server.process.children(recursive=True)] if child.poll() is None else []
        child.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(left, timeout=30)
        for process in alive:
            process.kill()
        child.wait()


def write_config(
    directory: Path, certificate: Path, ports: dict[str, int], backend_port: int, *, access_log: bool
) -> Path:
    frontends = [
        FRONTEND.format(mode=mode, port=port, certificate=certificate) for mode, port in ports.items()
    ]
    file = directory / "termproxy.toml"
    file.write_text(
        CONFIG.format(
            user='user = "nobody"\n' if os.geteuid() == 0 else "",
            access_log=directory / "access.log" if access_log else "off",
            frontends="".join(frontends),
            backend_port=backend_port,
        )
    )
    return file


def answers(client: Client) -> bool:
    try:
        keep_alive(client, 1)
    except OSError:
        return False
    return True


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + PATIENCE
    while not is_so():
        if time.perf_counter() > deadline:
            raise ServerError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Life:
    """A worker that was counted: what it and its parents have cost, and how long it lived."""

    total: int
    seconds: float


def count(server: Server, loads: Sequence[Load], tell: Callable[[str], None]) -> dict[str, int]:
    """Return each load's instructions an operation, by its name."""
    lives = live(server, list(tasks(server, loads)), tell)
    return dict(zip((load.name for load in loads), per_operation(lives, loads), strict=True))


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker lives for."""

    title: str
    run: Callable[[], None]
    access_log: bool = False


def tasks(server: Server, loads: Sequence[Load]) -> Iterator[Task]:
    """Between any two there is a worker with nothing to do; the first tasks are to wait."""
    nothing = Task("", lambda: None)
    yield nothing
    for _ in range(WAITS):
        yield Task("time", lambda: time.sleep(WAITING_SECONDS))
        yield nothing
    for load in loads:
        run = partial(load.run, server.client(load.mode), load.times)
        yield Task(load.title, run, load.access_log)
        yield nothing


def live(server: Server, of: Iterable[Task], tell: Callable[[str], None]) -> list[Life]:
    ended = []
    for task in of:
        worker = server.new_worker(access_log=task.access_log)
        if task.title:
            tell(task.title)
        began = time.perf_counter()
        server.warm_up()
        task.run()
        ended.append((worker, time.perf_counter() - began))
    server.end_worker()
    return [Life(server.total_of(worker), seconds) for worker, seconds in ended]


def per_operation(lives: Sequence[Life], loads: Sequence[Load]) -> list[int]:
    """Take from each load's total the mean of both neighbours', and what the time between costs.

    A worker's clock ticks four times a second, and on a busy machine a load takes longer.
    """
    first_load = 1 + 2 * WAITS
    waits = (more_than_neighbours(lives, place) for place in range(1, first_load, 2))
    # What happens once in a while may happen while one of them waits.
    per_second = median(more / longer for more, longer in waits)
    found = []
    for place, load in zip(range(first_load, len(lives), 2), loads, strict=True):
        more, longer = more_than_neighbours(lives, place)
        found.append(round((more - per_second * longer) / load.times))
    return found


def more_than_neighbours(lives: Sequence[Life], place: int) -> tuple[float, float]:
    before, it, after = lives[place - 1 : place + 2]
    return (
        it.total - (before.total + after.total) / 2,
        it.seconds - (before.seconds + after.seconds) / 2,
    )
