"""The termproxy that is loaded, its backend and its certificate; and what it counted itself."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trustme

from comparison.machine import Cores
from comparison.metering import MeasurementError, cpu_seconds
from comparison.processes import Running, Starter
from comparison.servers import TERMPROXY, Server
from comparison.site import Certificate, Site

ANSWER_TIMEOUT = 10.0

BACKEND = Server(
    name="backend",
    command=f"{sys.executable} -m loading.backend 127.0.0.1:$port",
    version="",
    speaks_tls=False,
)

# A reload's old workers wait for connections that people keep (Habits.patience), so that none is cut.
CONFIG = """\
workers = {workers}
control = "$directory/control"
[log]
access = "{access}"
[timeouts]
drain = 30
[limits]
connections = 4096
[[frontend]]
name = "clients"
mode = "{mode}"
listen = ["127.0.0.1:$port"]
cluster = "web"
certificates = ["$pem"]
[cluster.web]
servers = ["127.0.0.1:$backend_port"]
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running one of ours."""

    running: Running
    control: Path
    termproxy: Path
    backend: Running

    @property
    def pid(self) -> int:
        return self.running.pid

    @property
    def port(self) -> int:
        return self.running.port

    @property
    def ca(self) -> Path:
        return self.running.certificate.chain

    def status(self) -> dict[str, Any]:
        """Return what the master says of itself (`termproxy status --json`), or MeasurementError."""
        command = [str(self.termproxy), "status", "--control", str(self.control), "--json"]
        try:
            done = subprocess.run(command, capture_output=True, check=True, timeout=ANSWER_TIMEOUT)
        except (OSError, subprocess.SubprocessError) as error:
            raise MeasurementError(f"the master says nothing: {error}") from error
        return json.loads(done.stdout)

    def ready_workers(self) -> list[int]:
        workers = sorted(self.status()["workers"], key=lambda worker: worker["slot"])
        return [worker["pid"] for worker in workers if worker["state"] == "ready"]

    def handshakes(self) -> Counter[str]:
        """Return how many were "full", and resumed by "ticket" or "session_id"."""
        [frontend] = self.status()["frontends"]
        return Counter(frontend["totals"].get("handshakes", {}))

    def open_connections(self) -> int:
        return sum(worker["connections"] for worker in self.status()["workers"])

    def complaints(self) -> list[str]:
        """Return what it said that it should never have to say."""
        said = self.running.log.read_text(errors="replace").splitlines()
        return [line for line in said if "Traceback" in line or "please report this" in line]

    def backend_cpu(self) -> float:
        return cpu_seconds(self.backend.pid)


def make_config(*, mode: str, workers: int, access_log: Path | None) -> str:
    return CONFIG.format(workers=workers, mode=mode, access=access_log or "off")


@contextmanager
def started_proxy(directory: Path, cores: Cores, termproxy: Path, config: str) -> Iterator[Proxy]:
    """Run backend and termproxy until the block ends; clients can come when it begins."""
    starter = Starter(site=make_site(directory), cores=cores, termproxy=termproxy)
    with starter.start(BACKEND, "ecdsa", core=cores.load) as backend:
        starter = replace(starter, backend_port=backend.port)
        server = replace(TERMPROXY, config=config)
        with starter.start(server, "ecdsa", core=cores.serving) as running:
            yield Proxy(running, directory / "control", termproxy, backend)


def make_site(directory: Path) -> Site:
    """Make a CA and a certificate below it; clients trust the CA and nothing else."""
    directory.chmod(0o755)
    files = Certificate(*(directory / name for name in ("ca.pem", "site.key", "site.pem")))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(files.chain)
    issued.private_key_pem.write_to_path(files.key)
    files.pem.touch(mode=0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(files.pem)
    return Site(directory, {"ecdsa": files})
