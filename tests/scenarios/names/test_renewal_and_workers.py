"""What is renewed, and who comes and goes meanwhile: workers, generations, rights."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import signal
import ssl
from pathlib import Path

import pytest

from tests.scenarios.names.parties import (
    Place,
    Recorder,
    attempt,
    client_of,
    is_root,
    served,
    wait_until_all_serve,
)
from tests.support.pki import Authority
from tests.support.processes import descriptors, status
from tests.support.server import Server
from tests.support.waiting import wait_until

NAME = "site.test"


@pytest.fixture
def context(root: Authority) -> ssl.SSLContext:
    return client_of(root)


def test_a_worker_that_comes_later_serves_what_is_served_now(
    place: Place, context: ssl.SSLContext
) -> None:
    place.site("site.pem", NAME)
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        new = place.root.issue(NAME)
        new.write(place.folder / "site.pem")
        wait_until_all_serve(server, context, NAME, new.serial)
        before = server.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(server.workers()) == 2 and not set(server.workers()) & set(before), "new workers"
        )
        assert all(served(server.port, context, NAME) == new.serial for _ in range(12))
        newer = place.root.issue(NAME)
        newer.write(place.folder / "site.pem")
        wait_until_all_serve(server, context, NAME, newer.serial)


def test_a_worker_that_stood_still_catches_up(place: Place, context: ssl.SSLContext) -> None:
    """Orders wait for it, however many; it takes them in their order."""
    place.site("site.pem", NAME)
    with Recorder() as backend, place.server(backend.address, workers=1) as server:
        [worker] = server.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            for count in range(1, 4):
                new = place.root.issue(NAME)
                new.write(place.folder / "site.pem")
                wait_until(
                    lambda count=count: server.said().count("renewed") == count,  # type: ignore[misc]
                    "the master has seen it",
                )
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until_all_serve(server, context, NAME, new.serial)
        assert server.workers() == [worker]


def test_hup_serves_it_at_once_and_later_renewals_go_on(place: Place, context: ssl.SSLContext) -> None:
    place.site("site.pem", NAME)
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        for _ in range(2):
            new = place.root.issue(NAME)
            new.write(place.folder / "site.pem")
            assert server.reload(new_workers=True)["ok"]
            wait_until(lambda: len(server.status()["workers"]) == 2, "the old workers are gone")
            assert all(served(server.port, context, NAME) == new.serial for _ in range(12))
        new = place.root.issue(NAME)
        new.write(place.folder / "site.pem")
        wait_until_all_serve(server, context, NAME, new.serial)


def test_what_changes_while_a_reload_is_under_way_is_not_forgotten(
    place: Place, context: ssl.SSLContext
) -> None:
    """The new generation has read the files before that, and takes over after."""
    certs = place.folder / "certs"
    certs.mkdir()
    place.site("certs/site.pem", NAME)
    with Recorder() as backend, place.server(backend.address) as server:
        worker = stopped_before_it_is_ready(server)
        new = place.root.issue(NAME)
        new.write(certs / "site.pem")
        server.wait_for_words("renewed")
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: worker in server.workers(), "the new worker serves")
        wait_until(lambda: server.workers() == [worker], "the old worker is gone")
        wait_until_all_serve(server, context, NAME, new.serial)


def stopped_before_it_is_ready(server: Server) -> int:
    """A worker of a new generation, which is late; reloads until one was caught in time."""
    for tickets in itertools.cycle([2, 1]):
        count = server.said().count("slot 0 of generation")
        server.values["resumption"] = {"tickets_per_handshake": tickets}  # which takes new workers
        server.write_config()
        server.signal(signal.SIGHUP)
        wait_until(
            lambda count=count: server.said().count("slot 0 of generation") > count,  # type: ignore[misc]
            "a new worker",
            poll=0.0002,
        )
        worker = int(re.findall(r"worker (\d+): slot 0", server.said())[-1])
        os.kill(worker, signal.SIGSTOP)
        if server.status()["starting_generation"] is not None:
            return worker
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: len(server.status()["workers"]) == 1, "the reload is over")
    raise AssertionError("not reached")


def test_a_renewed_crl_shuts_out_who_is_revoked(
    place: Place, root: Authority, clients: Authority
) -> None:
    place.site("site.pem", "open.test", "closed.test")
    crl = place.write("clients.crl", clients.revoke())
    ca = place.write("clients.ca", clients.pem)
    place.host("closed.test", client_auth="required", client_ca=ca, client_crl=crl)
    leaver, stayer = clients.client("leaver"), clients.client("stayer")
    contexts = [client_of(root, shows=each, folder=place.folder) for each in (leaver, stayer)]
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        for context in contexts:
            assert attempt(server, context, "closed.test")[0]
        place.write("clients.crl", clients.revoke(leaver))
        server.wait_for_words("renewed client CAs or CRLs")
        wait_until(lambda: not attempt(server, contexts[0], "closed.test")[0], "it is refused")
        came = backend.accepted
        for _ in range(6):
            _, line = attempt(server, contexts[0], "closed.test")
            assert "certificate revoked" in line["detail"]
        assert backend.accepted == came
        assert attempt(server, contexts[1], "closed.test")[0]


def test_a_renewed_ca_lets_its_clients_in_and_the_former_ones_out(
    place: Place, root: Authority, clients: Authority
) -> None:
    place.site("site.pem", "open.test", "closed.test")
    ca = place.write("clients.ca", clients.pem)
    place.host("closed.test", client_auth="required", client_ca=ca)
    next_ca = Authority("clients' next root")
    former = client_of(root, shows=clients.client("former"), folder=place.folder)
    future = client_of(root, shows=next_ca.client("future"), folder=place.folder)
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        assert attempt(server, former, "closed.test")[0]
        assert not attempt(server, future, "closed.test")[0]
        place.write("clients.ca", next_ca.pem)
        server.wait_for_words("renewed client CAs or CRLs")
        wait_until(lambda: not attempt(server, former, "closed.test")[0], "former ones are refused")
        assert all(attempt(server, future, "closed.test")[0] for _ in range(6))
        assert not any(attempt(server, former, "closed.test")[0] for _ in range(6))


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_keys_are_renewed_for_workers_that_cannot_read_them(
    place: Place, context: ssl.SSLContext
) -> None:
    place.site("site.pem", NAME)
    with Recorder() as backend, place.server(backend.address, workers=2, user="nobody") as server:
        for _ in range(2):
            new = place.root.issue(NAME)
            new.write(place.folder / "site.pem")
            wait_until_all_serve(server, context, NAME, new.serial)
        file = place.folder / "site.pem"
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (0, 0o600)
        for pid in server.workers():
            assert status(pid)["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, "keys are in its memory"
            assert str(file) not in descriptors(pid).values()


def test_a_name_that_was_renewed_keeps_its_host_block(
    place: Place, root: Authority, clients: Authority
) -> None:
    """The policy belongs to the name, whichever certificate serves it."""
    place.site("open.pem", "open.test")
    place.site("closed.pem", "closed.test")
    ca = place.write("clients.ca", clients.pem)
    place.host("*.closed.test", "closed.test", client_auth="required", client_ca=ca, cluster="closed")
    good = client_of(root, shows=clients.client("good"), folder=place.folder)
    with Recorder() as backend, Recorder() as closed:
        place.clusters["closed"] = [closed.address]
        with place.server(backend.address, workers=2) as server:
            new = root.issue("closed.test", "new.closed.test")
            new.write(place.folder / "closed.pem")
            wait_until_all_serve(server, good, "closed.test", new.serial)
            wait_until_all_serve(server, good, "new.closed.test", new.serial)
            came = closed.accepted
            for name in ("closed.test", "new.closed.test"):
                answer, line = attempt(server, client_of(root), name)
                assert (answer, line["ended"]) == (b"", "no_client_certificate")
            assert closed.accepted == came
            assert backend.accepted == 0
