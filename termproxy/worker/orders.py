"""What the master tells a running worker: certificates, or OCSP responses, to show from now on, and an
access log that was opened anew, sockets to accept from.

The master opens files; a worker, which may not, gets what is in them, or the descriptor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from termproxy.config.load import PlainSource, load
from termproxy.config.schema import Config
from termproxy.messages import DESCRIPTORS_MAX, message
from termproxy.observability.access_log import AccessLog
from termproxy.tls.certificates import Certificate, parse_certificate
from termproxy.tls.context import Staples, Stores
from termproxy.worker.assembly import Assembly

ACCEPT = message({"accept": True})
"""Take clients from now on."""
MAKE_WAY = message({"make_way": True})
"""Drain: others go on with the listeners."""

ORDER_MAX = 256 << 20  # bytes: some ten thousand certificates


def order(
    index: int, before: Sequence[Certificate], now: Sequence[Certificate], pem: dict[Path, bytes]
) -> bytes:
    """The order that brings a worker which shows `before` to show `now` at frontend `index`."""
    known = {certificate.chain_sha256 for certificate in before}
    return message(
        {
            "frontend": index,
            "certificates": [certificate.chain_sha256 for certificate in now],
            "new": [_as_plain(each) for each in now if each.chain_sha256 not in known],
            "pem": {_text(file): content.decode("latin-1") for file, content in pem.items()},
        }
    )


def settings_order(values: Mapping[str, Any], base: Path, keys: Sequence[tuple[str, str]]) -> bytes:
    """The order to follow these settings: plain values, the folder that relative paths start from, and
    the board's servers.  An order for each frontend has to come behind it.
    """
    return message({"settings": values, "base": _text(base), "servers": keys})


def settings_in(order: dict[str, Any]) -> tuple[Config, list[tuple[str, str]]]:
    """What settings_order() put in."""
    config = load(PlainSource(order["settings"], _path(order["base"])))
    return config, [(cluster, server) for cluster, server in order["servers"]]


def staples_order(changes: Mapping[str, tuple[bytes, float] | None]) -> bytes:
    """The order to show other OCSP responses: by the certificate's SHA-256, None for no longer."""
    plain = {
        sha256: None if change is None else [change[0].decode("latin-1"), change[1]]
        for sha256, change in changes.items()
    }
    return message({"staples": plain})


def reopen_order() -> bytes:
    """The order to write the access log to the descriptor that goes with it."""
    return message({"access_log": "reopen", "descriptors": 1})


def slot_orders(slot: int, places: Sequence[int]) -> Iterator[tuple[bytes, Sequence[int]]]:
    """The orders to accept from a new slot's sockets, too.  With each goes a socket for each of its
    places: addresses by their number, as the worker knows them.
    """
    for start in range(0, len(places), DESCRIPTORS_MAX):
        these = list(places[start : start + DESCRIPTORS_MAX])
        yield message({"slot": slot, "places": these, "descriptors": len(these)}), these


def show_staples(changes: Mapping[str, tuple[bytes, float] | None], staples: Staples) -> None:
    """Have the contexts that look into `staples` show them."""
    for sha256, change in changes.items():
        if change is None:
            staples.pop(bytes.fromhex(sha256), None)
        else:
            staples[bytes.fromhex(sha256)] = change


class Orders:
    """Carries out what the master orders.  Keeps what it was sent, also when it was refused: the next
    order builds on it.
    """

    def __init__(
        self,
        assemblies: Sequence[Assembly],
        stores: Stores,
        access_log: AccessLog | None,
        listen: Callable[[int, int, socket.socket], None],
    ) -> None:
        """`listen(place, slot, sock)` has clients accepted there, as at the address of this place."""
        self._assemblies = assemblies
        self._stores = stores
        self._access_log = access_log
        self._listen = listen
        self._known = [
            {certificate.chain_sha256: certificate for certificate in assembly.certificates}
            for assembly in assemblies
        ]

    def obey(self, body: dict[str, Any], fds: list[int], now: datetime) -> None:
        """Do what an order says.  CertificateError leaves everything as it was.

        An order that keeps a descriptor takes it out of `fds`, where those are that came with it.
        """
        if "staples" in body:
            changes = {
                sha256: None if plain is None else (plain[0].encode("latin-1"), plain[1])
                for sha256, plain in body["staples"].items()
            }
            show_staples(changes, self._stores.staples)
        elif "access_log" in body:
            assert self._access_log is not None  # noqa: S101 - the master knows who has one
            self._access_log.reopen(fds[0])
        elif "slot" in body:
            for place in body["places"]:
                self._listen(place, body["slot"], socket.socket(fileno=fds.pop(0)))
        else:
            self._show(body, now)

    def _show(self, body: dict[str, Any], now: datetime) -> None:
        index, wanted = body["frontend"], body["certificates"]
        known = self._known[index]
        for plain in body["new"]:
            certificate = _from_plain(plain)
            known[certificate.chain_sha256] = certificate
        self._known[index] = {digest: known[digest] for digest in wanted}
        pem = {_path(file): content.encode("latin-1") for file, content in body["pem"].items()}
        self._assemblies[index].serve([known[digest] for digest in wanted], pem, now)


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
