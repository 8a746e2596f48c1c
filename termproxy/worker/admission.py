"""Decide what limits let in, before any crypto: nothing here has a socket, or looks at a clock.

Three questions, each with its own answer:

    may this client have one more connection?            verdict()
    may this handshake begin, by the rate?               Budget
    may it begin now, by what else the worker has to do? TimeShare

What a handshake costs is counted in parts of a full one.  Measured inside OpenSSL 3.0 (RSA-2048; ECDSA
P-256), a resumed one takes 0.12 of a full one in TLS 1.2 (0.27) and 0.40 (0.83) in TLS 1.3, where it
makes new keys: a third is what most servers will see.
"""

from __future__ import annotations

from enum import Enum

FULL = 3
RESUMED = 1  # of the same unit

# What a client is told, rather than cut off, may be so much more than its limit.
MARGIN = 4  # a quarter, and at least one

# A burst may take what this many seconds bring.
BURST = 1.0

# Full handshakes leave this part of a burst to resumed ones.
RESERVE = 0.25

# A handshake's time in OpenSSL is about half of what it costs to accept, shake hands, connect to the
# backend and close; charged so much for it, established connections have half of the worker's time.
SURCHARGE = 2.0

CREDIT_MAX = 0.02  # seconds; half of it for a burst of handshakes in a worker that was idle
GRANT = 0.004  # seconds; half of it without a look at other work
DEBT_MAX = 0.1  # seconds; more is forgotten


class Verdict(Enum):
    WELCOME = "welcome"
    TELL = "tell"  # that there are too many, which takes a handshake
    CLOSE = "close"  # before any crypto


def verdict(connections: int, limit: int, *, may_tell: bool) -> Verdict:
    """For a client that has so many connections, the new one included; `limit` 0 is none.

    One that is over its limit costs a handshake when it is told so: a few at a time are, in a worker
    that has time for it (`may_tell`), and the others are closed.
    """
    if not limit or connections <= limit:
        return Verdict.WELCOME
    if may_tell and connections <= limit + max(limit // MARGIN, 1):
        return Verdict.TELL
    return Verdict.CLOSE


class Budget:
    """A rate of handshakes, as a bucket that fills: `per_second` full ones, or three times as many
    resumed ones.

    Whether a handshake resumes is only claimed when it begins: what was claimed falsely is charged
    afterwards, and may leave the bucket below empty.
    """

    __slots__ = ("_at", "_rate", "_size", "_units")

    def __init__(self, per_second: float, now: float) -> None:
        self._at = now
        self._rate = self._size = self._units = 0.0
        self.set_rate(per_second)
        self._units = self._size

    def set_rate(self, per_second: float) -> None:
        """From now on; what is in the bucket stays in it."""
        self._rate = per_second * FULL
        self._size = max(self._rate * BURST, 2.0 * FULL)
        self._units = min(self._units, self._size)

    def wait(self, now: float, *, resumes: bool) -> float:
        """Seconds until a handshake may begin; 0: now."""
        self._units = min(self._size, self._units + (now - self._at) * self._rate)
        self._at = now
        needed = RESUMED if resumes else FULL + RESERVE * self._size
        if self._units >= needed:
            return 0.0
        return (needed - self._units) / self._rate if self._rate else 1.0

    def take(self, *, resumes: bool) -> None:
        """One begins."""
        self._units -= RESUMED if resumes else FULL

    def take_rest(self) -> None:
        """One that said it would resume was full."""
        self._units = max(self._units - (FULL - RESUMED), -self._size)


class TimeShare:
    """A worker with other work leaves it half of its time, whatever comes in handshakes.

    Time in which no handshake was worked on earns credit, whether the worker did something else or
    nothing; time in handshakes costs SURCHARGE times as much.  Without credit none begins until there is
    nothing else to do: then they are granted some, so that without other work they hardly ever wait.
    When none waits any more, either, the worker is idle, and the next ones begin as after a long rest.
    """

    __slots__ = ("_credit", "_in_handshakes", "_until")

    def __init__(self, now: float, in_handshakes: float = 0.0) -> None:
        self._until = now  # all time before is accounted for
        self._in_handshakes = in_handshakes
        self._credit = CREDIT_MAX

    def has_credit(self, now: float, in_handshakes: float) -> bool:
        """`in_handshakes` are the seconds of all time until `now` that went into handshakes."""
        spent = in_handshakes - self._in_handshakes
        credit = self._credit + (now - self._until) - spent * (1.0 + SURCHARGE)
        self._until, self._in_handshakes = now, in_handshakes
        self._credit = credit = max(min(credit, CREDIT_MAX), -DEBT_MAX)
        return credit > 0.0

    def charge(self, seconds: float) -> None:
        """For what was done for handshakes otherwise."""
        self._credit -= seconds * 2.0

    @property
    def debt(self) -> float:
        """In seconds, as of the last look; 0 when there is none."""
        return max(-self._credit, 0.0)

    def grant(self) -> None:
        """There was nothing else to do."""
        self._credit = max(self._credit, GRANT)

    def restore(self) -> None:
        """There was nothing to do at all."""
        self._credit = CREDIT_MAX
