"""The listening sockets: bound once, by the master, and kept for as long as a configuration has them.

Every address has one socket a worker slot (SO_REUSEPORT), so that a new connection wakes one worker.
The master keeps all of them open: what is queued on a socket outlives its worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from termproxy.address import Address
from termproxy.errors import StartError

BACKLOG = 4096  # connections that wait; the kernel caps it at net.core.somaxconn

# Seconds the kernel keeps a client that says nothing, before a worker gets it: a TLS client speaks
# first, so it mostly comes with its ClientHello, and its first read finds something.
DEFER_ACCEPT = 1


class Listeners:
    def __init__(self) -> None:
        self._sockets: dict[Address, list[socket.socket]] = {}

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
                    _refuse_taken(address)
                    self._sockets[address] = []
                    added.append(address)
                sockets = self._sockets[address]
                while len(sockets) < slots:
                    sockets.append(_listen(address))
        except StartError:
            self.close(added)
            self._shrink(before)
            raise
        return added

    def _shrink(self, slots: int) -> None:
        """Close what was just added: nobody would accept from it."""
        for sockets in self._sockets.values():
            for sock in sockets[slots:]:
                sock.close()
            del sockets[slots:]

    def slots(self) -> int:
        """How many slots have sockets."""
        return max(map(len, self._sockets.values()), default=0)

    def of(self, address: Address) -> list[socket.socket]:
        """The sockets of an address, by slot."""
        return self._sockets[address]

    def addresses(self) -> list[Address]:
        return list(self._sockets)

    def close(self, addresses: Iterable[Address]) -> None:
        for address in list(addresses):
            for sock in self._sockets.pop(address):
                sock.close()


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
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)
        sock.bind(address.sockaddr)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {_why(error)}") from None
    return sock


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
