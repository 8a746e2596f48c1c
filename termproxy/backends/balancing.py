"""Choose the order in which the servers of a cluster are tried.  No I/O: see connect.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from termproxy.backends.server import Server


class RoundRobin:
    """Each connection begins with the server after the last one's, and may go on through all."""

    def __init__(self, servers: Sequence[Server], begin: int = 0) -> None:
        self._servers = tuple(servers)
        self._next = begin % len(self._servers)

    def candidates(self) -> Iterator[Server]:
        """Every server once, in the order to try them."""
        first = self._next
        self._next = (first + 1) % len(self._servers)
        return iter(self._servers[first:] + self._servers[:first])
