"""The admin process among its fellows: whatever is asked, however it dies, traffic and answers go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from termproxy.admin.routes import request_for
from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import exchange, leave
from tests.support.command import TERMPROXY
from tests.support.ports import free_port
from tests.support.processes import descriptors, session_members, status
from tests.support.scrape import samples, scrape
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

NOWHERE = "127.0.0.1:9"


def admin_of(server: Server) -> int:
    return int(server.status()["processes"]["admin"])


def curl(*arguments: str) -> tuple[int, str]:
    """The status and the body."""
    done = subprocess.run(
        ["curl", "-sS", "-w", "%{stderr}%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return int(done.stderr), done.stdout


def test_curl_is_an_operator_too(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        socket_ = ("--unix-socket", str(server.control))
        code, body = curl(*socket_, "http://localhost/status")
        assert (code, json.loads(body)["pid"]) == (200, server.pid)
        assert curl(*socket_, "-X", "POST", "http://localhost/tickets/rotate")[0] == 200
        assert (
            curl(*socket_, "-d", '{"target": "main/1.2.3.4:5"}', "http://localhost/backends/drain")[0]
            == 409
        )
        assert curl(*socket_, "http://evil.example/status")[0] == 403
        assert curl(*socket_, "-I", "http://localhost/certs")[0] == 200
        assert curl(*socket_, "-d", "{}", "http://localhost/stop")[0] == 200
        assert server.wait_until_gone() == 0


@pytest.fixture
def public(serve: Serve) -> Iterator[tuple[Server, int]]:
    port = free_port()
    with serve(NOWHERE, admin={"listen": f"127.0.0.1:{port}", "names": ["gate.example"]}) as server:
        yield server, port


def test_a_scraper_sees_metrics_and_life_and_nothing_else(public: tuple[Server, int]) -> None:
    server, port = public
    at = f"http://127.0.0.1:{port}"
    code, text = curl(f"{at}/metrics")
    assert code == 200
    assert samples(text)["ready",] == 1
    assert curl(f"{at}/ready") == (200, '{"ready":true,"why":null,"workers":1}\n')
    assert curl(f"{at}/live") == (200, '{"live":true}\n')
    assert curl(f"{at}/status")[0] == 404
    assert curl("-d", "{}", f"{at}/stop")[0] == 404
    assert curl("-H", "Host: gate.example", f"{at}/live")[0] == 200
    assert curl("-H", "Host: rebound.example", f"{at}/metrics")[0] == 403
    assert curl("-H", "Origin: http://127.0.0.1", f"{at}/metrics")[0] == 403
    assert server.is_answering()


def test_a_public_port_that_others_reach_is_warned_about(serve: Serve) -> None:
    port = free_port()
    with serve(NOWHERE, admin={"listen": f"0.0.0.0:{port}"}) as server:
        assert f"admin.listen: whoever reaches 0.0.0.0:{port} may read the metrics" in server.said()


def test_a_public_port_that_is_taken_is_a_refused_start(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = serve(NOWHERE, admin={"listen": f"127.0.0.1:{port}"})
        server.start()
        assert server.wait_until_gone() == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in server.said()
    assert not server.control.exists()


def test_a_master_that_is_stopped_shows_no_life_and_its_clients_do_not_care(
    serve: Serve, dial: Dial
) -> None:
    port = free_port()
    with (
        Backend() as backend,
        serve(backend.address, admin={"listen": f"127.0.0.1:{port}"}) as server,
        dial(server) as client,
    ):
        server.signal(signal.SIGSTOP)
        assert curl(f"http://127.0.0.1:{port}/live")[0] == 503
        assert exchange(client) == b"ping"
        server.signal(signal.SIGCONT)
        wait_until(lambda: curl(f"http://127.0.0.1:{port}/live")[0] == 200, "it lives again")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_dies_is_replaced_and_questions_wait_for_the_next(serve: Serve, signum: int) -> None:
    with serve(NOWHERE) as server:
        first = admin_of(server)
        os.kill(first, signum)
        assert admin_of(server) != first  # asked at once
        assert "the admin process was killed by " in server.said()


def test_one_that_hangs_is_replaced(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        first = admin_of(server)
        os.kill(first, signal.SIGSTOP)
        server.wait_for_words("the admin process hangs: killing it", seconds=PATIENCE)
        wait_until(lambda: admin_of(server) != first, "another one answers")


def test_it_has_no_rights_and_only_its_own_descriptors(serve: Serve) -> None:
    if os.getuid() != 0:
        pytest.skip("only root becomes another user, and looks at descriptors")
    with serve(NOWHERE, user="nobody") as server:
        pid = admin_of(server)
        facts = status(pid)
        assert facts["Uid"].split()[1] != "0"
        assert facts["NoNewPrivs"] == "1"
        assert server.port not in listening_ports(pid)
        sockets = [each for each in descriptors(pid).values() if each.startswith("socket:")]
        assert len(sockets) in {2, 3}  # the control socket, the pair, and perhaps who just asked
        assert server.control.stat().st_uid == 0


def listening_ports(pid: int) -> set[int]:
    inodes = {each[8:-1] for each in descriptors(pid).values() if each.startswith("socket:")}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes:
            found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def test_whoever_asks_nonsense_slowly_and_at_once_harms_nobody(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        with ExitStack() as open_:
            for number in range(40):
                sock = open_.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(server.control))
                try:
                    sock.sendall([b"POST /stop HTTP/1.1\r\n", b"\xff" * 70_000, b"\n"][number % 3])
                except OSError:
                    pass  # it has been sent away already
            assert exchange(client) == b"ping"
            wait_until(server.is_answering, "their time is over, or they would be in the way for ever")
        assert server.status()["state"] == "serving"


def test_ctrl_c_goes_to_all_and_the_operator_who_stops_is_answered(serve: Serve, dial: Dial) -> None:
    """A terminal's signals reach every process of the group, and a service manager's may, too."""
    with Backend() as backend, serve(backend.address, timeouts={"drain": 600}) as server:
        with dial(server) as client:
            exchange(client)
            with subprocess.Popen(
                [*TERMPROXY, "stop", "--control", str(server.control)], stdout=subprocess.PIPE, text=True
            ) as stopping:
                server.wait_for_words("draining")
                for pid in session_members(server.pid):
                    with suppress(ProcessLookupError):  # it is so quick
                        os.kill(pid, signal.SIGTERM)
                assert stopping.stdout is not None
                assert stopping.stdout.read() == f"stopped (process {server.pid})\n"
                assert stopping.wait(PATIENCE) == 0
        assert server.wait_until_gone() == 0


def test_it_goes_when_the_master_was_killed(serve: Serve) -> None:
    server = serve(NOWHERE)
    with server:
        os.kill(server.pid, signal.SIGKILL)
        server.wait_until_gone()


def test_counters_go_on_whatever_dies(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        for _ in range(4):
            with dial(server) as client:
                exchange(client)
                leave(client)
        wait_until(lambda: server.open_connections() == 0, "they have ended")
        before = scrape(server.control)
        for pid in (*server.workers(), admin_of(server)):
            os.kill(pid, signal.SIGKILL)
        server.reload()
        after = scrape(server.control)
    counted = {key: value for key, value in before.items() if key[0].endswith(("_total", "_count"))}
    assert counted["connections_accepted_total",] == 4
    assert {key: after[key] for key in counted if after[key] < counted[key]} == {}


def test_who_waits_when_the_master_is_killed_is_hung_up_on(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        admin = admin_of(server)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.settimeout(PATIENCE)
            waiting.connect(str(server.control))
            waiting.sendall(request_for({"verb": "stop", "now": False}))
            server.wait_for_words("stopping: draining")
            os.kill(server.pid, signal.SIGKILL)
            assert waiting.recv(1) == b""
        leave(client)
        wait_until(lambda: admin not in session_members(server.pid), "it has gone, too")
        assert "a helper failed" not in server.said()
