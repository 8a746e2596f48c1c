"""A named set of servers, and the balancing among them, as one worker sees it.

Which servers there are to choose from is worked out when something has changed: on the board (the
operator's word, a check's, a name's addresses), here (an ejection), or with time (the end of one, a slow
start).  What other workers ejected is looked at on the worker's tick.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from operator import methodcaller

from termproxy.address import Address, Name
from termproxy.backends.balancing import BALANCINGS
from termproxy.backends.board import Board, Head, Key, PlaceWord, ProbeWord, UseWord, WishWord
from termproxy.backends.health import NEVER, Ejection, Facts, State, next_ejection, share, states
from termproxy.backends.names import PLACES
from termproxy.backends.server import Server
from termproxy.config import schema
from termproxy.observability.scoreboard import NANOSECONDS

log = logging.getLogger("worker")

RAMP_STEP = 0.25  # seconds, from one share to the next of a server that begins slowly


class Waiting:
    """A client's place in the queue."""

    def __init__(self, queue: dict[Waiting, None], on_room: Callable[[], None]) -> None:
        self._queue = queue
        self.on_room = on_room
        queue[self] = None

    def cancel(self) -> None:
        """Wait no longer; does nothing when the wait is over."""
        self._queue.pop(self, None)


class _Place:
    """Where a server stands on the board; one of a name has whoever has its address now."""

    __slots__ = ("index", "name", "sequence", "server", "settings")

    def __init__(self, index: int, server: Server | None, settings: schema.Server | None) -> None:
        self.index = index
        self.server = server
        self.settings = settings
        self.name = settings.address if settings and isinstance(settings.address, Name) else None
        self.sequence = -1  # of the address that was last read


def keys_of(name: str, settings: schema.Cluster) -> list[Key]:
    """What the places of a cluster's servers are called on a board."""
    return [
        (name, str(server))
        for server in settings.servers
        for _ in range(PLACES if isinstance(server.address, Name) else 1)
    ]


