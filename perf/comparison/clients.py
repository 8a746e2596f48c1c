"""A client of one's own: for finding out whether a server is ready, and for staying idle."""

import socket
import ssl
from pathlib import Path

TIMEOUT = 10.0


class AnswerError(Exception):
    """The server answered, but not with what the backend says."""


def tls_context(chain: Path) -> ssl.SSLContext:
    """Trust the throw-away certificate, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(chain)
    return context


def connect(port: int, context: ssl.SSLContext | None, name: str = "127.0.0.1") -> socket.socket:
    """Verify who answers, too.  An address as a name is asked for by asking for no name."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except OSError:
        plain.close()
        raise


def ask(connection: socket.socket, path: str) -> str:
    """Send one keep-alive request whose answer fits one read; return that answer's body."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = connection.recv(4096).decode().partition("\r\n\r\n")
    if not head.startswith("HTTP/1.1 200 "):
        raise AnswerError(head[:80] or "connection closed")
    return body
