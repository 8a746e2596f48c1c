"""What is sent both ways: bytes that client and backend know without asking each other.

Each body is a piece of one long content, from a place of its own, so that an answer
that belongs to another request is noticed.
"""

import hashlib
import random
from functools import lru_cache

LARGEST = 1 << 20
# Where pieces begin; few enough for their digests to be kept.
PLACES = range(0, LARGEST, 1 << 14)

CONTENT = random.Random(7).randbytes(2 * LARGEST)


def piece(at: int, size: int) -> bytes:
    """Return `size` bytes from a place, or ValueError when there are not so many."""
    if not (0 <= at <= LARGEST and 0 <= size <= LARGEST):
        raise ValueError(f"no piece of {size} bytes at {at}")
    return CONTENT[at : at + size]


@lru_cache(maxsize=4096)
def digest(at: int, size: int) -> str:
    """Return the SHA-256 of a piece, in hexadecimal."""
    return hashlib.sha256(piece(at, size)).hexdigest()
