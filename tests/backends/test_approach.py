"""One client's way to a server: the queue, and one connect after another."""

from __future__ import annotations

import gc
import resource
import socket
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import gevent
import pytest

from termproxy._sockets import Socket
from termproxy.address import parse_address
from termproxy.backends.approach import Approach
from termproxy.backends.board import Board, UseWord, WishWord
from termproxy.backends.cluster import Cluster, keys_of
from termproxy.config import schema
from termproxy.errors import BackendError
from tests.relay.ends import until

NOW = 1000.0


@pytest.fixture
def here() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class Clients:
    """Clients of one cluster, and what their approaches told."""

    def __init__(self, *addresses: str, max_connections: int = 0, **settings: Any) -> None:
        servers = tuple(schema.Server(parse_address(each), 1, max_connections) for each in addresses)
        self.cluster = Cluster.of("app", schema.Cluster(servers=servers, **settings))
        self.board = Board(keys_of("app", self.cluster.settings), 1, is_shared=False)
        self.cluster.attach(self.board, 0)
        self.settled = 0
        self.failed: list[tuple[str, str]] = []

    def _on_settled(self) -> None:
        self.settled += 1

    def come(self, client: bytes = b"") -> Approach:
        return Approach(
            gevent.get_hub().loop,
            self.cluster,
            client,
            3.0,
            (self._on_settled, lambda server, error: self.failed.append((str(server), error.reason))),
        )

    def connect(self, approach: Approach, now: float = NOW) -> Socket:
        while (sock := approach.advance(now)) is None:
            before = self.settled
            until(lambda before=before: self.settled > before, "news")  # type: ignore[misc]
        return sock

    def refusal(self, approach: Approach, now: float = NOW) -> BackendError:
        with pytest.raises(BackendError) as refused:
            self.connect(approach, now)
        return refused.value

    def active(self) -> list[int]:
        return [self.board.active(index) for index in range(len(self.cluster.servers))]


def test_a_connection_is_counted_until_its_owner_ends_it(here: str) -> None:
    clients = Clients(here)
    approach = clients.come()
    with closing(clients.connect(approach)):
        approach.close()
        assert clients.active() == [1]
        assert approach.server is clients.cluster.servers[0]
        approach.server.end()

    assert clients.active() == [0]


def test_of_servers_that_fail_only_the_failure_is_kept(here: str, nowhere: str) -> None:
    clients = Clients(nowhere, here)
    approach = clients.come()
    clients.connect(approach).close()

    assert clients.failed == [(nowhere, "backend_refused")]
    assert clients.active() == [0, 1]
    assert [clients.board.failures(index) for index in (0, 1)] == [1, 0]


def test_when_all_fail_nobody_counts_it(nowhere: str) -> None:
    clients = Clients(nowhere)
    approach = clients.come()

    assert clients.refusal(approach).reason == "backend_refused"
    assert clients.active() == [0]


def test_one_that_gives_up_while_it_connects_is_not_counted(black_hole: str) -> None:
    clients = Clients(black_hole)
    approach = clients.come()
    assert approach.advance(NOW) is None
    assert approach.deadline == NOW + 3.0
    assert clients.active() == [1]
    approach.close()
    approach.close()

    assert clients.active() == [0]
    assert clients.failed == []


def test_a_server_that_takes_too_long_has_failed_when_it_did(black_hole: str, here: str) -> None:
    clients = Clients(black_hole, here, passive=schema.Passive(failures=1, eject=10))
    approach = clients.come()
    assert approach.advance(NOW) is None
    approach.time_out(NOW + 3)
    clients.connect(approach, NOW + 3).close()

    assert clients.failed == [(black_hole, "backend_timeout")]
    assert clients.board.use(0, 0)[UseWord.EJECTED_AT] == (NOW + 3) * 1e9


def test_what_we_lack_is_no_failure_of_the_server(nowhere: str) -> None:
    clients = Clients(nowhere)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        refusal = clients.refusal(clients.come())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert refusal.reason == "no_descriptors"
    assert clients.board.failures(0) == 0


