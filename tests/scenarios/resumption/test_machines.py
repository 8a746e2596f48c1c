"""Two machines with one ring: a client of the one is known at the other, and they turn alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import write_site
from tests.scenarios.resumption.visits import (
    KINDS,
    client_of,
    issuing,
    keys,
    server_in,
    told,
    visit,
)
from tests.support.backends import Backend
from tests.support.command import termproxy
from tests.support.server import Server, settings
from tests.support.waiting import wait_until

TICKETS = [kind for kind in KINDS if "ticket" in kind]
ROTATE = 1

Machines = tuple[Server, Server]


@pytest.fixture
def machines(ca: trustme.CA, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machines]:
    """Two servers of one site, with the same settings and no file in common; a parameter is `rotate`."""
    site = write_site(ca, tmp_path / "site.pem")
    rotate = getattr(request, "param", ROTATE)
    resumption = {"lifetime": 20 * rotate, "rotate": rotate}
    with Backend() as backend:
        here, there = (
            server_in(tmp_path / name, settings(site, [backend.address], resumption=resumption))
            for name in ("here", "there")
        )
        with here, there:
            yield here, there


@pytest.fixture
def sealing_key(tmp_path: Path) -> Path:
    file = tmp_path / "sealing.key"
    file.write_bytes(os.urandom(32))
    return file


def bring_over(here: Server, there: Server, sealing_key: Path) -> None:
    ring = here.folder / "ring"
    for server, verb in ((here, "export"), (there, "import")):
        options = ["--control", str(server.control), "--key-file", str(sealing_key)]
        result = termproxy("tickets", verb, *options, str(ring))
        assert result.returncode == 0, result.stderr
    ring.unlink()


@pytest.mark.parametrize("kind", TICKETS)
def test_a_session_of_one_machine_is_resumed_at_the_other(
    machines: Machines, ca: trustme.CA, sealing_key: Path, kind: str
) -> None:
    here, there = machines
    context = client_of(ca, kind)
    of_here, of_there = (visit(server.port, context).session for server in machines)
    assert not visit(there.port, context, of_here).resumed, "before it the other is a stranger"
    bring_over(here, there, sealing_key)
    assert visit(there.port, context, of_here).resumed
    assert visit(there.port, context, of_there).resumed, "what it has given itself still is good"
    assert not visit(here.port, context, of_there).resumed
    for server, other in (machines, machines[::-1]):
        session = visit(server.port, context).session
        assert visit(other.port, context, session).resumed


def test_both_rotate_to_the_same_keys_at_the_same_times(
    machines: Machines, ca: trustme.CA, sealing_key: Path
) -> None:
    here, there = machines
    bring_over(here, there, sealing_key)
    schedules: list[dict[str, tuple[int, int]]] = [{}, {}]
    first = issuing(here)

    def look() -> bool:
        for server, schedule in zip(machines, schedules, strict=True):
            for key in told(server)["keys"]:
                if key["role"] in {"issuing", "next"}:
                    schedule[key["id"]] = key["issue_from"], key["issue_until"]
        return first not in keys(here)[-4:] and issuing(here) == issuing(there)

    wait_until(look, "keys have turned twice", poll=0.05)
    shared = [schedule for name, schedule in schedules[0].items() if name in schedules[1]]
    assert len(shared) >= 4
    assert all(schedules[1].get(name, when) == when for name, when in schedules[0].items())
    context = client_of(ca, "1.3 ticket")
    session = visit(here.port, context).session
    assert visit(there.port, context, session).resumed


@pytest.mark.parametrize("machines", [60], indirect=True, ids=["by_nothing_else"])
def test_rotating_one_by_hand_leaves_both_knowing_each_others_clients(
    machines: Machines, ca: trustme.CA, sealing_key: Path
) -> None:
    """What the one issues with now is the other's next key."""
    here, there = machines
    bring_over(here, there, sealing_key)
    context = client_of(ca, "1.3 ticket")
    told(here, "rotate")
    for server, other in (machines, machines[::-1]):
        session = visit(server.port, context).session
        assert visit(other.port, context, session).resumed


def test_a_ring_that_was_brought_over_is_kept_over_a_restart(
    ca: trustme.CA, tmp_path: Path, sealing_key: Path
) -> None:
    site = write_site(ca, tmp_path / "site.pem")
    context = client_of(ca, "1.3 ticket")
    with Backend() as backend:
        values = settings(site, [backend.address], state_dir="state", resumption={"persist": True})
        other_values = settings(site, [backend.address])
        here, there = server_in(tmp_path / "here", other_values), server_in(tmp_path / "there", values)
        with here:
            session = visit(here.port, context).session
            with there:
                bring_over(here, there, sealing_key)
            with there:
                assert visit(there.port, context, session).resumed
