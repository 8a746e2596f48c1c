"""What is sealed is opened with its key alone, and whole."""

from __future__ import annotations

import pytest

from termproxy.tls import sealing
from termproxy.tls.sealing import KEY_SIZE, NONCE_SIZE, SALT_SIZE, SealError

KEY, OTHER_KEY = bytes(range(KEY_SIZE)), bytes(KEY_SIZE)
SALT, NONCE = b"s" * SALT_SIZE, b"n" * NONCE_SIZE
CONTENT = b"the content"


@pytest.fixture(scope="module")
def sealed() -> bytes:
    return sealing.seal(CONTENT, KEY, SALT, NONCE)


def test_what_was_sealed_is_opened(sealed: bytes) -> None:
    assert sealing.unseal(sealed, KEY) == CONTENT
    assert sealing.salt_of(sealed) == SALT


def test_it_says_what_it_is_and_not_what_is_in_it(sealed: bytes) -> None:
    assert sealed.startswith(b"termproxy sealed, version 1\n")
    assert CONTENT not in sealed
    assert KEY not in sealed


def test_nothing_can_be_sealed_too(sealed: bytes) -> None:
    assert sealing.unseal(sealing.seal(b"", KEY, SALT, NONCE), KEY) == b""


@pytest.mark.parametrize("key", [OTHER_KEY, KEY[:16], b"", KEY + b"\0"])
def test_another_key_does_not_open_it(sealed: bytes, key: bytes) -> None:
    with pytest.raises(SealError, match="damaged, or sealed under another key"):
        sealing.unseal(sealed, key)


def test_no_bit_may_differ(sealed: bytes) -> None:
    for at in range(len(sealed)):
        for bit in (1, 0x80):
            damaged = bytearray(sealed)
            damaged[at] ^= bit
            with pytest.raises(SealError):
                sealing.unseal(bytes(damaged), KEY)


def test_no_byte_may_be_missing_or_too_many(sealed: bytes) -> None:
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            sealing.unseal(sealed[:length], KEY)
    with pytest.raises(SealError):
        sealing.unseal(sealed + b"\0", KEY)


@pytest.mark.parametrize("content", [b"", b"\n", b"text", b"termproxy sealed, version 2\n" + bytes(99)])
def test_what_was_not_sealed_here_is_told_apart(content: bytes) -> None:
    with pytest.raises(SealError, match="not a file that termproxy has sealed"):
        sealing.unseal(content, KEY)


def test_a_passphrase_gives_the_same_key_only_with_the_same_salt() -> None:
    key = sealing.key_from_passphrase(b"correct horse", SALT)
    assert len(key) == KEY_SIZE
    assert key == sealing.key_from_passphrase(b"correct horse", SALT)
    assert key != sealing.key_from_passphrase(b"correct horse", b"t" * SALT_SIZE)
    assert key != sealing.key_from_passphrase(b"correct horsf", SALT)
