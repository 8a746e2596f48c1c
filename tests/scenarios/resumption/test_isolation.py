"""A session opens no door but its own: every pair of policy groups, every way to keep it."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from tests.scenarios.names.parties import Place, Recorder, client_of, finish
from tests.scenarios.resumption.visits import KINDS, by_worker, only, totals
from tests.support.clients import connect, exchange
from tests.support.pki import Authority, Issued, now, replace_file
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_until

# Four groups: two frontends that are open to all, and two rules for clients' certificates.
ELSEWHERE, OPEN, ONE, TWO = "elsewhere.test", "open.test", "one.test", "two.test"
GROUPS = [ELSEWHERE, OPEN, ONE, TWO]
PAIRS = list(itertools.permutations(GROUPS, 2))

NEVER_TWICE = 40  # tries: that none of them comes to the other of two workers will not happen


@dataclass
class Scene:
    place: Place
    server: Server
    root: Authority
    backends: dict[str, Recorder]
    own: dict[str, Issued]  # by the name where it opens
    contexts: dict[tuple[str, str], ssl.SSLContext] = field(default_factory=dict)

    def context(self, name: str, kind: str) -> ssl.SSLContext:
        """A client that may enter at `name`, and where all may."""
        if (name, kind) not in self.contexts:
            shows = self.own.get(name)
            context = client_of(self.root, shows=shows, folder=self.place.folder)
            self.contexts[name, kind] = only(context, kind)
        return self.contexts[name, kind]

    def port(self, name: str) -> int:
        frontend = self.server.values["frontend"][name == ELSEWHERE]
        return int(frontend["listen"][0].rpartition(":")[2])

    def come(
        self, name: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[bytes, bool, ssl.SSLSession | None]:
        """What a word at `name` brought: the answer, whether a session was resumed, and what it gave."""
        try:
            with connect(self.port(name), context, name=name, session=session) as client:
                reused = bool(client.session_reused)
                client.sendall(b"ping")
                answer = client.recv(4)
                kept = client.session
                if answer:
                    finish(client)
                return answer, reused, kept
        except (ssl.SSLError, ConnectionError):
            return b"", False, None

    def session_of(self, name: str, kind: str) -> tuple[ssl.SSLSession, int]:
        """A session made at `name`, and the worker that made it."""
        before = by_worker(self.server, "accepted")
        answer, _, session = self.come(name, self.context(name, kind))
        assert answer == b"ping"
        assert session is not None
        return session, self.who_was_met(before)

    def who_was_met(self, before: dict[int, int]) -> int:
        [pid] = [
            pid
            for pid, count in by_worker(self.server, "accepted").items()
            if count > before.get(pid, 0)
        ]
        return pid


def scene_of(folder: Path, root: Authority, *, with_tickets: bool) -> Iterator[Scene]:
    place = Place(folder, root)
    first, second = Authority("first CA of clients"), Authority("second CA of clients")
    place.site("open.pem", OPEN)
    place.site("one.pem", ONE)
    place.site("two.pem", TWO)
    place.host(ONE, client_auth="required", client_ca=place.write("one.ca", first.pem), cluster="one")
    place.host(TWO, client_auth="required", client_ca=place.write("two.ca", second.pem), cluster="two")
    elsewhere = str(root.issue(ELSEWHERE).write(folder / "elsewhere.pem"))
    with Recorder() as open_, Recorder() as one, Recorder() as two:
        place.clusters = {"one": [one.address], "two": [two.address]}
        server = place.server(
            open_.address,
            workers=2,
            log={"level": "info", "access": "off"},
            resumption={"tickets": with_tickets},
        )
        server.values["frontend"].append(
            {
                "name": "elsewhere",
                "listen": [f"127.0.0.1:{free_port()}"],
                "cluster": "main",
                "certificates": [elsewhere],
            }
        )
        with server:
            backends = {OPEN: open_, ELSEWHERE: open_, ONE: one, TWO: two}
            own = {ONE: first.client("first"), TWO: second.client("second")}
            yield Scene(place, server, root, backends, own)


@pytest.fixture(scope="module", params=[True, False], ids=["tickets", "no tickets"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = Authority("servers' root")
    yield from scene_of(tmp_path_factory.mktemp("scene"), root, with_tickets=request.param)


def cross(scene: Scene, made: str, used: str, kind: str, session: ssl.SSLSession) -> int:
    """Show a session of one group in another, by who may enter the first; the worker that was met."""
    backend = scene.backends[used]
    came, before = backend.accepted, by_worker(scene.server, "accepted")
    answer, reused, _ = scene.come(used, scene.context(made, kind), session)
    assert not reused or answer == b""
    if used in scene.own:
        assert answer == b""
        assert backend.accepted == came
    else:
        assert answer == b"ping", "by a full handshake all may enter"
        assert not reused
    return scene.who_was_met(before)


@pytest.mark.parametrize("kind", KINDS)
def test_no_session_is_accepted_in_another_group(scene: Scene, kind: str) -> None:
    """Each ordered pair, at the worker that made it, at the other one, and after a reload: 36 each."""
    crossings = 0
    kept: dict[tuple[str, str], ssl.SSLSession] = {}
    for made, used in PAIRS:
        met: set[bool] = set()
        for _ in range(NEVER_TWICE):
            session, maker = scene.session_of(made, kind)
            is_same = cross(scene, made, used, kind, session) == maker
            crossings += is_same not in met
            met.add(is_same)
            if len(met) == 2:
                break
        kept[made, used] = session
    reload(scene.server)
    for (made, used), session in kept.items():
        cross(scene, made, used, kind, session)
        crossings += 1
    assert crossings == 36
    misses = totals(scene.server)["resumption_misses"]
    assert misses.get("other_group", 0) + misses.get("evicted", 0) > 0


def reload(server: Server) -> None:
    assert server.reload(new_workers=True)["ok"]
    wait_until(lambda: len(server.status()["workers"]) == 2, "the old workers are gone")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GROUPS)
def test_within_its_group_a_session_is_resumed_everywhere(scene: Scene, name: str, kind: str) -> None:
    context = scene.context(name, kind)
    session, maker = scene.session_of(name, kind)
    met = set()
    for _ in range(NEVER_TWICE):
        before = by_worker(scene.server, "accepted")
        answer, reused, new = scene.come(name, context, session)
        assert (answer, reused) == (b"ping", True)
        session = new or session
        met.add(scene.who_was_met(before) == maker)
        if len(met) == 2:
            break
    assert met == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_reload_sessions_are_still_resumed_within_their_groups(scene: Scene, kind: str) -> None:
    kept = {name: scene.session_of(name, kind)[0] for name in GROUPS}
    reload(scene.server)
    for name, session in kept.items():
        answer, reused, _ = scene.come(name, scene.context(name, kind), session)
        assert (answer, reused) == (b"ping", True)


# A client's certificate that is no longer good.


@dataclass
class Closed:
    """A name for which clients need a certificate that is in no CRL."""

    server: Server
    backend: Recorder
    root: Authority
    clients: Authority
    crl: Path

    def enter(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[bool, ssl.SSLSession | None]:
        """Whether the backend's answer came."""
        try:
            with connect(self.server.port, context, name=ONE, session=session) as client:
                answer = exchange(client)
                kept = client.session
                if answer:
                    finish(client)
                return answer == b"ping", kept
        except (ssl.SSLError, ConnectionError):
            return False, None


