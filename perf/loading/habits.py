"""How people behave, drawn at random: how long they stay, how much they send, how they connect.

Everything is a draw from a `Random` that the caller has, so that it can be repeated.
"""

import math
from dataclasses import dataclass
from random import Random

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Shares are between 0 and 1, times in seconds, sizes in bytes."""

    tls12: float = 0.2
    """The share of people whose software is old: TLS 1.2, where others have 1.3."""
    resumed: float = 0.7
    """The share of connections that offer the session of the one before, if there is one."""
    rude: float = 0.1
    """The share of connections that are left without close_notify."""
    requests: float = 6.0
    """On a connection, on average; most have fewer, some many more."""
    requests_max: int = 60
    think: float = 0.2
    """From an answer to the next request, on average."""
    patience: float = 12.0
    """How long a connection is kept: less than a drain has."""
    cookie: tuple[int, int] = (16, 2 * KIB)
    """Somebody's, sent with each request."""
    download: tuple[int, int] = (64, 256 * KIB)
    upload: tuple[int, int] = (64, 128 * KIB)
    message: tuple[int, int] = (1, 80 * KIB)
    """Of a WebSocket: all three of its notations of a length."""

    def offers_tls12(self, random: Random) -> bool:
        return random.random() < self.tls12

    def offers_session(self, random: Random) -> bool:
        return random.random() < self.resumed

    def is_rude(self, random: Random) -> bool:
        return random.random() < self.rude

    def request_count(self, random: Random) -> int:
        """Draw from the geometric distribution: each answer is as likely to be the last one."""
        if self.requests <= 1:
            return 1
        leaving = 1 / self.requests
        drawn = 1 + int(math.log(1 - random.random()) / math.log(1 - leaving))
        return min(drawn, self.requests_max)

    def think_time(self, random: Random) -> float:
        """Draw from the exponential distribution, without its longest tenth of a percent."""
        return min(random.expovariate(1 / self.think), 7 * self.think) if self.think else 0.0


def size_between(bounds: tuple[int, int], random: Random) -> int:
    """Draw a size: each doubling is as likely as the next, as on the web small ones are the most."""
    least, most = bounds
    return round(math.exp(random.uniform(math.log(least), math.log(most))))
