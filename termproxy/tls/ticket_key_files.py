"""Files of ticket keys that other servers share already: 80 bytes each, in nginx's or HAProxy's form.

    nginx      ssl_session_ticket_key: one or more files of 80 bytes; the first issues, the others redeem
    HAProxy    tls-ticket-keys: one file with a key in base64 on each line; the last but one issues

What is in a key is taken as one secret: our own keys are derived from it, so that all termproxies with
the same file redeem each other's tickets.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILE_KEY_SIZE = 80  # bytes
KEYS_MAX = 24
FILE_MAX = 1 << 16  # bytes


class TicketKeyError(ValueError):
    """A file of ticket keys cannot be used; the text says why, `cure` what would be right."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class FileKeys:
    """Oldest first; the one at `issuing` issues, and the one after it, if there is one, is next."""

    secrets: tuple[bytes, ...] = field(repr=False)
    issuing: int


def read_ticket_keys(files: Sequence[Path]) -> FileKeys:
    """The keys in these files.  TicketKeyError when one cannot be read, or holds something else."""
    contents = []
    for file in files:
        try:
            if file.exists() and not file.is_file():  # a FIFO would keep us waiting
                raise TicketKeyError(f"{file} is no file", "name a file of ticket keys")
            with file.open("rb") as stream:
                contents.append(stream.read(FILE_MAX + 1))
        except OSError as error:
            raise TicketKeyError(
                f"cannot read {file}: {error.strerror}", "name a file that the starting user may read"
            ) from None
    try:
        return parse(contents)
    except TicketKeyError as error:
        names = ", ".join(map(str, files))
        raise TicketKeyError(f"{names}: {error}", error.cure) from None


def parse(contents: Sequence[bytes]) -> FileKeys:
    """The keys in these files, in the order in which they were named."""
    if len(contents) == 1 and len(contents[0]) != FILE_KEY_SIZE and _is_text(contents[0]):
        return _haproxy(contents[0])
    for content in contents:
        if len(content) != FILE_KEY_SIZE:
            raise TicketKeyError(
                f"{len(content)} bytes", f"make a key of {FILE_KEY_SIZE} bytes with `openssl rand 80`"
            )
    return _checked(FileKeys(tuple(reversed(contents)), len(contents) - 1))


def _haproxy(content: bytes) -> FileKeys:
    secrets = []
    for number, line in enumerate(content.split(), 1):
        try:
            secret = base64.b64decode(line, validate=True)
        except binascii.Error:
            secret = b""
        if len(secret) != FILE_KEY_SIZE:
            raise TicketKeyError(
                f"line {number} is not {FILE_KEY_SIZE} bytes in base64",
                "make each line with `openssl rand 80 | base64 -w0`",
            )
        secrets.append(secret)
    if len(secrets) < 3:
        raise TicketKeyError(
            f"{len(secrets)} keys", "write three at least: one that redeems, one that issues, the next"
        )
    return _checked(FileKeys(tuple(secrets), len(secrets) - 2))


def _checked(keys: FileKeys) -> FileKeys:
    if len(keys.secrets) > KEYS_MAX:
        raise TicketKeyError(f"{len(keys.secrets)} keys", f"keep the newest {KEYS_MAX}")
    if len(set(keys.secrets)) != len(keys.secrets):
        raise TicketKeyError("a key is there twice", "make each key anew")
    if any(len(set(secret)) < 16 for secret in keys.secrets):
        raise TicketKeyError("a key that is not random", "make it with `openssl rand 80`")
    return keys


def _is_text(content: bytes) -> bool:
    return content.isascii() and all(byte >= 32 or byte in b"\r\n\t" for byte in content)
