"""Decide which servers may be used, and how much of their share they get.  No I/O, no clock.

What the operator wants comes first, then what checks say, then what clients' connections say:

    DISABLED, DRAINING   the operator's word
    DOWN                 checks failed `fall` times in a row, and have not passed `rise` times since
    EJECTED              a worker's connections failed `failures` times in a row, for some time
    UP                   none of these
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

LEAST_SHARE = 0.05  # of its weight, for a server that begins slowly


class Health(IntEnum):
    """What checks say."""

    UNKNOWN = 0  # not checked, or not yet: good enough
    UP = 1
    DOWN = 2


class Wish(IntEnum):
    """What the operator wants."""

    ENABLED = 0
    DRAINING = 1  # no new connections; those that are open go on
    DISABLED = 2  # the same, and none that is open but idle is used again


class State(Enum):
    UP = "up"
    DOWN = "down"
    EJECTED = "ejected"
    DRAINING = "draining"
    DISABLED = "disabled"


# How a check ended.  The words of a connect that failed are those of connect.py.
RESULTS = (
    "none",
    "passed",
    "backend_refused",
    "backend_timeout",
    "backend_busy",
    "backend_absent",
    "backend_forbidden",
    "backend_unreachable",
    "backend_reset",
    "backend_failed",
    "no_local_port",
    "no_descriptors",
    "wrong_status",
    "not_http",
)


@dataclass(slots=True)
class RiseAndFall:
    """A server's health as its checks tell it.  The first one decides at once."""

    rise: int
    fall: int
    health: Health = Health.UNKNOWN
    _against: int = field(default=0, init=False)  # results in a row that speak against `health`

    def on_result(self, *, passed: bool) -> bool:
        """A check has ended: whether that changes the server's health."""
        said = Health.UP if passed else Health.DOWN
        self._against = 0 if said is self.health else self._against + 1
        enough = {Health.UNKNOWN: 1, Health.UP: self.fall, Health.DOWN: self.rise}[self.health]
        if self._against < enough:
            return False
        self.health, self._against = said, 0
        return True


class Facts(NamedTuple):
    """What there is to say of a server."""

    wish: int
    health: int
    ejected_until: float


def states(servers: Sequence[Facts], now: float, *, eject_last: bool) -> list[State]:
    """The state of each server of a cluster.

    Unless `eject_last` allows it, ejection leaves no cluster without a server: two workers may have
    ejected two servers at the same time.
    """
    found = [_state(facts, now) for facts in servers]
    if eject_last or State.UP in found:
        return found
    return [State.UP if state is State.EJECTED else state for state in found]


def _state(facts: Facts, now: float) -> State:
    if facts.wish != Wish.ENABLED:
        return State.DISABLED if facts.wish == Wish.DISABLED else State.DRAINING
    if facts.health == Health.DOWN:
        return State.DOWN
    return State.EJECTED if now < facts.ejected_until else State.UP


class Ejection(NamedTuple):
    at: float
    until: float


NEVER = Ejection(0.0, 0.0)


def next_ejection(now: float, last: Ejection, first: float, longest: float) -> Ejection:
    """For `first` seconds, or twice as long as the last one when that did not help for long."""
    lasted = last.until - last.at
    helped = now - last.until > max(lasted, first)
    return Ejection(now, now + (first if last is NEVER or helped else min(2 * lasted, longest)))


def share(now: float, back_since: float, slow_start: float) -> float:
    """The part of its weight for a server that came back then (0: it was never away)."""
    if not back_since or now - back_since >= slow_start:
        return 1.0
    return max((now - back_since) / slow_start, LEAST_SHARE)
