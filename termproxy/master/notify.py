"""Tell systemd how we are (sd_notify(3), sd_watchdog_enabled(3)), when it asked to be told.

What it asks with, in the environment, is taken out of there: it is not for our children.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping

STATUS_EVERY = 2.0  # seconds
SEND_MAX = 0.2  # seconds: systemd reads soon, or is not to be waited for


class Notifier:
    """`environ` is where systemd's question stands; without one, nothing here does anything.

    A master that takes another's place `is_held` until systemd has been told to listen to it.
    """

    def __init__(self, environ: MutableMapping[str, str], pid: int, *, is_held: bool = False) -> None:
        self.is_held = is_held
        self._path = environ.pop("NOTIFY_SOCKET", "")
        self._microseconds = environ.pop("WATCHDOG_USEC", "")
        for_whom = environ.pop("WATCHDOG_PID", "")
        if for_whom not in {"", str(pid)} or not (
            self._microseconds.isascii() and self._microseconds.isdigit()
        ):
            self._microseconds = ""
        self._next_beat = 0.0
        self._next_status = 0.0
        self._status = ""

    def for_successor(self) -> dict[str, str]:
        """The environment by which a master that takes our place is asked, too."""
        asked = {"NOTIFY_SOCKET": self._path, "WATCHDOG_USEC": self._microseconds}
        return {name: value for name, value in asked.items() if value}

    def tell(self, *facts: str) -> None:
        """Send "READY=1", "STOPPING=1" and the like."""
        if self.is_held or not self._path.startswith(("/", "@")):
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SEND_MAX)
            try:
                sock.sendto("\n".join(facts).encode(), os.fsencode(address))
            except OSError:
                pass  # it no longer listens, or is behind; serving matters more

    def tell_reloading(self, now: float) -> None:
        """A reload begins.  `now` is of the monotonic clock, which systemd compares."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}")

    def tick(self, now: float, status: Callable[[], str], *, is_healthy: bool) -> None:
        """Beat for the watchdog, as long as we are healthy, and say what goes on when it changes."""
        if self.is_held or not self._path:
            return
        if self._microseconds and is_healthy and now >= self._next_beat:
            self._next_beat = now + int(self._microseconds) / 2_000_000
            self.tell("WATCHDOG=1")
        if now >= self._next_status:
            self._next_status = now + STATUS_EVERY
            before, self._status = self._status, status()
            if self._status != before:
                self.tell(f"STATUS={self._status}")
