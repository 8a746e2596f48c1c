"""Load at a fixed rate, and the latency that clients then see: `open_loop.c`.

wrk asks again when it has been answered: a server that stumbles is asked less, and
what would have come meanwhile is never counted.  Here requests are due when they
are due, and each one's time begins then.
"""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from comparison.metering import MeasurementError, read, usage_between
from comparison.processes import Running
from comparison.wrk import HERE, Wrk

# For answers that come after the load has ended.
ENDING_TIMEOUT = 30.0
# Seconds of the run that finds out what a server can.
SEARCH_SECONDS = 2.0
MICROSECOND = 1e-6


@dataclass(frozen=True, slots=True)
class OpenLoopReport:
    """What open_loop.c printed, in seconds."""

    requests: int
    seconds: float
    latency: dict[str, float]
    late: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    path: str
    connections: int
    # Requests a second; half of what the slowest server can, once that is known.
    rate: float = 0.0

    def capacity_of(self, subject: Running) -> float:
        """Return the requests a second that a server and this load's one core can."""
        closed = Wrk(path=self.path, connections=64)
        return closed.measure(subject, SEARCH_SECONDS)["rate"]

    def at_half_of(self, capacity: float) -> Self:
        return replace(self, rate=capacity / 2)

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        command = [
            build(subject.log.parent),
            *(str(subject.port), self.path),
            *map(str, (self.connections, self.rate, seconds)),
            str(subject.certificate.trust),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as load:
            try:
                await_ready(load)
                before = read(subject.pid, subject.cores)
                output, errors = load.communicate("go\n", timeout=seconds + ENDING_TIMEOUT)
                used = usage_between(before, read(subject.pid, subject.cores))
            except subprocess.TimeoutExpired as error:
                raise MeasurementError("open_loop did not end") from error
            finally:
                load.kill()
        if load.returncode:
            raise MeasurementError(errors.strip() or f"open_loop: status {load.returncode}")
        report = parse(output)
        return {
            "cpu": used.cpu_seconds / report.requests,
            "worker": used.worker_seconds / report.requests,
            "rate": report.requests / report.seconds,
            "p50": report.latency["50%"],
            "p90": report.latency["90%"],
            "p99": report.latency["99%"],
            "p99.9": report.latency["99.9%"],
            "late_p99": report.late["99%"],
            "others": used.others,
        }


def await_ready(load: subprocess.Popen[str]) -> None:
    """Wait until all connections are open; open_loop.c itself gives up when nothing moves."""
    assert load.stdout is not None
    if load.stdout.readline() != "ready\n":
        assert load.stderr is not None
        raise MeasurementError(load.stderr.read().strip() or "open_loop ended")


def parse(output: str) -> OpenLoopReport:
    """Read the report; an answer that never came makes the measurement invalid."""
    told = re.search(r"asked: (\d+) answered: (\d+) seconds: ([\d.]+)", output)
    if told is None:
        raise MeasurementError(f"open_loop told nothing: {output.strip()[-200:]}")
    asked, answered = int(told[1]), int(told[2])
    if not answered or asked != answered:
        raise MeasurementError(f"{asked - answered} of {asked} requests were not answered in time")
    return OpenLoopReport(
        requests=answered,
        seconds=float(told[3]),
        latency=parts(output, "latency"),
        late=parts(output, "late"),
    )


def parts(output: str, name: str) -> dict[str, float]:
    line = re.search(rf"^{name}: (.*)$", output, re.MULTILINE)
    pairs = (pair.split("=") for pair in (line[1].split() if line else []))
    return {part: float(value) * MICROSECOND for part, value in pairs}


def build(directory: Path) -> str:
    """Compile the program, the first time it is asked for."""
    program = directory / "open_loop"
    if not program.exists():
        libraries = ["-lssl", "-lcrypto", "-lm"]
        subprocess.run(["cc", "-O2", "-o", program, HERE / "open_loop.c", *libraries], check=True)
    return str(program)
