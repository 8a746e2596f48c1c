"""Sockets that systemd has bound and passes to us (sd_listen_fds(3)), by the names of their units."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, MutableMapping

from termproxy.errors import StartError

FIRST = 3  # SD_LISTEN_FDS_START

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def take_passed(environ: MutableMapping[str, str], pid: int) -> dict[str, list[int]]:
    """The descriptors that are meant for process `pid`, by name; they and the variables that tell of
    them are not for our children.  StartError for variables that contradict each other.
    """
    for_whom = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    environ.pop("LISTEN_PIDFDID", None)
    if for_whom != str(pid):
        return {}
    if not (count.isascii() and count.isdigit()):
        raise StartError(f"LISTEN_FDS is {count!r}, and should be a number, as systemd sets it")
    named = names.split(":") if names else ["unknown"] * int(count)
    if len(named) != int(count):
        raise StartError(f"LISTEN_FDNAMES has {len(named)} names for LISTEN_FDS={count} sockets")
    passed: dict[str, list[int]] = {}
    for fd, name in enumerate(named, FIRST):
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise StartError(f"LISTEN_FDS={count}, but descriptor {fd}: {error.strerror}") from None
        passed.setdefault(name, []).append(fd)
    return passed


def as_listeners(name: str, fds: Iterable[int]) -> list[socket.socket]:
    """The sockets that systemd passed as `name`, ready to accept from.  StartError for one that is not a
    listening stream socket; the descriptors stay the caller's.
    """
    sockets: list[socket.socket] = []
    try:
        sockets.extend(_as_listener(name, fd) for fd in fds)
    except StartError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _as_listener(name: str, fd: int) -> socket.socket:
    def refuse(what: str, cure: str) -> StartError:
        return StartError(f"cannot listen on systemd:{name}: what systemd passes is {what}; {cure}")

    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise refuse("no socket", "write ListenStream= in its socket unit")
    sock = socket.socket(fileno=os.dup(fd))
    try:
        if sock.family not in _FAMILIES:
            raise refuse(f"a socket of {sock.family.name}", "write ListenStream= an address or a path")
        if sock.type is not socket.SOCK_STREAM:
            raise refuse("no stream socket", "write ListenStream= in its socket unit")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise refuse("a connection", "write Accept=no in its socket unit")
    except StartError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
