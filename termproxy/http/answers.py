"""The answers that we give ourselves: short, fixed, and with nothing of the request in them."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus


def redirect(location: str, *, with_body: bool = True) -> bytes:
    """A 308 to `location`, which is safe in a field's value; the connection ends with it."""
    body = "308 Permanent Redirect\n"
    head = (
        f"HTTP/1.1 308 Permanent Redirect\r\nLocation: {location}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return (head + body * with_body).encode()


@lru_cache(maxsize=256)
def answer(status: int, *, close: bool, with_body: bool = True, extra: bytes = b"") -> bytes:
    """A whole response; `extra` are lines with CRLF, `with_body` is False for HEAD."""
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}\n"
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        head += ALLOW
    connection = "Connection: close\r\n" if close else ""
    return b"%b%b%b\r\n%b" % (head.encode(), connection.encode(), extra, body.encode() * with_body)


# RFC 9110 §15.5.6 demands it; what a backend allows besides is its own affair.
ALLOW = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
