"""The master's loop, with real workers, in a process of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy import clock
from termproxy.address import Address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import CertificateFiles, Config
from termproxy.config.schema import Frontend as FrontendConfig
from termproxy.master.arbiter import Arbiter, Child
from termproxy.master.certificate_store import CertificateStore
from termproxy.master.generation import Generation, Site
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from termproxy.worker.messages import message
from tests.conftest import write_site
from tests.support.clients import NAME
from tests.support.waiting import PATIENCE, wait_until

MASTER = """
import json, sys
from pathlib import Path
from termproxy.config.load import FlagSource
from termproxy.errors import TermproxyError
from termproxy.master.arbiter import Arbiter

def read():
    return FlagSource(json.loads(Path(sys.argv[1]).read_text()), {})
try:
    sys.exit(Arbiter(read, lambda: print("serving", flush=True)).run())
except TermproxyError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(9)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Master:
    """One server in front of a backend that is this test."""

    def __init__(self, site: Path, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.backend.settimeout(PATIENCE)
        self.port = free_port()
        self.values: dict[str, Any] = {
            "workers": 2,
            "pidfile": str(folder / "t.pid"),
            "control": str(folder / "c.sock"),
            "user": "nobody" if os.getuid() == 0 else "",
            "log": {"access": "off", "level": "info"},
            "timeouts": {"drain": 5},
            "frontend": [
                {
                    "name": "web",
                    "listen": [f"127.0.0.1:{self.port}"],
                    "cluster": "app",
                    "certificates": [str(site)],
                }
            ],
            "cluster": {"app": {"servers": [f"127.0.0.1:{self.backend.getsockname()[1]}"]}},
            **changes,
        }
        self.write()
        self.errors = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", MASTER, str(folder / "values.json")],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_word = self.process.stdout.readline().strip()

    def write(self, **changes: Any) -> None:
        self.values |= changes
        (self.folder / "values.json").write_text(json.dumps(self.values))

    def ask(self, **question: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.folder / "c.sock"))
            sock.sendall(json.dumps(question).encode() + b"\n")
            received = b""
            while piece := sock.recv(65536):
                received += piece
        answer: dict[str, Any] = json.loads(received)
        return answer

    def status(self) -> dict[str, Any]:
        return self.ask(verb="status")

    def reload(self) -> dict[str, Any]:
        """HUP, and how it went."""
        before = self.status()["last_reload"]
        generation = self.status()["generation"]
        self.process.send_signal(signal.SIGHUP)

        def decided() -> bool:
            now = self.status()
            changed = now["last_reload"] != before or now["generation"] != generation
            return changed and now["starting_generation"] is None

        wait_until(decided, "the reload's end")
        last: dict[str, Any] = self.status()["last_reload"]
        return last

    def greet(self, trust: ssl.SSLContext) -> None:
        """A client, from its handshake to the backend and back."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as raw,
            trust.wrap_socket(raw, server_hostname=NAME) as client,
        ):
            accepted, _ = self.backend.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
                accepted.sendall(b"world")
                assert client.recv(5) == b"world"

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "ready"]

    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.backend.close()


Start = Callable[..., Master]


@pytest.fixture
def start(site: Path, tmp_path: Path) -> Iterator[Start]:
    masters: list[Master] = []

    def start(**changes: Any) -> Master:
        masters.append(Master(site, tmp_path, **changes))
        return masters[-1]

    yield start
    for master in masters:
        master.close()


def test_it_serves_and_stops_and_leaves_nothing(
    start: Start, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    master = start()
    assert master.first_word == "serving"
    assert (tmp_path / "t.pid").read_text() == f"{master.process.pid}\n"
    master.greet(trust)
    status = master.status()
    assert (status["state"], status["generation"], len(status["workers"])) == ("serving", 1, 2)
    assert status["totals"]["accepted"] == 1
    master.process.terminate()

    assert master.end() == 0
    assert not (tmp_path / "t.pid").exists()
    assert not (tmp_path / "c.sock").exists()
    assert "stopping: draining the workers" in master.said()
    assert master.said().splitlines()[-1].endswith(" stopped")
    for pid in (worker["pid"] for worker in status["workers"]):
        assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_is_killed_is_replaced_and_its_count_kept(
    start: Start, trust: ssl.SSLContext
) -> None:
    master = start()
    master.greet(trust)
    before = master.pids()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(master.pids()) == 2 and before[0] not in master.pids(), "a new worker")
    master.greet(trust)

    assert master.status()["totals"]["accepted"] == 2
    assert f"worker {before[0]} was killed by SIGKILL" in master.said()


def test_a_reload_brings_new_workers_and_drains_the_old(start: Start, trust: ssl.SSLContext) -> None:
    master = start()
    before = master.pids()
    master.write(workers=1)

    assert master.reload()["ok"]
    wait_until(lambda: len(master.status()["workers"]) == 1, "the old workers' end")
    assert master.status()["generation"] == 2
    assert not set(master.pids()) & set(before)
    for _ in range(6):
        master.greet(trust)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"workers": 0}, "workers: 0 is out of bounds"),
        ({"log": {"access": "/nowhere/access.log"}}, "log.access: cannot write"),
    ],
)
def test_a_reload_that_is_refused_leaves_all_as_it_was(
    start: Start, trust: ssl.SSLContext, changes: dict[str, Any], why: str
) -> None:
    master = start()
    before = master.pids()
    master.write(**changes)
    outcome = master.reload()

    assert not outcome["ok"]
    assert why in outcome["detail"]
    assert master.pids() == before
    assert f"not reloaded, the old configuration stays: {outcome['detail']}" in master.said()
    master.greet(trust)


def test_a_refused_reload_with_more_workers_loses_no_client(start: Start, trust: ssl.SSLContext) -> None:
    """The kernel spreads clients over every socket that listens."""
    master = start(workers=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        frontends = [{**master.values["frontend"][0]}]
        frontends[0]["listen"] = [*frontends[0]["listen"], f"127.0.0.1:{taken.getsockname()[1]}"]
        master.write(workers=8, frontend=frontends)
        assert not master.reload()["ok"]

    context = ssl.create_default_context()
    answered = 0
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", master.port), timeout=1.0) as raw:
            try:
                context.wrap_socket(raw, server_hostname="other.test").close()
            except ssl.SSLCertVerificationError:
                answered += 1
            except TimeoutError:
                break
    assert answered == 10


def test_a_renewed_certificate_is_served_by_every_worker_without_a_new_one(
    start: Start, ca: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    write_site(ca, certs / "site.pem")
    frontend = {"name": "web", "cluster": "app", "certificates": [str(certs)]}
    port = free_port()
    master = start(frontend=[{**frontend, "listen": [f"127.0.0.1:{port}"]}])
    master.port = port
    before = master.pids()

    def served() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw,
            trust.wrap_socket(raw, server_hostname=NAME) as client,
        ):
            shown = client.getpeercert(binary_form=True)
            assert shown is not None
            return hashlib.sha256(shown).hexdigest()

    old = served()
    master.backend.accept()[0].close()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw,
        trust.wrap_socket(raw, server_hostname=NAME) as stays,
    ):
        backend, _ = master.backend.accept()
        backend.settimeout(PATIENCE)
        write_site(ca, certs / "site.pem~").replace(certs / "site.pem")
        wait_until(lambda: all(served() != old for _ in range(8)), "the new certificate")
        stays.sendall(b"alive")
        assert backend.recv(5) == b"alive"
        backend.close()

    assert master.pids() == before
    assert "frontend web: renewed" in master.said()
    assert master.status()["generation"] == 1
    (certs / "site.pem").write_bytes(b"bad")
    wait_until(lambda: "what was served before stays" in master.said(), "a word of it")
    assert served() != old
    assert master.said().count("what was served before stays") == 1


def test_a_stop_over_the_control_socket_is_answered_when_it_is_done(start: Start) -> None:
    master = start()

    assert master.ask(verb="stop") == {"stopped": True, "pid": master.process.pid}
    assert master.end() == 0


def test_an_unknown_verb_is_refused(start: Start) -> None:
    assert start().ask(verb="dance") == {"error": "unknown verb 'dance'"}


def test_an_interrupt_stops_at_once(start: Start, trust: ssl.SSLContext) -> None:
    master = start()
    with (
        socket.create_connection(("127.0.0.1", master.port), timeout=PATIENCE) as raw,
        trust.wrap_socket(raw, server_hostname=NAME),
    ):
        master.process.send_signal(signal.SIGINT)
        assert master.end() == 0


def test_what_is_not_built_yet_is_said_and_harms_nothing(start: Start, trust: ssl.SSLContext) -> None:
    master = start()
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU):
        master.process.send_signal(signum)
        wait_until(lambda signum=signum: f"{signum.name}: " in master.said(), "the word")  # type: ignore[misc]

    master.greet(trust)


def test_a_start_that_is_refused_leaves_nothing(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        frontend = {
            "name": "web",
            "listen": [f"127.0.0.1:{taken.getsockname()[1]}"],
            "cluster": "app",
        }
        master = start(frontend=[{**frontend, "certificates": [str(tmp_path / "none.pem")]}])
        assert master.first_word.startswith("ConfigError frontend[0].certificates: cannot read")
        assert master.end() == 9

    assert not (tmp_path / "t.pid").exists()


def test_a_taken_port_refuses_the_start(start: Start, site: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        frontend = {
            "name": "web",
            "listen": [f"127.0.0.1:{taken.getsockname()[1]}"],
            "cluster": "app",
            "certificates": [str(site)],
        }
        master = start(frontend=[frontend])
        assert master.first_word.startswith("StartError cannot listen on")
        assert master.end() == 9

    assert not (tmp_path / "t.pid").exists()
    assert not (tmp_path / "c.sock").exists()


# Without a fork.


def generation(number: int, site: Path, address: Address, *, workers: int) -> Generation:
    config = Config(
        workers=workers,
        frontends=(
            FrontendConfig(
                name="web",
                listen=(address,),
                cluster="app",
                certificates=(CertificateFiles(site, None),),
            ),
        ),
    )
    store = CertificateStore(config.frontends[0])
    assert store.refresh() == []
    cluster = Cluster("app", [Server(address)])
    made = Site(store, Assembly(config.frontends[0], {"app": cluster}, store.pem, Resumption(Stores())))
    assert made.show(clock.utc_now()) == []
    return Generation(number, config, (made,), None, None, ())


@pytest.fixture
def arbiter() -> Iterator[Arbiter]:
    """One that does not run."""
    made = Arbiter(lambda: None)  # type: ignore[arg-type,return-value]
    yield made
    made._selector.close()
    made._file_watch.close()


@pytest.fixture
def child(arbiter: Arbiter) -> Iterator[tuple[Child, socket.socket]]:
    """A worker as the arbiter knows it, and the worker's end of their talk."""
    talk, of_worker = socket.socketpair()
    talk.setblocking(False)
    of_worker.setblocking(False)
    row = arbiter._scoreboard.take_row(["web"])
    assert row is not None
    made = Child(row=row, startup_fd=None, talk=talk)
    arbiter._children[4712] = made
    arbiter._listen(made)
    yield made, of_worker
    talk.close()
    of_worker.close()
    arbiter._scoreboard.return_row(row)


