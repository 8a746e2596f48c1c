"""Files that change are served in place: by the same workers, to new connections, within seconds."""

from __future__ import annotations

import random
import shutil
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.names.parties import (
    RENEWED_WITHIN,
    Place,
    Recorder,
    client_of,
    finish,
    served,
    wait_until_all_serve,
)
from tests.support.clients import connect, send_and_receive, sha256
from tests.support.pki import Authority, Issued, replace_file, replace_link
from tests.support.waiting import wait_until

NAME = "site.test"

STAYS = "what was served before stays"


@pytest.fixture
def context(root: Authority) -> ssl.SSLContext:
    return client_of(root)


def by_rename(folder: Path, new: Issued) -> None:
    new.write_pair(folder / "site.crt", folder / "site.key")


def in_place(folder: Path, new: Issued) -> None:
    (folder / "site.crt").write_bytes(new.chain)
    (folder / "site.key").write_bytes(new.key)


def key_first(folder: Path, new: Issued) -> None:
    replace_file(folder / "site.key", new.key)
    replace_file(folder / "site.crt", new.chain)


def into_one_file(folder: Path, new: Issued) -> None:
    """The key moves into the chain's file; the one beside it goes."""
    replace_file(folder / "site.crt", new.pem)
    (folder / "site.key").unlink()


@pytest.mark.parametrize("change", [by_rename, in_place, key_first, into_one_file])
def test_a_changed_pair_is_served_by_the_same_workers(
    place: Place, context: ssl.SSLContext, change: Callable[[Path, Issued], None]
) -> None:
    old = place.root.issue(NAME)
    by_rename(place.folder, old)
    place.certificates.append("site.crt")
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        workers = server.workers()
        assert served(server.port, context, NAME) == old.serial
        for _ in range(2 if change is not into_one_file else 1):
            new = place.root.issue(NAME)
            change(place.folder, new)
            wait_until_all_serve(server, context, NAME, new.serial)
        assert server.workers() == workers
        assert server.status()["generation"] == 1


@pytest.mark.parametrize("first", ["site.crt", "site.key"])
def test_half_a_pair_changes_nothing_until_the_other_half_is_there(
    place: Place, context: ssl.SSLContext, first: str
) -> None:
    old, new = place.root.issue(NAME), place.root.issue(NAME)
    by_rename(place.folder, old)
    place.certificates.append("site.crt")
    halves = {"site.crt": new.chain, "site.key": new.key}
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        replace_file(place.folder / first, halves.pop(first))
        server.wait_for_words(STAYS)
        assert served(server.port, context, NAME) == old.serial
        [(file, content)] = halves.items()
        replace_file(place.folder / file, content)
        wait_until_all_serve(server, context, NAME, new.serial)
        assert server.said().count(STAYS) == 1


