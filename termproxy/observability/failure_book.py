"""The kinds of failed handshakes, counted: which are frequent, what differs, and the cure.

A worker counts into a book of its own and hands it to the master now and then, which adds them up.
Clients choose what stands in a kind, and there may be as many as they like: when a book is full, the
rarer half of its kinds is counted together, by reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

TEXT_MAX = 400  # characters of each text
COUNT_MAX = 1 << 32  # in one report: no worker sees more, and sums of these stay what JSON can say

OTHERS = "and other kinds, which are too many to be told apart"


@dataclass(slots=True, kw_only=True)
class Kind:
    """What some failures have in common, and an example: the latest."""

    frontend: str
    reason: str  # of observability.metrics.FAILURES
    detail: str  # what differs
    cure: str
    count: int
    last: str  # when, ISO 8601
    client: str  # its address
    name: str | None  # that it asked for

    def key(self) -> tuple[str, str, str]:
        return self.frontend, self.reason, self.detail


_NAMES = {spec.name for spec in fields(Kind)}


class FailureBook:
    """Up to `kinds_max` kinds, and one of the OTHERS for each frontend and reason."""

    def __init__(self, kinds_max: int = 200) -> None:
        self.kinds_max = kinds_max
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self._together = 0  # kinds that are OTHERS

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, kind: Kind) -> None:
        if kind.key() not in self._kinds and self._kinds_apart() >= self.kinds_max:
            self._make_room()
        self._count(kind)

    def _count(self, kind: Kind) -> None:
        known = self._kinds.get(kind.key())
        if known is None:
            self._kinds[kind.key()] = kind
            self._together += kind.detail == OTHERS
            return
        known.count += kind.count
        if kind.last >= known.last:
            known.last, known.client, known.name = kind.last, kind.client, kind.name

    def _kinds_apart(self) -> int:
        return len(self._kinds) - self._together

    def _make_room(self) -> None:
        ranked = sorted(self._kinds.values(), key=lambda kind: kind.count, reverse=True)
        self._kinds, self._together = {}, 0
        for rank, kind in enumerate(ranked):
            if rank >= self.kinds_max // 2:
                kind.detail = OTHERS
            self._count(kind)

    def take(self, count: int | None = None) -> list[dict[str, Any]]:
        """Up to `count` kinds, or all, as plain values; they are no longer in the book."""
        kinds = [self._kinds.pop(key) for key in list(self._kinds)[:count]]
        self._together -= sum(kind.detail == OTHERS for kind in kinds)
        return [asdict(kind) for kind in kinds]

    def merge(
        self, kinds: Sequence[dict[str, Any]], frontends: Sequence[str], words: Sequence[str]
    ) -> None:
        """Add what another book's take() gave.  ValueError for anything else: it may come from a worker
        that is no longer itself, and reasons and frontends must not grow without bound.
        """
        for plain in kinds:
            kind = _kind(plain)
            if kind.frontend not in frontends or kind.reason not in words:
                raise ValueError(f"no such frontend or reason: {kind.frontend!r}, {kind.reason!r}")
            self.add(kind)

    def merge_own(self, kinds: Sequence[dict[str, Any]]) -> None:
        """Add what another book of the master's gave: the one before us has checked it."""
        for plain in kinds:
            self.add(_kind(plain))

    def top(self, count: int) -> list[dict[str, Any]]:
        """The most frequent kinds, as plain values."""
        ranked = sorted(self._kinds.values(), key=lambda kind: (-kind.count, kind.key()))
        return [asdict(kind) for kind in ranked[:count]]


def _kind(plain: dict[str, Any]) -> Kind:
    if not isinstance(plain, dict) or set(plain) != _NAMES:
        raise ValueError("not a kind of failure")
    for name, value in plain.items():
        is_right = 0 < value <= COUNT_MAX if isinstance(value, int) else isinstance(value, str)
        if (isinstance(value, int) != (name == "count") or not is_right) and (name, value) != (
            "name",
            None,
        ):
            raise ValueError(f"{name} is {value!r}")
    texts = {name: _shown(value) for name, value in plain.items() if isinstance(value, str)}
    return Kind(**(plain | texts))


def _shown(text: str) -> str:
    """It may come to stand on an operator's terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[:TEXT_MAX])
