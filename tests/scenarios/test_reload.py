"""HUP: a new generation serves, the old one drains; a bad configuration changes nothing."""

from __future__ import annotations

import json
import signal
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Dial, Serve, client_context, write_site
from tests.support.backends import Backend, greeting
from tests.support.clients import NAME, connect, exchange, leave, read_to_end
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_for_more, wait_until


def serial_of(client: ssl.SSLSocket) -> str:
    certificate = client.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_a_renewed_certificate_is_shown_and_old_connections_live_on(
    serve: Serve, dial: Dial, ca: trustme.CA, tmp_path: Path
) -> None:
    mine = write_site(ca, tmp_path / "mine.pem")
    with Backend() as backend, serve(backend.address, workers=2) as server:
        server.values["frontend"][0]["certificates"] = [str(mine)]
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 2, "the first workers are gone")
        with dial(server) as old:
            exchange(old)
            write_site(ca, mine)
            assert server.reload(new_workers=True)["ok"]
            # The old worker that has nobody goes; the other has closed its listeners, too, by then.
            wait_until(lambda: len(server.status()["workers"]) == 3, "one old worker is left")
            with dial(server) as new:
                assert serial_of(new) != serial_of(old)
                assert exchange(old) == exchange(new) == b"ping"
                leave(new)
            leave(old)
        wait_until(lambda: len(server.status()["workers"]) == 2, "the old workers are gone")
        assert {worker["generation"] for worker in server.status()["workers"]} == {3}


def test_a_changed_backend_is_used_by_new_connections(serve: Serve, dial: Dial) -> None:
    with (
        Backend(greeting(b"one")) as one,
        Backend(greeting(b"two")) as two,
        serve(one.address) as server,
    ):
        with dial(server) as client:
            assert read_to_end(client) == b"one"
        server.values["cluster"]["main"]["servers"] = [two.address]
        assert server.reload()["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 1, "the old worker has gone")
        with dial(server) as client:
            assert read_to_end(client) == b"two"


def test_an_address_can_be_added_and_taken_away(serve: Serve, dial: Dial, trust: ssl.SSLContext) -> None:
    with Backend() as backend, serve(backend.address) as server:
        listen = server.values["frontend"][0]["listen"]
        added = free_port()
        listen.append(f"[::1]:{added}")
        assert server.reload()["ok"]
        with connect(added, trust, host="::1") as client:
            assert exchange(client) == b"ping"
        listen.pop()
        assert server.reload()["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 1, "the old worker is gone")
        with pytest.raises(ConnectionRefusedError):
            connect(added, trust, host="::1")
        with dial(server) as client:
            assert exchange(client) == b"ping"


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_the_number_of_workers_can_change(serve: Serve, dial: Dial, before: int, after: int) -> None:
    """Slots may be more than workers then: their sockets' clients are served all the same."""
    with Backend() as backend, serve(backend.address, workers=before) as server:
        server.values["workers"] = after
        assert server.reload()["ok"]
        wait_until(lambda: len(server.status()["workers"]) == after, "the old workers are gone")
        for _ in range(12):
            with dial(server) as client:
                assert exchange(client) == b"ping"


def break_syntax(server: Server) -> None:
    server.values["workers"] = "ever so many"


def break_key(server: Server) -> None:
    server.values["frontend"][0]["colour"] = "red"


def break_certificate(server: Server) -> None:
    file = server.folder / "broken.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    server.values["frontend"][0]["certificates"] = [str(file)]


def break_port(server: Server) -> None:
    server.values["frontend"][0]["listen"].append("192.0.2.1:443")  # not ours (RFC 5737)


def break_log(server: Server) -> None:
    server.values["log"]["access"] = str(server.folder / "nowhere" / "access.log")


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (break_syntax, "unknown value"),
        (break_key, "unknown key"),
        (break_certificate, "no readable certificate"),
        (break_port, "does not have the address"),
        (break_log, "cannot write"),
    ],
)
def test_a_bad_configuration_is_refused_and_the_old_one_serves_on(
    serve: Serve, dial: Dial, break_it: Any, why: str
) -> None:
    with Backend() as backend, serve(backend.address) as server, dial(server) as old:
        good = json.loads(json.dumps(server.values))
        break_it(server)
        outcome = server.reload()
        assert not outcome["ok"]
        assert why in outcome["detail"]
        assert "not reloaded, the old configuration stays" in server.said()
        server.values, broken = good, server.values
        with dial(server) as new:
            assert exchange(old) == exchange(new) == b"ping"
        assert broken != good
        assert server.reload(new_workers=True)["ok"]
        assert server.status()["generation"] > 1


def test_a_refused_reload_that_wanted_more_workers_leaves_no_queue_unread(
    serve: Serve, dial: Dial
) -> None:
    """A socket that listens gets its share of clients, so none may listen that no worker watches."""
    with Backend() as backend, serve(backend.address, workers=1) as server:
        server.values["workers"] = 8
        break_port(server)
        assert not server.reload()["ok"]
        for _ in range(20):
            with dial(server, timeout=8) as client:
                assert exchange(client) == b"ping"


def test_many_asked_for_at_once_end_in_one_that_serves(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        for _ in range(50):
            server.signal(signal.SIGHUP)
        server.wait_for_words("reloaded")
        wait_until(
            lambda: (s := server.status())["starting_generation"] is None and len(s["workers"]) == 2,
            "one generation is left",
        )
        with dial(server) as client:
            assert exchange(client) == b"ping"


def test_under_load_no_client_notices_a_reload(serve: Serve, ca: trustme.CA) -> None:
    failures: list[BaseException] = []
    served = 0
    over = threading.Event()
    lock = threading.Lock()

    def keep_asking(port: int) -> None:
        nonlocal served
        context = client_context(ca)
        while not over.is_set():
            try:
                with connect(port, context) as client:
                    assert exchange(client) == b"ping"
                    leave(client)
            except (OSError, AssertionError) as error:
                failures.append(error)
            with lock:
                served += 1

    def keep_talking(port: int) -> None:
        try:
            with connect(port, client_context(ca), name=NAME) as client:
                while not over.is_set():
                    assert exchange(client, bytes(50_000)) == bytes(50_000)
                leave(client)
        except (OSError, AssertionError) as error:
            failures.append(error)

    with Backend() as backend, serve(backend.address, workers=2, timeouts={"drain": 60}) as server:
        targets = [keep_asking, keep_asking, keep_asking, keep_talking]
        threads = [threading.Thread(target=target, args=(server.port,)) for target in targets]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                wait_for_more(lambda: served, 20, "clients are served")
                assert server.reload(new_workers=True)["ok"]
            wait_for_more(lambda: served, 20, "clients are served after it")
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert failures == []