def test_a_bad_file_is_told_once_and_the_old_one_stays(place: Place, context: ssl.SSLContext) -> None:
    old = place.site("site.pem", NAME)
    other = place.site("other.pem", "other.test")
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        (place.folder / "site.pem").write_bytes(old.pem[: len(old.pem) // 3])
        server.wait_for_words(STAYS)
        # Looked at again because of another file, it is still as bad, and needs no second word.
        for _ in range(2):
            other = place.root.issue("other.test")
            other.write(place.folder / "other.pem")
            wait_until_all_serve(server, context, "other.test", other.serial)
        assert served(server.port, context, NAME) == old.serial
        assert server.said().count(STAYS) == 1
        new = place.root.issue(NAME)
        new.write(place.folder / "site.pem")
        wait_until_all_serve(server, context, NAME, new.serial)


def test_a_relay_that_is_open_goes_on(place: Place, context: ssl.SSLContext) -> None:
    place.site("site.pem", NAME)
    pieces = [random.Random(number).randbytes(300_000) for number in range(4)]
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        workers = server.workers()
        with connect(server.port, context, name=NAME) as old:
            received = send_and_receive(old, pieces[0], len(pieces[0]))
            for piece in pieces[1:]:
                old.sendall(piece[:1000])  # on its way during the renewal
                new = place.root.issue(NAME)
                new.write(place.folder / "site.pem")
                wait_until_all_serve(server, context, NAME, new.serial)
                received += send_and_receive(old, piece[1000:], len(piece))
            finish(old)
        assert sha256(received) == sha256(b"".join(pieces))
        assert server.workers() == workers


def test_under_load_no_client_notices(place: Place, root: Authority, context: ssl.SSLContext) -> None:
    place.site("site.pem", NAME)
    failures: list[BaseException] = []
    over = threading.Event()
    with Recorder() as backend, place.server(backend.address, workers=2) as server:

        def keep_asking() -> None:
            mine = client_of(root)
            while not over.is_set():
                try:
                    served(server.port, mine, NAME)
                except (OSError, AssertionError) as error:
                    failures.append(error)

        threads = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                new = root.issue(NAME)
                new.write(place.folder / "site.pem")
                wait_until_all_serve(server, context, NAME, new.serial)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert server.status()["totals"]["handshakes_failed"] == 0
    assert failures == []


def test_a_kubernetes_secret_is_swapped(place: Place, context: ssl.SSLContext) -> None:
    """tls.crt is a link to ..data/tls.crt, and ..data one to a folder that is replaced."""
    mount = place.folder / "secret"
    mount.mkdir()

    def publish(number: int, issued: Issued) -> None:
        version = mount / f"..2024_{number}"
        version.mkdir()
        issued.write_pair(version / "tls.crt", version / "tls.key")
        replace_link(mount / "..data", version.name)

    publish(0, place.root.issue(NAME))
    for file in ("tls.crt", "tls.key"):
        (mount / file).symlink_to(f"..data/{file}")
    place.certificates.append({"chain": "secret/tls.crt", "key": "secret/tls.key"})
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        for number in (1, 2):
            new = place.root.issue(NAME)
            publish(number, new)
            shutil.rmtree(mount / f"..2024_{number - 1}")
            wait_until_all_serve(server, context, NAME, new.serial)
        assert STAYS not in server.said()


def test_links_into_an_archive_are_followed(place: Place, context: ssl.SSLContext) -> None:
    """As Let's Encrypt's clients keep them: live/NAME/*.pem, one link after the other."""
    archive, live = place.folder / "archive" / NAME, place.folder / "live" / NAME
    archive.mkdir(parents=True)
    live.mkdir(parents=True)

    def publish(number: int, issued: Issued) -> None:
        files = {"privkey": issued.key, "cert": issued.leaf, "fullchain": issued.chain}
        for file, content in files.items():
            replace_file(archive / f"{file}{number}.pem", content)
            replace_link(live / f"{file}.pem", f"../../archive/{NAME}/{file}{number}.pem")

    publish(1, place.root.issue(NAME))
    place.certificates.append({"chain": f"live/{NAME}/fullchain.pem", "key": f"live/{NAME}/privkey.pem"})
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        for number in (2, 3):
            new = place.root.issue(NAME)
            publish(number, new)
            wait_until_all_serve(server, context, NAME, new.serial)
        assert STAYS not in server.said()


def test_a_whole_folder_can_be_replaced_more_than_once(place: Place, context: ssl.SSLContext) -> None:
    certs = place.folder / "certs"
    certs.mkdir()
    place.root.issue(NAME).write(certs / "site.pem")
    place.certificates.append("certs")
    with Recorder() as backend, place.server(backend.address) as server:
        new = place.root.issue(NAME)
        other = place.folder / "certs.new"
        other.mkdir()
        new.write(other / "site.pem")
        certs.rename(place.folder / "certs.old")
        other.rename(certs)
        wait_until_all_serve(server, context, NAME, new.serial)
        new = place.root.issue(NAME)
        new.write(certs / "site.pem")
        wait_until_all_serve(server, context, NAME, new.serial)


def test_other_things_that_happen_in_the_folder_do_not_hold_it_up(
    place: Place, context: ssl.SSLContext
) -> None:
    """Something else writes there all the time: a log that is rotated, a monitor's files."""
    place.site("site.pem", NAME)
    over = threading.Event()

    def keep_writing() -> None:
        while not over.wait(0.05):
            (place.folder / "busy").write_bytes(b"")

    with Recorder() as backend, place.server(backend.address) as server:
        thread = threading.Thread(target=keep_writing)
        thread.start()
        try:
            new = place.root.issue(NAME)
            new.write(place.folder / "site.pem")
            wait_until_all_serve(server, context, NAME, new.serial)
        finally:
            over.set()
            thread.join()


def test_files_that_come_into_a_folder_are_served_and_those_that_go_are_not(
    place: Place, context: ssl.SSLContext
) -> None:
    certs = place.folder / "certs"
    certs.mkdir()
    first = place.root.issue("first.test", NAME)
    first.write(certs / "a.pem")
    place.certificates.append("certs")
    place.tls["unknown_name"] = "reject"
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        second = place.root.issue("second.test")
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            served(server.port, context, "second.test")
        second.write_pair(certs / "b.crt", certs / "b.key")
        wait_until(lambda: "renewed" in server.said(), "it is noticed", seconds=RENEWED_WITHIN)
        wait_until_all_serve(server, context, "second.test", second.serial)
        (certs / "b.crt").unlink()
        (certs / "b.key").unlink()

        def is_refused() -> bool:
            try:
                served(server.port, context, "second.test")
            except ssl.SSLError as error:
                return "unrecognized" in str(error).lower().replace("_", " ")
            return False

        wait_until(lambda: all(is_refused() for _ in range(12)), "it is gone", seconds=RENEWED_WITHIN)
        assert served(server.port, context, NAME) == first.serial
        # An empty folder is no wish to serve nothing.
        (certs / "a.pem").unlink()
        server.wait_for_words(STAYS)
        assert served(server.port, context, NAME) == first.serial


def test_a_file_that_openssl_refuses_does_not_hold_up_the_others(
    place: Place, context: ssl.SSLContext
) -> None:
    """A key of 1024 bits can be read, but not be used."""
    certs = place.folder / "certs"
    certs.mkdir()
    place.root.issue(NAME).write(certs / "site.pem")
    place.certificates.append("certs")
    with Recorder() as backend, place.server(backend.address) as server:
        place.root.issue("weak.test", rsa_bits=1024).write(certs / "weak.pem")
        server.wait_for_words(STAYS)
        for _ in range(2):
            new = place.root.issue(NAME)
            new.write(certs / "site.pem")
            wait_until_all_serve(server, context, NAME, new.serial)
        assert server.said().count(STAYS) == 1
