"""A worker's life, in a process of its own: its loop and its signals are the whole process's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from termproxy.messages import DESCRIPTORS_MAX, REPORT_MAX, MessageReader, message
from termproxy.tls.certificates import load_certificate
from termproxy.worker.orders import ACCEPT, MAKE_WAY, order
from termproxy.worker.shared import FAILURE_LINES
from tests.conftest import write_site
from tests.relay.ends import PATIENCE
from tests.support.clients import NAME
from tests.support.endings import CutError
from tests.support.hello import hand_made
from tests.support.waiting import wait_until
from tests.tls.pki import issue, loaded

WORKER = """
import json, logging, socket, sys
from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import Limits, Timeouts
from termproxy.observability.access_log import open_access_log
from termproxy.observability.scoreboard import Scoreboard, Column, WorkerState
from termproxy.tls.certificates import load_certificate
from termproxy.worker.main import Assignment, Worker, has_hub
from termproxy import clock
from termproxy.config.schema import Frontend
from termproxy.worker.assembly import Assembly
from termproxy.tls.context import Resumption, Stores
from pathlib import Path

logging.basicConfig(stream=sys.stderr)
order = json.loads(sys.argv[1])
settings = Frontend(name="web", listen=(), cluster="app", certificates=())
cluster = Cluster("app", [Server(parse_address(order["backend"]))])
assembly = Assembly(settings, {"app": cluster}, {}, Resumption(Stores()))
assembly.serve([load_certificate(Path(order["site"]))], {}, clock.utc_now())
orders = socket.socket(fileno=order["orders"])
orders.setblocking(False)
listener = socket.socket(fileno=order["listener"])
listener.setblocking(False)
scoreboard = Scoreboard()
row = scoreboard.take_row(["web"])
words = row.words
def say(*words):
    print(*words, flush=True)
assert not has_hub()
worker = Worker(
    Assignment(
        slot=0,
        row=row,
        slot_beats=scoreboard.slot_beats,
        listeners=[(assembly.frontend, listener, 0)],
        assemblies=[assembly],
        stores=Stores(),
        timeouts=Timeouts(drain=order["drain"], handshake=order.get("handshake", 10.0)),
        limits=Limits(connections=10),
        access_log=open_access_log(Path(order["log"])) if order["log"] else None,
        accepts=order.get("accepts", True),
    ),
    orders,
    lambda: say("ready", WorkerState(words[Column.STATE]).name, words[Column.HEARTBEAT] > 0,
                scoreboard.slot_beats[0] > 0, has_hub()),
)
worker.run()
say("over", WorkerState(words[Column.STATE]).name, words[Column.OPEN], words[Column.ACCEPTED],
    words[Column.ORDERS])
