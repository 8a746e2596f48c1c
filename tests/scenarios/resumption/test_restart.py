"""Over a restart the keys are kept if asked for, sealed; a file of no use costs only sessions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve
from tests.scenarios.resumption.visits import client_of, keys, told, visit
from tests.support.backends import Backend
from tests.support.pki import replace_file
from tests.support.server import Server
from tests.support.waiting import wait_until

KEPT = {"state_dir": "state", "resumption": {"persist": True}}
TICKETS = ["1.2 ticket", "1.3 ticket"]


def ring_file(server: Server) -> Path:
    return server.folder / "state" / "tickets.sealed"


def stop(server: Server) -> None:
    server.signal(signal.SIGINT)
    assert server.wait_until_gone() == 0


def kill(server: Server) -> None:
    server.signal(signal.SIGKILL)
    server.wait_until_gone()


@pytest.mark.parametrize("end", [stop, kill])
@pytest.mark.parametrize("kind", TICKETS)
def test_a_ticket_is_redeemed_after_a_restart(
    serve: Serve, ca: trustme.CA, kind: str, end: Callable[[Server], None]
) -> None:
    context = client_of(ca, kind)
    with Backend() as backend:
        with serve(backend.address, **KEPT) as server:
            session = visit(server.port, context).session
            told(server, "rotate")
            before = keys(server)
            assert told(server)["persisted"]
            end(server)
        with server:
            assert keys(server) == before
            assert visit(server.port, context, session).resumed


def test_without_persist_a_restart_begins_anew(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        with serve(backend.address, state_dir="state") as server:
            session = visit(server.port, context).session
        assert not ring_file(server).exists()
        with server:
            assert not visit(server.port, context, session).resumed


def test_what_was_revoked_stays_so_after_a_restart(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        with serve(backend.address, **KEPT) as server:
            session = visit(server.port, context).session
            told(server, "revoke")
        with server:
            assert not visit(server.port, context, session).resumed
            reasons = told(server)["frontends"]["main"]["resumption_misses"]
            assert reasons == {"retired_key": 1}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


def link_elsewhere(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def give_to_another(file: Path) -> None:
    os.chown(file, 65534, 65534)


def change_the_key(file: Path) -> None:
    file.with_name("tickets.key").write_bytes(os.urandom(32))


def lose_the_key(file: Path) -> None:
    file.with_name("tickets.key").unlink()


only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        link_elsewhere,
        change_the_key,
        lose_the_key,
        pytest.param(give_to_another, marks=only_root),
    ],
)
def test_a_file_of_no_use_is_set_aside_and_clients_are_served(
    serve: Serve, ca: trustme.CA, damage: Callable[[Path], None]
) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        with serve(backend.address, **KEPT) as server:
            session = visit(server.port, context).session
        damage(ring_file(server))
        with server:
            assert f"{ring_file(server)} cannot be used: " in server.said()
            assert "tickets.sealed.unusable, and new ticket keys start" in server.said()
            met = visit(server.port, context, session)
            assert not met.resumed
            assert visit(server.port, context, met.session).resumed


def test_what_a_reload_begins_to_keep_is_kept_at_once(serve: Serve, ca: trustme.CA) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        with serve(backend.address, state_dir="state") as server:
            session = visit(server.port, context).session
            server.values["resumption"] = {"persist": True}
            assert server.reload(new_workers=True)["ok"]
            wait_until(lambda: told(server)["persisted"], "the settings hold")
        with server:
            assert visit(server.port, context, session).resumed


def test_a_reload_that_cannot_use_what_was_kept_keeps_serving(serve: Serve, ca: trustme.CA) -> None:
    """What it finds in the state folder is of no use, and cannot even be set aside."""
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        server = serve(backend.address, state_dir="state")
        keys_file = replace_file(server.folder / "tickets.key", os.urandom(80))
        server.values["resumption"] = {"ticket_keys": str(keys_file)}
        with server:
            session = visit(server.port, context).session
            ring_file(server).write_bytes(b"rubbish")
            (ring_file(server).parent / "tickets.sealed.unusable").mkdir()
            server.values["resumption"] = {"persist": True}
            for _ in range(2):
                assert server.reload(new_workers=True)["ok"]
                server.wait_for_words("the ticket keys of before stay: ")
                assert told(server)["from_files"] == [str(keys_file)]
                assert visit(server.port, context, session).resumed


def test_a_worker_does_not_wait_for_the_disk(serve: Serve, ca: trustme.CA) -> None:
    """A disk that cannot be written is told, and the ring turns all the same."""
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address, **KEPT) as server:
        session = visit(server.port, context).session
        (ring_file(server).parent / ".tickets.sealed.new").mkdir()
        before = keys(server, "issuing")
        told(server, "rotate")
        server.wait_for_words("cannot keep the ticket keys in")
        assert keys(server, "issuing") != before
        wait_until(lambda: visit(server.port, context, session).resumed, "it is resumed")
