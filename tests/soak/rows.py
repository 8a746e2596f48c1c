"""The rows of the reliability table that are built: what is done to a server, and for how long.

Each row is a function of seconds; it returns what was run, what was lost, and whether that may be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import trustme
from hypothesis.stateful import run_state_machine_as_test

from termproxy import clock
from termproxy.master.supervisor import HEARTBEAT_TIMEOUT
from tests.conftest import client_context, write_site
from tests.soak.load import Load
from tests.support.backends import Backend, Behaviour, echo
from tests.support.clients import connect, leave, read_to_end, vanish
from tests.support.command import termproxy
from tests.support.ports import free_port
from tests.support.processes import descriptors
from tests.support.server import Server, settings
from tests.support.storm import Storm, storms
from tests.support.tampering import Tampering
from tests.support.visitors import Visitors, one_exchange
from tests.support.waiting import wait_until

ALLOWED_RATIO = 1.5  # R17
WARM = 10_000  # R11: connections before the first look
SLOPE_MAX = 1.0  # KiB for each thousand


@dataclass(frozen=True, slots=True)
class Result:
    run: str
    lost: str
    passed: bool


class Place:
    """A folder with a certificate, a backend, and servers in front of it."""

    def __init__(self, folder: Path, ca: trustme.CA, backend: Backend) -> None:
        self.folder, self.ca, self.backend = folder, ca, backend
        self.context: ssl.SSLContext = client_context(ca)
        self.site = write_site(ca, folder / "site.pem")

    def server(self, *, environment: dict[str, str] | None = None, **changes: Any) -> Server:
        changes = {"log": {"level": "info"}, "timeouts": {"drain": 30}} | changes
        values = settings(self.site, [self.backend.address], **changes)
        return Server(self.folder, values, environment=environment)

    def load(self, server: Server) -> Load:
        return Load(server.port, self.context)


@contextmanager
def place(behaviour: Behaviour = echo) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder, Backend(behaviour) as backend:
        yield Place(Path(folder), trustme.CA(key_type=trustme.KeyType.ECDSA), backend)


def until(seconds: float) -> Iterator[int]:
    """Rounds, until the time is over; one at least."""
    end, number = clock.monotonic() + seconds, 0
    while not number or clock.monotonic() < end:
        yield number
        number += 1


def told(load: Load) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(load.lost().items())) or "nothing"


# The rows.


def reload(seconds: float) -> Result:
    """R1: HUP every three seconds, with another certificate each time."""
    with place() as here, here.server(workers=2) as server:
        with here.load(server) as load:
            time.sleep(3)
            steady = load.p99()
            rounds, generations = 0, 0
            for _ in until(seconds):
                write_site(here.ca, here.site)
                assert server.reload(new_workers=True)["ok"]
                rounds += 1
                alive = {worker["generation"] for worker in server.status()["workers"]}
                generations = max(generations, len(alive))
                time.sleep(3)
        resumed = 100 * load.resuming.resumed / max(load.resuming.tried, 1)
        run = (
            f"{rounds} reloads, {load.served} clients, {resumed:.0f} % of {load.resuming.tried} "
            f"resumed, p99 {steady:.0f} ms before and {load.p99():.0f} ms over all, "
            f"{generations} generations at most"
        )
        return Result(run, told(load), not load.lost() and resumed >= 95)


def bad_reload(seconds: float) -> Result:
    """R2: every way to be refused in turn, and a good one after it."""
    with place() as here, socket.create_server(("127.0.0.1", 0)) as taken:
        key = trustme.CA().issue_cert("site.test").private_key_pem.bytes()
        good = here.site.read_bytes()
        files = [key + good[good.index(b"-----BEGIN CERT") :], b"", b"garbage", good[:200]]
        with here.server(workers=2) as server, here.load(server) as load:
            listen = list(server.values["frontend"][0]["listen"])
            bad = 0
            for number in until(seconds):
                which = number % (len(files) + 2)
                if which < len(files):
                    here.site.write_bytes(files[which])
                elif which == len(files):
                    port = taken.getsockname()[1]
                    server.values["frontend"][0]["listen"] = [*listen, f"127.0.0.1:{port}"]
                else:
                    server.values["workers"] = 0
                assert not server.reload()["ok"], which
                bad += 1
                here.site.write_bytes(good)
                server.values["frontend"][0]["listen"] = listen
                server.values["workers"] = 2
                assert server.reload()["ok"]
        return Result(
            f"{bad} refused and {bad} good reloads, {load.served} clients", told(load), not load.lost()
        )


def worker_killed(seconds: float) -> Result:
    """R3: kill -9 of a random worker every two seconds."""
    rand = random.Random(3)
    with place() as here, here.server(workers=4) as server:
        with here.load(server) as load:
            time.sleep(1)
            may_fail = kills = 0
            slowest = 0.0
            for _ in until(seconds):
                victim = rand.choice(server.status()["workers"])
                before = sum(load.lost().values())
                os.kill(victim["pid"], signal.SIGKILL)
                begun = clock.monotonic()
                wait_until_replaced(server, victim["pid"], 4)
                slowest = max(slowest, clock.monotonic() - begun)
                kills += 1
                time.sleep(2)
                may_fail += victim["connections"] + len(load.short._threads)
                assert sum(load.lost().values()) - before <= victim["connections"] + 3
        run = f"{kills} kills, {load.served} clients, replaced in {1000 * slowest:.0f} ms at most"
        passed = "refused" not in load.lost() and slowest <= 1.0
        return Result(run, f"{told(load)} (on the victims were {may_fail} at most)", passed)


def wait_until_replaced(server: Server, victim: int, count: int) -> None:
    def is_replaced() -> bool:
        workers = server.workers()
        return len(workers) == count and victim not in workers

    wait_until(is_replaced, f"another worker for {victim}")


def crash_loop(seconds: float) -> Result:
    """R4: one of two slots crashes at once, again and again; then it is mended."""
    with place() as here, tempfile.TemporaryDirectory() as folder:
        tampering = Tampering(Path(folder))
        with here.server(workers=2, environment=tampering.environment) as server:
            healthy, victim = server.workers()
            with here.load(server) as load:
                time.sleep(1)
                tampering.let_workers_crash(True)
                os.kill(victim, signal.SIGKILL)
                time.sleep(1)
                lost_at_first = load.lost()
                cpu = used(server.pid)
                time.sleep(seconds)
                cpu = (used(server.pid) - cpu) / seconds
                lost = load.lost() - lost_at_first
                tampering.let_workers_crash(False)
                wait_until(lambda: len(server.workers()) == 2, "it is back", seconds=40)
            crashes = server.said().count("was killed by SIGABRT")
            run = f"{crashes} crashes, master's CPU {100 * cpu:.1f} %, {load.served} clients"
            passed = not lost and cpu < 0.02 and healthy in server.workers()
            return Result(
                run, f"{sum(lost_at_first.values())} on the victim, then {sum(lost.values())}", passed
            )


def used(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def hung(seconds: float) -> Result:
    """R5: stopped, busy in Python, blocked in C, in turn."""
    with place() as here, tempfile.TemporaryDirectory() as folder:
        tampering = Tampering(Path(folder))
        with (
            here.server(workers=4, environment=tampering.environment) as server,
            here.load(server) as load,
        ):
            slowest, rounds = 0.0, 0
            for number in until(seconds):
                victim = server.workers()[number % 4]
                if number % 3 == 0:
                    os.kill(victim, signal.SIGSTOP)
                else:
                    tampering.hang(("busy", "blocked")[number % 2], victim)
                begun = clock.monotonic()
                server.wait_for_words(f"worker {victim} hangs: aborting it")
                slowest = max(slowest, clock.monotonic() - begun)
                wait_until_replaced(server, victim, 4)
                rounds += 1
        waited = max(load.short.seconds)
        run = (
            f"{rounds} hangs, found in {slowest:.1f} s at most, {load.served} clients, "
            f"the longest wait of a new one {waited:.1f} s"
        )
        # Seven threads of clients: one of each may have been on the victim.
        is_few = sum(load.lost().values()) <= 7 * rounds and "refused" not in load.lost()
        return Result(run, told(load), is_few and slowest < HEARTBEAT_TIMEOUT + 2)


def master_killed(seconds: float) -> Result:
    """R6: kill -9 of the master with connections open; a new one at once."""
    with place() as here:
        slowest = gone = 0.0
        rounds = finished = 0
        port = free_port()
        frontend = {"name": "main", "cluster": "main", "certificates": [str(here.site)]}
        frontends = [{**frontend, "listen": [f"127.0.0.1:{port}"]}]
        for _ in until(seconds):
            with here.server(workers=2, frontend=frontends, timeouts={"drain": 5}) as server:
                clients = [connect(port, here.context) for _ in range(20)]
                for client in clients:
                    client.sendall(b"ping")
                begun = clock.monotonic()
                os.kill(server.pid, signal.SIGKILL)
                with here.server(workers=2, frontend=frontends) as new:
                    slowest = max(slowest, clock.monotonic() - begun)
                    connect(new.port, here.context).close()
                    for client in clients:
                        finished += client.recv(4) == b"ping"
                        leave(client)
                    rounds += 1
                server.wait_until_gone()
                gone = max(gone, clock.monotonic() - begun)
        run = f"{rounds} kills, a new master serves in {slowest:.2f} s, no orphan after {gone:.1f} s"
        lost = 20 * rounds - finished
        return Result(run, f"{lost} of {20 * rounds} open exchanges", not lost)


def drain(seconds: float) -> Result:
    """R7: TERM, with HUP in the middle, while five transfers of 8 MiB are at their first MiB."""
    content = random.Random(7).randbytes(8 << 20)
    wanted = hashlib.sha256(content).digest()

    def send(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(content)

    rounds = whole = 0
    statuses = set()
    with place(send) as here:
        for _ in until(seconds):
            with here.server(workers=2) as server:
                clients = [connect(server.port, here.context) for _ in range(5)]
                begun = []
                for client in clients:
                    client.sendall(b"1")
                    begun.append(receive(client, 1 << 20))
                server.signal(signal.SIGTERM)
                server.wait_for_words("draining")
                server.signal(signal.SIGHUP)
                for client, begin in zip(clients, begun, strict=True):
                    whole += hashlib.sha256(begin + read_to_end(client)).digest() == wanted
                    leave(client)
                statuses.add(server.wait_until_gone())
                rounds += 1
    lost = f"{5 * rounds - whole} of {5 * rounds} transfers"
    return Result(
        f"{rounds} stops, exit status {statuses}", lost, whole == 5 * rounds and statuses == {0}
    )


def receive(client: ssl.SSLSocket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += client.recv(count - len(received))
    return bytes(received)


def churn(seconds: float) -> Result:
    """R11: connections that come and go, some aborted, some that never shake hands."""
    rand = random.Random(11)
    with place() as here, here.server(workers=1, log={"access": "off"}) as server:
        good = one_exchange(server.port, here.context)

        def visit() -> None:
            kind = rand.random()
            if kind < 0.1:
                vanish(connect(server.port, here.context))
            elif kind < 0.15:
                with socket.create_connection(("127.0.0.1", server.port)) as raw:
                    raw.sendall(b"\x16\x03nonsense")
            else:
                good()

        [worker] = server.workers()
        with Visitors(visit, threads=4) as visitors:
            wait_until(lambda: visitors.served >= WARM, "it is warm", seconds=120)
            fds = len(descriptors(worker))
            rss, served = resident(worker), visitors.served
            time.sleep(seconds)
            grown, count = resident(worker) - rss, visitors.served - served
        wait_until(lambda: server.open_connections() == 0, "all are closed")
        slope = grown / 1024 / (count / 1000)
        left = len(descriptors(worker))
        run = (
            f"{count} connections after {served}, {slope:+.1f} KiB a thousand, "
            f"descriptors {fds} then {left}"
        )
        kinds = visitors.kinds()
        return Result(run, str(kinds or "nothing"), not kinds and slope < SLOPE_MAX and left <= fds)


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def storm(seconds: float) -> Result:
    """R15: signals of every kind beside a model; any difference ends it."""
    rounds = 0
    for _ in until(seconds):
        run_state_machine_as_test(Storm, settings=storms(1, 60))
        rounds += 1
    return Result(f"{rounds} storms of at most 60 steps", "nothing", passed=True)


def host_faults(seconds: float) -> Result:
    """R16: a full disk, a log that nobody reads, a log whose reader has gone, rotation all the while."""
    faults = ("/dev/full", "stuck", "gone", "access.log")
    failed, served = 0, 0
    for fault in faults:
        with place() as here, contextlib.ExitStack() as stack:
            if fault in ("stuck", "gone"):
                os.mkfifo(here.folder / fault)
                fd = os.open(here.folder / fault, os.O_RDONLY | os.O_NONBLOCK)
                if fault == "stuck":
                    stack.callback(os.close, fd)
            with here.server(workers=2, log={"access": fault}) as server:
                if fault == "gone":
                    os.close(fd)
                with here.load(server) as load:
                    for _ in until(seconds / len(faults)):
                        time.sleep(0.5)
                        if fault == "access.log":
                            (here.folder / fault).rename(here.folder / "old")
                            done = termproxy("reopen", "--control", str(server.control))
                            assert done.returncode == 0, done.stderr
                failed += sum(load.lost().values())
                served += load.served
    return Result(
        f"{len(faults)} faults of the access log, {served} clients", f"{failed} clients", not failed
    )


def fairness(seconds: float) -> Result:
    """R17: a thousand new connections a second; then two thousand idle ones."""
    with place() as here, here.server(workers=4, log={"access": "off"}) as server:
        begun, count = clock.monotonic(), int(1000 * seconds)
        for number in range(count):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"\x16")
            time.sleep(max(0.0, begun + number / 1000 - clock.monotonic()))
        rate = count / (clock.monotonic() - begun)
        accepted = ratio(server, "accepted")
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2000)]
        for client in idle:
            client.sendall(b"\x16")
        wait_until(lambda: server.open_connections() >= 2000, "all are accepted")
        held = ratio(server, "connections")
        for client in idle:
            client.close()
        run = (
            f"{count} connections at {rate:.0f}/s: busiest/laziest {accepted:.2f}; 2000 idle: {held:.2f}"
        )
        return Result(run, "nothing", max(accepted, held) <= ALLOWED_RATIO)


def ratio(server: Server, what: str) -> float:
    shares = [worker[what] for worker in server.status()["workers"]]
    return float(max(shares) / max(min(shares), 1))


ROWS: dict[str, Callable[[float], Result]] = {
    "R1": reload,
    "R2": bad_reload,
    "R3": worker_killed,
    "R4": crash_loop,
    "R5": hung,
    "R6": master_killed,
    "R7": drain,
    "R11": churn,
    "R15": storm,
    "R16": host_faults,
    "R17": fairness,
}
