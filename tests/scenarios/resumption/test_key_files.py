"""`ticket_keys`: files that others make, turn and bring to every machine; they are watched."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
import trustme

from tests.conftest import Serve, write_site
from tests.scenarios.resumption.visits import (
    KINDS,
    client_of,
    issuing,
    keys,
    resumed_at_every_worker,
    server_in,
    told,
    visit,
)
from tests.support.backends import Backend
from tests.support.command import termproxy
from tests.support.pki import replace_file, replace_link
from tests.support.server import settings
from tests.support.waiting import wait_until

TICKETS = [kind for kind in KINDS if "ticket" in kind]


def key() -> bytes:
    return os.urandom(80)


def lines(*secrets: bytes) -> bytes:
    return b"".join(base64.b64encode(secret) + b"\n" for secret in secrets)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return replace_file(folder / "tickets.key", key())


@pytest.mark.parametrize("kind", TICKETS)
def test_servers_with_the_same_file_know_each_others_clients(
    ca: trustme.CA, tmp_path: Path, file: Path, kind: str
) -> None:
    site = write_site(ca, tmp_path / "site.pem")
    context = client_of(ca, kind)
    with Backend() as backend:
        here, there = (
            server_in(
                tmp_path / name,
                settings(site, [backend.address], resumption={"ticket_keys": str(file)}),
            )
            for name in ("here", "there")
        )
        with here, there:
            session = visit(here.port, context).session
            assert visit(there.port, context, session).resumed
        with here:
            assert visit(here.port, context, session).resumed, "also after a restart"


@pytest.mark.parametrize("kind", TICKETS)
def test_a_file_that_is_turned_is_followed_and_the_old_key_redeems(
    serve: Serve, ca: trustme.CA, file: Path, kind: str
) -> None:
    context = client_of(ca, kind)
    secrets = [key() for _ in range(4)]
    replace_file(file, lines(*secrets[:3]))
    with (
        Backend() as backend,
        serve(backend.address, workers=2, resumption={"ticket_keys": str(file)}) as server,
    ):
        assert [each["role"] for each in told(server)["keys"]] == ["redeeming", "issuing", "next"]
        _, first, second = keys(server)
        session = visit(server.port, context).session
        replace_file(file, lines(*secrets[1:]))
        wait_until(lambda: issuing(server) == second, "the file is read")
        assert keys(server)[0] == first
        session = resumed_at_every_worker(server, context, session)
        replace_file(file, lines(*(key() for _ in range(3))))
        wait_until(lambda: second not in keys(server), "the file is read again")
        assert not visit(server.port, context, session).resumed
        assert told(server)["frontends"]["main"]["resumption_misses"]["unknown_key"] == 1


def test_several_files_are_one_list_and_each_is_watched(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    new, old = (replace_file(tmp_path / name, key()) for name in ("new.key", "old.key"))
    context = client_of(ca, "1.3 ticket")
    names = [str(new), str(old)]
    with Backend() as backend, serve(backend.address, resumption={"ticket_keys": names}) as server:
        session = visit(server.port, context).session
        first = issuing(server)
        replace_file(old, new.read_bytes())
        server.wait_for_words("a key is there twice")
        replace_file(new, key())
        wait_until(lambda: issuing(server) != first, "the files are read")
        assert visit(server.port, context, session).resumed


def test_a_link_that_is_turned_is_followed(serve: Serve, ca: trustme.CA, tmp_path: Path) -> None:
    """As Kubernetes changes a secret."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replace_file(tmp_path / name / "tickets.key", key())
    link = tmp_path / "current"
    replace_link(link, "one")
    (tmp_path / "tickets.key").symlink_to("current/tickets.key")
    name = str(tmp_path / "tickets.key")
    with Backend() as backend, serve(backend.address, resumption={"ticket_keys": name}) as server:
        first = issuing(server)
        replace_link(link, "two")
        wait_until(lambda: issuing(server) != first, "the link is followed")


def test_a_file_that_is_spoilt_leaves_the_keys_of_before(
    serve: Serve, ca: trustme.CA, file: Path
) -> None:
    context = client_of(ca, "1.3 ticket")
    with (
        Backend() as backend,
        serve(backend.address, resumption={"ticket_keys": str(file)}) as server,
    ):
        session = visit(server.port, context).session
        before = keys(server)
        replace_file(file, b"short")
        server.wait_for_words("the ticket keys of before stay")
        file.unlink()
        server.wait_for_words("No such file")
        assert keys(server) == before
        assert not server.reload()["ok"]
        assert visit(server.port, context, session).resumed


@pytest.mark.parametrize("content", [b"", b"short", bytes(80), lines(key(), key())])
def test_a_file_of_no_use_refuses_the_start(serve: Serve, file: Path, content: bytes) -> None:
    replace_file(file, content)
    server = serve("127.0.0.1:9", resumption={"ticket_keys": str(file)})
    server.write_config()
    for verb in ("check", "run"):
        result = termproxy(verb, "-c", str(server.file), cwd=server.folder)
        assert result.returncode == 1, (verb, result)
        assert str(file) in result.stderr
        assert "ticket_keys" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_file_that_others_may_read_is_told(serve: Serve, file: Path) -> None:
    file.chmod(0o644)
    with serve("127.0.0.1:9", resumption={"ticket_keys": str(file)}) as server:
        server.wait_for_words(f"the ticket keys in {file} can be read by others")


def test_keys_of_others_are_not_turned_by_hand(serve: Serve, file: Path) -> None:
    with serve("127.0.0.1:9", resumption={"ticket_keys": str(file)}) as server:
        for arguments in (["rotate"], ["rotate", "--revoke-old"]):
            result = termproxy("tickets", *arguments, "--control", str(server.control))
            assert result.returncode == 1
            assert "change them there" in result.stderr


def test_a_reload_leads_from_own_keys_to_those_of_files_and_back(
    serve: Serve, ca: trustme.CA, file: Path
) -> None:
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend, serve(backend.address) as server:
        own = issuing(server)
        server.values["resumption"] = {"ticket_keys": str(file)}
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: issuing(server) != own, "the file's key issues")
        session = visit(server.port, context).session
        first = issuing(server)
        replace_file(file, key())
        wait_until(lambda: issuing(server) != first, "it is watched from now on")
        assert not visit(server.port, context, session).resumed
        server.values["resumption"] = {}
        assert server.reload(new_workers=True)["ok"]
        wait_until(lambda: told(server)["rotate"] is not None, "own keys again")
        session = visit(server.port, context).session
        assert visit(server.port, context, session).resumed
