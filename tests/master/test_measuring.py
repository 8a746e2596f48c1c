"""What a running master measures."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from typing import Any

import pytest

from termproxy.observability.metrics import MEASURED, PREFIX
from tests.support.clients import NAME
from tests.support.masters import Master, Start
from tests.support.waiting import wait_until


@pytest.fixture
def master(start: Start) -> Master:
    return start()


def test_all_that_is_measured_stands_in_the_table(master: Master) -> None:
    told = {name for name, *_ in master.metrics()}
    names = {metric.name.removeprefix(PREFIX) for metric in MEASURED.values()}
    missing = {name for name in names if name not in told and f"{name}_total" not in told}

    assert missing == {
        "last_reload_timestamp_seconds",
        "ocsp_response_age_seconds",
        "ocsp_response_expiry_seconds",
    }


def test_workers_and_processes_are_told_by_what_they_are(master: Master) -> None:
    told = master.metrics()
    processes = {("master", ""), ("admin", ""), ("worker", "0"), ("worker", "1")}

    assert (told["workers", "ready"], told["ready",]) == (2, 1)
    assert {each[1:] for each in told if each[0] == "process_cpu_seconds_total"} == processes
    assert all(told["process_resident_memory_bytes", *labels] > 1 << 20 for labels in processes)
    if os.getuid() == 0:
        assert all(told["process_open_fds", *labels] > 5 for labels in processes)


def test_a_worker_that_dies_is_counted_and_nothing_it_has_counted_is_lost(
    master: Master, trust: ssl.SSLContext
) -> None:
    master.greet(trust)
    wait_until(lambda: not sum(each["connections"] for each in master.status()["workers"]), "it ended")
    before, pids = master.metrics(), master.pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(master.pids()).isdisjoint(pids) and len(master.pids()) == 2, "new workers")
    after = master.metrics()

    counted = {sample: value for sample, value in before.items() if sample[0].endswith("_total")}
    assert counted["connections_accepted_total",] == 1
    assert all(after[sample] >= value for sample, value in counted.items())
    assert after["worker_restarts_total",] == 2


def test_reloads_are_counted_by_how_they_went(master: Master) -> None:
    assert master.metrics()["last_reload_success",] == 1
    master.write(workers=0)
    master.reload()
    assert master.metrics()["last_reload_success",] == 0
    master.write(workers=1)
    master.reload()
    told = master.metrics()

    assert (told["reloads_total", "done"], told["reloads_total", "refused"]) == (1, 1)
    assert told["last_reload_success",] == 1
    assert told["generation",] == 2
    assert 0 <= told["last_reload_timestamp_seconds",] - told["start_time_seconds",] + 1 < 100


def test_a_frontend_that_comes_back_goes_on_with_its_counters(
    master: Master, trust: ssl.SSLContext
) -> None:
    """Counters never go back."""
    master.greet(trust)

    def handshakes() -> dict[str, Any]:
        frontends = master.status()["frontends"]
        return {each["name"]: each["totals"]["handshakes"] for each in frontends}

    assert handshakes() == {"web": {"full": 1}}
    [frontend] = master.values["frontend"]
    master.write(frontend=[frontend | {"name": "other"}])
    master.reload()
    assert handshakes() == {"other": {}}
    master.write(frontend=[frontend])
    master.reload()

    assert handshakes() == {"web": {"full": 1}}


def test_what_was_agreed_on_is_counted(master: Master, trust: ssl.SSLContext) -> None:
    master.greet(trust)
    told = master.metrics()
    [group] = [labels for name, *labels in told if name == "handshake_groups_total"]

    assert told["handshake_ciphers_total", "TLS_AES_128_GCM_SHA256", "web", "TLSv1.3"] == 1
    assert group[1] in {"X25519", "X25519MLKEM768"}
    assert told["handshakes_total", "web", "full"] == 1
    assert told["handshake_duration_seconds_count", "web", "full"] == 1
    assert told["backend_connect_seconds_count", "web"] == 1


def test_certificates_keys_and_backends_have_their_ages_and_states(master: Master) -> None:
    told, day = master.metrics(), 86_400
    file = master.values["frontend"][0]["certificates"][0]
    server = master.values["cluster"]["app"]["servers"][0]

    assert told["certificate_expiry_seconds", file, "web"] > day
    assert told["certificates", "web"] == 1
    assert told["ticket_keys", "issuing"] == 1
    assert 0 <= told["ticket_key_age_seconds",] < 100
    assert told["backend_up", "app", server] == 1
    master.ask(verb="backends", do="drain", target=f"app/{server}")
    told = master.metrics()
    assert told["backend_up", "app", server] == 0
    assert told["backend_servers", "app", "draining"] == 1


def test_a_server_that_is_stopping_is_not_ready(start: Start, trust: ssl.SSLContext) -> None:
    master = start(timeouts={"drain": 600})
    raw = socket.create_connection(("127.0.0.1", master.port))
    with trust.wrap_socket(raw, server_hostname=NAME), raw:
        assert master.ask(verb="ready") == {"ready": True, "why": None, "workers": 2}
        os.kill(master.process.pid, signal.SIGTERM)
        wait_until(lambda: not master.ask(verb="ready")["ready"], "it knows that it stops")
        assert master.ask(verb="ready")["why"] == "it is stopping"
        os.kill(master.process.pid, signal.SIGINT)
        assert master.end() == 0
