"""Ports that nobody listens on."""

from __future__ import annotations

import os
import random
import socket

# Below what the kernel gives to outgoing connections (ip_local_port_range), so that none of those takes
# a port between our choice and its use.
_LOWEST, _HIGHEST = 12_000, 32_000

_random = random.Random(os.getpid())


def free_port() -> int:
    """A port that is free on IPv4 and IPv6, and was drawn at random: tests may run side by side."""
    while True:
        port = _random.randint(_LOWEST, _HIGHEST)
        if _is_free(socket.AF_INET, "0.0.0.0", port) and _is_free(socket.AF_INET6, "::", port):
            return port


def _is_free(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True