@pytest.fixture(params=[True, False], ids=["tickets", "no tickets"])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Closed]:
    root, clients = Authority("servers' root"), Authority("clients' root")
    place = Place(tmp_path, root)
    place.site("open.pem", OPEN, ONE)
    crl = replace_file(tmp_path / "clients.crl", clients.revoke())
    ca = place.write("clients.ca", clients.pem)
    place.host(ONE, client_auth="required", client_ca=ca, client_crl=str(crl))
    with (
        Recorder() as backend,
        place.server(backend.address, workers=2, resumption={"tickets": request.param}) as server,
    ):
        yield Closed(server, backend, root, clients, crl)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_was_revoked_since_is_refused_when_its_session_comes(
    closed: Closed, tmp_path: Path, kind: str
) -> None:
    gone, good = closed.clients.client("gone"), closed.clients.client("good")
    contexts = [only(client_of(closed.root, shows=own, folder=tmp_path), kind) for own in (gone, good)]
    sessions = []
    for context in contexts:
        entered, session = closed.enter(context)
        assert entered
        assert closed.enter(context, session)[0], "it is resumed, or made anew"
        sessions.append(session)
    replace_file(closed.crl, closed.clients.revoke(gone))
    closed.server.wait_for_words("renewed client CAs or CRLs")
    orders = "until every worker has been told"
    wait_until(lambda: not any(closed.enter(contexts[0])[0] for _ in range(12)), orders)
    came = closed.backend.accepted
    for _ in range(12):
        assert not closed.enter(contexts[0], sessions[0])[0]
    assert closed.backend.accepted == came
    assert closed.enter(contexts[1], sessions[1])[0]


def test_a_certificate_that_has_expired_since_is_refused_when_its_session_comes(
    closed: Closed, tmp_path: Path
) -> None:
    short = closed.clients.client("short", not_after=now() + timedelta(seconds=2))
    contexts = [only(client_of(closed.root, shows=short, folder=tmp_path), kind) for kind in KINDS]
    kept = [closed.enter(context) for context in contexts]
    assert [entered for entered, _ in kept] == [True] * len(KINDS)
    over = short.certificate.not_valid_after_utc + timedelta(seconds=1)
    wait_until(lambda: now() >= over, "it has expired")
    came = closed.backend.accepted
    for context, (_, session) in zip(contexts, kept, strict=True):
        for _ in range(4):
            assert not closed.enter(context, session)[0]
    assert closed.backend.accepted == came
