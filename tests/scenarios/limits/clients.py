"""Clients at other addresses of this machine, as limits for each client see them."""

from __future__ import annotations

import socket
import ssl

from tests.support.clients import NAME
from tests.support.server import Server
from tests.support.waiting import PATIENCE


def connect_from(
    host: str, server: Server, trust: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """A TLS connection from this address, its handshake done.  OSError when it is turned away."""
    sock = socket.create_connection(
        ("127.0.0.1", server.port), timeout=PATIENCE, source_address=(host, 0)
    )
    try:
        return trust.wrap_socket(sock, server_hostname=NAME, session=session, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def is_turned_away(
    host: str, server: Server, trust: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> bool:
    """Whether a client from this address is cut off before its handshake is done."""
    try:
        connect_from(host, server, trust, session).close()
    except (ConnectionError, ssl.SSLEOFError):
        return True
    return False


def dropped(server: Server) -> dict[str, int]:
    """How many clients each limit has turned away."""
    counted: dict[str, int] = server.status()["frontends"][0]["totals"]["dropped"]
    return counted
