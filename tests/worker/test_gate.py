"""Who gets in, by what the limits for each client say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from termproxy.config.schema import Limits
from termproxy.worker._client_table import Clients, ClientTable
from termproxy.worker.gate import Gate, Seat

NOW = 1000.0


@pytest.fixture
def clients() -> Iterator[Clients]:
    table = ClientTable(1, 100)
    yield Clients(table, 0, (), bytes(16))
    table.close()


def seat(gate: Gate, host: str = "192.0.2.1", *, may_tell: bool = False) -> Seat:
    entered = gate.enter(host, NOW, may_tell=may_tell)
    assert isinstance(entered, Seat), entered
    return entered


def test_without_limits_nothing_is_asked(clients: Clients) -> None:
    assert not Gate(clients, Limits()).is_on
    assert not Gate(None, Limits(connections_per_client=1)).is_on, "there is nothing to count with"


def test_a_client_at_its_limit_is_turned_away_until_one_of_its_connections_leaves(
    clients: Clients,
) -> None:
    gate = Gate(clients, Limits(connections_per_client=2))
    assert gate.is_on
    first = seat(gate)
    seat(gate)
    assert gate.enter("192.0.2.1", NOW, may_tell=False) == "connections_per_client"
    assert gate.enter("192.0.2.1", NOW, may_tell=False) == "connections_per_client"
    seat(gate, "192.0.2.2")
    gate.leave(first)
    seat(gate)


def test_a_little_over_the_limit_a_client_is_seated_to_be_told(clients: Clients) -> None:
    gate = Gate(clients, Limits(connections_per_client=1))
    assert not seat(gate, may_tell=True).is_over
    assert seat(gate, may_tell=True).is_over
    assert gate.enter("192.0.2.1", NOW, may_tell=True) == "connections_per_client"


def test_who_has_no_address_has_no_limit(clients: Clients) -> None:
    gate = Gate(clients, Limits(connections_per_client=1, handshakes_per_client=1))
    for _ in range(3):
        assert gate.enter("", NOW, may_tell=False) is None
        assert gate.may_begin(None, NOW, resumes=False)


def test_handshakes_of_a_client_are_limited_and_resumed_ones_cost_less(clients: Clients) -> None:
    gate = Gate(clients, Limits(handshakes_per_client=2))
    mine = seat(gate)
    assert mine.place is None, "its connections are not counted"
    assert gate.may_begin(mine, NOW, resumes=False)
    assert gate.may_begin(mine, NOW, resumes=True)
    assert not gate.may_begin(mine, NOW, resumes=False)
    assert gate.may_begin(mine, NOW, resumes=True)
    assert gate.may_begin(mine, NOW, resumes=True)
    assert gate.enter("192.0.2.1", NOW, may_tell=False) == "handshakes_per_client"
    assert gate.may_begin(seat(gate, "192.0.2.2"), NOW, resumes=False)
    assert gate.may_begin(mine, NOW + 2.0, resumes=False)


def test_a_handshake_that_was_to_resume_and_did_not_costs_the_whole(clients: Clients) -> None:
    gate = Gate(clients, Limits(handshakes_per_client=1))
    mine = seat(gate)
    assert gate.may_begin(mine, NOW, resumes=True)
    gate.was_full(mine, NOW)
    assert gate.enter("192.0.2.1", NOW, may_tell=False) == "handshakes_per_client"


def test_limits_that_change_hold_at_once(clients: Clients) -> None:
    gate = Gate(clients, Limits(connections_per_client=1))
    old = seat(gate)
    gate.use(Limits())
    assert not gate.is_on
    gate.leave(old)
    gate.use(Limits(connections_per_client=1))
    seat(gate)
