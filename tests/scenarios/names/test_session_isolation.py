"""A session opens no door that a full handshake would not: CVE-2025-23419, CVE-2025-23048.

And the reverse, which one server's mending of it broke: within a group sessions are resumed.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from tests.scenarios.names.parties import (
    TLS_1_2,
    VERSIONS,
    Place,
    Recorder,
    attempt,
    client_of,
    finish,
    session_of,
    wait_until_all_serve,
)
from tests.support.clients import connect, exchange
from tests.support.pki import Authority, Issued, now
from tests.support.server import Server
from tests.support.waiting import wait_until

OPEN, ALSO_OPEN, ONE, TWO = "open.test", "also.open.test", "one.test", "two.test"
NAMES = [OPEN, ALSO_OPEN, ONE, TWO]
GROUPS = {OPEN: 0, ALSO_OPEN: 0, ONE: 1, TWO: 2}

TRIES = 6  # by chance none of them comes to the other of two workers: one run in 32


@dataclass
class Scene:
    place: Place
    server: Server
    root: Authority
    backends: dict[str, Recorder]
    clients: dict[int, Issued]  # by the group that it may enter
    contexts: dict[tuple[int, ssl.TLSVersion], ssl.SSLContext] = field(default_factory=dict)

    def context(self, group: int, version: ssl.TLSVersion) -> ssl.SSLContext:
        """A client that may enter `group`, and the open names."""
        key = group, version
        if key not in self.contexts:
            own = self.clients.get(group)
            self.contexts[key] = client_of(self.root, version, shows=own, folder=self.place.folder)
        return self.contexts[key]


@pytest.fixture(scope="module")
def scene(module_place: Place, root: Authority) -> Iterator[Scene]:
    place = module_place
    first, second = Authority("first CA of clients"), Authority("second CA of clients")
    place.site("open.pem", OPEN, ALSO_OPEN)
    place.site("one.pem", ONE)
    place.site("two.pem", TWO)
    place.host(ALSO_OPEN, cluster="open")
    place.host(ONE, client_auth="required", client_ca=place.write("one.ca", first.pem), cluster="one")
    place.host(TWO, client_auth="required", client_ca=place.write("two.ca", second.pem), cluster="two")
    with Recorder() as open_, Recorder() as one, Recorder() as two:
        for name, backend in (("open", open_), ("one", one), ("two", two)):
            place.clusters[name] = [backend.address]
        with place.server(open_.address, workers=2, log={"level": "info"}) as server:
            backends = {OPEN: open_, ALSO_OPEN: open_, ONE: one, TWO: two}
            own = {1: first.client("first"), 2: second.client("second")}
            yield Scene(place, server, root, backends, own)


CROSSINGS = [
    (made, used) for made, used in itertools.permutations(NAMES, 2) if GROUPS[made] != GROUPS[used]
]


def cross(scene: Scene, made: str, used: str, version: ssl.TLSVersion) -> None:
    """Who may enter where the session was made, and (but for open names) not where it is used."""
    context = scene.context(GROUPS[made], version)
    backend = scene.backends[used]
    for _ in range(TRIES):
        session = session_of(scene.server.port, context, made)
        came = backend.accepted
        try:
            with connect(scene.server.port, context, name=used, session=session) as client:
                reused = client.session_reused
                client.sendall(b"ping")
                answer = client.recv(4)
                finish(client)
        except (ssl.SSLError, ConnectionError):
            reused, answer = False, b""
        if GROUPS[used]:
            assert answer == b""
            assert backend.accepted == came
        else:
            assert answer == b"ping"
            assert not reused


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("made", "used"), CROSSINGS)
def test_a_session_is_nothing_worth_in_another_group(
    scene: Scene, made: str, used: str, version: ssl.TLSVersion
) -> None:
    cross(scene, made, used, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("made", "used"), [(OPEN, OPEN), (ONE, ONE), (TWO, TWO), (OPEN, ALSO_OPEN)])
def test_within_a_group_it_is_resumed_at_every_worker(
    scene: Scene, made: str, used: str, version: ssl.TLSVersion
) -> None:
    context = scene.context(GROUPS[made], version)
    session = session_of(scene.server.port, context, made)
    for _ in range(TRIES):
        with connect(scene.server.port, context, name=used, session=session) as client:
            assert client.session_reused
            assert exchange(client) == b"ping"
            session = client.session or session
            finish(client)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_right_certificate_with_a_session_from_elsewhere_comes_in_by_a_full_handshake(
    scene: Scene, version: ssl.TLSVersion
) -> None:
    context = scene.context(1, version)
    session = session_of(scene.server.port, context, OPEN)
    answer, line = attempt(scene.server, context, ONE, session)
    assert answer
    assert line["resumed"] is False
    assert line["client_certificate"] == scene.clients[1].sha256


@pytest.mark.parametrize("version", VERSIONS)
def test_after_a_renewal_the_groups_are_as_far_apart_as_before(
    scene: Scene, version: ssl.TLSVersion
) -> None:
    """Of the first certificate (which all connections begin with), and of the demanding name's."""
    contexts = [scene.context(group, version) for group in range(3)]
    kept = {
        name: session_of(scene.server.port, contexts[GROUPS[name]], name) for name in (OPEN, ONE, TWO)
    }
    for file, *names in (("one.pem", ONE), ("open.pem", OPEN, ALSO_OPEN)):
        new = scene.root.issue(*names)
        new.write(scene.place.folder / file)
        wait_until_all_serve(scene.server, contexts[GROUPS[names[0]]], names[0], new.serial)
        for made, used in [(OPEN, ONE), (ONE, TWO), (TWO, ONE)]:
            came = scene.backends[used].accepted
            for session in (kept[made], session_of(scene.server.port, contexts[GROUPS[made]], made)):
                answer, _ = attempt(scene.server, contexts[GROUPS[made]], used, session)
                assert answer == b""
            assert scene.backends[used].accepted == came
        cross(scene, OPEN, ONE, version)
        for name in (OPEN, ONE, TWO):
            answer, _ = attempt(scene.server, contexts[GROUPS[name]], name, kept[name])
            assert answer, "a session from before the renewal does no harm where it was made"


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed_at_every_worker_after_a_renewal_too(
    scene: Scene, version: ssl.TLSVersion
) -> None:
    new = scene.root.issue(OPEN, ALSO_OPEN)
    new.write(scene.place.folder / "open.pem")
    context = scene.context(0, version)
    wait_until_all_serve(scene.server, context, OPEN, new.serial)
    session = session_of(scene.server.port, context, OPEN)
    for _ in range(24):
        with connect(scene.server.port, context, name=OPEN, session=session) as client:
            exchange(client)
            assert client.session_reused
            finish(client)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_does_not_outlive_the_clients_certificate(
    place: Place, root: Authority, clients: Authority, version: ssl.TLSVersion
) -> None:
    place.site("site.pem", OPEN, ONE)
    place.host(ONE, client_auth="required", client_ca=place.write("clients.ca", clients.pem))
    short = clients.client("short", not_after=now() + timedelta(seconds=2))
    context = client_of(root, version, shows=short, folder=place.folder)
    with Recorder() as backend, place.server(backend.address) as server:
        session = session_of(server.port, context, ONE)
        came = backend.accepted
        wait_until(
            lambda: now() >= short.certificate.not_valid_after_utc + timedelta(seconds=1), "expiry"
        )
        answer, line = attempt(server, context, ONE, session)
        assert answer == b""
        assert "backend" not in line
        assert backend.accepted == came


def test_a_session_does_not_carry_a_cipher_to_a_name_that_has_it_not(
    place: Place, root: Authority
) -> None:
    """A TLS 1.2 session brings its cipher along; a host's own policy should hold from the first byte."""
    place.site("site.pem", OPEN, ONE)
    place.host(ONE, ciphers=["ECDHE-ECDSA-CHACHA20-POLY1305"])
    context = client_of(root, TLS_1_2)
    with Recorder() as backend, place.server(backend.address) as server:
        session = session_of(server.port, context, OPEN)
        answer, line = attempt(server, context, ONE, session)
        assert answer
        assert line["cipher"] == "ECDHE-ECDSA-CHACHA20-POLY1305"
