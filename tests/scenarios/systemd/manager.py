"""As much of systemd as a service sees: a socket that it may notify, and sockets that it is passed."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.server import Server
from tests.support.waiting import wait_until

# Put the descriptors where systemd puts them, and say so (sd_listen_fds(3)).
LAUNCHER = """
import fcntl, os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place)
for fd in high:
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """Hears what a service says of itself."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.heard: list[str] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        self._sock.bind(str(self.path))
        self._sock.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def listen(self) -> list[str]:
        """Every message until now."""
        try:
            while True:
                self.heard.append(self._sock.recv(4096).decode())
        except BlockingIOError:
            return self.heard

    def wait_for(self, that: Callable[[str], bool], what: str) -> str:
        """The first message that is so."""
        return wait_until(lambda: next(filter(that, self.listen()), ""), what)


def passing(server: Server, sockets: Mapping[str, socket.socket]) -> Server:
    """The server, started with these, by name."""
    fds = [sock.fileno() for sock in sockets.values()]
    server.inherit = tuple(fds)
    names = ":".join(name.partition("#")[0] for name in sockets)
    server.launcher = (sys.executable, "-c", LAUNCHER, ",".join(map(str, fds)), names)
    return server
