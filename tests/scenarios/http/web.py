"""What the scenarios of mode "http" have in common: a server, and messages to send through it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.conftest import Serve
from tests.support.ports import free_port
from tests.support.processes import descriptors
from tests.support.recording_backend import RecordingBackend
from tests.support.server import Server
from tests.support.waiting import wait_until

GET = b"GET /%d HTTP/1.1\r\nHost: site.test\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

MIB = 1 << 20
# More than the kernel's buffers on the way hold.
CONTENT = random.Random(7).randbytes(24 * MIB)


def web(
    serve: Serve, site: Path, *servers: str, frontend: dict[str, Any] | None = None, **changes: Any
) -> Server:
    """In mode "http"; `frontend` are changes to its one frontend."""
    values = {
        "name": "main",
        "listen": [f"127.0.0.1:{free_port()}"],
        "mode": "http",
        "cluster": "main",
        "certificates": [str(site)],
    }
    return serve(*servers, frontend=[values | (frontend or {})], **changes)


def chunks(data: bytes, size: int = 100_000) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def big_post(length: int, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n%b\r\n" % (length, more)


class Balance:
    """What a server holds when nobody is there, so that it can be seen whether all has come back."""

    def __init__(self, server: Server) -> None:
        self._server = server
        (self._worker,) = server.workers()
        self._before = self._descriptors()

    def _descriptors(self) -> int:
        return len(descriptors(self._worker))

    def wait_until_restored(self, *, kept: int = 0) -> None:
        """`kept` connections to backends may stay."""
        wait_until(lambda: self._server.open_connections() == 0, "no client is left")
        wait_until(
            lambda: self._descriptors() <= self._before + kept,
            f"no more than {self._before} + {kept} descriptors are left",
        )
        assert self._server.workers() == [self._worker]


def accepted(backend: RecordingBackend) -> int:
    """How many connections it has seen."""
    return len(backend.visits)
