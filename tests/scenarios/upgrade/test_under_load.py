"""Under load no client notices an upgrade: not one that connects anew for each word, nor one that talks
on, and sessions are resumed all the time.
"""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import trustme

from tests.conftest import Serve, client_context
from tests.support.backends import Backend
from tests.support.clients import NAME, connect, exchange, leave
from tests.support.waiting import wait_for_more

UPGRADES = 3


class Load:
    """Clients that go on while it is entered; what they had to suffer."""

    def __init__(self, port: int, ca: trustme.CA) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._port, self._ca = port, ca
        self._over = threading.Event()
        works = (self._ask, self._ask, self._ask, self._talk)
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        for what in ("resumed", "talked"):
            wait_for_more(lambda what=what: self.counts[what], 20, what)  # type: ignore[misc]

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except (OSError, AssertionError) as error:
            self.failures.append(error)

    def _ask(self) -> None:
        context, session = client_context(self._ca), None
        while not self._over.is_set():
            session = self._visit(context, session)

    def _visit(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with connect(self._port, context, session=session) as client:
            assert exchange(client) == b"ping"
            self.counts["resumed" if client.session_reused else "full"] += 1
            kept = client.session
            leave(client)
        return kept

    def _talk(self) -> None:
        with connect(self._port, client_context(self._ca), name=NAME) as client:
            self.counts["full"] += 1
            while not self._over.is_set():
                assert exchange(client, bytes(5_000)) == bytes(5_000)
                self.counts["talked"] += 1
            leave(client)


def test_under_load_no_client_notices_an_upgrade(serve: Serve, ca: trustme.CA) -> None:
    counts: Counter[str] = Counter()
    with Backend() as backend, serve(backend.address, workers=2, timeouts={"drain": 60}) as server:
        for _ in range(UPGRADES):
            with Load(server.port, ca) as load:
                load.goes_on()
                old = server.master
                assert server.upgrade()["old"]["pid"] == old
                load.goes_on()
            assert load.failures == []
            counts += load.counts
            server.wait_until_old_master_is_gone()
        totals = server.status()["totals"]
        assert totals["accepted"] == totals["handshakes"] == counts["full"] + counts["resumed"]
        assert totals["handshakes_resumed"] == counts["resumed"]
        assert totals["handshakes_failed"] == totals["backend_failures"] == 0
    assert counts["full"] == UPGRADES * 4  # each client's first
