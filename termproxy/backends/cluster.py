"""A named set of servers, and the balancing among them, as one worker sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from termproxy.backends.balancing import RoundRobin
from termproxy.backends.server import Server


class Cluster:
    def __init__(self, name: str, servers: Sequence[Server]) -> None:
        self.name = name
        self.servers = tuple(servers)
        self._balancing = RoundRobin(self.servers)

    def begin_with(self, number: int) -> None:
        """Workers begin with different servers, so that few connections spread well, too."""
        self._balancing = RoundRobin(self.servers, begin=number)

    def candidates(self) -> Iterator[Server]:
        """The servers to try for one connection, in order, each once."""
        return self._balancing.candidates()
