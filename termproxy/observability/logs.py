"""What termproxy says on standard error: one line a fact, in UTC, with the process that says it.

Nobody waits for whoever reads it: lines that a full pipe, a full disk or a journal that hangs does not
take are lost, and how many were is said when there is room again.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s[%(process)d] %(message)s"


class _StandardError:
    """Descriptor 2 as a stream for logging: it does not wait, does not raise, and counts."""

    def __init__(self) -> None:
        self.lost = 0  # lines, since somebody took the count
        self._untold = 0
        self._is_torn = False  # the last write ended inside a line
        self._is_socket = stat.S_ISSOCK(os.fstat(2).st_mode)
        wait_for_nobody(2)

    def write(self, text: str) -> None:
        said = text.encode(errors="backslashreplace")
        begin = b"\n" if self._is_torn else b""
        if self._untold:
            begin += f"({self._untold} lines were lost: standard error did not take them)\n".encode()
        try:
            written = self._put(begin + said)
        except OSError:
            written = 0
        if written:
            self._is_torn = written < len(begin + said)
        if written <= len(begin):
            self.lost += 1
            self._untold += 1
        else:
            self._untold = 0

    def flush(self) -> None:
        """Nothing is kept."""

    def _put(self, said: bytes) -> int:
        if not self._is_socket:
            return os.write(2, said)
        with socket.socket(fileno=os.dup(2)) as sock:
            return sock.send(said, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


_standard_error: _StandardError | None = None


def set_up(level: str) -> None:
    """Say things of this level and above.  To be called again when the level has changed."""
    global _standard_error  # noqa: PLW0603 - there is one, as there is one root logger
    _standard_error = _standard_error or _StandardError()
    handler = logging.StreamHandler(_standard_error)
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a log that cannot be written must not stop the server


def take_lost() -> int:
    """How many lines this process could not write since the last call."""
    if _standard_error is None:
        return 0
    lost, _standard_error.lost = _standard_error.lost, 0
    return lost


def wait_for_nobody(fd: int) -> None:
    """Open a pipe or a terminal anew, under its number, so that not blocking is ours alone and not that
    of whoever started us, too.  A file never blocks; a socket is asked not to for each send.
    """
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return
    try:
        own = os.open(f"/proc/self/fd/{fd}", STREAM)
    except OSError:
        return  # another user's terminal, say: better blocking than no log
    os.dup2(own, fd)
    os.close(own)


STREAM = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(slots=True)
class _Window:
    until: float
    admitted: int
    held: int


class Throttle(Generic[Key]):
    """Lets `burst` messages of a key through in `interval` seconds, and counts those held back.

    Bounded: beyond KEYS_MAX keys at a time the further ones are held back together, as None.
    """

    KEYS_MAX = 1000

    def __init__(self, interval: float, burst: int = 1) -> None:
        self.interval = interval
        self.burst = burst
        self._windows: dict[Key | None, _Window] = {}

    def admits(self, key: Key, now: float) -> bool:
        window = self._windows.get(key)
        if window is None and len(self._windows) < self.KEYS_MAX:
            window = self._windows[key] = _Window(now + self.interval, 0, 0)
        elif window is None:
            window = self._windows.setdefault(None, _Window(now + self.interval, self.burst, 0))
        if window.admitted < self.burst:
            window.admitted += 1
            return True
        window.held += 1
        return False

    def over(self, now: float) -> Iterator[tuple[Key | None, int]]:
        """The keys whose interval is over, with how many were held back; those with none are left out.

        To be called often: until then a key's interval goes on.
        """
        for key in [key for key, window in self._windows.items() if window.until <= now]:
            window = self._windows.pop(key)
            if window.held:
                yield key, window.held
