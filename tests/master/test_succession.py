"""What a master does when it takes over from another; with real processes: scenarios/upgrade/."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master.arbiter import Arbiter
from termproxy.master.handover import Handover, PassedCache, encode
from termproxy.master.upgrade import VARIABLE, Talk
from termproxy.shm import memory_file
from termproxy.tls.context import SESSION_CACHE_LAYOUT


@pytest.fixture
def arbiter() -> Iterator[Arbiter]:
    """One that does not run."""
    made = Arbiter(lambda: None)  # type: ignore[arg-type,return-value]
    yield made
    if made.succession.predecessor is not None:
        made.succession.predecessor.close()
    made.selector.close()
    made._file_watch.close()


@pytest.fixture
def old() -> Iterator[socket.socket]:
    """The old master's end of the talk."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        theirs_number[0] = os.dup(theirs.fileno())
        yield ours


theirs_number = [0]


def left(**changes: object) -> dict[str, str]:
    """The environment of a master that is left this."""
    handover = Handover(
        pid=7,
        version="0.9",
        talk=theirs_number[0],
        started="2026-11-23T00:00:00+00:00",
        generation=4,
        pidfile="/run/pid",
        control="/run/control",
        **changes,  # type: ignore[arg-type]
    )
    encoded = encode(handover)
    fd = memory_file("handover", len(encoded))
    os.pwrite(fd, encoded, 0)
    return {VARIABLE: str(fd)}


def test_without_a_master_before_us_we_begin_anew(arbiter: Arbiter) -> None:
    assert not arbiter.succession.begin({})
    assert arbiter.succession.take_place()
    assert not arbiter.succession.has(Path("/run/pid"))


@pytest.mark.usefixtures("old")
def test_generations_count_on_and_the_start_stays(arbiter: Arbiter) -> None:
    assert arbiter.succession.begin(left())
    assert arbiter.next_number == 5
    assert arbiter.started.isoformat() == "2026-11-23T00:00:00+00:00"
    assert arbiter.succession.has(Path("/run/pid"))
    assert arbiter.succession.has(Path("/run/control"))
    assert not arbiter.succession.has(Path("/run/other"))


@pytest.mark.parametrize("changes", [{"ring": {"keys": "none"}}, {"servers": [{"cluster": "a"}]}])
def test_what_is_of_no_use_is_refused_and_the_old_master_hears_why(
    changes: dict[str, object], arbiter: Arbiter, old: socket.socket
) -> None:
    with pytest.raises(StartError, match="what the old master leaves is of no use"):
        arbiter.succession.begin(left(**changes))

    [said] = Talk(old).hear() or []
    assert "of no use" in said["failed"]


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(("layout", "size"), [(SESSION_CACHE_LAYOUT + 1, 1 << 20), (1, 100)])
def test_a_session_cache_of_another_form_is_left(layout: int, size: int, arbiter: Arbiter) -> None:
    fd = memory_file("sessions", size)
    assert arbiter.succession.begin(left(caches=[PassedCache(50, layout, fd)]))
    assert arbiter.stores.caches() == []
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.usefixtures("old")
def test_there_is_no_upgrade_before_we_serve_ourselves(arbiter: Arbiter) -> None:
    arbiter.succession.begin(left())
    assert "a generation is just starting" in str(arbiter.succession._may_not_upgrade())
    arbiter.supervisor.in_force = 5
    assert "process 7, of the upgrade before, still drains 0" in str(
        arbiter.succession._may_not_upgrade()
    )
    arbiter.supervisor.stopping = True
    assert arbiter.succession._may_not_upgrade() == "it stops"
