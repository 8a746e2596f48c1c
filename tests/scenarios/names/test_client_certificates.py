"""A name that demands client certificates lets nobody else in, and not one byte of theirs.

The frontend demands none, so each of these could fail open: by its name's context not being in force,
by a session from elsewhere, by a file that is not what it should be.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.scenarios.names.parties import (
    VERSIONS,
    Place,
    Recorder,
    attempt,
    client_of,
    session_of,
)
from tests.support.pki import SERVER, Authority, Issued, now, self_signed_client
from tests.support.server import Server

OPEN, CLOSED, OPTIONAL, DEEP = "open.test", "closed.test", "optional.test", "deep.test"


@dataclass
class Scene:
    """A server, what its backends received, and clients of every kind."""

    server: Server
    open: Recorder
    closed: Recorder
    root: Authority
    shown: dict[str, Issued | None]
    folder: Path


@pytest.fixture(scope="module")
def scene(module_place: Place, root: Authority, clients: Authority) -> Iterator[Scene]:
    place = module_place
    below = clients.intermediate("clients' intermediate")
    further = below.intermediate("clients' second intermediate")
    shown: dict[str, Issued | None] = {
        "none": None,
        "good": clients.client("good"),
        "wrong CA": Authority("clients' root").client("good"),  # the right name, and another key
        "expired": clients.client("expired", not_after=now() - timedelta(minutes=1)),
        "not yet valid": clients.client("early", not_before=now() + timedelta(hours=1)),
        "revoked": clients.client("revoked"),
        "wrong EKU": clients.client("a server", usage=SERVER),
        "self-signed": self_signed_client("myself"),
        "one below": below.client("one below"),
        "depth exceeded": further.client("two below"),
    }
    revoked = shown["revoked"]
    assert revoked is not None
    ca = place.write("clients.ca", clients.pem)
    crls = clients.revoke(revoked), below.revoke(), further.revoke()
    policy = {
        "client_ca": ca,
        "client_crl": place.write("clients.crl", *crls),
        "client_depth": 1,
        "cluster": "closed",
    }
    place.site("site.pem", OPEN, CLOSED, OPTIONAL, DEEP)
    place.host(CLOSED, client_auth="required", **policy)
    place.host(OPTIONAL, client_auth="optional", **policy)
    with Recorder() as open_, Recorder() as closed:
        place.clusters["closed"] = [closed.address]
        with place.server(open_.address, log={"level": "info"}) as server:
            yield Scene(server, open_, closed, root, shown, place.folder)


BAD = ["wrong CA", "expired", "not yet valid", "revoked", "wrong EKU", "self-signed", "depth exceeded"]


def the_word_does_not_arrive(
    scene: Scene, name: str, shows: str, version: ssl.TLSVersion, *, resumed: bool
) -> None:
    context = client_of(scene.root, version, shows=scene.shown[shows], folder=scene.folder)
    # The only session such a client can have is one of a name where nothing is demanded.
    session = session_of(scene.server.port, context, OPEN) if resumed else None
    came, received = scene.closed.accepted, bytes(scene.closed.received)
    answer, line = attempt(scene.server, context, name, session)
    assert answer == b""
    assert line["fault"] == "client"
    assert "backend" not in line
    assert line["bytes_from_client"] == 0
    assert scene.closed.accepted == came
    assert bytes(scene.closed.received) == received


@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shows", ["none", *BAD])
def test_without_a_good_certificate_nothing_reaches_the_backend(
    scene: Scene, shows: str, version: ssl.TLSVersion, *, resumed: bool
) -> None:
    the_word_does_not_arrive(scene, CLOSED, shows, version, resumed=resumed)


@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shows", BAD)
def test_where_none_is_needed_a_bad_one_is_still_refused(
    scene: Scene, shows: str, version: ssl.TLSVersion, *, resumed: bool
) -> None:
    the_word_does_not_arrive(scene, OPTIONAL, shows, version, resumed=resumed)


@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "shows"),
    [(CLOSED, "good"), (CLOSED, "one below"), (OPTIONAL, "good"), (OPTIONAL, "none")],
)
def test_who_may_come_in_does_and_may_come_back(
    scene: Scene, name: str, shows: str, version: ssl.TLSVersion, *, resumed: bool
) -> None:
    own = scene.shown[shows]
    context = client_of(scene.root, version, shows=own, folder=scene.folder)
    session = session_of(scene.server.port, context, name) if resumed else None
    answer, line = attempt(scene.server, context, name, session)
    assert answer == b"a word for the backend"
    assert line["resumed"] is resumed
    assert line["backend"] == scene.closed.address
    assert line.get("client_certificate") == (own.sha256 if own else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_name_decides_and_its_spelling_does_not(scene: Scene, version: ssl.TLSVersion) -> None:
    context = client_of(scene.root, version)
    context.check_hostname = False
    for spelling in ("CLOSED.TEST", "Closed.Test.", "closed.test."):
        came = scene.closed.accepted
        answer, line = attempt(scene.server, context, spelling)
        assert answer == b""
        assert line["ended"] == "no_client_certificate"
        assert scene.closed.accepted == came


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chain_as_long_as_a_book_is_refused(
    scene: Scene, clients: Authority, version: ssl.TLSVersion
) -> None:
    """What is sent before anything is proven must not cost memory: 100 KiB are OpenSSL's limit."""
    good = clients.client("good")
    context = client_of(
        scene.root, version, shows=replace(good, rest=(clients.certificate,) * 400), folder=scene.folder
    )
    came = scene.closed.accepted
    answer, line = attempt(scene.server, context, CLOSED)
    assert (answer, line["fault"]) == (b"", "client")
    assert scene.closed.accepted == came


def test_the_log_says_why(scene: Scene) -> None:
    for shows, words in [
        ("none", "showed no certificate"),
        ("expired", "certificate has expired"),
        ("revoked", "certificate revoked"),
        ("not yet valid", "not yet valid"),
    ]:
        context = client_of(scene.root, shows=scene.shown[shows], folder=scene.folder)
        _, line = attempt(scene.server, context, CLOSED)
        assert words in line["detail"]
        assert line["alert_from"] == "proxy"
