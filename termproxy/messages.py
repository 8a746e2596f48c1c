"""How the master and its processes talk, on socket pairs that only the two of them have.

A message is a length (four bytes, big-endian) and JSON.  The master sends orders (worker/orders.py), a
worker reports what it has seen: `{"failures": [...]}`, see observability/failure_book.py.

With an order's first byte go the descriptors (SCM_RIGHTS, unix(7)) that its "descriptors" counts: they
have come when it has, in the order of the orders.  A worker's are not taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

_LENGTH = 4

DESCRIPTORS_MAX = 64  # of an order; the kernel would take 253
REPORT_MAX = 1 << 20  # bytes: what the master takes from a worker at a time


def message(body: dict[str, Any]) -> bytes:
    encoded = orjson.dumps(body)
    return len(encoded).to_bytes(_LENGTH) + encoded


@dataclass(slots=True)
class MessageReader:
    """Puts messages of at most `size_max` bytes together from what the socket gives."""

    size_max: int
    _received: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are whole now.  ValueError for one that is too long, or is no JSON."""
        self._received += data
        while len(self._received) >= _LENGTH:
            length = int.from_bytes(self._received[:_LENGTH])
            if length > self.size_max:
                raise ValueError(f"a message of {length} bytes")
            if len(self._received) < _LENGTH + length:
                return
            body = bytes(self._received[_LENGTH : _LENGTH + length])
            del self._received[: _LENGTH + length]
            yield orjson.loads(body)
