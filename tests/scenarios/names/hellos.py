"""ClientHellos of any shape: cut over segments and records, long, broken; and what a server answers.

Python's own TLS in memory does the client's part; the bytes go on the wire as a test wants them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from tests.support.clients import stranger
from tests.support.hello import client_hello

HEADER = 5  # bytes of a record before its body (RFC 8446 §5.1)
HANDSHAKE, ALERT = 22, 21

SERVER_NAME = 0
GREASE = 0xFAFA  # an extension that no server knows, of any length (RFC 8701)


def many_protocols(size: int) -> list[str]:
    """ALPN offers that take about `size` bytes: what a test can make a real hello long with."""
    return ["http/1.1", *(f"{number:03}-{'x' * 59}" for number in range(size // 64))]


def message_of(records: bytes) -> bytes:
    """The handshake message in records."""
    message = b""
    while records:
        length = int.from_bytes(records[3:HEADER])
        message += records[HEADER : HEADER + length]
        records = records[HEADER + length :]
    return message


def record(body: bytes) -> bytes:
    return bytes((HANDSHAKE, 3, 1)) + len(body).to_bytes(2) + body


def in_records(message: bytes, size: int) -> bytes:
    """The message over records of so many bytes each."""
    return b"".join(record(message[at : at + size]) for at in range(0, len(message), size))


def in_pieces(words: bytes, size: int) -> Iterator[bytes]:
    return (words[at : at + size] for at in range(0, len(words), size))


def extended(message: bytes, number: int, content: bytes) -> bytes:
    """A ClientHello with one more extension."""
    at = 4 + 2 + 32  # type and length, version, random
    at += 1 + message[at]  # session id
    at += 2 + int.from_bytes(message[at : at + 2])  # ciphers
    at += 1 + message[at]  # compression
    extension = number.to_bytes(2) + len(content).to_bytes(2) + content
    extensions = message[at + 2 :] + extension
    body = message[4:at] + len(extensions).to_bytes(2) + extensions
    return message[:1] + len(body).to_bytes(3) + body


def hello_asking(name: bytes | None, version: ssl.TLSVersion | None = None) -> bytes:
    """A ClientHello that asks for any bytes at all, or for no name."""
    message = message_of(client_hello(None, version=version))
    if name is not None:
        entry = b"\0" + len(name).to_bytes(2) + name
        message = extended(message, SERVER_NAME, len(entry).to_bytes(2) + entry)
    return record(message)


def send_pieces(sock: socket.socket, pieces: Iterable[bytes]) -> None:
    """Each one in a segment of its own, as far as the kernel lets us say so."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        sock.sendall(piece)


def answer_to(port: int, pieces: Iterable[bytes], *, seconds: float = 10) -> bytes:
    """All that the proxy says to these bytes until it closes; a reset is an end, too."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
        try:
            send_pieces(sock, pieces)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(4096):
                received += piece
        except ConnectionError:
            pass
    return received


def alert_in(answer: bytes) -> int | None:
    """The number of the alert that is all of an answer."""
    is_alert = len(answer) == HEADER + 2 and answer[0] == ALERT
    return answer[-1] if is_alert else None


class Talk:
    """A connection whose client lives in memory: its first flight is sent as a test says."""

    def __init__(self, port: int, context: ssl.SSLContext, name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        at = ("127.0.0.1", port)
        self.sock = socket.create_connection(at, timeout=20, source_address=stranger())

    def hello(self) -> bytes:
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def exchange(self, pieces: Iterable[bytes], word: bytes) -> bytes:
        """Send the hello in these pieces, finish the handshake, say a word: the answer."""
        send_pieces(self.sock, pieces)
        self._finished(self.client.do_handshake)
        self.client.write(word)
        self.sock.sendall(self._outgoing.read())
        answer: bytes = self._finished(lambda: self.client.read(len(word)))
        return answer

    def _finished(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                received = self.sock.recv(1 << 16)
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            finally:
                if said := self._outgoing.read():
                    self.sock.sendall(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