class Cluster:
    """`settings` are the configuration's; `servers` are those there are, and change with the addresses
    of names.
    """

    __slots__ = (
        "_balancing",
        "_before",
        "_board",
        "_ejected",
        "_ejections",
        "_ejections_seen",
        "_fixed",
        "_is_limited",
        "_is_queue_called",
        "_is_serving_queue",
        "_look_at",
        "_named",
        "_own_ejections",
        "_places",
        "_queue",
        "_row",
        "_run_soon",
        "_seen",
        "_states",
        "_up",
        "_words",
        "by_client",
        "name",
        "servers",
        "settings",
    )

    def __init__(
        self, name: str, servers: Sequence[Server], settings: schema.Cluster | None = None
    ) -> None:
        self.name = name
        self.servers = tuple(servers)
        self._use(servers, settings or schema.Cluster(servers=()))
        self._queue: dict[Waiting, None] = {}
        self._is_queue_called = self._is_serving_queue = False
        self._run_soon: Callable[[Callable[[], None]], object] = lambda run: run()
        self._up: tuple[Server, ...] = ()
        self._states: list[State] = []
        self._ejected: dict[Server, float] = {}  # by this worker, until when
        keys = [(name, str(server)) for server in servers]
        keys += keys_of(name, schema.Cluster(servers=tuple(self._named)))
        self.attach(Board(keys, 1, is_shared=False), 0)

    @classmethod
    def of(cls, name: str, settings: schema.Cluster) -> Cluster:
        """With the servers that the settings name."""
        return cls(name, _fixed_servers(settings, {}), settings)

    def change(self, settings: schema.Cluster) -> None:
        """Follow other settings; the board has places for their servers.  Those that stay go on as they
        are, with what is open to them; who uses one that is no more goes on with it.
        """
        there = {str(server): server for server in self._fixed}
        self._use(_fixed_servers(settings, there), settings)
        self._ejected = {s: until for s, until in self._ejected.items() if s in self._fixed}
        self.attach(self._board, self._row, self._before)

    def _use(self, servers: Sequence[Server], settings: schema.Cluster) -> None:
        self.settings = settings
        self.by_client = settings.balance == "client_hash"
        """Whether candidates() looks at the client."""
        self._fixed = tuple(servers)
        self._named = [each for each in settings.servers if isinstance(each.address, Name)]
        limits = [*(s.max_connections for s in servers), *(s.max_connections for s in self._named)]
        self._is_limited = any(limits)

    def attach(self, board: Board, row: int, before: Sequence[Board] = ()) -> None:
        """Be what the worker of this row sees; on the boards `before` others are still at work."""
        self._board, self._row, self._before = board, row, before
        self._words = board.words
        self._own_ejections, self._ejections = board.ejections(row), board.all_ejections()
        self._balancing = BALANCINGS[self.settings.balance](row)
        self._places = [
            _Place(board.places[self.name, str(server)].start, server, None) for server in self._fixed
        ]
        for server in self._fixed:
            self._introduce(server, board.places[self.name, str(server)].start, str(server))
        for each in self._named:
            places = board.places[self.name, str(each)]
            self._places += [_Place(index, None, each) for index in places]
        self._look_at = 0.0
        self._seen = (-1, -1)
        self._ejections_seen = 0

    def run_soon(self, run_soon: Callable[[Callable[[], None]], object]) -> None:
        """How to have something done when what is being done has been: the queue moves then."""
        self._run_soon = run_soon

    # For each connection.

    def candidates(self, now: float, client: bytes = b"") -> Iterator[Server]:
        """The servers that may be used and have room, each once, in the order to try them."""
        words = self._words
        if now >= self._look_at or (words[_WISHES], words[_PROBES]) != self._seen:  # no call, if not
            self._look(now)
        if not self._is_limited:
            return self._balancing.order(client)
        if self._queue and not self._is_serving_queue:
            return iter(())  # others came first
        return filter(_has_room, self._balancing.order(client))

    def is_full(self, now: float) -> bool:
        """Whether there are servers to be used, but none has room; or there may be in a moment, because
        a name is being looked up for the first time.
        """
        self._look_if_changed(now)
        if not self._up:
            return self._is_being_looked_up()
        if not self._is_limited:
            return False
        if self._queue and not self._is_serving_queue:
            return True
        return not any(map(_has_room, self._up))

    def wait_for_room(self, on_room: Callable[[], None]) -> Waiting | None:
        """Be called, once, when there may be room; None when as many wait as may."""
        if len(self._queue) >= self.settings.queue:
            return None
        return Waiting(self._queue, on_room)

    def why_none(self) -> str:
        """A sentence for who finds no candidate."""
        counts = Counter(state.value for state in self._states)
        told = [f"{count} {word}" for word, count in sorted(counts.items())]
        found = {place.name for place in self._places if place.server is not None}
        told += [f"{each.address} has no address" for each in self._named if each.address not in found]
        return f"no server of cluster {self.name} can be used: {', '.join(told) or 'it has none'}"

    # With time.

    def tick(self, now: float) -> None:
        """See what other workers did."""
        if sum(self._ejections) != self._ejections_seen:
            self._look(now)
        self._look_if_changed(now)
        for server, until in list(self._ejected.items()):
            if now >= until:
                del self._ejected[server]
                log.info("cluster %s: server %s is tried again", self.name, server)
        if self._queue:
            self._serve_queue()

    def _look_if_changed(self, now: float) -> None:
        words = self._words
        if now >= self._look_at or (words[_WISHES], words[_PROBES]) != self._seen:
            self._look(now)

    def _look(self, now: float) -> None:
        """Work out which servers there are to choose from, and until when that holds."""
        board = self._board
        self._seen = self._words[_WISHES], self._words[_PROBES]
        self._ejections_seen = sum(self._ejections)
        if self._named:
            self._look_at_names()
        there = [(each.server, each.index) for each in self._places if each.server is not None]
        self.servers = tuple(server for server, _ in there)
        facts = [board.facts(index) for _, index in there]
        self._states = states(facts, now, eject_last=self.settings.passive.eject_last)
        self._look_at = min((f.ejected_until for f in facts if f.ejected_until > now), default=inf)
        up, weights = [], []
        for (server, index), fact, state in zip(there, facts, self._states, strict=True):
            if state is State.UP:
                part = self._share(board, index, fact, now)
                if part < 1.0:
                    self._look_at = min(self._look_at, now + RAMP_STEP)
                up.append(server)
                weights.append(server.weight * part)
        self._up = tuple(up)
        self._balancing.use(up, weights)

    def _share(self, board: Board, index: int, facts: Facts, now: float) -> float:
        slow_start = self.settings.slow_start
        if not slow_start:
            return 1.0
        back = max(board.probe(index)[ProbeWord.RISEN], board.wish(index)[WishWord.SINCE]) / NANOSECONDS
        ejected_until = facts.ejected_until if facts.ejected_until <= now else 0.0
        return share(now, max(back, ejected_until), slow_start)

    # Names.

    def _look_at_names(self) -> None:
        """Which of their addresses there are.  Who uses one that has gone goes on with its server."""
        for place in self._places:
            if place.name is None or place.settings is None:
                continue
            read = self._board.address(place.index)
            if read is None or read[0] == place.sequence:
                continue  # it is being written, and we are told again; or it is known
            place.sequence, ip = read
            address = None if ip is None else place.name.at(ip)
            if place.server is not None and place.server.address != address:
                self._forget_ejection(place.server, place.index)
                place.server = None
            if address is not None and place.server is None:
                place.server = Server(address, place.settings.weight, place.settings.max_connections)
                self._introduce(place.server, place.index, str(place.name))

    def _introduce(self, server: Server, index: int, name: str) -> None:
        """Show it where to count, and whom to tell."""
        board, key = self._board, (self.name, name)
        number = index - board.places[key].start
        older = [
            each.of_all(UseWord.ACTIVE, each.places[key][number])
            for each in self._before
            if number < len(each.places.get(key, ()))
        ]
        actives = board.of_all(UseWord.ACTIVE, index)
        server.attach(board.use(self._row, index), board.wish(index), actives, older)
        server.tell(self._on_failures, self._queue, self._on_room)

    def _forget_ejection(self, server: Server, index: int) -> None:
        """It has gone, and is not what comes to its place."""
        self._ejected.pop(server, None)
        use = self._board.use(self._row, index)
        use[UseWord.EJECTED_AT] = use[UseWord.EJECTED_UNTIL] = use[UseWord.IN_A_ROW] = 0

    def _is_being_looked_up(self) -> bool:
        """Whether there is a name that nobody has an answer for yet, be it that there is none."""
        firsts = (self._board.places[self.name, str(each)].start for each in self._named)
        return any(not self._board.place(first)[PlaceWord.LOOK_UPS] for first in firsts)

    # Passive health.

    def _on_failures(self, server: Server, in_a_row: int, now: float) -> None:
        passive = self.settings.passive
        if not passive.failures or in_a_row < passive.failures:
            return
        self._look_if_changed(now)
        index = next((place.index for place in self._places if place.server is server), None)
        if index is None or server not in self._up or now < self._board.facts(index).ejected_until:
            return  # it has gone, or is not used, or has been ejected already
        is_last = self._up == (server,) and not passive.eject_last
        ejection = next_ejection(now, self._last_ejection(index), passive.eject, passive.eject_max)
        use = self._board.use(self._row, index)
        use[UseWord.EJECTED_AT] = int(ejection.at * NANOSECONDS)
        use[UseWord.EJECTED_UNTIL] = int(ejection.until * NANOSECONDS)
        self._own_ejections[0] += 1
        who = f"cluster {self.name}: server {server}"
        if is_last:
            # With none left, all that were ejected are used: one of them may be well again.
            log.warning("%s fails, %d times in a row, but no other is left", who, in_a_row)
        else:
            self._ejected[server] = ejection.until
            length = round(ejection.until - ejection.at, 3)
            log.warning("%s is ejected for %g s: %d failures in a row", who, length, in_a_row)
        self._look(now)

    def _last_ejection(self, index: int) -> Ejection:
        """Of any worker's."""
        ends = list(self._board.of_all(UseWord.EJECTED_UNTIL, index))
        row = ends.index(max(ends))
        at = self._board.use(row, index)[UseWord.EJECTED_AT]
        return Ejection(at / NANOSECONDS, ends[row] / NANOSECONDS) if at else NEVER

    # The queue.

    def _on_room(self) -> None:
        if not self._is_queue_called:
            self._is_queue_called = True
            self._run_soon(self._serve_queue)

    def _serve_queue(self) -> None:
        """Call those who wait, in turn, while there is room, or when there is nothing to wait for."""
        self._is_queue_called = self._is_serving_queue = True
        try:
            for _ in range(len(self._queue)):
                if not self._queue or self._is_worth_waiting():
                    break
                first = next(iter(self._queue))
                first.cancel()
                first.on_room()
        finally:
            self._is_queue_called = self._is_serving_queue = False

    def _is_worth_waiting(self) -> bool:
        if not self._up:
            return self._is_being_looked_up()
        return not any(map(_has_room, self._up))


def _fixed_servers(settings: schema.Cluster, there: Mapping[str, Server]) -> list[Server]:
    """Those that have no name, with their weights and limits; who is `there` already stays."""
    servers = []
    for each in settings.servers:
        if isinstance(each.address, Address):
            server = there.get(str(each)) or Server(each.address)
            server.weight, server.max_connections = each.weight, each.max_connections
            servers.append(server)
    return servers


# Not Server.has_room: compiled, that is a function of C, which is no value.
_has_room = methodcaller("has_room")
_WISHES = int(Head.WISHES_CHANGED)
_PROBES = int(Head.PROBES_CHANGED)
