"""Connections to backends that are kept for the next request: one pool for each server, in each worker.

The last one given back is the first one taken, so that few stay warm and the others grow old.  One on
which anything happens while nobody uses it is dead, or was never whole: it is closed.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from termproxy._sockets import Socket, peek
from termproxy.backends.server import Server


class BackendConnection:
    """A connection to `server`, with the watcher of what it sends.  `uses` counts the requests.

    The watcher stays on from one user to the next; only who is called changes: no start, no stop.
    """

    __slots__ = ("_pool", "fd", "idle_since", "server", "sock", "uses", "watcher")

    def __init__(self, sock: Socket, server: Server, watcher: Any) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.server = server
        self.watcher = watcher
        self.uses = 0
        self.idle_since = 0.0
        self._pool: Pool | None = None

    def keep_in(self, pool: Pool, now: float) -> None:
        """Nobody uses it from now on."""
        self._pool = pool
        self.idle_since = now
        self.watcher.callback = self._on_event_while_idle

    def _on_event_while_idle(self) -> None:
        assert self._pool is not None  # noqa: S101 - it is idle
        self._pool.drop(self)

    def close(self) -> None:
        self.watcher.stop()
        self.watcher.close()
        self.sock.close()

    def is_alive(self) -> bool:
        """Whether the kernel knows of nothing that speaks against it."""
        try:
            peek(self.fd, 1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class Pool:
    """The idle connections of one worker."""

    def __init__(self) -> None:
        self._idle: dict[Server, list[BackendConnection]] = {}

    def take(self, server: Server) -> BackendConnection | None:
        """An idle connection, the caller's from now on, who sets its watcher's callback at once; None:
        there is none.
        """
        idle = self._idle.get(server)
        if not idle:
            return None
        return idle.pop()

    def give(self, connection: BackendConnection, most: int, now: float) -> None:
        """Keep a connection on which nothing is under way, and whose watcher is on; close it when `most`
        are kept already.
        """
        idle = self._idle.setdefault(connection.server, [])
        if len(idle) >= most:
            connection.close()
            return
        connection.keep_in(self, now)
        idle.append(connection)

    def drop(self, connection: BackendConnection) -> None:
        """Close an idle connection."""
        self._idle[connection.server].remove(connection)
        connection.close()

    def sweep(self, server: Server, now: float, timeout: float) -> None:
        """Close what nobody has used for `timeout` seconds, and all of a server that is disabled."""
        idle = self._idle.get(server)
        if not idle:
            return
        if server.is_disabled():
            timeout = 0.0
        old = 0  # the oldest come first
        while old < len(idle) and now - idle[old].idle_since >= timeout:
            idle[old].close()
            old += 1
        del idle[:old]

    def sweep_others(self, servers: Container[Server]) -> None:
        """Close what is idle to any but these: nobody will ask for it again."""
        for server in [server for server in self._idle if server not in servers]:
            for connection in self._idle.pop(server):
                connection.close()

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))
