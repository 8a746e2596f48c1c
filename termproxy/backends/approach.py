"""One client's way to a server: a place in the queue when none has room, then one connect after another.

advance() ──▶ a connected socket: its server counts the client until the caller says server.end()
          ──▶ None: not yet; `settled` is called when there is news, and advance() is called again;
              at `deadline` time_out() is called first
          ──▶ BackendError: no server is left to try, or none will have room in time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from termproxy._sockets import Socket
from termproxy.backends.cluster import Cluster, Waiting
from termproxy.backends.connect import Connecting
from termproxy.backends.server import Server
from termproxy.errors import BackendError, Fault


class Approach(Connecting):
    """`client` is who asks, for balancing by client; `on_failure` hears of each server that failed.

    `candidates` are those to try first, for who has asked the cluster for them already.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_cluster",
        "_now",
        "_queued_until",
        "_timeout",
        "_used",
        "_waiting",
        "_was_queued_too_long",
        "deadline",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one is made for each connection: see its cost
        self,
        loop: Any,
        cluster: Cluster,
        client: bytes,
        timeout: float,
        callbacks: tuple[Callable[[], None], Callable[[Server, BackendError], None]],
        candidates: Iterator[Server] | None = None,
    ) -> None:
        settled, on_failure = callbacks
        super().__init__(loop, candidates, settled, on_failure)
        self._cluster = cluster
        self._client = client
        self._timeout = timeout
        self._used: Server | None = None  # counts us, and is the one being tried
        self._now = 0.0
        self._waiting: Waiting | None = None
        self._queued_until: float | None = None
        self._was_queued_too_long = False
        self.deadline = 0.0
        """When to call time_out(), once advance() has returned None."""

    def advance(self, now: float) -> Socket | None:
        """A connected socket, now the caller's; None while there is none yet."""
        self._now = now
        if self._waiting is not None:
            return None
        if self._was_queued_too_long:
            waited = f"within {self._cluster.settings.queue_timeout:g} s"
            detail = f"no server of cluster {self._cluster.name} had room {waited}"
            raise BackendError("queue_timeout", detail)
        if self._candidates is None:
            self._candidates = self._cluster.candidates(now, self._client)
        try:
            sock = self.connect()
        except BackendError:
            self._candidates = None
            if self._last is None:  # nobody was tried
                self._wait_for_room(now)
                return None
            raise
        if sock is None:
            self.deadline = now + self._timeout
        else:
            self._used = None  # the caller's to end
        return sock

    @property
    def is_called(self) -> bool:
        """Whether it has waited for room, and there may be some: advance() would look who has it."""
        return self._queued_until is not None and self._waiting is None and self._candidates is None

    def go_on_with(self, candidates: Iterator[Server]) -> None:
        """Try these next, for who has looked already."""
        self._candidates = candidates

    def time_out(self, now: float) -> None:
        """The deadline has passed; advance() goes on to the next server, or gives up."""
        self._now = now
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting, self._was_queued_too_long = None, True
        elif self._sock is not None:
            self.skip()

    def close(self) -> None:
        """Wait and try no longer."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        super().close()
        self._stop_using()

    def _next_server(self) -> Server | None:
        """It counts us from now on, until the next one is tried."""
        self._stop_using()
        server = super()._next_server()
        if server is not None:
            self._used = server
            server.begin()
        return server

    def _stop_using(self) -> None:
        used, self._used = self._used, None
        if used is not None:
            used.end()

    def _tell(self, server: Server, error: BackendError) -> None:
        if error.fault is Fault.BACKEND:  # and not for a lack of ours
            server.failed(self._now)
        super()._tell(server, error)

    def _wait_for_room(self, now: float) -> None:
        """There was nobody to try."""
        cluster = self._cluster
        if not cluster.is_full(now):
            raise BackendError("no_backend", cluster.why_none())
        self._waiting = cluster.wait_for_room(self._on_room)
        if self._waiting is None:
            queue = cluster.settings.queue
            raise BackendError("queue_full", f"cluster {cluster.name}: {queue} clients wait already")
        if self._queued_until is None:
            self._queued_until = now + cluster.settings.queue_timeout
        self.deadline = self._queued_until

    def _on_room(self) -> None:
        self._waiting = None
        self._settled()
