"""What a worker asks of a client before it does anything for it: that it has not got too much already.

Connections and handshakes are counted for each client over all workers (_client_table.pyx).  Without
these limits nothing is counted, and nothing is paid.
"""

from __future__ import annotations

from termproxy.config.schema import Limits
from termproxy.worker._client_table import Clients
from termproxy.worker.admission import FULL, RESUMED, Verdict, verdict


class Seat:
    """A client's connection, as it is counted."""

    __slots__ = ("is_over", "key", "place")

    def __init__(self, key: int, place: int | None) -> None:
        self.key = key
        self.place = place  # None: not counted as a connection
        self.is_over = False
        """Whether the client is to be told that it has too many."""


class Gate:
    __slots__ = ("_clients", "_connections", "_handshakes", "is_on")

    def __init__(self, clients: Clients | None, limits: Limits) -> None:
        self._clients = clients
        self._connections = self._handshakes = 0
        self.is_on = False
        """Whether anything is asked of anybody."""
        self.use(limits)

    def use(self, limits: Limits) -> None:
        """Hold to these from now on; connections that are there already are not counted."""
        if self._clients is not None:
            self._connections = limits.connections_per_client
            self._handshakes = limits.handshakes_per_client * FULL
        self.is_on = bool(self._connections or self._handshakes)

    def enter(self, host: str, now: float, *, may_tell: bool) -> Seat | str | None:
        """A connection of `host`: the seat that leave() gives back; or the limit that turns it away.

        None: there is no limit for who has no IP address.  `may_tell` is as in admission.verdict.
        """
        clients = self._clients
        if clients is None or (key := clients.key_of(host)) is None:
            return None
        if self._handshakes and clients.handshakes_of(key, now) + RESUMED > self._handshakes:
            return "handshakes_per_client"
        if not self._connections:
            return Seat(key, None)
        place, count = clients.enter(key)
        seat = Seat(key, place)
        if count > self._connections:
            if verdict(count, self._connections, may_tell=may_tell) is Verdict.CLOSE:
                self.leave(seat)
                return "connections_per_client"
            seat.is_over = True
        return seat

    def leave(self, seat: Seat) -> None:
        """Its connection is closed."""
        if seat.place is not None and self._clients is not None:
            self._clients.leave(seat.place)

    def may_begin(self, seat: Seat | None, now: float, *, resumes: bool) -> bool:
        """Whether the client may have one more handshake, which is then charged to it."""
        if seat is None or not self._handshakes or self._clients is None:
            return True
        cost = RESUMED if resumes else FULL
        if self._clients.handshakes_of(seat.key, now) + cost > self._handshakes:
            return False
        self._clients.charge(seat.key, cost, now)
        return True

    def was_full(self, seat: Seat | None, now: float) -> None:
        """A handshake that said it would resume: charge the rest."""
        if seat is not None and self._handshakes and self._clients is not None:
            self._clients.charge(seat.key, FULL - RESUMED, now)