"""


class Life:
    def __init__(
        self, site: Path, folder: Path, drain: float, *, log: bool = True, **order: Any
    ) -> None:
        self.log = folder / "access.log"
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.backend.settimeout(PATIENCE)
        self.orders, orders_of_worker = socket.socketpair()
        if order.pop("small_talk", False):
            orders_of_worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        with orders_of_worker, socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            order |= {
                "site": str(site),
                "backend": f"127.0.0.1:{self.backend.getsockname()[1]}",
                "listener": listener.fileno(),
                "orders": orders_of_worker.fileno(),
                "drain": drain,
                "log": str(self.log) if log else "",
            }
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, json.dumps(order)],
                pass_fds=[listener.fileno(), orders_of_worker.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.socks: list[socket.socket] = [self.backend, self.orders]
        assert self.process.stdout is not None
        self.first_word = self.process.stdout.readline().split()

    def connect(self, trust: ssl.SSLContext) -> tuple[ssl.SSLSocket, socket.socket]:
        raw = socket.create_connection(self.address, timeout=PATIENCE)
        client = trust.wrap_socket(raw, server_hostname=NAME, suppress_ragged_eofs=False)
        backend, _ = self.backend.accept()
        backend.settimeout(PATIENCE)
        self.socks += [client, backend]
        return client, backend

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def end(self) -> list[str]:
        """Its last word, once it has ended by itself."""
        out, self.errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, self.errors
        return out.split()

    def open_connections(self) -> int:
        """As the kernel has them, at this process."""
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(each.status == psutil.CONN_ESTABLISHED for each in connections)

    def records(self) -> list[str]:
        return [json.loads(line)["ended"] for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for sock in self.socks:
            sock.close()


@pytest.fixture
def lives() -> Iterator[list[Life]]:
    lives: list[Life] = []
    yield lives
    for life in lives:
        life.close()


@pytest.fixture
def life(site: Path, tmp_path: Path, lives: list[Life]) -> Life:
    lives.append(Life(site, tmp_path, 30.0))
    return lives[0]


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def wait_until_refused(address: tuple[str, int]) -> None:
    give_up = time.perf_counter() + PATIENCE
    while not refuses(address):
        assert time.perf_counter() < give_up
        time.sleep(0.01)


def test_a_worker_is_ready_when_it_accepts_and_has_shown_life(life: Life) -> None:
    assert life.first_word == ["ready", "ACCEPTING", "True", "True", "True"]


def test_a_worker_that_holds_back_takes_clients_when_it_is_told_to(
    site: Path, tmp_path: Path, lives: list[Life], trust: ssl.SSLContext
) -> None:
    lives.append(Life(site, tmp_path, 30.0, accepts=False))
    (life,) = lives
    assert life.first_word == ["ready", "STARTING", "True", "False", "True"]
    with socket.create_connection(life.address, timeout=0.5) as waiting:
        waiting.sendall(hand_made())
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        life.orders.sendall(ACCEPT)
        waiting.settimeout(PATIENCE)
        assert waiting.recv(1), "an answer to its hello"
    client, backend = life.connect(trust)
    client.send(b"hello")
    assert backend.recv(100) == b"hello"


def test_a_worker_that_makes_way_drains(life: Life, trust: ssl.SSLContext) -> None:
    client, backend = life.connect(trust)
    life.orders.sendall(MAKE_WAY)
    wait_until_refused(life.address)
    client.send(b"still served")
    assert backend.recv(100) == b"still served"
    life.signal(signal.SIGTERM)  # and then the master stops
    backend.close()
    assert client.recv(1) == b""
    client.unwrap()
    assert life.end()[:3] == ["over", "DRAINING", "0"]


def test_a_worker_without_connections_drains_at_once(life: Life) -> None:
    life.signal(signal.SIGTERM)

    assert life.end() == ["over", "DRAINING", "0", "0", "0"]


def test_a_drain_ends_when_the_connections_do(life: Life, trust: ssl.SSLContext) -> None:
    client, backend = life.connect(trust)
    life.signal(signal.SIGTERM)
    wait_until_refused(life.address)
    client.send(b"still served")
    assert backend.recv(100) == b"still served"
    assert life.process.poll() is None
    backend.close()
    assert client.recv(1) == b""
    client.close()

    assert life.end()[:3] == ["over", "DRAINING", "0"]
    assert life.records()[-1] == "done"


def test_a_drain_ends_at_its_cap(
    site: Path, tmp_path: Path, lives: list[Life], trust: ssl.SSLContext
) -> None:
    lives.append(Life(site, tmp_path, 0.3))
    lives[0].connect(trust)
    lives[0].signal(signal.SIGTERM)

    assert lives[0].end() == ["over", "DRAINING", "0", "1", "0"]
    assert lives[0].records() == ["drain_timeout"]
    assert "1 connections outlived the drain" in lives[0].errors


def test_a_second_request_to_drain_does_not_begin_it_anew(
    site: Path, tmp_path: Path, lives: list[Life], trust: ssl.SSLContext
) -> None:
    lives.append(Life(site, tmp_path, 0.5))
    lives[0].connect(trust)
    begun = time.perf_counter()
    for _ in range(4):
        lives[0].signal(signal.SIGTERM)
        time.sleep(0.2)

    lives[0].end()
    assert time.perf_counter() - begun < 5.0


def test_an_end_at_once_waits_for_nobody(life: Life, trust: ssl.SSLContext) -> None:
    client, _ = life.connect(trust)
    life.signal(signal.SIGINT)

    assert life.end()[0] == "over"
    assert life.records() == ["drain_timeout"]
    with pytest.raises((CutError, ConnectionResetError)):
        client.recv(1)


def test_deadlines_pass_while_nothing_else_happens(
    site: Path, tmp_path: Path, lives: list[Life]
) -> None:
    lives.append(Life(site, tmp_path, 30.0, handshake=0.2))
    with socket.create_connection(lives[0].address, timeout=PATIENCE) as client:
        client.send(b"\x16")  # the kernel keeps back those who say nothing
        assert client.recv(1) == b""
    lives[0].signal(signal.SIGTERM)
    lives[0].end()

    assert lives[0].records() == ["handshake_timeout"]


# Orders.


def told(life: Life, *messages: bytes) -> None:
    for each in messages:
        life.orders.sendall(each)


def test_a_worker_shows_what_it_is_ordered_to(
    life: Life, site: Path, tmp_path: Path, ca: trustme.CA, trust: ssl.SSLContext
) -> None:
    before, now = load_certificate(site), load_certificate(write_site(ca, tmp_path / "renewed.pem"))
    open_client, open_backend = life.connect(trust)
    said = order(0, [before], [now], {})
    told(life, said[:3], said[3:100], said[100:])

    def shown() -> bytes | None:
        return life.connect(trust)[0].getpeercert(binary_form=True)

    wait_until(lambda: shown() == now.leaf_der, "the renewed certificate")
    open_client.send(b"undisturbed")
    assert open_backend.recv(100) == b"undisturbed"
    life.signal(signal.SIGINT)
    assert life.end()[-1] == "1"


def test_a_refused_order_is_told_and_the_old_certificate_stays(
    life: Life, site: Path, trust: ssl.SSLContext
) -> None:
    before = load_certificate(site)
    other = replace(before, key=loaded(issue("other", NAME)).key, chain_sha256="another")
    told(life, order(0, [before], [other], {}))
    assert life.connect(trust)[0].getpeercert(binary_form=True) == before.leaf_der
    life.signal(signal.SIGINT)
    life.end()

    assert "certificates from the master are refused, the old ones stay" in life.errors
    assert "PRIVATE KEY" not in life.errors


def test_a_descriptor_that_comes_with_an_order_is_closed_when_nothing_keeps_it(life: Life) -> None:
    ours, its = os.pipe()
    said = message({"staples": {}, "descriptors": 1})
    socket.send_fds(life.orders, [said[:7]], [its])
    os.close(its)
    told(life, said[7:])
    assert select.select([ours], [], [], PATIENCE)[0], "the pipe has no writer left"
    os.close(ours)
    life.signal(signal.SIGTERM)

    assert life.end()[-1] == "1"


def test_an_order_without_its_descriptors_is_not_carried_out_and_the_worker_goes(life: Life) -> None:
    told(life, message({"staples": {}, "descriptors": 1}))

    assert life.end()[-1] == "0"
    assert "an order with 1 descriptors, of which 0 came" in life.errors


def test_descriptors_that_no_order_counts_are_not_gathered(life: Life) -> None:
    ours, its = os.pipe()
    for _ in range(2):
        socket.send_fds(life.orders, [message({"staples": {}})], [its] * DESCRIPTORS_MAX)
    os.close(its)
    assert select.select([ours], [], [], PATIENCE)[0], "the pipe has no writer left"
    os.close(ours)

    assert life.end()[-1] == "2"
    assert "descriptors that no order counts" in life.errors


def test_a_worker_whose_master_has_gone_drains(life: Life) -> None:
    life.orders.close()

    assert life.end()[:2] == ["over", "DRAINING"]


def test_a_worker_needs_no_access_log(
    site: Path, tmp_path: Path, lives: list[Life], trust: ssl.SSLContext
) -> None:
    lives.append(Life(site, tmp_path, 30.0, log=False))
    client, backend = lives[0].connect(trust)
    client.send(b"x")
    assert backend.recv(1) == b"x"
    lives[0].signal(signal.SIGINT)

    assert lives[0].end()[0] == "over"


def test_a_hub_is_seen_once_there_is_one() -> None:
    code = (
        "from termproxy.worker.main import gevent_version, has_hub\n"
        "import gevent\n"
        "before = has_hub()\n"
        "gevent.get_hub()\n"
        "print(before, has_hub(), gevent_version() == gevent.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True", "True"]


# Failures.


def scan(life: Life, times: int) -> None:
    for _ in range(times):
        socket.create_connection(life.address).close()


def reported(life: Life, count: int) -> int:
    """How many failures the worker tells its master, read until there are so many, or its end."""
    reader = MessageReader(REPORT_MAX)
    life.orders.settimeout(PATIENCE)
    told = 0
    while told < count and (data := life.orders.recv(1 << 16)):
        for report in reader.feed(data):
            told += sum(kind["count"] for kind in report["failures"])
    return told


def test_failures_are_told_to_the_master_while_the_worker_lives(life: Life) -> None:
    scan(life, 3)

    assert reported(life, 3) == 3


def test_what_was_not_told_yet_is_told_at_the_end(site: Path, tmp_path: Path, lives: list[Life]) -> None:
    """The handshakes that the end itself breaks, say."""
    lives.append(Life(site, tmp_path, 30.0))
    with contextlib.ExitStack() as clients:
        for _ in range(5):
            client = clients.enter_context(socket.create_connection(lives[0].address))
            client.send(b"\x16")
        wait_until(lambda: lives[0].open_connections() == 5, "all are accepted")
        lives[0].signal(signal.SIGINT)
        lives[0].end()

    assert reported(lives[0], 99) == 5
    assert lives[0].records() == ["drain_timeout"] * 5


def test_more_than_the_socket_holds_is_told_at_the_end(
    site: Path, tmp_path: Path, lives: list[Life]
) -> None:
    """The master was busy all the time; it has a second now."""
    lives.append(Life(site, tmp_path, 30.0, small_talk=True))
    count = 0
    for number in range(150):
        with socket.create_connection(lives[0].address, timeout=PATIENCE) as client:
            suites = range(0xD000 + 6 * number, 0xD000 + 6 * number + 6)
            client.send(hand_made(ciphers=suites))
            client.recv(100)
            count += 1
    lives[0].signal(signal.SIGINT)

    assert reported(lives[0], count) == count
    lives[0].end()


def test_a_master_that_does_not_listen_does_not_keep_a_worker_from_its_end(
    site: Path, tmp_path: Path, lives: list[Life]
) -> None:
    lives.append(Life(site, tmp_path, 30.0, small_talk=True))
    for number in range(150):
        with socket.create_connection(lives[0].address, timeout=PATIENCE) as client:
            suites = range(0xD000 + 6 * number, 0xD000 + 6 * number + 6)
            client.send(hand_made(ciphers=suites))
            client.recv(100)
    lives[0].signal(signal.SIGINT)

    assert lives[0].end()[0] == "over"


def test_lines_that_were_held_back_are_written_at_the_end(life: Life) -> None:
    scan(life, 3 * FAILURE_LINES)
    assert reported(life, 3 * FAILURE_LINES) == 3 * FAILURE_LINES
    life.signal(signal.SIGINT)
    life.end()
    *single, together = [json.loads(line) for line in life.log.read_text().splitlines()]

    assert len(single) == FAILURE_LINES
    assert (together["ended"], together["count"]) == ("scanner", 2 * FAILURE_LINES)
    assert together["client"] == "127.0.0.1"


def test_failures_are_told_without_an_access_log_too(
    site: Path, tmp_path: Path, lives: list[Life]
) -> None:
    lives.append(Life(site, tmp_path, 30.0, log=False))
    scan(lives[0], 2 * FAILURE_LINES)

    assert reported(lives[0], 2 * FAILURE_LINES) == 2 * FAILURE_LINES


def test_warnings_that_were_held_back_are_counted_in_one(
    site: Path, tmp_path: Path, lives: list[Life], trust: ssl.SSLContext
) -> None:
    lives.append(Life(site, tmp_path, 30.0))
    lives[0].backend.close()
    for _ in range(20):
        with (
            socket.create_connection(lives[0].address, timeout=PATIENCE) as raw,
            trust.wrap_socket(raw, server_hostname=NAME) as client,
        ):
            assert client.recv(1) == b""
    lives[0].signal(signal.SIGINT)
    lives[0].end()
    said = lives[0].errors
    held = sum(map(int, re.findall(r"(\d+) more failures of server 127\.0\.0\.1:", said)))

    assert held > 0
    assert said.count("cluster app: backend_refused") + held == 20
