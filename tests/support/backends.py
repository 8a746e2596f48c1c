"""Small backends, each in threads of the test: what they do is a function of one connection."""

from __future__ import annotations

import hashlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import PATIENCE, wait_until

Behaviour = Callable[[socket.socket], None]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


def reset(sock: socket.socket) -> None:
    """Close so that the other end sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """`count` bytes, or what came before the end."""
    received = bytearray()
    while len(received) < count and (piece := sock.recv(min(1 << 16, count - len(received)))):
        received += piece
    return bytes(received)


def echo(sock: socket.socket) -> None:
    while piece := sock.recv(1 << 18):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def digest(sock: socket.socket) -> None:
    """Answers with the SHA-256 of all that was sent, once the client has ended."""
    sha = hashlib.sha256()
    while piece := sock.recv(1 << 18):
        sha.update(piece)
    sock.sendall(sha.digest())


def greeting(word: bytes) -> Behaviour:
    """Says one word, and ends."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(word)
        sock.shutdown(socket.SHUT_WR)
        receive_all(sock)

    return serve


class Backend:
    """Accepts on a port of this machine (or a Unix socket), and serves each client in a thread.

    `ended` tells for each connection how it did: None, or the OSError that the serving met.
    """

    def __init__(
        self,
        serve: Behaviour = echo,
        *,
        family: socket.AddressFamily = socket.AF_INET,
        path: Path | None = None,
    ) -> None:
        self._serve = serve
        self._sock = socket.socket(socket.AF_UNIX if path else family, socket.SOCK_STREAM)
        if path is not None:
            self._sock.bind(str(path))
            self.address = f"unix:{path}"
        elif family == socket.AF_INET6:
            self._sock.bind(("::1", 0))
            self.address = f"[::1]:{self._sock.getsockname()[1]}"
        else:
            self._sock.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self._sock.listen(4096)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.accepted = 0
        self.ended: list[OSError | None] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() would not
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
        for thread in self._threads:
            thread.join(PATIENCE)
        self._sock.close()

    def wait_for_ends(self, count: int = 1) -> list[OSError | None]:
        """How connections ended, once `count` have."""
        wait_until(lambda: len(self.ended) >= count, f"{count} connections of the backend have ended")
        return self.ended

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        end: OSError | None = None
        try:
            with sock:
                self._serve(sock)
        except OSError as error:
            end = error
        self._open.discard(sock)
        self.ended.append(end)


class EchoForMany:
    """An echo for thousands of connections, in one thread."""

    def __init__(self) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._sock.setblocking(False)
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self._stop, self._stopped = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._sock, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                if key.fileobj is self._sock:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._echo(key.fileobj)

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._sock.accept()
                self._selector.register(sock, selectors.EVENT_READ)
        except BlockingIOError:
            pass

    def _echo(self, sock: socket.socket) -> None:
        try:
            piece = sock.recv(1 << 16)
            sock.sendall(piece)  # small: it fits
        except OSError:
            piece = b""
        if not piece:
            self._selector.unregister(sock)
            sock.close()


class FullBackend:
    """Listens and never accepts, with its queue full: connecting to it neither succeeds nor fails."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(0)
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self._queued: list[socket.socket] = []

    def __enter__(self) -> Self:
        # A queue of length n holds n + 1; what comes after that is ignored by the kernel.
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._sock.getsockname())
            self._queued.append(sock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._queued:
            sock.close()
        self._sock.close()
