"""Seal secrets for a disk or another machine: AES-256-GCM, under a key of its own or a passphrase.

    a line that says what it is · salt (16 bytes, for a passphrase) · nonce (12 bytes) · ciphertext, tag

The line is authenticated with the rest.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

KEY_SIZE = 32  # bytes
SALT_SIZE = 16
NONCE_SIZE = 12
_HEADER = b"termproxy sealed, version 1\n"

# RFC 7914 §2: a quarter of a second and 128 MiB, for whoever guesses, too.
_SCRYPT_COST = 2**17


class SealError(ValueError):
    """What was sealed cannot be opened; the text says why."""


def seal(content: bytes, key: bytes, salt: bytes, nonce: bytes) -> bytes:
    """`content` sealed under `key`, which was made with `salt`, if at all.  Never use a nonce twice."""
    head = _HEADER + salt
    return head + nonce + AESGCM(key).encrypt(nonce, content, head)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """What was sealed.  SealError when it was not, was damaged, or was sealed under another key."""
    head = _HEADER + salt_of(sealed)
    nonce = sealed[len(head) : len(head) + NONCE_SIZE]
    try:
        return AESGCM(key).decrypt(nonce, sealed[len(head) + NONCE_SIZE :], head)
    except (InvalidTag, ValueError):
        raise SealError("it is damaged, or sealed under another key") from None


def salt_of(sealed: bytes) -> bytes:
    """The salt for key_from_passphrase().  SealError when nothing was sealed here."""
    salt = sealed[len(_HEADER) : len(_HEADER) + SALT_SIZE]
    if not sealed.startswith(_HEADER) or len(salt) != SALT_SIZE:
        raise SealError("it is not a file that termproxy has sealed")
    return salt


def key_from_passphrase(passphrase: bytes, salt: bytes) -> bytes:
    """The key, slowly."""
    return Scrypt(salt, KEY_SIZE, n=_SCRYPT_COST, r=8, p=1).derive(passphrase)