def turn(arbiter: Arbiter) -> int:
    """What the loop does with the events there are: how many."""
    events = arbiter._selector.select(0)
    for key, _ in events:
        key.data(0.0)
    return len(events)


def failure(**changes: Any) -> dict[str, Any]:
    kind = {
        "frontend": "web",
        "reason": "scanner",
        "detail": "it left",
        "cure": "nothing",
        "count": 1,
        "last": "2026-11-23T08:00:00+00:00",
        "client": "192.0.2.1",
        "name": None,
    }
    return kind | changes


def told(arbiter: Arbiter) -> int:
    return sum(kind["count"] for kind in arbiter._failures.top(1000))


Known = tuple[Child, socket.socket]


def test_a_word_of_a_worker_that_was_reaped_in_the_same_turn_is_passed_over(
    arbiter: Arbiter, child: Known
) -> None:
    """Both events were ready; the exit came first, and read the last words already."""
    arbiter._on_word(4711, 0.0)
    arbiter._on_word(4712, 0.0)


def test_the_end_of_a_worker_that_was_reaped_in_the_same_turn_is_passed_over(
    arbiter: Arbiter, child: Known
) -> None:
    """Its end of their talk is closed, and so is ours: the selector had both events."""
    known, of_worker = child
    of_worker.close()
    [(key, _)] = arbiter._selector.select(0)
    arbiter._selector.unregister(known.talk)
    known.talk.close()

    key.data(0.0)


