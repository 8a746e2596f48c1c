"""Changes that running workers can follow: nobody's connection ends, and every worker has them."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import trustme

from tests.conftest import Dial, Serve, write_site
from tests.scenarios.http.web import GET, web
from tests.support.backends import Backend, greeting
from tests.support.clients import exchange, leave, read_to_end
from tests.support.http_client import HttpClient
from tests.support.ports import free_port
from tests.support.recording_backend import RecordingBackend, Visit
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until


def known(address: str) -> dict[str, Any]:
    """A cluster that nobody uses: where the kernel can, workers are kept from all ports that they did
    not know at first, and running ones cannot follow there.
    """
    return {"spare": {"servers": [address]}}


def follow(server: Server, *told: str) -> dict[str, Any]:
    """Reload: the same workers serve on, and these changes are told."""
    before = server.workers()
    outcome = server.reload()
    assert outcome["ok"]
    assert [line for line in told if line not in outcome["changes"]] == []
    assert server.workers() == before
    return outcome


def test_long_connections_live_through_it(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        with dial(server) as client:
            for drain in range(1, 11):
                server.values["timeouts"]["drain"] = drain
                outcome = follow(server)
                assert "the workers of generation 1 follow" in outcome["detail"]
                assert exchange(client) == b"ping"
            leave(client)
        assert server.status()["last_reload"]["changes"] == ["timeouts.drain 9 -> 10"]


def test_nothing_new_changes_nothing(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        assert follow(server)["detail"] == "nothing has changed"


def test_the_servers_of_a_cluster_change(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as old,
        Backend(greeting(b"new")) as new,
        serve(old.address, workers=2, cluster=known(new.address)) as server,
        dial(server) as client,
    ):
        assert exchange(client) == b"ping"
        server.values["cluster"]["main"]["servers"] = [new.address]
        follow(
            server,
            f"cluster main: server {old.address} removed",
            f"cluster main: server {new.address} added",
        )
        for _ in range(6):
            with dial(server) as other:
                assert read_to_end(other) == b"new"
        assert exchange(client) == b"ping"
        leave(client)
        server.values["cluster"]["main"]["servers"] = [old.address]
        follow(server)
        with dial(server) as other:
            assert exchange(other) == b"ping"


def test_a_limit_counts_what_was_open_before(serve: Serve, dial: Dial) -> None:
    """A server that stays is the same one: its connections still count."""
    with Backend() as one, serve(one.address) as server, dial(server) as client:
        assert exchange(client) == b"ping"
        server.values["cluster"]["main"] = {
            "servers": [{"address": one.address, "max_connections": 1}],
            "queue": 0,
        }
        follow(server, f"cluster main: server {one.address}: max_connections 0 -> 1")
        with dial(server) as other:
            assert read_to_end(other) == b""
        leave(client)
        wait_until(lambda: server.open_connections() == 0, "it has left")
        with dial(server) as other:
            assert exchange(other) == b"ping"


def test_more_servers_than_there_is_room_for_come_with_new_workers(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        many = [f"127.0.0.1:{port}" for port in range(20_000, 20_300)]
        server.values["cluster"]["more"] = {"servers": many}
        outcome = server.reload()
        assert (outcome["ok"], outcome["detail"]) == (True, "generation 2 serves")
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_a_replacement_begins_with_what_the_others_follow(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as old,
        Backend(greeting(b"new")) as new,
        serve(old.address, cluster=known(new.address)) as server,
    ):
        server.values["cluster"]["main"]["servers"] = [new.address]
        follow(server)
        (pid,) = server.workers()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([pid], []), "it is replaced")
        with dial(server) as client:
            assert read_to_end(client) == b"new"


def test_a_worker_that_dies_while_it_should_follow_holds_nothing_up(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as old,
        Backend(greeting(b"new")) as new,
        serve(old.address, workers=2, cluster=known(new.address)) as server,
    ):
        hung = server.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        server.values["cluster"]["main"]["servers"] = [new.address]
        server.write_config()
        server.signal(signal.SIGHUP)
        os.kill(hung, signal.SIGKILL)
        server.wait_for_words("the workers of generation 1 follow")
        wait_until(lambda: len(server.workers()) == 2, "it is replaced")
        for _ in range(6):
            with dial(server) as client:
                assert read_to_end(client) == b"new"


def test_certificates_come_and_go(
    serve: Serve, dial: Dial, site: Path, ca: trustme.CA, tmp_path: Path
) -> None:
    more = write_site(ca, tmp_path / "more.pem", "more.test")
    with Backend() as backend, serve(backend.address, workers=2) as server, dial(server) as old:
        server.values["frontend"][0]["certificates"] = [str(site), str(more)]
        follow(server, f"frontend main: renewed {more}")
        for _ in range(6):
            with dial(server, name="more.test") as client:
                assert exchange(client) == b"ping"
        assert exchange(old) == b"ping"


def test_the_level_of_the_log_changes_in_workers_too(serve: Serve, dial: Dial) -> None:
    with serve(f"127.0.0.1:{free_port()}") as server:
        server.values["log"]["level"] = "error"
        assert verb(server).returncode == 0
        with dial(server) as client:
            assert read_to_end(client) == b"", "a warning's cause"
        server.values["log"]["level"] = "debug"
        assert verb(server).returncode == 0
        assert "WARNING worker" not in server.said()
        with dial(server) as client:
            assert read_to_end(client) == b""
        server.wait_for_words("WARNING worker")


def test_the_limit_of_connections_changes(serve: Serve, dial: Dial) -> None:
    with (
        Backend() as backend,
        serve(backend.address, limits={"connections": 1}) as server,
        dial(server) as first,
    ):
        assert exchange(first) == b"ping"
        server.values["limits"]["connections"] = 2
        follow(server, "limits.connections 1 -> 2")
        with dial(server) as second:
            assert exchange(second) == b"ping"


def says(what: bytes) -> Any:
    def answer(visit: Visit) -> None:
        while True:
            visit.request()
            visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(what), what))

    return answer


def test_clients_that_stay_get_other_routes_and_fields(
    serve: Serve, trust: ssl.SSLContext, site: Path
) -> None:
    """From their next request on."""
    with (
        RecordingBackend(says(b"one")) as one,
        RecordingBackend(says(b"two")) as two,
        web(serve, site, one.address, cluster=known(two.address)) as server,
        HttpClient(server.port, trust) as client,
    ):
        assert client.ask(GET % 1).body == b"one"
        frontend = server.values["frontend"][0]
        frontend["route"] = [{"path_prefix": "/2", "cluster": "two"}]
        frontend["http"] = {"strict_transport_security": "max-age=5"}
        server.values["cluster"]["two"] = {"servers": [two.address]}
        follow(
            server,
            "frontend main: routes (none) -> [/2 two]",
            "frontend main: http.strict_transport_security (none) -> max-age=5",
            "cluster two added",
        )
        answer = client.ask(GET % 2)
        assert answer.body == b"two"
        assert (b"strict-transport-security", b"max-age=5") in [
            (name.lower(), value) for name, value in answer.fields
        ]
        frontend["route"], frontend["cluster"] = [], "two"
        follow(server, "frontend main: cluster main -> two")
        assert client.ask(GET % 3).body == b"two"
        frontend["cluster"] = "main"
        del server.values["cluster"]["two"]
        follow(server, "cluster two removed")
        assert client.ask(GET % 4).body == b"one"
        wait_until(lambda: len(two.visits) and server.open_connections() == 1, "one client is left")


# The verb.


def verb(server: Server, *options: str) -> subprocess.CompletedProcess[str]:
    server.write_config()
    command = [sys.executable, "-m", "termproxy", "reload", "--control", str(server.control), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_verb_says_what_has_changed_or_why_not(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        server.values["timeouts"]["drain"] = 3
        done = verb(server)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ("timeouts.drain 10 -> 3\nreloaded: the workers of generation 1 follow\n")
        server.values["workers"] = 2
        done = verb(server)
        assert done.stdout == "workers 1 -> 2\nreloaded: generation 2 serves\n"
        assert verb(server).stdout == "reloaded: nothing has changed\n"
        assert verb(server, "--new-workers").stdout == "reloaded: generation 3 serves\n"
        server.values["timeouts"]["drain"] = -1
        done = verb(server)
        assert (done.returncode, done.stdout) == (1, "")
        assert "not reloaded, the old configuration stays: " in done.stderr
        assert "timeouts.drain: -1 is out of bounds" in done.stderr


def test_a_hurry_of_signals_is_a_reload_or_three_and_none_is_lost(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        server.values["workers"] = 3
        server.write_config()
        server.signal(signal.SIGHUP)
        server.wait_for_words("of generation 2")
        server.values["timeouts"]["drain"] = 7
        server.write_config()
        for _ in range(9):
            server.signal(signal.SIGHUP)
        server.wait_for_words("changed: timeouts.drain 10 -> 7")
        server.wait_for_words("reloaded: the workers of generation 2 follow")
        assert server.said().count("reloaded: ") <= 3
        assert server.status()["generation"] == 2


def test_status_says_why_an_old_generation_is_alive_and_the_cap_ends_it(
    serve: Serve, dial: Dial
) -> None:
    with (
        Backend() as backend,
        serve(backend.address, timeouts={"drain": 2}) as server,
        dial(server) as client,
    ):
        assert exchange(client) == b"ping"
        assert server.reload(new_workers=True)["ok"]

        def why() -> str:
            old, new = server.status()["generations"]
            assert (old["number"], old["state"], old["workers"]) == (1, "draining", 1)
            assert (new["number"], new["state"], new["why"]) == (2, "serving", None)
            return str(old["why"])

        wait_until(lambda: why().startswith("1 connection, the oldest for "), "it is told")
        assert " s; drains until " in why()
        wait_until(lambda: len(server.status()["generations"]) == 1, "the cap has ended it")
        assert server.wait_for_access(that=lambda line: line["ended"] == "drain_timeout")
