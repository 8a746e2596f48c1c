"""One run: start what is loaded, run locust beside it, and read what both of them counted.

locust shares its process with gevent's ssl, and costs more than the server does.  So it runs, with the
backend and this process, on other cores than the server, and the server's cost is read from the clocks
of its own processes.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from comparison.machine import Cores, choose_cores
from comparison.metering import core_busy_seconds, cpu_with_ended
from comparison.processes import free_port
from loading.ledger import Kill, Ledger
from loading.profiles import CA, RESULT, Profile
from loading.server import Proxy, make_config, started_proxy
from loading.storm import Storm

LOCUSTFILES = Path(__file__).resolve().parents[1] / "locustfiles"
# What people who are in the middle of something have to finish it.
STOP_TIMEOUT = 15
# For locust's start and its reports, besides.
SLACK = 30.0
TICK = 0.05
DRAINED_WITHIN = 5.0


class LoadError(Exception):
    """The load could not be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    profile: Profile
    mode: str
    users: int
    seconds: int
    workers: int
    processes: int
    termproxy: Path
    output: Path
    with_access_log: bool
    # Somebody else's server, and who signed its certificate.
    host: str | None = None
    ca: Path | None = None
    # Where locust's own workers come in, and how many are waited for.
    master: str | None = None
    expect_workers: int = 1

    def file(self, suffix: str) -> Path:
        return self.output / f"{self.profile.name}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """What locust said in the end."""

    entries: list[dict[str, Any]]
    seconds: float
    bugs: list[dict[str, Any]]
    ledger: Ledger
    cpu: float = 0.0

    def requests(self) -> int:
        """Return how many operations there were besides handshakes."""
        return sum(entry["count"] for entry in self.entries if entry["kind"] != "TLS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server of ours said in the end.  CPU in seconds; the parts are of a core's time."""

    cpu: float
    backend_cpu: float
    others: float
    load_core_busy: float
    handshakes: Counter[str]
    reloads_asked: int
    generations: int
    kills: list[Kill]
    left_open: int
    complaints: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Clocks and counters at one moment."""

    wall: float
    cpu: float
    backend_cpu: float
    serving_busy: float
    load_busy: float
    handshakes: Counter[str]
    generation: int

    @classmethod
    def of(cls, proxy: Proxy, cores: Cores) -> "Snapshot":
        return cls(
            wall=time.perf_counter(),
            cpu=cpu_with_ended(proxy.pid),
            backend_cpu=proxy.backend_cpu(),
            serving_busy=core_busy_seconds(cores.serving),
            load_busy=core_busy_seconds(cores.load),
            handshakes=proxy.handshakes(),
            generation=proxy.status()["generation"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    plan: Plan
    clients: Clients
    served: Served | None


def run(plan: Plan) -> Outcome:
    """Raise LoadError, MeasurementError, StartError or CoresError when it could not be run."""
    plan.output.mkdir(parents=True, exist_ok=True)
    if plan.host is not None:
        return Outcome(plan=plan, clients=run_locust(plan, plan.host, plan.ca), served=None)
    cores = choose_cores()
    # Children inherit this: only the server is moved to the serving core.
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {cores.serving})
    with tempfile.TemporaryDirectory(prefix="perf-load-") as directory:
        log = plan.file("_access.log").absolute() if plan.with_access_log else None
        if log is not None:
            log.unlink(missing_ok=True)
        config = make_config(mode=plan.mode, workers=plan.workers, access_log=log)
        with started_proxy(Path(directory), cores, plan.termproxy, config) as proxy:
            return load(plan, proxy, cores)


def load(plan: Plan, proxy: Proxy, cores: Cores) -> Outcome:
    storm = Storm.of(plan.profile, proxy, time.perf_counter())
    before = Snapshot.of(proxy, cores)
    clients = run_locust(plan, f"https://localhost:{proxy.port}", proxy.ca, storm)
    after = Snapshot.of(proxy, cores)
    seconds = after.wall - before.wall
    cpu = after.cpu - before.cpu
    served = Served(
        cpu=cpu,
        backend_cpu=after.backend_cpu - before.backend_cpu,
        others=max(0.0, (after.serving_busy - before.serving_busy - cpu) / seconds),
        load_core_busy=(after.load_busy - before.load_busy) / seconds,
        handshakes=after.handshakes - before.handshakes,
        reloads_asked=storm.reloads,
        generations=after.generation - before.generation,
        kills=storm.kills,
        left_open=connections_left(proxy),
        complaints=proxy.complaints(),
    )
    return Outcome(plan=plan, clients=clients, served=served)


def run_locust(plan: Plan, host: str, ca: Path | None, storm: Storm | None = None) -> Clients:
    """Run it until its time is over, with a storm meanwhile; LoadError when it did not do its work."""
    result = plan.file("_clients.json")
    result.unlink(missing_ok=True)
    spent = children_seconds()
    with plan.file(".log").open("wb") as output:
        child = start_locust(locust_command(plan, host), ca, result, output)
        try:
            wait(child, time.perf_counter() + plan.seconds + STOP_TIMEOUT + SLACK, storm)
        finally:
            end(child)
    said = plan.file(".log").read_text(errors="replace")
    if child.returncode or not result.exists():
        raise LoadError(f"locust ended with {child.returncode}:\n{said[-3000:]}")
    read = json.loads(result.read_text())
    return Clients(
        entries=read["entries"],
        seconds=read["seconds"],
        bugs=read["bugs"],
        ledger=Ledger().add(read["ledger"]),
        cpu=children_seconds() - spent,
    )


def locust_command(plan: Plan, host: str) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILES / f"{plan.profile.name}.py")]
    command += ["--headless", "--host", host, "--users", str(plan.users)]
    # All are there within two seconds.
    command += ["--spawn-rate", str(max(1, plan.users // 2)), "--run-time", f"{plan.seconds}s"]
    command += ["--stop-timeout", str(STOP_TIMEOUT), "--loglevel", "WARNING", "--only-summary"]
    command += ["--csv", str(plan.file("")), "--html", str(plan.file(".html"))]
    # A loss is judged here; locust's own status is for its troubles.
    command += ["--exit-code-on-error", "0"]
    if plan.master:
        address, _, port = plan.master.rpartition(":")
        command += ["--master", "--master-bind-host", address, "--master-bind-port", port]
        command += ["--expect-workers", str(plan.expect_workers)]
        command += ["--expect-workers-max-wait", str(round(SLACK))]
    elif plan.processes > 1:
        # The first process only adds up.  It would listen on every address, and its port may be taken.
        port = str(free_port())
        command += ["--processes", str(plan.processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    return command


def worker_command(profile: Profile, master: str) -> list[str]:
    """Return the command of a process on another machine, which works for a master there."""
    address, _, port = master.rpartition(":")
    file = str(LOCUSTFILES / f"{profile.name}.py")
    command = [sys.executable, "-m", "locust", "-f", file, "--worker"]
    return [*command, "--master-host", address, "--master-port", port]


def start_locust(
    command: list[str], ca: Path | None, result: Path, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    environment = os.environ | {RESULT: str(result.absolute())}
    if ca is not None:
        environment[CA] = str(ca.absolute())
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        # Ctrl-C is for us, and its processes are ended together.
        start_new_session=True,
    )


def wait(child: subprocess.Popen[bytes], deadline: float, storm: Storm | None) -> None:
    while child.poll() is None:
        now = time.perf_counter()
        if now > deadline:
            raise LoadError("locust did not end in time")
        if storm is not None:
            storm.act(now)
        time.sleep(TICK)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def connections_left(proxy: Proxy) -> int:
    """Return how many connections it still has when all clients have gone; 0 is right."""
    deadline = time.perf_counter() + DRAINED_WITHIN
    while (left := proxy.open_connections()) and time.perf_counter() < deadline:
        time.sleep(TICK)
    return left


def children_seconds() -> float:
    """Return the CPU time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