def test_with_no_server_to_use_the_refusal_is_at_once_and_says_why(here: str) -> None:
    clients = Clients(here)
    clients.board.wish(0)[WishWord.WISH] = 1
    clients.board.wishes_changed()
    approach = clients.come()

    with pytest.raises(BackendError) as refused:
        approach.advance(NOW)
    assert str(refused.value) == ("no_backend: no server of cluster app can be used: 1 draining")
    assert approach.server is None


def test_a_client_waits_for_room_and_gets_it(here: str) -> None:
    clients = Clients(here, max_connections=1, queue_timeout=2.0)
    first, second = clients.come(), clients.come()
    with closing(clients.connect(first)):
        assert second.advance(NOW) is None
        assert second.advance(NOW + 1) is None
        assert second.deadline == NOW + 2
        assert first.server is not None
        first.server.end()
        assert clients.settled == 1
        with closing(clients.connect(second, NOW + 1)):
            assert clients.active() == [1]


def test_who_has_looked_already_says_whom_to_try_when_there_is_room(here: str) -> None:
    clients = Clients(here, max_connections=1)
    first, second = clients.come(), clients.come()
    with closing(clients.connect(first)):
        assert second.advance(NOW) is None
        was_called = second.is_called
        assert first.server is not None
        first.server.end()
        assert (was_called, second.is_called) == (False, True)
        second.go_on_with(clients.cluster.candidates(NOW))
        with closing(clients.connect(second)):
            assert clients.active() == [1]


def test_waiting_twice_does_not_make_the_wait_longer(here: str) -> None:
    clients = Clients(here, max_connections=1, queue_timeout=2.0)
    [server] = clients.cluster.servers
    server.begin()
    approach = clients.come()
    assert approach.advance(NOW) is None
    server.end()
    server.begin()  # another worker was faster
    assert approach.advance(NOW + 1) is None

    assert approach.deadline == NOW + 2


def test_a_wait_ends(here: str) -> None:
    clients = Clients(here, max_connections=1, queue_timeout=2.0)
    clients.cluster.servers[0].begin()
    approach = clients.come()
    assert approach.advance(NOW) is None
    approach.time_out(NOW + 2)

    assert str(clients.refusal(approach)) == (
        "queue_timeout: no server of cluster app had room within 2 s"
    )
    clients.cluster.servers[0].end()
    assert clients.settled == 0


def test_a_full_queue_refuses_at_once(here: str) -> None:
    clients = Clients(here, max_connections=1, queue=1)
    clients.cluster.servers[0].begin()
    assert clients.come().advance(NOW) is None

    assert str(clients.refusal(clients.come())) == "queue_full: cluster app: 1 clients wait already"


def test_who_leaves_while_waiting_gives_its_place_back(here: str) -> None:
    clients = Clients(here, max_connections=1, queue=1)
    clients.cluster.servers[0].begin()
    approach = clients.come()
    assert approach.advance(NOW) is None
    approach.close()

    assert clients.come().advance(NOW) is None
    clients.cluster.servers[0].end()
    assert clients.settled == 1


def test_the_client_s_address_chooses_the_server(here: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        clients = Clients(here, f"127.0.0.1:{other.getsockname()[1]}", balance="client_hash")
        chosen = set()
        for _ in range(5):
            approach = clients.come(b"192.0.2.1")
            clients.connect(approach).close()
            chosen.add(str(approach.server))
    assert len(chosen) == 1


def test_no_cycle_is_left_for_the_collector(here: str, black_hole: str, no_collector: None) -> None:
    """It runs seldom in a worker, and thousands of approaches would wait for it."""
    good, slow = Clients(here), Clients(black_hole)
    full = Clients(here, max_connections=1)
    full.cluster.servers[0].begin()
    approaches = [good.come(), slow.come(), full.come()]
    good.connect(approaches[0]).close()
    assert approaches[1].advance(NOW) is None
    assert approaches[2].advance(NOW) is None
    gone = [weakref.finalize(approach, int) for approach in approaches]
    while approaches:
        approaches.pop().close()

    assert [each.alive for each in gone] == [False] * 3


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
