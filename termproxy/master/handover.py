"""What one master leaves to the next, which may be of another version: as bytes, and back.

Whatever can be told by name is: an unknown name is left out, a missing one has its default.  What is
only a descriptor's number leads to a socket or memory that the next master inherits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import orjson

FORM = 1  # to be raised when a master that reads this form would misunderstand


@dataclass(frozen=True, slots=True)
class PassedListener:
    """The sockets of an address."""

    address: str  # as the configuration writes it
    fds: list[int]
    inode: list[int] = field(default_factory=list)  # what a Unix socket's path leads to; else empty


@dataclass(frozen=True, slots=True)
class PassedCache:
    """The memory of a session cache."""

    entries: int
    layout: int
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    pid: int  # of the master that leaves it
    version: str  # of termproxy
    talk: int  # a descriptor: where the two masters talk to each other
    started: str  # ISO 8601: since when there are counters
    generation: int  # the last one that it has begun
    pidfile: str | None = None
    control: str | None = None
    listeners: list[PassedListener] = field(default_factory=list)
    admin: PassedListener | None = None  # of those who watch
    activated: dict[str, list[int]] = field(default_factory=dict)  # descriptors that systemd passed
    caches: list[PassedCache] = field(default_factory=list)
    ring: dict[str, Any] | None = field(default=None, repr=False)  # of ticket keys: secret
    servers: list[dict[str, Any]] = field(default_factory=list)  # what is known of the backends

    def descriptors(self) -> Iterator[int]:
        """All that have to be inherited."""
        yield self.talk
        for listener in self.listeners:
            yield from listener.fds
        if self.admin is not None:
            yield from self.admin.fds
        for fds in self.activated.values():
            yield from fds
        for cache in self.caches:
            yield cache.fd


def encode(handover: Handover) -> bytes:
    return orjson.dumps({"form": FORM} | asdict(handover))


def decode(encoded: bytes) -> Handover:
    """What encode() was given.  ValueError for anything else; it says nothing of what stood there."""
    try:
        plain = orjson.loads(encoded)
        form = plain.pop("form")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError("what the old master leaves cannot be read") from None
    if form != FORM:
        raise ValueError(f"the old master leaves form {form!r}, and this one reads form {FORM}")
    try:
        known = _known(Handover, plain)
        known["listeners"] = [
            PassedListener(**_known(PassedListener, each)) for each in known["listeners"]
        ]
        if known.get("admin") is not None:
            known["admin"] = PassedListener(**_known(PassedListener, known["admin"]))
        known["caches"] = [PassedCache(**_known(PassedCache, each)) for each in known["caches"]]
        handover = Handover(**known)
        descriptors = list(handover.descriptors())
    except (KeyError, TypeError, AttributeError):
        raise ValueError("what the old master leaves is not whole") from None
    if not all(isinstance(fd, int) and fd > 2 for fd in descriptors):
        raise ValueError("what the old master leaves names no descriptors")
    if len(set(descriptors)) != len(descriptors):
        raise ValueError("what the old master leaves names a descriptor twice")
    return handover


def _known(cls: type, plain: dict[str, Any]) -> dict[str, Any]:
    """What `cls` has a name for."""
    names = {spec.name for spec in fields(cls)}
    return {name: value for name, value in plain.items() if name in names}
