"""The order in which servers are tried."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.backends.balancing import (
    BALANCINGS,
    CLIENTS_REMEMBERED,
    ClientHash,
    LeastConnections,
    RandomTwo,
    RoundRobin,
)


class Place:
    """A server with nothing but a name and what it has to do."""

    def __init__(self, name: str, busy: int = 0) -> None:
        self.name = name
        self.busy = busy

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def active(self) -> int:
        return self.busy


def places(count: int) -> list[Place]:
    return [Place(f"10.0.0.{number}:80") for number in range(count)]


def balancing(kind: Any, weights: Sequence[float], *arguments: Any) -> tuple[list[Place], Any]:
    """As many places as weights, and what balances them."""
    servers, made = places(len(weights)), kind(*arguments)
    made.use(servers, weights)
    return servers, made


def first(made: Any, client: bytes = b"") -> Place:
    chosen: Place = next(made.order(client))
    return chosen


def shares(made: Any, count: int) -> Counter[str]:
    return Counter(str(first(made)) for _ in range(count))


def client(number: int) -> bytes:
    return b"192.0.%d.%d" % divmod(number, 256)


WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)


# All of them.


@pytest.mark.parametrize("name", BALANCINGS)
def test_with_no_server_there_is_no_order(name: str) -> None:
    made = BALANCINGS[name](0)
    made.use([], [])

    assert list(made.order(b"x")) == []


@settings(deadline=None)
@given(name=st.sampled_from(sorted(BALANCINGS)), weights=WEIGHTS, who=st.binary(max_size=16))
def test_every_order_has_every_server_once(name: str, weights: list[int], who: bytes) -> None:
    servers = places(len(weights))
    made = BALANCINGS[name](3)
    made.use(servers, weights)

    for _ in range(5):
        assert sorted(map(str, made.order(who))) == sorted(map(str, servers))


@pytest.mark.parametrize("name", BALANCINGS)
def test_an_order_that_is_not_read_to_its_end_disturbs_no_other(name: str) -> None:
    servers = places(3)
    made = BALANCINGS[name](0)
    made.use(servers, [1, 2, 3])
    begun = made.order(b"x")
    next(begun)

    assert len(list(made.order(b"y"))) == 3
    assert len(list(begun)) == 2


@pytest.mark.parametrize("name", BALANCINGS)
def test_what_is_used_may_change_at_any_time(name: str) -> None:
    made = BALANCINGS[name](5)
    for count in (3, 1, 0, 4, 2):
        servers = places(count)
        made.use(servers, [1 + n % 2 for n in range(count)])
        for _ in range(4):
            assert {str(server) for server in made.order(b"x")} == {str(server) for server in servers}


# In turn.


def test_each_connection_begins_with_the_next_server() -> None:
    (a, b, c), made = balancing(RoundRobin, [1, 1, 1])

    assert [list(made.order(b"")) for _ in range(4)] == [[a, b, c], [b, c, a], [c, a, b], [a, b, c]]


def test_a_heavy_server_s_turns_are_spread() -> None:
    _, made = balancing(RoundRobin, [5, 1, 1])

    assert "".join(first(made).name[7] for _ in range(14)) == "00102000010200"


@settings(deadline=None)
@given(weights=WEIGHTS, begin=st.integers(0, 300), rounds=st.integers(1, 3))
def test_in_a_whole_round_each_has_as_many_turns_as_its_weight(
    weights: list[int], begin: int, rounds: int
) -> None:
    servers, made = balancing(RoundRobin, weights, begin)
    whole = len(weights) if len(set(weights)) == 1 else sum(weights)
    turns = shares(made, rounds * whole)

    each = [1] * len(weights) if len(set(weights)) == 1 else weights
    assert [turns[str(server)] for server in servers] == [rounds * weight for weight in each]


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3]])
def test_workers_begin_with_different_servers(weights: list[int]) -> None:
    """With one connection each they would all use the first server."""
    begun = {str(first(balancing(RoundRobin, weights, begin)[1])) for begin in range(6)}

    assert len(begun) == 3


def test_turns_go_on_where_they_were_when_a_weight_changes() -> None:
    """A server that comes back slowly changes its weight all the time."""
    servers, made = balancing(RoundRobin, [4, 1])
    turns = Counter[str]()
    for step in range(100):
        made.use(servers, [4, 1 + step / 100])
        turns[str(first(made))] += 1

    assert 25 <= turns[str(servers[1])] <= 29


# Least connections.


def test_the_server_with_the_least_to_do_comes_first() -> None:
    servers, made = balancing(LeastConnections, [1, 1, 1])
    for server, busy in zip(servers, [3, 0, 2], strict=True):
        server.busy = busy

    for _ in range(4):
        assert [server.busy for server in made.order(b"")] == [0, 2, 3]


def test_those_with_the_same_to_do_come_in_turn() -> None:
    servers, made = balancing(LeastConnections, [1, 1, 1])

    assert shares(made, 9) == {str(server): 3 for server in servers}


@settings(deadline=None)
@given(weights=WEIGHTS)
def test_connections_that_stay_are_shared_by_weight(weights: list[int]) -> None:
    servers, made = balancing(LeastConnections, weights)
    for _ in range(10 * sum(weights)):
        first(made).busy += 1

    for server, weight in zip(servers, weights, strict=True):
        assert abs(server.busy - 10 * weight) <= 1


# Of two at random.


def test_the_busier_of_two_comes_second() -> None:
    (a, b), made = balancing(RandomTwo, [1, 1])
    a.busy = 1

    assert {tuple(made.order(b"")) for _ in range(20)} == {(b, a)}


def test_the_busiest_of_many_is_never_the_first() -> None:
    servers, made = balancing(RandomTwo, [1] * 5, random.Random(7).random)
    servers[3].busy = 9

    assert str(servers[3]) not in shares(made, 500)


def test_what_is_drawn_follows_the_weights() -> None:
    """Connections that end at once: the weights alone decide who is drawn, and wins."""
    servers, made = balancing(RandomTwo, [3, 1, 1, 1], random.Random(7).random)
    drawn = shares(made, 4000)

    assert drawn[str(servers[0])] > 2 * max(drawn[str(server)] for server in servers[1:])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_two_choices_keep_connections_even(seed: int) -> None:
    servers, made = balancing(RandomTwo, [1] * 10, random.Random(seed).random)
    for _ in range(1000):
        first(made).busy += 1

    assert max(server.busy for server in servers) - min(server.busy for server in servers) <= 20


# By client.


def test_a_client_stays_with_its_server() -> None:
    _, made = balancing(ClientHash, [1] * 5)
    orders = [list(made.order(client(1))) for _ in range(3)]

    assert orders[0] == orders[1] == orders[2]


def test_every_worker_and_every_start_chooses_alike() -> None:
    """Nothing in it is random, or counts; and the order in the configuration does not matter."""
    servers = places(4)
    one, other = ClientHash[Place](), ClientHash[Place]()
    one.use(servers, [1, 2, 3, 4])
    other.use(servers[::-1], [4, 3, 2, 1])

    for number in range(200):
        assert list(one.order(client(number))) == list(other.order(client(number)))


@settings(deadline=None, max_examples=20)
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_clients_are_shared_by_weight(weights: list[int]) -> None:
    servers, made = balancing(ClientHash, weights)
    chosen = Counter(str(first(made, client(number))) for number in range(4000))

    for server, weight in zip(servers, weights, strict=True):
        share = weight / sum(weights)
        assert abs(chosen[str(server)] / 4000 - share) < 0.15 * share + 0.01


@settings(deadline=None, max_examples=20)
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=6), gone=st.integers(0, 5))
def test_a_server_that_goes_moves_its_own_clients_and_no_other(weights: list[int], gone: int) -> None:
    gone %= len(weights)
    servers, made = balancing(ClientHash, weights)
    before = [list(made.order(client(number))) for number in range(500)]
    left = [server for server in servers if server is not servers[gone]]
    made.use(left, [weight for at, weight in enumerate(weights) if at != gone])

    for number, order in enumerate(before):
        order.remove(servers[gone])
        assert list(made.order(client(number))) == order


def test_what_is_remembered_of_clients_is_bounded() -> None:
    _, made = balancing(ClientHash, [1, 1, 1])
    before = [first(made, client(number)) for number in range(3 * CLIENTS_REMEMBERED)]

    assert len(made._known) <= CLIENTS_REMEMBERED
    assert [first(made, client(number)) for number in range(100)] == before[:100]
