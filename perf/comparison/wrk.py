"""Load with wrk: as many requests as one core can send, on kept connections or on new ones.

Left alone, wrk resumes its TLS session whenever it connects again.  For full
handshakes it runs with `forget_sessions.c` before libssl, which prevents that
and counts: a measurement in which one handshake was resumed is invalid.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from comparison.metering import MeasurementError, read, usage_between
from comparison.processes import Running

SOURCE = Path(__file__).with_name("forget_sessions.c")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TIME = r"([\d.]+)(us|ms|s|m|h)"


@dataclass(frozen=True, slots=True)
class WrkReport:
    """What wrk printed, in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk:
    path: str
    connections: int
    # A new connection, and so a handshake, for each request.
    full_handshakes: bool = False

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        environment = self.environment(subject.log.parent)
        before = read(subject.pid, subject.core)
        done = self.run(subject, seconds, environment)
        used = usage_between(before, read(subject.pid, subject.core))
        report = parse(done.stdout)
        if self.full_handshakes:
            check_handshakes(done.stderr, report.requests, self.connections)
        return {
            "cpu": used.cpu_seconds / report.requests,
            "rate": report.requests / report.seconds,
            "p50": report.p50,
            "p99": report.p99,
            "others": used.others,
        }

    def run(
        self, subject: Running, seconds: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{round(seconds)}s", "--latency"]
        if self.full_handshakes:
            command += ["-H", "Connection: close"]
        command.append(f"https://127.0.0.1:{subject.port}{self.path}")
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise MeasurementError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def environment(self, directory: Path) -> dict[str, str]:
        if not self.full_handshakes:
            return dict(os.environ)
        return os.environ | {"LD_PRELOAD": str(build_forget_sessions(directory))}


def build_forget_sessions(directory: Path) -> Path:
    """Compile, the first time it is asked for."""
    library = directory / "forget_sessions.so"
    if not library.exists():
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    return library


def parse(output: str) -> WrkReport:
    """Read wrk's report; an error counted in it makes the measurement invalid."""
    if errors := re.search(r"(Socket errors|Non-2xx or 3xx responses): .*", output):
        raise MeasurementError(f"wrk: {errors[0]}")
    total = re.search(rf"(\d+) requests in {TIME},", output)
    median = re.search(rf"^ +50% +{TIME}$", output, re.MULTILINE)
    tail = re.search(rf"^ +99% +{TIME}$", output, re.MULTILINE)
    if total is None or median is None or tail is None or total[1] == "0":
        raise MeasurementError(f"wrk did not report any requests: {output.strip()[-200:]}")
    return WrkReport(
        requests=int(total[1]),
        seconds=in_seconds(total[2], total[3]),
        p50=in_seconds(median[1], median[2]),
        p99=in_seconds(tail[1], tail[2]),
    )


def in_seconds(number: str, unit: str) -> float:
    return float(number) * UNITS[unit]


def check_handshakes(output: str, requests: int, connections: int) -> None:
    """Make sure each request had a full handshake of its own, by what forget_sessions told."""
    told = re.search(r"handshakes: (\d+) resumed: (\d+)", output)
    if told is None:
        raise MeasurementError("forget_sessions did not tell: was wrk linked statically?")
    handshakes, resumed = int(told[1]), int(told[2])
    if resumed:
        raise MeasurementError(f"{resumed} of {handshakes} handshakes were resumed")
    # Counted when a connection ends, so those still open at the end are missing.
    if abs(handshakes - requests) > connections:
        raise MeasurementError(f"{handshakes} handshakes for {requests} requests")
