"""Messages of mode "http", and both ends of them: what its tests say again and again."""

from __future__ import annotations

import random
import socket
import ssl

from tests.relay.ends import turns
from tests.worker.harness import HttpBench, Visit
from tests.worker.loop_client import LoopClient

GET = b"GET /%d HTTP/1.1\r\nHost: site.test\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: site.test\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"

# More than the kernel's buffers on the way hold.
BIG = random.Random(3).randbytes(20 << 20)
WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def big_post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % length


def chunks(data: bytes, size: int = 10_000) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def warm(web: HttpBench) -> tuple[LoopClient, Visit]:
    """A client, and a backend's connection that has answered it once and is kept."""
    client = web.client()
    client.send(GET % 0)
    visit = web.visit()
    visit.answer(OK)
    assert client.response().body == b"ok"
    return client, visit


def refused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def send_until_blocked(client: LoopClient, data: bytes | memoryview) -> int:
    """How much went until nobody took more."""
    sock, sent, stuck = client._end._tls.sock, 0, 0  # type: ignore[attr-defined]
    while sent < len(data) and stuck < 30:
        try:
            sent += sock.send(data[sent : sent + (1 << 16)])
            stuck = 0
        except ssl.SSLWantWriteError:
            stuck += 1
            turns(1)
    return sent


def push(visit: Visit, data: bytes) -> int:
    """How much went until nobody took more."""
    view, stuck = memoryview(data), 0
    while view and stuck < 30:
        try:
            view = view[visit.sock.send(view[: 1 << 16]) :]
            stuck = 0
        except BlockingIOError:
            stuck += 1
            turns(1)
    return len(data) - len(view)
