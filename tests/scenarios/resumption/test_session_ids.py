"""Sessions that the server keeps, for clients that take no tickets, or where there are none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve
from tests.scenarios.resumption.visits import (
    KINDS,
    TLS_1_2,
    TLS_1_3,
    client_of,
    kill_a_worker,
    resumed_at_every_worker,
    told,
    totals,
    visit,
)
from tests.support.backends import Backend
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

WITHOUT_TICKETS = {"tickets": False}


@pytest.mark.parametrize("kind", KINDS)
def test_without_tickets_a_session_is_resumed_at_every_worker_all_the_same(
    serve: Serve, ca: trustme.CA, kind: str
) -> None:
    """Also in TLS 1.3, and by clients that would take a ticket."""
    context = client_of(ca, kind)
    with (
        Backend() as backend,
        serve(backend.address, workers=3, resumption=WITHOUT_TICKETS) as server,
    ):
        session = visit(server.port, context).session
        assert session.has_ticket == (context.minimum_version == TLS_1_3)
        session = resumed_at_every_worker(server, context, session)
        kill_a_worker(server)
        server.values["timeouts"]["idle"] = 50
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 3, "the old workers are gone")
        resumed_at_every_worker(server, context, session)
        counted = totals(server)["handshakes"]
        assert counted.get("ticket", 0) == 0
        assert counted["session_id"] >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_with_neither_tickets_nor_a_cache_nothing_is_promised_and_all_are_served(
    serve: Serve, ca: trustme.CA, kind: str
) -> None:
    context = client_of(ca, kind)
    with (
        Backend() as backend,
        serve(backend.address, resumption={"tickets": False, "session_cache": 0}) as server,
    ):
        session = visit(server.port, context).session
        assert not session.has_ticket
        assert session.id == b"" or context.minimum_version == TLS_1_3
        assert not visit(server.port, context, session).resumed
        assert totals(server)["handshakes"] == {"full": 2}


def test_with_tickets_and_without_a_cache_only_tickets_are_resumed(serve: Serve, ca: trustme.CA) -> None:
    with Backend() as backend, serve(backend.address, resumption={"session_cache": 0}) as server:
        for kind in KINDS:
            context = client_of(ca, kind)
            session = visit(server.port, context).session
            assert visit(server.port, context, session).resumed == ("ticket" in kind)


def test_more_sessions_than_there_is_room_for_push_out_the_oldest(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.2 id")
    with Backend() as backend, serve(backend.address, resumption={"session_cache": 1}) as server:
        sessions = [visit(server.port, context).session for _ in range(40)]
        assert visit(server.port, context, sessions[-1]).resumed
        assert not all(visit(server.port, context, session).resumed for session in sessions[:24])
        assert totals(server)["resumption_misses"]["evicted"] >= 1


def test_another_size_begins_anew_and_the_same_size_does_not(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.2 id")
    with (
        Backend() as backend,
        serve(backend.address, resumption=WITHOUT_TICKETS | {"session_cache": 100}) as server,
    ):
        session = visit(server.port, context).session
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: len(server.status()["workers"]) == 1, "the old worker is gone")
        assert visit(server.port, context, session).resumed
        for size in (200, 100):
            server.values["resumption"]["session_cache"] = size
            assert server.reload(new_workers=True)["ok"]
            wait_until(lambda: len(server.status()["workers"]) == 1, "the old worker is gone")
            assert not visit(server.port, context, session).resumed


# With OpenSSL's own client.


def s_client(server: Server, ca_file: Path, *options: str) -> str:
    """What it says of its handshake, when it has sent a word and heard it again."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}"]
    command += ["-servername", "site.test", "-CAfile", str(ca_file), "-verify_return_error", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a word\n")
        process.stdin.flush()
        said = b""
        while b"a word" not in said:
            piece = os.read(process.stdout.fileno(), 1 << 16)
            assert piece, f"it ended: {said!r}"
            said += piece
        process.stdin.close()
        said += process.stdout.read()
        assert process.wait(PATIENCE) == 0
    return said.decode(errors="replace")


@pytest.mark.parametrize("with_tickets", [True, False])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssls_client_comes_again(
    serve: Serve, ca: trustme.CA, tmp_path: Path, version: str, *, with_tickets: bool
) -> None:
    ca_file, kept = tmp_path / "ca.pem", tmp_path / "session"
    ca.cert_pem.write_to_path(ca_file)
    with (
        Backend() as backend,
        serve(
            backend.address,
            workers=2,
            resumption={"tickets": with_tickets, "lifetime": 1234, "rotate": 600},
        ) as server,
    ):
        assert "\nNew, " in s_client(server, ca_file, version, "-sess_out", str(kept))
        described = subprocess.run(
            ["openssl", "sess_id", "-in", str(kept), "-noout", "-text"],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        hint = re.search(r"lifetime hint: (\d+)", described)
        if with_tickets or version == "-tls1_3":
            assert hint is not None
            assert hint[1] == "1234"
        assert "\nReused, " in s_client(server, ca_file, version, "-sess_in", str(kept))
        word = "ticket" if with_tickets else "session_id"
        assert totals(server)["handshakes"] == {"full": 1, word: 1}


def test_a_version_that_the_session_is_not_of_is_a_full_handshake(serve: Serve, ca: trustme.CA) -> None:
    """The same client, that speaks another version the next time."""
    context = client_of(ca, "1.2 ticket")
    context.maximum_version = TLS_1_3
    context.minimum_version = TLS_1_2
    with Backend() as backend, serve(backend.address) as server:
        context.maximum_version = TLS_1_2
        session = visit(server.port, context).session
        context.maximum_version = TLS_1_3
        assert not visit(server.port, context, session).resumed
        assert told(server)["frontends"]["main"]["handshakes"] == {"full": 2}