def test_what_a_worker_reports_is_counted(arbiter: Arbiter, child: Known) -> None:
    _, of_worker = child
    of_worker.send(message({"failures": [failure(count=2), failure(detail="another")]}))
    said = message({"failures": [failure(count=40)]})
    of_worker.send(said[:10])
    turn(arbiter)
    assert told(arbiter) == 3
    of_worker.send(said[10:])
    turn(arbiter)
    assert told(arbiter) == 43


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 100,
        (4).to_bytes(4) + b"nope",
        message({"failures": [failure(reason="a word of its own")]}),
        message({"failures": [failure(frontend="another")]}),
        message({"failures": [failure(count=-1)]}),
        message({"failures": [failure(count=2**63)]}),
        message({"failures": ["text"]}),
        message({"failures": 7}),
        message({"failures": None}),
        message({}),
        message([]),  # type: ignore[arg-type]
        message(7),  # type: ignore[arg-type]
        message({"failures": [failure(detail={})]}),
    ],
)
def test_a_worker_that_reports_nonsense_is_heard_no_more(
    arbiter: Arbiter, child: Known, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    known, of_worker = child
    of_worker.send(nonsense)
    turn(arbiter)
    assert caplog.text.count("reports nonsense") == 1
    of_worker.send(message({"failures": [failure()]}))

    assert turn(arbiter) == 0, "nobody listens"
    arbiter._on_talk(known)  # an order has gone out
    arbiter._hear(known)  # its last words
    assert told(arbiter) == 0
    assert caplog.text.count("reports nonsense") == 1


def test_a_worker_that_reports_nonsense_still_gets_its_orders(arbiter: Arbiter, child: Known) -> None:
    known, of_worker = child
    of_worker.send(b"\xff" * 100)
    turn(arbiter)
    order = b"x" * (1 << 20)
    known.unsent += order
    arbiter._send_orders(known)
    received = 0
    while received < len(order):
        received += len(of_worker.recv(1 << 20))
        turn(arbiter)

    assert not known.unsent
    assert turn(arbiter) == 0


def test_a_worker_s_end_is_no_nonsense(
    arbiter: Arbiter, child: Known, caplog: pytest.LogCaptureFixture
) -> None:
    known, of_worker = child
    of_worker.send(message({"failures": [failure()]}))
    of_worker.close()
    turn(arbiter)
    turn(arbiter)

    assert told(arbiter) == 1
    assert not known.is_heard
    assert turn(arbiter) == 0
    assert caplog.text == ""


def test_orders_and_reports_pass_each_other(arbiter: Arbiter, child: Known) -> None:
    known, of_worker = child
    known.unsent += b"o" * (1 << 20)
    arbiter._send_orders(known)
    of_worker.send(message({"failures": [failure()]}))
    turn(arbiter)

    assert known.unsent
    assert told(arbiter) == 1


def test_no_room_for_another_worker_s_counters_fails_its_start_only(
    site: Path, monkeypatch: pytest.MonkeyPatch, arbiter: Arbiter
) -> None:
    def no_descriptor(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("termproxy.observability.scoreboard.SharedWords", no_descriptor)
    address = Address(socket.AF_INET, ("127.0.0.1", free_port()))
    arbiter._supervisor.in_force = 1
    arbiter._begin(generation(2, site, address, workers=1))

    assert arbiter._supervisor.candidate is None
    assert arbiter._last_reload is not None
    assert "Too many open files" in arbiter._last_reload.detail


def test_a_dropped_generation_s_slots_stop_listening(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers never came up: nobody would accept from them."""

    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("termproxy.master.arbiter.spawn", no_memory)
    address = Address(socket.AF_INET, ("127.0.0.1", free_port()))
    arbiter = Arbiter(lambda: None)  # type: ignore[arg-type,return-value]
    arbiter._listeners.bind([address], 1)
    arbiter._supervisor.in_force = 1
    arbiter._begin(generation(2, site, address, workers=3))
    left = len(arbiter._listeners.of(address))
    arbiter._listeners.close([address])
    arbiter._selector.close()
    arbiter._file_watch.close()

    assert arbiter._supervisor.candidate is None
    assert left == 1
