"""The master's loop, with real workers, in a process of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
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
from termproxy.master.arbiter import Arbiter
from termproxy.master.certificate_store import CertificateStore
from termproxy.master.generation import Generation, Site
from termproxy.master.supervisor import WorkerProcess
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from tests.conftest import write_site
from tests.support.clients import NAME
from tests.support.masters import Start, free_port
from tests.support.waiting import PATIENCE, wait_until


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


def test_an_interrupt_stops_at_once(start: Start, trust: ssl.SSLContext) -> None:
    master = start()
    with (
        socket.create_connection(("127.0.0.1", master.port), timeout=PATIENCE) as raw,
        trust.wrap_socket(raw, server_hostname=NAME),
    ):
        master.process.send_signal(signal.SIGINT)
        assert master.end() == 0


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
    return Generation(number, config, (made,), None, None, (), None)


@pytest.fixture
def arbiter() -> Iterator[Arbiter]:
    """One that does not run."""
    made = Arbiter(lambda: None)  # type: ignore[arg-type,return-value]
    yield made
    made.selector.close()
    made._file_watch.close()


def test_no_room_for_another_worker_s_counters_fails_its_start_only(
    site: Path, monkeypatch: pytest.MonkeyPatch, arbiter: Arbiter
) -> None:
    def no_descriptor(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("termproxy.observability.scoreboard.SharedWords", no_descriptor)
    address = Address(socket.AF_INET, ("127.0.0.1", free_port()))
    arbiter.supervisor.in_force = 1
    arbiter.begin(generation(2, site, address, workers=1))

    assert arbiter.supervisor.candidate is None
    assert arbiter.reloads.last is not None
    assert "Too many open files" in arbiter.reloads.last.detail


def test_a_dropped_generation_s_slots_are_accepted_from_by_the_workers_there_are(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers never came up, but clients may be queued there from the first moment."""

    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("termproxy.master.arbiter.spawn", no_memory)
    address = Address(socket.AF_INET, ("127.0.0.1", free_port()))
    arbiter = Arbiter(lambda: None)  # type: ignore[arg-type,return-value]
    arbiter.listeners.bind([address], 1)
    arbiter.supervisor.in_force = 1
    arbiter.generations[1] = generation(1, site, address, workers=1)
    arbiter.supervisor.workers[7] = WorkerProcess(7, 0, 1, spawned_at=0.0, drain=1.0)
    worker = Obedient()
    arbiter.children[7] = worker  # type: ignore[assignment]
    arbiter.begin(generation(2, site, address, workers=3))
    listening = [os.fstat(sock.fileno()).st_ino for sock in arbiter.listeners.of(address)]
    arbiter.listeners.close([address])
    arbiter.selector.close()
    arbiter._file_watch.close()

    assert arbiter.supervisor.candidate is None
    assert worker.heard == [
        ({"slot": slot, "places": [0], "descriptors": 1}, [listening[slot]]) for slot in (1, 2)
    ]


class Obedient:
    """A child that notes what it is ordered."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, Any], list[int]]] = []

    def order(self, message: bytes, fds: Sequence[int]) -> None:
        self.heard.append((json.loads(message[4:]), [os.fstat(fd).st_ino for fd in fds]))
