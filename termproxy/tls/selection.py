"""Decide which certificates serve which names.

Names are as `client_hello.host_name` gives them.  `*.example.com` stands for one label in front of
example.com (RFC 9525 §6.3): neither for example.com itself nor for a.b.example.com.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from termproxy.tls.certificates import Certificate

T = TypeVar("T")


class NameTable(Generic[T]):
    """What belongs to a name: the exact name's, else the wildcard's one label up.

    Two dictionaries: a look-up costs the same with ten names and with ten thousand.
    """

    def __init__(self) -> None:
        self._exact: dict[str, T] = {}
        self._wildcard: dict[str, T] = {}

    def add(self, pattern: str, value: T) -> None:
        """`pattern` is a name, or `*.` and a name; what it had before is replaced."""
        if pattern.startswith("*."):
            self._wildcard[pattern[2:]] = value
        else:
            self._exact[pattern] = value

    def match(self, name: str) -> str | None:
        """The pattern by which find() finds something for `name`."""
        if name in self._exact:
            return name
        _, _, parent = name.partition(".")
        return f"*.{parent}" if parent in self._wildcard else None

    def find(self, name: str) -> T | None:
        """What serves `name`.  `*.example.com` finds what serves a name that nothing else knows."""
        found = self._exact.get(name)
        if found is None:
            _, _, parent = name.partition(".")
            found = self._wildcard.get(parent)
        return found

    def exact(self) -> Iterator[tuple[str, T]]:
        """The names that are no wildcards, and what belongs to them."""
        yield from self._exact.items()

    def values(self) -> Iterator[T]:
        yield from self._exact.values()
        yield from self._wildcard.values()

    def patterns(self) -> Iterator[str]:
        yield from self._exact
        for parent in self._wildcard:
            yield f"*.{parent}"


Identity = tuple[Certificate, ...]
"""The certificates for one name, at most one for each type of key; the client's algorithms choose."""


def certificates_by_name(certificates: Sequence[Certificate], now: datetime) -> NameTable[Identity]:
    """For every name the best certificate of each type of key."""
    best: dict[str, dict[str, Certificate]] = {}
    for certificate in certificates:
        for name in certificate.names:
            of_name = best.setdefault(name, {})
            rival = of_name.get(certificate.key_type)
            if rival is None or _rank(certificate, now) > _rank(rival, now):
                of_name[certificate.key_type] = certificate
    table: NameTable[Identity] = NameTable()
    for name, of_name in best.items():
        table.add(name, tuple(of_name.values()))
    return table


def default_identity(certificates: Sequence[Certificate], by_name: NameTable[Identity]) -> Identity:
    """For clients without a known name: the first certificate, and its siblings with other keys."""
    first = certificates[0]
    siblings = by_name.find(first.names[0]) if first.names else None
    return siblings if siblings is not None and first in siblings else (first,)


def why_not(certificate: Certificate, name: str, chosen: Identity, now: datetime) -> str | None:
    """Why another certificate serves `name`; None when this one does."""
    rival = next((c for c in chosen if c.key_type == certificate.key_type), None)
    if rival is None or rival.sha256 == certificate.sha256:
        return None
    if not certificate.is_valid(now) and rival.is_valid(now):
        return f"{name} is served by {rival.chain_file}: this one is not valid now"
    if rival.not_after == certificate.not_after:
        return f"{name} is served by {rival.chain_file}, which was named first and expires as late"
    return f"{name} is served by {rival.chain_file}, which expires later"


def _rank(certificate: Certificate, now: datetime) -> tuple[bool, datetime]:
    """Of two for one name the one that is valid now and expires last serves; then the first given."""
    return certificate.is_valid(now), certificate.not_after
