"""The order in which servers are tried."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.address import parse_address
from termproxy.backends.balancing import RoundRobin
from termproxy.backends.server import Server


def servers(count: int) -> list[Server]:
    return [Server(parse_address(f"127.0.0.1:{port}")) for port in range(1, count + 1)]


def test_each_connection_begins_with_the_next_server() -> None:
    a, b, c = servers(3)
    balancing = RoundRobin([a, b, c])

    assert [list(balancing.candidates()) for _ in range(4)] == [
        [a, b, c],
        [b, c, a],
        [c, a, b],
        [a, b, c],
    ]


def test_an_order_once_given_is_not_changed_by_the_next() -> None:
    a, b = servers(2)
    balancing = RoundRobin([a, b])
    first, second = balancing.candidates(), balancing.candidates()

    assert (list(second), list(first)) == ([b, a], [a, b])


@settings(deadline=None)
@given(count=st.integers(1, 8), begin=st.integers(0, 1000), rounds=st.integers(1, 5))
def test_round_robin_is_fair_wherever_it_begins(count: int, begin: int, rounds: int) -> None:
    all_servers = servers(count)
    balancing = RoundRobin(all_servers, begin=begin)
    orders = [list(balancing.candidates()) for _ in range(count * rounds)]

    assert orders[0][0] == all_servers[begin % count]
    assert all(sorted(map(str, order)) == sorted(map(str, all_servers)) for order in orders)
    for place in range(count):
        assert set(Counter(order[place] for order in orders).values()) == {rounds}
