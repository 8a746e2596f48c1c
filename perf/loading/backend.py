"""The backend of the load tests: answers with content, digests uploads, echoes WebSockets.

    python -m loading.backend ADDRESS:PORT

GET /small                      13 bytes
GET /bytes/SIZE?at=PLACE        a piece of the content, with its length
GET /chunks/SIZE?at=PLACE       the same, in chunks
PUT /digest                     the SHA-256 of the body, and its length
GET /socket                     a WebSocket that echoes

It reads as strictly as the tests do: a request that could be read in two ways ends the connection, with
words on standard error.
"""

import hashlib
import signal
import socket
import sys

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer

from loading.content import LARGEST, piece
from loading.websocket import Decoder, FrameError, Opcode, accept_for, encode
from tests.support.http_messages import CutError, MalformedError, MessageReader, Request

CONNECTIONS_MAX = 4096
IDLE = 120.0
# Of a request, head and body, with what chunks add.
REQUEST_MAX = 2 * LARGEST
CHUNK = 5000


class Visit:
    """One connection, from its first request to its end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._taken = 0
        self._reader = MessageReader(self._receive)

    def run(self) -> None:
        while (request := self._reader.request()) is not None:
            self._taken = 0
            path, _, query = request.target.decode("latin-1").partition("?")
            if path == "/socket":
                self._talk(request)
                return
            head, body = answer(request.method.decode("latin-1"), path, query, request.body)
            keep = b"close" not in request.options()
            connection = b"" if keep else b"Connection: close\r\n"
            self._sock.sendall(head + connection + b"\r\n" + body)
            if not keep:
                return

    def _talk(self, request: Request) -> None:
        [key] = request.values(b"sec-websocket-key") or [b""]
        if not key or request.values(b"upgrade") != [b"websocket"]:
            self._sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(key)
        )
        decoder, data = Decoder(masked=True), self._reader.rest
        while True:
            for frame in decoder.feed(data):
                opcode = Opcode.PONG if frame.opcode is Opcode.PING else frame.opcode
                self._sock.sendall(encode(opcode, frame.payload))
                if opcode is Opcode.CLOSE:
                    return
            data = self._sock.recv(1 << 16)
            if not data:
                return

    def _receive(self) -> bytes:
        data = self._sock.recv(1 << 16)
        self._taken += len(data)
        if self._taken > REQUEST_MAX:
            raise MalformedError(f"a request of more than {REQUEST_MAX} bytes")
        return data


def answer(method: str, path: str, query: str, body: bytes) -> tuple[bytes, bytes]:
    """Return a head without its last line, and the body as it is sent."""
    match method, path.split("/")[1:]:
        case "GET", ["small"]:
            return with_length(b"hello, world\n")
        case "PUT", ["digest"]:
            return with_length(f"{hashlib.sha256(body).hexdigest()} {len(body)}".encode())
        case "GET", ["bytes", size]:
            return with_length(piece(place(query), int(size)))
        case "GET", ["chunks", size]:
            chunks = in_chunks(piece(place(query), int(size)), CHUNK)
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", chunks
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n", b""


def place(query: str) -> int:
    return int(query.removeprefix("at=") or 0)


def with_length(body: bytes) -> tuple[bytes, bytes]:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body), body


def in_chunks(body: bytes, size: int) -> bytes:
    """Write a body in chunks of this size (RFC 9112 §7.1)."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in pieces) + b"0\r\n\r\n"


def on_connection(sock: socket.socket, _address: object) -> None:
    sock.settimeout(IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        Visit(sock).run()
    except (OSError, CutError):
        pass  # the proxy has the right to go, as its client has; who loses by it says so
    except (MalformedError, FrameError, ValueError) as error:
        print(f"backend: {error}", file=sys.stderr, flush=True)


def serve(address: str) -> None:
    host, _, port = address.rpartition(":")
    pool = Pool(CONNECTIONS_MAX)
    server = StreamServer((host, int(port)), on_connection, backlog=4096, spawn=pool)
    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, server.close)
    server.start()
    while not server.closed:
        gevent.sleep(0.2)


if __name__ == "__main__":
    serve(sys.argv[1])
