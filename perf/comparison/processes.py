"""Start servers on their core, wait until they serve, and end them whatever happens."""

import os
import random
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from comparison.clients import AnswerError, ask, connect, tls_context
from comparison.machine import Cores, groups_offered
from comparison.metering import serving_pids
from comparison.servers import CIPHERSUITES, Server, Setting
from comparison.site import Certificate, Site

# Ten thousand certificates take a while; a server that ends does not keep us waiting.
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 5.0


class StartError(Exception):
    """A server ended, or answered nothing, before it was ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that is serving now."""

    server: Server
    pid: int
    port: int
    cores: tuple[int, ...]
    certificate: Certificate
    log: Path
    # Seconds from its start to its first answer.
    ready_after: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may ask for."""
        return self.server.names or self.certificate.names

    def tls_context(self) -> ssl.SSLContext | None:
        return tls_context(self.certificate.trust) if self.server.speaks_tls else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """Knows what every start has in common."""

    site: Site
    cores: Cores
    termproxy: Path
    backend_port: int = 0

    @contextmanager
    def start(self, server: Server, setting: Setting, cores: tuple[int, ...] = ()) -> Iterator[Running]:
        """Run a server until the block ends, on the cores that serve; inside, it answers requests."""
        cores = cores or self.cores.serving_for(setting.workers)
        certificate = self.site.certificates[setting.certificate]
        port = free_port()
        places = self.places(server, setting, port)
        Path(places["config"]).write_text(server.config_for(places))
        log = self.site.directory / f"{server.name}-{port}.log"
        began = time.perf_counter()
        with log.open("wb") as output:
            child = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cores)), *server.command_for(places)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for us: we then stop each server its own way.
                start_new_session=True,
            )
        running = Running(
            server=server,
            pid=child.pid,
            port=port,
            cores=cores,
            certificate=certificate,
            log=log,
        )
        try:
            wait_until_ready(running, child)
            yield replace(running, ready_after=time.perf_counter() - began)
        finally:
            stop(child, server.stop_signal)

    def places(self, server: Server, setting: Setting, port: int) -> dict[str, str]:
        certificate = self.site.certificates[setting.certificate]
        return {
            "workers": str(setting.workers),
            "connections": str(setting.connections),
            "sockets": str(2 * setting.connections),
            "port": str(port),
            "backend_port": str(self.backend_port),
            "directory": str(self.site.directory),
            "config": str(self.site.directory / f"{server.name}-{port}.conf"),
            "termproxy": str(self.termproxy),
            "chain": str(certificate.chain),
            "key": str(certificate.key),
            "pem": str(certificate.pem),
            "pem_kind": "dir" if certificate.pem.is_dir() else "file",
            "groups": groups_offered(),
            "ciphersuites": CIPHERSUITES,
        }


def wait_until_ready(running: Running, child: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + READY_TIMEOUT
    while problem := not_ready(running):
        if child.poll() is not None or time.perf_counter() > deadline:
            said = running.log.read_text(errors="replace").strip()[-2000:]
            raise StartError(f"{running.server.name}: {problem}\n{said}")
        time.sleep(0.05)


def not_ready(running: Running) -> str:
    """Return why a server does not answer yet, or nothing."""
    try:
        with connect(running.port, running.tls_context()) as connection:
            ask(connection, "/small")
    except (OSError, AnswerError) as error:
        return str(error) or type(error).__name__
    return ""


def stop(child: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Ask the master to stop; kill what is left of it and its workers."""
    # A pidfd stays with its process even when the number is given to another one.
    left = open_pidfds(child)
    try:
        if child.poll() is None:
            child.send_signal(stop_signal)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT)
        for pidfd in left:
            ended, _, _ = select.select([pidfd], [], [], 1.0)
            if not ended:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        child.wait()
    finally:
        for pidfd in left:
            os.close(pidfd)


def open_pidfds(child: subprocess.Popen[bytes]) -> list[int]:
    if child.poll() is not None:
        return []
    pidfds = []
    for pid in serving_pids(child.pid):
        with suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    return pidfds


def free_port() -> int:
    """Return a port nobody listens on, below those the kernel gives to clients."""
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(lowest_ephemeral, 11_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
