"""Load with wrk: as many requests as one core can send, on kept connections or on new ones.

Left alone, wrk resumes its TLS session whenever it connects again.  Where
handshakes are measured it runs with `handshakes.c` before libssl, which prevents
that, or does not, and counts: a measurement in which one handshake was resumed
that should be full, or the other way round, is invalid.

And it asks for one name, the host of its URL.  For others it runs with
`ask_for_names.c`, which looks at the certificates too: one that is for another
name makes a measurement invalid.
"""

import os
import random
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comparison.metering import MeasurementError, read, usage_between
from comparison.processes import Running

HERE = Path(__file__).parent
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TIME = r"([\d.]+)(us|ms|s|m|h)"

ENDING_TIMEOUT = 60.0

Asked = Literal["none", "first", "last", "every"]


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
    # A new connection, and so such a handshake, for each request.
    handshakes: Literal["full", "resumed"] | None = None
    # The newest TLS version that wrk speaks; left alone, OpenSSL's newest.
    version: Literal["1.2", "1.3"] | None = None
    # Which of the server's names the connections ask for; left alone, wrk asks for its URL's host.
    asks_for: Asked | None = None

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        environment = self.environment(subject)
        before = read(subject.pid, subject.cores)
        done = self.run(subject, seconds, environment)
        used = usage_between(before, read(subject.pid, subject.cores))
        report = parse(done.stdout)
        if self.handshakes:
            check_handshakes(self.handshakes, done.stderr, report.requests, self.connections)
        if self.asks_for:
            check_names(done.stderr, report.requests, self.connections)
        return {
            "cpu": used.cpu_seconds / report.requests,
            "worker": used.worker_seconds / report.requests,
            "rate": report.requests / report.seconds,
            "p50": report.p50,
            "p99": report.p99,
            "others": used.others,
        }

    def run(
        self, subject: Running, seconds: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{round(seconds)}s", "--latency"]
        if self.handshakes:
            command += ["-H", "Connection: close"]
        command.append(f"https://127.0.0.1:{subject.port}{self.path}")
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env=environment,
                timeout=seconds + ENDING_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError("wrk did not end") from error
        if done.returncode:
            raise MeasurementError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def environment(self, subject: Running) -> dict[str, str]:
        """Return wrk's environment, with what goes before libssl."""
        directory = subject.log.parent
        environment = dict(os.environ)
        sources = ["handshakes"] if self.handshakes else []
        if self.handshakes == "full":
            environment["FORGET_SESSIONS"] = "1"
        if self.version:
            environment["OPENSSL_CONF"] = str(write_openssl_config(directory, self.version))
        if self.asks_for:
            sources.append("ask_for_names")
            file = directory / "names"
            file.write_text("".join(f"{name}\n" for name in asked(self.asks_for, subject.names)))
            environment["ASK_FOR_NAMES"] = str(file)
        if sources:
            environment["LD_PRELOAD"] = " ".join(build(source, directory) for source in sources)
        return environment


def asked(which: Asked, names: Sequence[str]) -> Sequence[str]:
    """Return what connections ask for in turn; "" is to ask for no name."""
    match which:
        case "none":
            return [""]
        case "first":
            return names[:1]
        case "last":
            return names[-1:]
        case "every":
            # In no order: neighbours were made together, and lie together in memory.
            return random.sample(names, len(names))


def write_openssl_config(directory: Path, version: str) -> Path:
    """Have OpenSSL speak nothing newer than `version`."""
    file = directory / f"openssl-{version}.cnf"
    file.write_text(
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n"
        f"[tls]\nMaxProtocol = TLSv{version}\n"
    )
    return file


def build(source: str, directory: Path) -> str:
    """Compile a library, the first time it is asked for."""
    library = directory / f"{source}.so"
    if not library.exists():
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / f"{source}.c")]
        subprocess.run([*command, "-ldl"], check=True)
    return str(library)


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


def check_handshakes(kind: str, output: str, requests: int, connections: int) -> None:
    """Make sure each request had a handshake of its own, and of this kind, by what handshakes.c told."""
    told = re.search(r"handshakes: (\d+) resumed: (\d+)", output)
    if told is None:
        raise MeasurementError("handshakes.c did not tell: was wrk linked statically?")
    handshakes, resumed = int(told[1]), int(told[2])
    if kind == "full" and resumed:
        raise MeasurementError(f"{resumed} of {handshakes} handshakes were resumed")
    # Each connection's first one is full.
    if kind == "resumed" and resumed < handshakes - connections:
        raise MeasurementError(f"{handshakes - resumed} of {handshakes} handshakes were full")
    # Counted when a connection ends, so those still open at the end are missing.
    if abs(handshakes - requests) > connections:
        raise MeasurementError(f"{handshakes} handshakes for {requests} requests")


def check_names(output: str, requests: int, connections: int) -> None:
    """Make sure each certificate was for the name asked for, by what ask_for_names told."""
    told = re.search(r"names: (\d+) wrong: (\d+)", output)
    if told is None:
        raise MeasurementError("ask_for_names did not tell: was wrk linked statically?")
    asked, wrong = int(told[1]), int(told[2])
    if wrong:
        raise MeasurementError(f"{wrong} of {asked} certificates were for another name")
    # Counted when a handshake ends, so those still without an answer at the end are too many.
    if abs(asked - requests) > connections:
        raise MeasurementError(f"{asked} names for {requests} requests")
