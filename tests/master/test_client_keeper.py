"""Each generation's table of clients, and who sees it."""

from __future__ import annotations

from termproxy.config.schema import Limits
from termproxy.master.client_keeper import ClientKeeper

LIMITS = Limits(connections=100)


def test_a_worker_that_has_gone_leaves_nothing_counted() -> None:
    keeper = ClientKeeper()
    keeper.begin(1, LIMITS, 2)
    one, other = keeper.clients_of(1, 0), keeper.clients_of(1, 1)
    key = one.key_of("192.0.2.1")
    assert key is not None
    assert one.enter(key)[1] == 1
    assert other.enter(key)[1] == 2
    keeper.worker_has_gone(1, 0)

    assert other.enter(key)[1] == 2
    assert keeper.clients_of(1, 0).enter(key)[1] == 3, "its replacement writes where it has written"
    keeper.end(1)


def test_a_new_generation_sees_what_older_ones_have_open_until_they_end() -> None:
    keeper = ClientKeeper()
    keeper.begin(1, LIMITS, 1)
    old = keeper.clients_of(1, 0)
    key = old.key_of("2001:db8::1")
    assert key is not None
    old.enter(key)
    keeper.begin(2, LIMITS, 3)
    assert keeper.clients_of(2, 2).enter(key)[1] == 2
    assert old.enter(key)[1] == 2, "and not the reverse"
    keeper.end(1)
    assert keeper.clients_of(2, 0).enter(key)[1] == 2
    keeper.end(2)


def test_a_generation_that_never_began_can_be_ended() -> None:
    ClientKeeper().end(7)
