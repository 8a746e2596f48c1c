"""What a TLS session consists of, and a ticket: taken apart and put together without OpenSSL's help.

A session is the SSL_SESSION of OpenSSL's ssl/ssl_asn1.c: a SEQUENCE of five plain fields, then tagged
ones.  A ticket is what RFC 5077 §4 suggests, with the keys of tls/_openssl.pyx.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from termproxy.shm import shared_memory
from termproxy.tls._openssl import RING_SIZE, TicketRing
from termproxy.tls.tickets import Ring

# Where in a session: plain fields by their place, tagged ones by their tag.
SSL_VERSION, CIPHER, SESSION_ID = 1, 2, 3
TIME, TIMEOUT, PEER, GROUP, LIFETIME_HINT, TICKET = 0xA1, 0xA2, 0xA3, 0xA4, 0xA9, 0xAA
MAX_EARLY_DATA = 0xAF

_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30

NAME, IV, MAC = 16, 16, 32  # sizes of a ticket's parts


# Sessions.


def fields(session: bytes) -> dict[int, bytes]:
    """What each field holds, headers off."""
    [(_, content)] = _elements(session)
    found = {}
    for place, (tag, value) in enumerate(_elements(content)):
        if tag & 0xA0 == 0xA0:
            [(_, found[tag])] = _elements(value)
        else:
            found[place] = value
    return found


def number(session: bytes, place: int) -> int:
    return int.from_bytes(fields(session).get(place, b""))


def with_fields(session: bytes, changes: Mapping[int, bytes | int]) -> bytes:
    """The session with other fields; tagged ones may be new."""
    [(_, content)] = _elements(session)
    parts: dict[int, bytes] = {}
    for place, (tag, value) in enumerate(_elements(content)):
        parts[tag if tag & 0xA0 == 0xA0 else place] = _element(tag, value)
    for place, change in changes.items():
        kind = _INTEGER if isinstance(change, int) else _OCTETS
        inner = _element(kind, _integer(change) if isinstance(change, int) else change)
        if place == PEER:
            inner = bytes(change)  # a certificate, which is DER itself
        parts[place] = _element(place, inner) if place & 0xA0 == 0xA0 else inner
    return _element(_SEQUENCE, b"".join(parts[place] for place in sorted(parts)))


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, signed=True)


def _element(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size])
            at += size
        found.append((tag, der[at : at + length]))
        at += length
    return found


# Tickets.


@dataclass(frozen=True, slots=True)
class GroupKey:
    """A key of the ring as a policy group uses it: RFC 5869's Expand, with the group as its info."""

    name: bytes
    cipher: bytes
    mac: bytes

    @classmethod
    def of(cls, key_id: bytes, secret: bytes, group: bytes) -> GroupKey:
        derived = HKDFExpand(hashes.SHA256(), 96, group).derive(secret)
        return cls(key_id + derived[64:72], derived[:32], derived[32:64])

    def open(self, ticket: bytes) -> bytes:
        """The session in a ticket.  AssertionError when this is not its key."""
        body, mac = ticket[:-MAC], ticket[-MAC:]
        assert ticket[:NAME] == self.name
        assert hmac.digest(self.mac, body, "sha256") == mac
        decryptor = Cipher(AES(self.cipher), CBC(body[NAME : NAME + IV])).decryptor()
        padded = decryptor.update(body[NAME + IV :]) + decryptor.finalize()
        unpadder = padding.PKCS7(128).unpadder()
        return unpadder.update(padded) + unpadder.finalize()

    def close(self, session: bytes) -> bytes:
        """A ticket for a session."""
        iv = os.urandom(IV)
        padder = padding.PKCS7(128).padder()
        encryptor = Cipher(AES(self.cipher), CBC(iv)).encryptor()
        padded = padder.update(session) + padder.finalize()
        body = self.name + iv + encryptor.update(padded) + encryptor.finalize()
        return body + hmac.digest(self.mac, body, "sha256")

    def forge(self, session: bytes, changes: Mapping[int, bytes | int]) -> bytes:
        """A client's session whose ticket tells the server something else."""
        ticket = self.close(with_fields(self.open(fields(session)[TICKET]), changes))
        return with_fields(session, {TICKET: ticket})


# The ring in memory.


def ring_memory(ring: Ring | None = None) -> TicketRing:
    """As a master would make it."""
    memory = TicketRing(shared_memory(RING_SIZE))
    if ring is not None:
        write(memory, ring)
    return memory


def write(memory: TicketRing, ring: Ring) -> None:
    memory.write(
        (key.number, key.id, key.secret, key.issue_from, key.issue_until, key.redeem_until)
        for key in ring.keys
    )
