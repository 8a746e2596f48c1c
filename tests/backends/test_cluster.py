"""A named set of servers, as one worker sees it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from termproxy.address import Address, Name, parse_address
from termproxy.backends.board import Board, PlaceWord, ProbeWord, WishWord
from termproxy.backends.cluster import Cluster, Waiting, keys_of
from termproxy.backends.health import Health, Wish
from termproxy.backends.names import PLACES
from termproxy.backends.server import Server
from termproxy.config import schema
from termproxy.observability.scoreboard import NANOSECONDS

NOW = 1000.0


class Site:
    """A cluster `app` on a board, as each of some workers sees it."""

    def __init__(self, count: int, workers: int = 1, **settings: Any) -> None:
        limits = settings.pop("max_connections", 0)
        weights = settings.pop("weights", [1] * count)
        servers = tuple(
            schema.Server(parse_address(f"127.0.0.1:{port}"), weight, limits)
            for port, weight in enumerate(weights, 1)
        )
        self.settings = schema.Cluster(servers=servers, **settings)
        keys = [("other", "127.0.0.1:1"), *(("app", str(server)) for server in servers)]
        self.board = Board(keys, workers, is_shared=False)
        self.later: list[Callable[[], None]] = []
        self.clusters = [self._cluster(row) for row in range(workers)]
        self.cluster = self.clusters[0]

    def _cluster(self, row: int) -> Cluster:
        cluster = Cluster.of("app", self.settings)
        cluster.attach(self.board, row)
        cluster.run_soon(self.later.append)
        cluster.tick(NOW)
        return cluster

    def wish(self, number: int, wish: Wish, since: float = NOW) -> None:
        words = self.board.wish(number)
        words[WishWord.WISH], words[WishWord.SINCE] = wish, int(since * NANOSECONDS)
        self.board.wishes_changed()

    def find(self, number: int, health: Health, since: float = NOW) -> None:
        words = self.board.probe(number)
        words[ProbeWord.HEALTH] = health
        words[ProbeWord.RISEN] = int(since * NANOSECONDS) if health is Health.UP else 0
        self.board.probes_changed()

    def run_what_is_due(self) -> None:
        due, self.later[:] = list(self.later), []
        for each in due:
            each()


def names(cluster: Cluster, now: float = NOW, client: bytes = b"") -> list[int]:
    """The ports of the candidates."""
    return [int(str(server).rpartition(":")[2]) for server in cluster.candidates(now, client)]


def fail(cluster: Cluster, number: int, times: int, now: float = NOW) -> None:
    for _ in range(times):
        cluster.servers[number - 1].failed(now)


# Who is offered.


def test_a_cluster_offers_its_servers_in_turn() -> None:
    cluster = Cluster("app", [Server(parse_address(f"127.0.0.1:{port}")) for port in (1, 2)])

    assert cluster.name == "app"
    assert len(cluster.servers) == 2
    assert [next(iter(names(cluster))) for _ in range(4)] == [1, 2, 1, 2]


def test_workers_begin_with_different_servers() -> None:
    """With one connection each they would all use the first server."""
    site = Site(3, workers=4)

    assert [names(cluster)[0] for cluster in site.clusters] == [1, 2, 3, 1]


def test_weights_are_shares() -> None:
    site = Site(2, weights=[3, 1])

    assert Counter(names(site.cluster)[0] for _ in range(40)) == {1: 30, 2: 10}


def test_least_connections_counts_those_of_all_workers() -> None:
    site = Site(2, workers=2, balance="least_connections")
    site.clusters[0].servers[0].begin()

    assert {names(cluster)[0] for cluster in site.clusters for _ in range(4)} == {2}


def test_a_client_s_address_chooses_when_that_is_wanted() -> None:
    site = Site(3, balance="client_hash", workers=2)

    assert site.cluster.by_client
    assert not Site(3).cluster.by_client
    for client in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.3"):
        assert len({tuple(names(cluster, client=client)) for cluster in site.clusters}) == 1


def test_a_server_without_room_is_passed_over_until_it_has_some() -> None:
    site = Site(2, max_connections=1)
    offered = site.cluster.candidates(NOW)
    first = next(offered)
    for server in site.cluster.servers:
        if server is not first:
            server.begin()

    assert list(offered) == []  # looked at when its turn comes
    assert names(site.cluster) == names(site.cluster)
    first.begin()
    assert names(site.cluster) == []


# What others say, and when it is heard.


@pytest.mark.parametrize("wish", [Wish.DRAINING, Wish.DISABLED])
def test_the_operator_s_word_is_heard_at_once(wish: Wish) -> None:
    site = Site(2)
    assert sorted(names(site.cluster)) == [1, 2]
    site.wish(1, wish)
    assert names(site.cluster) == [2]
    site.wish(2, wish)
    assert names(site.cluster) == []
    site.wish(1, Wish.ENABLED)
    assert names(site.cluster) == [1]


def test_what_checks_find_is_heard_at_once() -> None:
    site = Site(2)
    site.find(1, Health.DOWN)
    assert names(site.cluster) == [2]
    site.find(1, Health.UP)
    assert sorted(names(site.cluster)) == [1, 2]


def test_who_finds_no_candidate_is_told_why() -> None:
    site = Site(4)
    site.find(1, Health.DOWN)
    site.find(2, Health.DOWN)
    site.wish(3, Wish.DRAINING)
    site.wish(4, Wish.DISABLED)

    assert names(site.cluster) == []
    assert not site.cluster.is_full(NOW)
    assert site.cluster.why_none() == (
        "no server of cluster app can be used: 1 disabled, 2 down, 1 draining"
    )


def test_a_server_that_comes_back_begins_slowly() -> None:
    site = Site(2, slow_start=10.0)
    site.find(1, Health.DOWN)
    assert names(site.cluster) == [2]
    site.find(1, Health.UP, since=NOW)
    early = Counter(names(site.cluster, NOW + 1)[0] for _ in range(110))
    late = Counter(names(site.cluster, NOW + 10)[0] for _ in range(100))

    assert 8 <= early[1] <= 12
    assert late[1] == 50


def test_a_server_that_the_operator_gives_back_begins_slowly_too() -> None:
    site = Site(2, slow_start=10.0)
    site.wish(1, Wish.ENABLED, since=NOW)

    assert Counter(names(site.cluster, NOW + 5)[0] for _ in range(90))[1] == 30


def test_at_the_start_nobody_begins_slowly() -> None:
    site = Site(2, slow_start=10.0)

    assert Counter(names(site.cluster)[0] for _ in range(10))[1] == 5


# Passive health.


def test_a_server_that_fails_in_a_row_is_ejected_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(2, passive=schema.Passive(failures=3, eject=10.0))
    fail(site.cluster, 1, 2)
    assert sorted(names(site.cluster)) == [1, 2]
    with caplog.at_level(logging.INFO):
        fail(site.cluster, 1, 1)
        assert names(site.cluster, NOW + 9.9) == [2]
        site.cluster.tick(NOW + 9.9)
        assert sorted(names(site.cluster, NOW + 10)) == [1, 2]
        site.cluster.tick(NOW + 10)
        site.cluster.tick(NOW + 11)

    assert caplog.messages == [
        "cluster app: server 127.0.0.1:1 is ejected for 10 s: 3 failures in a row",
        "cluster app: server 127.0.0.1:1 is tried again",
    ]


def test_one_success_between_failures_is_enough() -> None:
    site = Site(2)
    for _ in range(10):
        fail(site.cluster, 1, 2)
        site.cluster.servers[0].succeeded()

    assert sorted(names(site.cluster)) == [1, 2]


def test_after_an_ejection_one_more_failure_is_enough_and_costs_twice_as_long() -> None:
    site = Site(2, passive=schema.Passive(eject=10.0, eject_max=30.0))
    fail(site.cluster, 1, 3)
    fail(site.cluster, 1, 1, NOW + 11)
    assert names(site.cluster, NOW + 30.9) == [2]
    assert sorted(names(site.cluster, NOW + 31)) == [1, 2]
    fail(site.cluster, 1, 1, NOW + 32)
    assert names(site.cluster, NOW + 61) == [2]
    assert sorted(names(site.cluster, NOW + 62.1)) == [1, 2]


def test_what_fails_while_it_is_ejected_is_ejected_once(caplog: pytest.LogCaptureFixture) -> None:
    """Connections that had begun before."""
    site = Site(2)
    fail(site.cluster, 1, 9)

    assert len(caplog.messages) == 1


def test_the_last_server_is_used_however_often_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(1)
    fail(site.cluster, 1, 30)

    assert names(site.cluster) == [1]
    assert caplog.messages == [
        "cluster app: server 127.0.0.1:1 fails, 3 times in a row, but no other is left"
    ]


def test_when_the_last_one_fails_too_those_ejected_before_get_another_chance() -> None:
    """One of them may be well again; the last one may stay ill for long."""
    site = Site(2)
    fail(site.cluster, 1, 3)
    assert names(site.cluster) == [2]
    fail(site.cluster, 2, 3, NOW + 1)
    assert sorted(names(site.cluster, NOW + 1)) == [1, 2]

    # The first one's time is over, and the second's is not.
    assert names(site.cluster, NOW + 10) == [1]
    assert sorted(names(site.cluster, NOW + 11)) == [1, 2]


def test_a_last_one_that_failed_is_left_alone_as_soon_as_there_is_another() -> None:
    site = Site(2)
    site.wish(2, Wish.DRAINING)
    fail(site.cluster, 1, 3)
    assert names(site.cluster) == [1]
    site.wish(2, Wish.ENABLED)
    assert names(site.cluster) == [2]


def test_the_last_server_is_ejected_where_that_is_wanted() -> None:
    site = Site(1, passive=schema.Passive(eject_last=True))
    fail(site.cluster, 1, 3)

    assert names(site.cluster) == []
    assert "1 ejected" in site.cluster.why_none()


def test_passive_health_can_be_turned_off() -> None:
    site = Site(2, passive=schema.Passive(failures=0))
    fail(site.cluster, 1, 100)

    assert sorted(names(site.cluster)) == [1, 2]


def test_what_one_worker_ejects_the_others_leave_alone_from_their_next_tick() -> None:
    site = Site(2, workers=3)
    assert all(sorted(names(cluster)) == [1, 2] for cluster in site.clusters)
    fail(site.clusters[2], 1, 3)
    for cluster in site.clusters:
        cluster.tick(NOW + 0.25)

    assert [names(cluster, NOW + 0.3) for cluster in site.clusters] == [[2]] * 3


def test_the_time_grows_whichever_worker_ejects() -> None:
    site = Site(2, workers=2)
    fail(site.clusters[0], 1, 3)
    for cluster in site.clusters:
        cluster.tick(NOW + 10)
    fail(site.clusters[1], 1, 3, NOW + 11)

    assert names(site.clusters[1], NOW + 30.9) == [2]


def test_two_workers_that_eject_two_servers_at_once_leave_both() -> None:
    site = Site(2, workers=2)
    fail(site.clusters[0], 1, 3)
    fail(site.clusters[1], 2, 3)
    for cluster in site.clusters:
        cluster.tick(NOW + 0.25)

    assert [sorted(names(cluster, NOW + 0.3)) for cluster in site.clusters] == [[1, 2]] * 2


def test_the_ejections_of_a_worker_that_has_gone_end_with_it() -> None:
    site = Site(2, workers=2)
    fail(site.clusters[1], 1, 3)
    site.board.clear_row(1)
    site.cluster.tick(NOW + 0.25)

    assert sorted(names(site.cluster)) == [1, 2]


# The queue.


def wait(site: Site, calls: list[str], name: str, uses: Server | None = None) -> Waiting | None:
    """Wait, and when called use this server."""

    def on_room() -> None:
        calls.append(name)
        if uses is not None:
            uses.begin()

    return site.cluster.wait_for_room(on_room)


def test_a_cluster_is_full_when_none_that_may_be_used_has_room() -> None:
    site = Site(2, max_connections=1)
    site.wish(2, Wish.DRAINING)
    assert not site.cluster.is_full(NOW)
    site.cluster.servers[0].begin()
    assert site.cluster.is_full(NOW)
    site.wish(1, Wish.DRAINING)
    assert not site.cluster.is_full(NOW)


def test_without_limits_a_cluster_is_never_full() -> None:
    site = Site(1)
    for _ in range(1000):
        site.cluster.servers[0].begin()

    assert not site.cluster.is_full(NOW)


def test_those_who_wait_are_called_in_turn_when_there_is_room() -> None:
    site = Site(1, max_connections=1)
    [server] = site.cluster.servers
    server.begin()
    calls: list[str] = []
    for name in "ab":
        wait(site, calls, name, server)
    server.end()
    assert calls == []  # not from within what has just ended
    site.run_what_is_due()
    assert calls == ["a"]
    server.end()
    site.run_what_is_due()

    assert calls == ["a", "b"]


def test_as_many_are_called_as_there_is_room_for() -> None:
    site = Site(1, max_connections=2)
    [server] = site.cluster.servers
    server.begin()
    server.begin()
    calls: list[str] = []
    for name in "abc":
        wait(site, calls, name, server)
    server.end()
    server.end()
    assert len(site.later) == 1
    site.run_what_is_due()

    assert calls == ["a", "b"]


def test_who_comes_later_does_not_pass_those_who_wait() -> None:
    site = Site(1, max_connections=1)
    [server] = site.cluster.servers
    server.begin()
    offered: list[list[int]] = []
    site.cluster.wait_for_room(lambda: offered.append(names(site.cluster)))
    server.end()
    assert names(site.cluster) == []
    assert site.cluster.is_full(NOW)
    site.run_what_is_due()

    assert offered == [[1]]
    assert names(site.cluster) == [1]


def test_who_waits_no_longer_is_not_called() -> None:
    site = Site(1, max_connections=1)
    site.cluster.servers[0].begin()
    calls: list[str] = []
    first, second = wait(site, calls, "a"), wait(site, calls, "b")
    assert first is not None
    assert second is not None
    first.cancel()
    first.cancel()
    site.cluster.servers[0].end()
    site.run_what_is_due()
    assert calls == ["b"]
    second.cancel()


def test_no_more_wait_than_may() -> None:
    site = Site(1, max_connections=1, queue=2)
    calls: list[str] = []
    waiting = [wait(site, calls, name) for name in "abc"]

    assert [each is None for each in waiting] == [False, False, True]


def test_room_that_another_worker_makes_is_seen_on_the_tick() -> None:
    site = Site(1, workers=2, max_connections=1)
    other = site.clusters[1].servers[0]
    other.begin()
    calls: list[str] = []
    wait(site, calls, "a")
    site.cluster.tick(NOW)
    assert calls == []
    other.end()
    site.cluster.tick(NOW + 0.25)

    assert calls == ["a"]


def test_those_who_wait_for_servers_that_all_went_down_are_called_to_hear_it() -> None:
    site = Site(1, max_connections=1)
    site.cluster.servers[0].begin()
    full: list[bool] = []
    site.cluster.wait_for_room(lambda: full.append(site.cluster.is_full(NOW)))
    site.find(1, Health.DOWN)
    site.cluster.tick(NOW)

    assert full == [False]


def test_one_who_is_called_may_wait_again() -> None:
    site = Site(1, max_connections=1)
    calls: list[str] = []

    def again() -> None:
        calls.append("again")
        site.cluster.wait_for_room(again)

    site.cluster.wait_for_room(again)
    site.cluster.tick(NOW)
    site.cluster.tick(NOW + 0.25)

    assert calls == ["again", "again"]


def test_an_error_in_one_who_is_called_leaves_the_queue_in_order() -> None:
    site = Site(1, max_connections=1)
    calls: list[str] = []

    def stumble() -> None:
        raise ZeroDivisionError

    site.cluster.wait_for_room(stumble)
    wait(site, calls, "b")
    with pytest.raises(ZeroDivisionError):
        site.cluster.tick(NOW)
    site.cluster.tick(NOW)

    assert calls == ["b"]


# Names.

NAME = Name("app.internal", 80)


class Named:
    """A cluster with a name, and what the prober finds for it."""

    def __init__(self, *others: str, workers: int = 1, **settings: Any) -> None:
        addresses: list[Address | Name] = [NAME, *map(parse_address, others)]
        limit = settings.pop("max_connections", 0)
        servers = tuple(schema.Server(each, 2, limit) for each in addresses)
        self.settings = schema.Cluster(servers=servers, **settings)
        self.board = Board(keys_of("app", self.settings), workers, is_shared=False)
        self.clusters = [Cluster.of("app", self.settings) for _ in range(workers)]
        for row, cluster in enumerate(self.clusters):
            cluster.attach(self.board, row)
        self.cluster = self.clusters[0]

    def find(self, *ips: str | None) -> None:
        """A look-up has ended: the address in each place."""
        for index, ip in enumerate(ips):
            known = self.board.address(index)
            assert known is not None
            if known[1] != ip:
                self.board.set_address(index, ip)
        self.board.place(0)[PlaceWord.LOOK_UPS] += 1
        self.board.probes_changed()

    def offered(self, now: float = NOW) -> list[str]:
        return sorted(map(str, self.cluster.candidates(now)))


def test_every_address_of_a_name_is_a_server() -> None:
    site = Named("127.0.0.1:1")
    site.find("192.0.2.1", "2001:db8::1")

    assert site.offered() == ["127.0.0.1:1", "192.0.2.1:80", "[2001:db8::1]:80"]
    assert {server.weight for server in site.cluster.servers} == {2}


def test_addresses_come_and_go_and_those_that_stay_are_the_same_servers() -> None:
    site = Named()
    site.find("192.0.2.1", "192.0.2.2")
    assert site.offered() == ["192.0.2.1:80", "192.0.2.2:80"]
    stays = site.cluster.servers[1]
    site.find("192.0.2.3", "192.0.2.2")
    assert site.offered() == ["192.0.2.2:80", "192.0.2.3:80"]
    assert site.cluster.servers[1] is stays
    site.find(None, "192.0.2.2")
    assert site.offered() == ["192.0.2.2:80"]


def test_a_connection_to_an_address_that_has_gone_is_counted_to_its_end() -> None:
    site = Named()
    site.find("192.0.2.1")
    [server] = site.cluster.candidates(NOW)
    server.begin()
    site.find(None)
    assert site.offered() == []
    assert site.board.active(0) == 1
    server.failed(NOW)
    server.succeeded()
    server.end()
    assert site.board.active(0) == 0


def test_until_the_first_look_up_ends_clients_wait() -> None:
    site = Named()
    assert site.offered() == []
    assert site.cluster.is_full(NOW)
    calls: list[str] = []
    site.cluster.wait_for_room(lambda: calls.append("called"))
    site.cluster.tick(NOW)
    assert calls == []
    site.find("192.0.2.1")
    site.cluster.tick(NOW + 0.25)

    assert calls == ["called"]
    assert site.offered() == ["192.0.2.1:80"]


def test_with_another_server_nobody_waits_for_a_name() -> None:
    site = Named("127.0.0.1:1")

    assert site.offered() == ["127.0.0.1:1"]
    assert not site.cluster.is_full(NOW)


def test_a_name_that_has_no_address_is_down_and_said_to_be() -> None:
    site = Named("127.0.0.1:1")
    calls: list[str] = []
    site.find()
    site.board.wish(PLACES)[WishWord.WISH] = Wish.DRAINING
    site.board.wishes_changed()
    site.cluster.wait_for_room(lambda: calls.append("called"))
    site.cluster.tick(NOW)

    assert site.offered() == []
    assert not site.cluster.is_full(NOW)
    assert calls == ["called"]
    assert site.cluster.why_none() == (
        "no server of cluster app can be used: 1 draining, app.internal:80 has no address"
    )


def test_limits_hold_for_each_address() -> None:
    site = Named(max_connections=1)
    site.find("192.0.2.1", "192.0.2.2")
    first = next(site.cluster.candidates(NOW))
    first.begin()

    assert first.address not in [server.address for server in site.cluster.candidates(NOW)]
    assert len(site.offered()) == 1


def test_an_address_does_not_inherit_the_ejection_of_the_one_before() -> None:
    site = Named(workers=2)
    site.find("192.0.2.1", "192.0.2.2")
    assert len(site.offered()) == 2
    for _ in range(3):
        site.cluster.servers[0].failed(NOW)
    assert site.offered() == ["192.0.2.2:80"]
    site.find("192.0.2.9", "192.0.2.2")

    assert site.offered() == ["192.0.2.2:80", "192.0.2.9:80"]
    site.cluster.tick(NOW + 1000)


def test_the_operator_s_word_on_a_name_is_for_its_addresses() -> None:
    site = Named("127.0.0.1:1")
    site.find("192.0.2.1")
    for index in range(PLACES):
        site.board.wish(index)[WishWord.WISH] = Wish.DISABLED
    site.board.wishes_changed()
    site.find("192.0.2.1", "192.0.2.2")

    assert site.offered() == ["127.0.0.1:1"]


def test_an_address_being_written_is_left_for_the_next_look() -> None:
    site = Named("127.0.0.1:1")
    site.find("192.0.2.1")
    assert len(site.offered()) == 2
    site.board.place(0)[PlaceWord.SEQUENCE] += 1
    site.board.probes_changed()
    assert site.offered() == ["127.0.0.1:1", "192.0.2.1:80"]
    site.board.set_address(0, "192.0.2.7")
    site.board.probes_changed()

    assert site.offered() == ["127.0.0.1:1", "192.0.2.7:80"]


# Other settings.


def test_servers_that_stay_go_on_as_they_are_when_others_come_and_go() -> None:
    site = Site(2)
    servers = (
        schema.Server(parse_address("127.0.0.1:1"), weight=5, max_connections=1),
        schema.Server(parse_address("127.0.0.1:9")),
    )
    board = Board(list(site.board.keys), 1, room=2, is_shared=False)
    cluster = Cluster.of("app", site.settings)
    cluster.attach(board, 0)
    there = list(cluster.candidates(NOW))
    there[0].begin()
    assert board.add([("app", "127.0.0.1:9")])
    cluster.change(schema.Cluster(servers=servers, balance="least_connections"))

    assert names(cluster) == [9], "the first has its one connection"
    there[0].end()
    assert sorted(names(cluster)) == [1, 9]
    stays = next(server for server in cluster.servers if str(server) == "127.0.0.1:1")
    assert stays is there[0]
    assert (stays.weight, stays.max_connections) == (5, 1)


def test_who_waits_still_waits_when_other_servers_come() -> None:
    board = Board([("app", "127.0.0.1:1")], 1, room=1, is_shared=False)
    server = schema.Server(parse_address("127.0.0.1:1"), max_connections=1)
    cluster = Cluster.of("app", schema.Cluster(servers=(server,)))
    cluster.attach(board, 0)
    next(cluster.candidates(NOW)).begin()
    called: list[str] = []
    assert cluster.wait_for_room(lambda: called.append("room")) is not None
    cluster.tick(NOW)
    assert called == []
    assert board.add([("app", "127.0.0.1:2")])
    more = schema.Server(parse_address("127.0.0.1:2"))
    cluster.change(schema.Cluster(servers=(server, more)))
    cluster.tick(NOW)

    assert called == ["room"]
