"""What the master tells a running worker: certificates to show from now on.

An order is a length (four bytes, big-endian) and JSON, on a socket pair that only the two of them
have.  The master reads files; a worker, which may not, gets what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from termproxy.tls.certificates import Certificate, parse_certificate
from termproxy.worker.assembly import Assembly

ORDER_MAX = 256 << 20  # bytes: some ten thousand certificates
_LENGTH = 4


def order(
    index: int, before: Sequence[Certificate], now: Sequence[Certificate], pem: dict[Path, bytes]
) -> bytes:
    """The order that brings a worker which shows `before` to show `now` at frontend `index`."""
    known = {certificate.chain_sha256 for certificate in before}
    body = orjson.dumps(
        {
            "frontend": index,
            "certificates": [certificate.chain_sha256 for certificate in now],
            "new": [_as_plain(each) for each in now if each.chain_sha256 not in known],
            "pem": {_text(file): content.decode("latin-1") for file, content in pem.items()},
        }
    )
    return len(body).to_bytes(_LENGTH) + body


class Orders:
    """Carries out what the master orders.  Keeps what it was sent, also when it was refused: the next
    order builds on it.
    """

    def __init__(self, assemblies: Sequence[Assembly]) -> None:
        self._assemblies = assemblies
        self._known = [
            {certificate.chain_sha256: certificate for certificate in assembly.certificates}
            for assembly in assemblies
        ]

    def obey(self, body: dict[str, Any], now: datetime) -> None:
        """Show what an order says.  CertificateError leaves everything as it was."""
        index, wanted = body["frontend"], body["certificates"]
        known = self._known[index]
        for plain in body["new"]:
            certificate = _from_plain(plain)
            known[certificate.chain_sha256] = certificate
        self._known[index] = {digest: known[digest] for digest in wanted}
        pem = {_path(file): content.encode("latin-1") for file, content in body["pem"].items()}
        self._assemblies[index].serve([known[digest] for digest in wanted], pem, now)


@dataclass(slots=True)
class OrderReader:
    """Puts orders together from what the socket gives."""

    _received: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The orders that are whole now.  ValueError for one that is too long."""
        self._received += data
        while len(self._received) >= _LENGTH:
            length = int.from_bytes(self._received[:_LENGTH])
            if length > ORDER_MAX:
                raise ValueError(f"an order of {length} bytes")
            if len(self._received) < _LENGTH + length:
                return
            body = bytes(self._received[_LENGTH : _LENGTH + length])
            del self._received[: _LENGTH + length]
            yield orjson.loads(body)


def _as_plain(certificate: Certificate) -> dict[str, str]:
    return {
        "chain_file": _text(certificate.chain_file),
        "key_file": _text(certificate.key_file),
        "chain": certificate.chain.decode("latin-1"),
        "key": certificate.key.decode("latin-1"),
    }


def _from_plain(plain: dict[str, str]) -> Certificate:
    return parse_certificate(
        _path(plain["chain_file"]),
        _path(plain["key_file"]),
        plain["chain"].encode("latin-1"),
        plain["key"].encode("latin-1"),
    )


def _text(file: Path) -> str:
    """JSON has no bytes, and a path may be any."""
    return os.fsencode(file).decode("latin-1")


def _path(text: str) -> Path:
    return Path(os.fsdecode(text.encode("latin-1")))
