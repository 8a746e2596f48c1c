"""A proxy in http mode before a backend that records, for all the vectors of a module."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from tests.support.http_client import HttpClient
from tests.support.http_messages import Response
from tests.support.recording_backend import RecordingBackend, Script
from tests.support.server import Server, settings
from tests.support.waiting import wait_until

# Less than PATIENCE: there are thousands of vectors, and a proxy may hang on each of them.
SOON = 5.0  # seconds


class Situation(Enum):
    """Where a message stands on its connection."""

    FRESH = "fresh"
    KEPT = "kept"  # a good request and its answer came before
    PIPELINED = "pipelined"  # right behind a good request


class Gateway:
    def __init__(self, server: Server, backend: RecordingBackend, trust: ssl.SSLContext) -> None:
        self.server = server
        self.backend = backend
        self._trust = trust
        self._numbers = itertools.count()

    def client(self) -> HttpClient:
        return HttpClient(self.server.port, self._trust, timeout=SOON)

    def good(self) -> tuple[bytes, bytes]:
        """A target that was never asked for, and a request for it."""
        target = b"/good/%d" % next(self._numbers)
        return target, b"GET " + target + b" HTTP/1.1\r\nHost: site.test\r\n\r\n"

    def ask(self, client: HttpClient) -> bytes:
        """One good request, well answered: its target."""
        target, request = self.good()
        expect_good(client.ask(request), target)
        return target

    def say(self, client: HttpClient, data: bytes, situation: Situation) -> list[bytes]:
        """Send `data` in a situation; what was good before it is answered, and here are its targets."""
        match situation:
            case Situation.FRESH:
                client.send(data)
                return []
            case Situation.KEPT:
                target = self.ask(client)
                client.send(data)
            case Situation.PIPELINED:
                target, request = self.good()
                client.send(request + data)
                expect_good(client.response(), target)
        return [target]

    def wait_until_idle(self) -> None:
        """Until no client is connected, and so nothing can reach the backend any more."""
        wait_until(lambda: self.server.open_connections() == 0, "no client is connected")


@contextmanager
def gateway_before(script: Script, folder: Path, site: Path, trust: ssl.SSLContext) -> Iterator[Gateway]:
    with RecordingBackend(script) as backend:
        values = settings(site, [backend.address])
        values["frontend"][0]["mode"] = "http"
        with Server(folder, values) as server:
            yield Gateway(server, backend, trust)


def expect_good(response: Response, target: bytes) -> None:
    """The backend's own answer to a good request."""
    assert (response.status, response.body) == (200, b"GET " + target)
