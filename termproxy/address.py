"""Where to listen and where to connect: `127.0.0.1:8443`, `[::1]:8443`, `unix:/run/app.sock`; and, to
listen only, `systemd:web`: the sockets of that name which systemd has passed to us.

Addresses are literal: nothing here asks a name server.  A backend may also be a Name, whose addresses
are found while we run (backends/prober.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

ACTIVATED_NAME_MAX = 255  # bytes (FileDescriptorName= in systemd.socket(5))

# The kernel knows no address of a client on a Unix socket.  It is on this machine: so it is told of, and
# trusted or limited, as one that connects to a loopback address.
UNIX_CLIENT = ("127.0.0.1", 0)

UNIX_PATH_MAX = 107  # bytes: sun_path of sockaddr_un holds 108 with its final NUL (unix(7))


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (v4 or v6) or a Unix socket's path, ready for bind() and connect(); or, with
    AF_UNSPEC, the name of sockets that systemd binds.
    """

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | str

    @property
    def is_unix(self) -> bool:
        return self.family is socket.AF_UNIX

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.is_unix or ipaddress.ip_address(self.sockaddr[0]).is_loopback

    @property
    def is_activated(self) -> bool:
        return self.family is socket.AF_UNSPEC

    @property
    def is_shared(self) -> bool:
        """Whether all workers listen on the same sockets; other addresses have one for each."""
        return isinstance(self.sockaddr, str)

    @property
    def port(self) -> int:
        """0 when it is not known here: for a Unix socket, and for systemd's."""
        return 0 if isinstance(self.sockaddr, str) else self.sockaddr[1]

    @property
    def packed(self) -> bytes:
        """As connect(2) takes it: a struct sockaddr_in, sockaddr_in6 or sockaddr_un."""
        if isinstance(self.sockaddr, str):
            return struct.pack("=H", self.family) + self.sockaddr.encode() + b"\0"
        host, port = self.sockaddr
        ip = ipaddress.ip_address(host)
        if isinstance(ip, ipaddress.IPv4Address):
            return struct.pack("=H", self.family) + struct.pack("!H4s8x", port, ip.packed)
        interface = 0 if ip.scope_id is None else _interface(ip.scope_id)
        head = struct.pack("=H", self.family) + struct.pack("!HI16s", port, 0, ip.packed)
        return head + struct.pack("=I", interface)

    def __str__(self) -> str:
        if isinstance(self.sockaddr, str):
            return f"{'unix' if self.is_unix else 'systemd'}:{self.sockaddr}"
        host, port = self.sockaddr
        return f"[{host}]:{port}" if self.family is socket.AF_INET6 else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Name:
    """A host's name and a port, to become addresses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def at(self, ip: str) -> Address:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        return Address(family, (ip, self.port))


def parse_address(text: str) -> Address:
    """The address that `text` writes; ValueError says what is wrong with it and what would be right."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    bracketed = re.fullmatch(r"\[(.*)\]:(.*)", text)
    if bracketed is not None:
        host, port = bracketed.groups()
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} has no port; write 127.0.0.1:8443, [::1]:8443 or unix:/path")
        if ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:8443")
    return _tcp(text, host, port)


def parse_listening_address(text: str) -> Address:
    """As parse_address(), for what is listened on: systemd's sockets, too."""
    if not text.startswith("systemd:"):
        return parse_address(text)
    name = text.removeprefix("systemd:")
    if not 0 < len(name) <= ACTIVATED_NAME_MAX or not name.isascii() or not name.isprintable():
        raise ValueError(f"{text!r}: that is no name; write FileDescriptorName= of the socket unit")
    return Address(socket.AF_UNSPEC, name)


def _interface(scope: str) -> int:
    """The number of what stands behind the % of an IPv6 address; 0, which nothing can be connected
    through, when there is no such interface.
    """
    if scope.isdigit():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        return 0


def _unix(path: str) -> Address:
    if not path.startswith("/"):
        raise ValueError(f"'unix:{path}': write the whole path, as in unix:/run/app.sock")
    if len(path.encode()) > UNIX_PATH_MAX or "\0" in path:
        raise ValueError(f"'unix:{path}': a socket's path has at most {UNIX_PATH_MAX} bytes")
    return Address(socket.AF_UNIX, path)


def _tcp(text: str, host: str, port: str) -> Address:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: {port!r} is not a port; write a number from 1 to 65535")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        hint = "127.0.0.1" if host == "localhost" else "its IP address"
        raise ValueError(f"{text!r}: {host!r} is not an IP address; write {hint}") from None
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    return Address(family, (str(ip), int(port)))


Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def is_in(host: str, networks: Networks) -> bool:
    """Whether an IP address is in one of the networks; ::ffff:192.0.2.1 is 192.0.2.1."""
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks if network.version == address.version)
