"""WebSocket (RFC 6455): its handshake's answer, and frames, for both ends.  No extensions, no sockets.

Messages that come in fragments are not put together: neither of our ends sends them.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

# What a frame may hold: more than either of our ends sends.
PAYLOAD_MAX = 1 << 20
# RFC 6455 §1.3.
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Opcode(IntEnum):
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class FrameError(Exception):
    """These bytes are no frame that this side may get."""


@dataclass(frozen=True, slots=True)
class Frame:
    opcode: Opcode
    payload: bytes


def accept_for(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key (§4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + MAGIC, usedforsecurity=False).digest())


def encode(opcode: Opcode, payload: bytes, mask: bytes = b"") -> bytes:
    """Write a whole message as one frame; clients mask theirs with four random bytes (§5.2)."""
    masked = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        length = bytes([masked | size])
    elif size < 1 << 16:
        length = bytes([masked | 126]) + size.to_bytes(2)
    else:
        length = bytes([masked | 127]) + size.to_bytes(8)
    return bytes([0x80 | opcode]) + length + mask + (apply_mask(payload, mask) if mask else payload)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """XOR with the mask, over and over: the same masks and unmasks (§5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class Decoder:
    """Takes bytes as they come; gives the frames that are whole."""

    def __init__(self, *, masked: bool) -> None:
        """Say whether the other side masks: clients must, servers must not (§5.1)."""
        self._masked = masked
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if buffer[0] & 0xF0 != 0x80:
            raise FrameError(f"a fragment, or an extension's bits: {buffer[0]:#x}")
        if bool(buffer[1] & 0x80) is not self._masked:
            raise FrameError("masked" if buffer[1] & 0x80 else "not masked")
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start += 2 if size == 126 else 8
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start])
        if size > PAYLOAD_MAX:
            raise FrameError(f"a frame of {size} bytes")
        mask_at, start = start, start + 4 * self._masked
        if len(buffer) < start + size:
            return None
        mask = bytes(buffer[mask_at:start])
        payload = bytes(buffer[start : start + size])
        try:
            opcode = Opcode(buffer[0] & 0x0F)
        except ValueError as error:
            raise FrameError(str(error)) from error
        del buffer[: start + size]
        return Frame(opcode, apply_mask(payload, mask) if mask else payload)
