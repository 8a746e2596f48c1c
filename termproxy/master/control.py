"""The master's control socket: one JSON line asks, one answers.

    {"verb": "status"}              answered at once
    {"verb": "stop", "now": false}  answered when it has been done

It is a Unix socket of mode 0600 in the master's own loop: few clients at a time, short requests, a
deadline for each, and no read or write that could block the master.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from termproxy import clock
from termproxy.address import UNIX_PATH_MAX
from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared

CLIENTS_MAX = 16
REQUEST_MAX = 1 << 16  # bytes: a ring of ticket keys, to be taken over
REQUEST_TIMEOUT = 5.0  # seconds to send the line


@dataclass(slots=True, eq=False)
class Request:
    """One client's question.  `answer` may come later; the client waits."""

    sock: socket.socket
    deadline: float
    on_rest: Callable[[Request], None]  # the answer is larger than the socket's buffer
    received: bytes = b""
    unsent: bytes = b""

    def answer(self, answer: dict[str, Any]) -> None:
        """Send the answer, and hang up when it has gone."""
        self.unsent = orjson.dumps(answer) + b"\n"
        if not self.send():
            self.on_rest(self)

    def send(self) -> bool:
        """Send what the client takes now; whether that was the end of it."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            pass  # whoever asked no longer listens
        self.sock.close()
        return True


class ControlSocket:
    """`on_request(verb, arguments, request)` is called for each whole request."""

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        on_request: Callable[[str, dict[str, Any], Request], None],
    ) -> None:
        self._path = path
        self._selector = selector
        self._on_request = on_request
        self._requests: set[Request] = set()
        self._sock = _bind(path)
        self._inode = os.lstat(path).st_ino
        selector.register(self._sock, selectors.EVENT_READ, self._accept)

    def expire(self, now: float) -> None:
        """Hang up on clients that did not ask, or take the answer, in time."""
        for request in list(self._requests):
            if now >= request.deadline:
                self._forget(request)
                if not request.unsent:
                    request.answer({"error": "no request within 5 seconds"})
                request.sock.close()

    def remove(self) -> None:
        """At the master's end: the path goes, if it still is ours."""
        try:
            if os.lstat(self._path).st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # somebody was faster
        self.close()

    def close(self) -> None:
        """In a worker: these are the master's."""
        self._sock.close()
        for request in self._requests:
            request.sock.close()

    def _accept(self, now: float) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        sock.setblocking(False)
        request = Request(sock, now + REQUEST_TIMEOUT, self._send_rest)
        if len(self._requests) >= CLIENTS_MAX:
            request.answer({"error": "too many control clients"})
            return
        self._requests.add(request)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._read(request))

    def _read(self, request: Request) -> None:
        try:
            received = request.sock.recv(REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        request.received += received
        if b"\n" in request.received:
            self._forget(request)
            self._ask(request)
        elif not received or len(request.received) >= REQUEST_MAX:
            self._forget(request)
            request.answer({"error": f"expected one line of JSON, at most {REQUEST_MAX} bytes"})

    def _send_rest(self, request: Request) -> None:
        """Go on when the client takes more, as long as a request may take."""
        request.deadline = clock.monotonic() + REQUEST_TIMEOUT
        self._requests.add(request)
        self._selector.register(request.sock, selectors.EVENT_WRITE, lambda _: self._write(request))

    def _write(self, request: Request) -> None:
        self._forget(request)
        if not request.send():
            self._send_rest(request)

    def _ask(self, request: Request) -> None:
        try:
            arguments = orjson.loads(request.received)
            verb = arguments.pop("verb")
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            request.answer({"error": 'expected one line of JSON with a "verb"'})
            return
        self._on_request(str(verb), arguments, request)

    def _forget(self, request: Request) -> None:
        self._requests.discard(request)
        self._selector.unregister(request.sock)


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise StartError(f"control {path}: a socket's path has at most {UNIX_PATH_MAX} bytes")
    refuse_shared(path.parent, f"control {path}")
    _make_room(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # born with mode 0600: there is no moment in which others may connect
    try:
        sock.bind(os.fspath(path))
        sock.listen(CLIENTS_MAX)
    except OSError as error:
        sock.close()
        raise StartError(f"control {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def _make_room(path: Path) -> None:
    """Remove the socket of a master that was killed; refuse anything else that is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"control {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise StartError(f"control {path}: something that is not a socket is there; remove it")
    if status.st_uid != os.geteuid():
        raise StartError(f"control {path}: another user's socket is there; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise StartError(f"control {path}: {error.strerror}") from None
    raise StartError(f"control {path}: a running termproxy answers there")
