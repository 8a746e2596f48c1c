"""The listening sockets: bound once, by the master, and kept for as long as a configuration has them.

Every address has one socket a worker slot (SO_REUSEPORT), so that a new connection wakes one worker.
The master keeps all of them open: what is queued on a socket outlives its worker.  Unix sockets, and
those that systemd has bound, are shared by all slots.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from termproxy.address import Address, parse_listening_address
from termproxy.errors import StartError
from termproxy.master import unix_socket
from termproxy.master.activation import as_listeners
from termproxy.master.handover import PassedListener

BACKLOG = 4096  # connections that wait; the kernel caps it at net.core.somaxconn

# Seconds the kernel keeps a client that says nothing, before a worker gets it: a TLS client speaks
# first, so it mostly comes with its ClientHello, and its first read finds something.
DEFER_ACCEPT = 1

# Who may connect to a Unix socket: our user and our group, or the folder's, where that is set-group-ID.
UNIX_MODE = 0o660


class Listeners:
    def __init__(self) -> None:
        self._activated: Mapping[str, list[int]] = {}
        self._sockets: dict[Address, list[socket.socket]] = {}
        self._inodes: dict[Address, unix_socket.Inode] = {}  # of Unix sockets' paths

    def activate(self, passed: Mapping[str, list[int]]) -> None:
        """These descriptors has systemd passed, by name.  They stay open: a reload may want them."""
        self._activated = passed

    def bind(self, addresses: Iterable[Address], slots: int) -> list[Address]:
        """Listen on every address with a socket a slot; those that already do, stay as they are.

        Returns the addresses that are new.  StartError when one cannot be had: none is added then.
        """
        added: list[Address] = []
        before = self.slots()
        slots = max(slots, before)
        try:
            # New ones first: they may be refused, and at the others a client may be queued at once.
            for address in sorted(addresses, key=self._sockets.__contains__):
                if address not in self._sockets:
                    self._sockets[address] = self._first_sockets(address)
                    added.append(address)
                sockets = self._sockets[address]
                while not address.is_shared and len(sockets) < slots:
                    sockets.append(_listen(address))
        except StartError:
            self.close(added)
            self._shrink(before)
            raise
        return added

    def _first_sockets(self, address: Address) -> list[socket.socket]:
        """All of a shared address's; none of another's, which comes to have one a slot."""
        if address.is_unix:
            path = Path(str(address.sockaddr))
            sock = unix_socket.listen(path, f"cannot listen on {address}", UNIX_MODE, BACKLOG)
            self._inodes[address] = unix_socket.inode_of(path)
            return [sock]
        if address.is_activated:
            name = str(address.sockaddr)
            if name not in self._activated:
                raise StartError(f"cannot listen on {address}: {self._what_is_passed()}")
            sockets = as_listeners(name, self._activated[name])
            for sock in sockets:
                if sock.family is not socket.AF_UNIX:
                    _set_up(sock)
            return sockets
        _refuse_taken(address)
        return []

    def _what_is_passed(self) -> str:
        if not self._activated:
            return "systemd passes no sockets; start us by a socket unit, or write an address and port"
        return f"systemd passes no socket of that name; it passes {', '.join(sorted(self._activated))}"

    def unused(self) -> list[str]:
        """What systemd passes, and nobody listens on."""
        used = {address.sockaddr for address in self._sockets if address.is_activated}
        return [name for name in self._activated if name not in used]

    def _shrink(self, slots: int) -> None:
        """Close what was just added: nobody would accept from it."""
        for sockets in self._own_sockets():
            for sock in sockets[slots:]:
                sock.close()
            del sockets[slots:]

    def slots(self) -> int:
        """How many slots have sockets."""
        return max(map(len, self._own_sockets()), default=0)

    def _own_sockets(self) -> Iterator[list[socket.socket]]:
        """Of the addresses that have one for each slot."""
        return (sockets for address, sockets in self._sockets.items() if not address.is_shared)

    def of(self, address: Address) -> list[socket.socket]:
        """The sockets of an address, by slot, or those that all slots share."""
        return self._sockets[address]

    def addresses(self) -> list[Address]:
        return list(self._sockets)

    def close(self, addresses: Iterable[Address]) -> None:
        for address in list(addresses):
            for sock in self._sockets.pop(address):
                sock.close()
            if address in self._inodes:
                unix_socket.remove(Path(str(address.sockaddr)), self._inodes.pop(address))

    # From one master to the next.

    def passed(self) -> list[PassedListener]:
        """All there are: they stay ours, too."""
        return [
            PassedListener(
                str(address),
                [sock.fileno() for sock in sockets],
                list(self._inodes.get(address, ())),
            )
            for address, sockets in self._sockets.items()
        ]

    def activated(self) -> dict[str, list[int]]:
        """The descriptors that systemd has passed, by name."""
        return dict(self._activated)

    def leave_paths(self) -> None:
        """The paths of Unix sockets are the next master's from now on."""
        self._inodes.clear()

    def go_on_with(self, passed: Iterable[PassedListener], activated: Mapping[str, list[int]]) -> None:
        """Have these from the start.  ValueError or OSError when they are not what they should be."""
        self._activated = activated
        for each in passed:
            address = parse_listening_address(each.address)
            self._sockets[address] = [socket.socket(fileno=fd) for fd in each.fds]

    def own_paths(self, passed: Iterable[PassedListener]) -> None:
        """The paths of Unix sockets are ours from now on, where these still are listened on."""
        for each in passed:
            address = parse_listening_address(each.address)
            if address in self._sockets and len(each.inode) == 2:
                self._inodes[address] = each.inode[0], each.inode[1]


def listen_alone(address: Address) -> socket.socket:
    """One socket for an address, which all who serve it share.  StartError when it cannot be had."""
    return _listening(_bound(address, reuse_port=False), address)


def _refuse_taken(address: Address) -> None:
    """SO_REUSEPORT would let us join another server's port in silence: try without it first."""
    with _bound(address, reuse_port=False):
        pass


def _listen(address: Address) -> socket.socket:
    return _listening(_bound(address, reuse_port=True), address)


def _listening(sock: socket.socket, address: Address) -> socket.socket:
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {_why(error)}") from None
    return sock


def _bound(address: Address, *, reuse_port: bool) -> socket.socket:
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {_why(error)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _set_up(sock)
        sock.bind(address.sockaddr)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {_why(error)}") from None
    return sock


def _set_up(sock: socket.socket) -> None:
    """What listening sockets of TCP have."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is taken; stop what listens there, or choose another"
        case errno.EACCES:
            return "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have the address"
        case _:
            return os.strerror(error.errno or 0)
