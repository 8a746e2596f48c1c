"""How many connections and handshakes each client has, over all workers, in memory that they share.

A generation has one table, made by the master before its workers; each worker writes to a row of its
own, and reads all of them, and those of older generations whose connections are still open.  So a word
has one writer and needs no lock; what a worker that has gone had counted the master clears.

    a row       two areas of buckets: connections, handshakes; as many buckets as a worker may have
                connections, so that they are nearly empty even when every connection is another client's
    a bucket    PLACES words, one for each of as many clients
    a word      connections   40 bits of the client's key, 24 of how many
                handshakes    28 bits of the key, 12 of the second, 12 of how much in the second before,
                              12 of how much in that second

A client's key is a hash with a secret of the master's: nobody can choose addresses that share a bucket.
Workers do not wait for each other: those that look within the same microseconds may let in one client
too many each.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from hashlib import blake2b

from termproxy.shm import SharedWords

PLACES = 8  # a cache line

SECRET_SIZE = 16  # bytes

COUNT_BITS = 24
_COUNT = (1 << COUNT_BITS) - 1

# Of a word that counts handshakes.
_AMOUNT_BITS = 12
AMOUNT_MAX = (1 << _AMOUNT_BITS) - 1
_SECONDS = 1 << 12  # the clock's, and round again
_SECOND_AT = 2 * _AMOUNT_BITS
_TAG_AT = 3 * _AMOUNT_BITS

_BUCKETS_MIN = 512  # a row's areas begin on pages of their own


def new_secret() -> bytes:
    return os.urandom(SECRET_SIZE)


def network_of(host: str) -> bytes | None:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits; None: it is neither.

    One customer has the whole of such a network (RFC 6177); ::ffff:192.0.2.1 is 192.0.2.1.
    """
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]


class ClientTable:
    """For so many workers, each with so many connections at the most."""

    __slots__ = ("_area", "_buckets", "_memory", "rows", "words")

    def __init__(self, rows: int, connections: int) -> None:
        self.rows = rows
        self._buckets = max(_BUCKETS_MIN, 1 << (connections - 1).bit_length())
        self._area = self._buckets * PLACES
        self._memory = SharedWords("termproxy-clients", 2 * rows * self._area)
        self.words = self._memory.words.cast("B").cast("Q")

    def connections_of(self, key: int) -> int:
        """Over all rows."""
        at, tag = key % self._buckets * PLACES, _tag(key)
        count = 0
        for start in range(at, 2 * self.rows * self._area, 2 * self._area):
            for word in self.words[start : start + PLACES].tolist():
                if word >> COUNT_BITS == tag:
                    count += word & _COUNT
        return count

    def enter(self, row: int, key: int) -> int | None:
        """Count a connection more: the place to leave(); None when the bucket is full of others, which
        is so rare that the connection may go uncounted.
        """
        start = 2 * row * self._area + key % self._buckets * PLACES
        tag = _tag(key)
        free = None
        for place, word in enumerate(self.words[start : start + PLACES].tolist(), start):
            if word >> COUNT_BITS == tag:
                self.words[place] = word + 1
                return place
            if not word and free is None:
                free = place
        if free is not None:
            self.words[free] = tag << COUNT_BITS | 1
        return free

    def leave(self, place: int) -> None:
        word = self.words[place] - 1
        self.words[place] = word if word & _COUNT else 0

    def handshakes_of(self, key: int, now: float) -> float:
        """What was charged over all rows in the last second, in admission.py's unit."""
        at, tag = self._area + key % self._buckets * PLACES, key >> _TAG_AT
        second = int(now)
        this, last, left = second % _SECONDS, (second - 1) % _SECONDS, 1.0 - (now - second)
        amount = 0.0
        for start in range(at, 2 * self.rows * self._area, 2 * self._area):
            for word in self.words[start : start + PLACES].tolist():
                if word and word >> _TAG_AT == tag:
                    when = word >> _SECOND_AT & _SECONDS - 1
                    if when == this:
                        amount += (word & AMOUNT_MAX) + (word >> _AMOUNT_BITS & AMOUNT_MAX) * left
                    elif when == last:
                        amount += (word & AMOUNT_MAX) * left
        return amount

    def charge(self, row: int, key: int, amount: int, now: float) -> None:
        """For a handshake, in this second.  In a full bucket the client with least is forgotten."""
        start = (2 * row + 1) * self._area + key % self._buckets * PLACES
        tag, second = key >> _TAG_AT, int(now)
        this, last = second % _SECONDS, (second - 1) % _SECONDS
        place, least, before = start, AMOUNT_MAX + 1, 0
        for at, word in enumerate(self.words[start : start + PLACES].tolist(), start):
            when, sum_ = word >> _SECOND_AT & _SECONDS - 1, word & AMOUNT_MAX
            is_current = when == this
            if word and word >> _TAG_AT == tag:
                if is_current:
                    before = word >> _AMOUNT_BITS & AMOUNT_MAX
                    amount += sum_
                else:
                    before = sum_ if when == last else 0
                place = at
                break
            weight = sum_ if is_current or when == last else -1
            if weight < least:
                place, least = at, weight
        amount = min(amount, AMOUNT_MAX)
        self.words[place] = tag << _TAG_AT | this << _SECOND_AT | before << _AMOUNT_BITS | amount

    def clear_row(self, row: int) -> None:
        """By the master, when the row's worker has gone."""
        self._memory.clear(2 * row * self._area, 2 * self._area)

    def close(self) -> None:
        self.words.release()
        self._memory.close()


class Clients:
    """The table as one worker uses it."""

    __slots__ = ("_row", "_secret", "_table", "_tables")

    def __init__(
        self, table: ClientTable, row: int, before: Sequence[ClientTable], secret: bytes
    ) -> None:
        self._table = table
        self._row = row
        self._tables = (table, *before)
        self._secret = secret

    def key_of(self, host: str) -> int | None:
        """None for who has no IP address, as on a Unix socket: there is no limit for them."""
        network = network_of(host)
        if network is None:
            return None
        return int.from_bytes(blake2b(network, digest_size=8, key=self._secret).digest())

    def enter(self, key: int) -> tuple[int | None, int]:
        """Count one connection more: its place, and how many the client has with it."""
        place = self._table.enter(self._row, key)
        return place, sum(table.connections_of(key) for table in self._tables)

    def leave(self, place: int) -> None:
        self._table.leave(place)

    def handshakes_of(self, key: int, now: float) -> float:
        """In the last second, as ClientTable.handshakes_of."""
        return self._table.handshakes_of(key, now)

    def charge(self, key: int, amount: int, now: float) -> None:
        self._table.charge(self._row, key, amount, now)


def _tag(key: int) -> int:
    return key >> COUNT_BITS or 1


_MAPPED = bytes(10) + b"\xff\xff"
