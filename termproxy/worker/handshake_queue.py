"""Handshakes that cannot begin at once wait here: their ClientHello has come, no crypto has been done.

While a worker has other work, handshakes begin only for as long as they have not had more than half of
its time (admission.TimeShare), so that a flood of them leaves established connections the other half.
With nothing else to do they get a little more, again and again: then nobody waits for them.
What `limits.handshakes_per_second` does not let begin waits, too, and costs nothing meanwhile.

Those that resume a session go first.  Whoever has waited longer than `limits.handshake_queue` is turned
away: it costs some 30 µs, and a handshake that its client has given up on would cost ten times that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from termproxy import clock
from termproxy.config.schema import Limits
from termproxy.tls._openssl import nanoseconds_in_handshakes
from termproxy.worker.admission import Budget, TimeShare

# Accepting is paused when it has taken so much of the others' time: in the kernel's queue clients cost
# nothing.
ACCEPTING_DEBT = 0.02  # seconds

# Turned away in one go, before others get their turn.
BATCH = 16

# A wait that some clients do not outlast.
LONG = 0.1  # seconds

REST_MIN = 0.001  # seconds: what libev's epoll can wait


class Waiting(Protocol):
    """A client whose handshake has not begun."""

    def begin_handshake(self, *, waited: bool) -> None: ...
    def turn_away(self, limit: str, /) -> None: ...


class _Line:
    """Those that wait, with the time since when, in the order in which they came."""

    __slots__ = ("resumes", "since", "was_held")

    def __init__(self, *, resumes: bool) -> None:
        self.resumes = resumes
        self.since: OrderedDict[Waiting, float] = OrderedDict()
        self.was_held = False
        """Whether it was the rate that did not let one begin, when that was last looked at."""

    def take_next(self, now: float) -> tuple[Waiting, float]:
        """Who is to begin, and since when it has waited.

        In turn; but when there are so many that the first one has waited for long, the last one goes
        first: in turn each would begin when its client is about to give up, and none get an answer.
        """
        first = next(iter(self.since.values()))
        return self.since.popitem(last=now - first > LONG)


class HandshakeQueue:
    __slots__ = (
        "_budget",
        "_each_turn",
        "_full",
        "_idle",
        "_is_awake",
        "_lines",
        "_loop",
        "_patience",
        "_rate",
        "_rest",
        "_resuming",
        "_share",
        "_stops_all",
        "_time",
        "is_awaited",
    )

    def __init__(self, loop: Any, limits: Limits) -> None:
        now = clock.monotonic()
        self._time = TimeShare(now, _in_handshakes())
        self._resuming, self._full = _Line(resumes=True), _Line(resumes=False)
        self._lines = (self._resuming, self._full)
        self._budget: Budget | None = None
        self._rate = 0
        self._share = 1.0
        self._patience = 0.0
        self._stops_all = False
        # An idle watcher is called when no event waits, and keeps the loop from sleeping; the other one
        # is called in each turn of the loop.
        self._idle: Any = loop.idle()
        self._each_turn: Any = loop.prepare()
        self._loop = loop
        self._rest: Any = None
        self._is_awake = False
        self.is_awaited = False
        """Whether anybody waits here."""
        self.use(limits)

    def use(self, limits: Limits) -> None:
        """Hold to these from now on."""
        self._patience = limits.handshake_queue
        self._rate = limits.handshakes_per_second
        self._stops_all = bool(limits.handshakes_per_second or limits.handshakes_per_client)
        if not self._rate:
            self._budget = None
        elif self._budget is None:
            self._budget = Budget(self._rate * self._share, clock.monotonic())
        else:
            self._budget.set_rate(self._rate * self._share)

    def take_share(self, share: float) -> None:
        """This worker accepts so much of all clients, and so may do so much of all handshakes."""
        if share != self._share:
            self._share = share
            if self._budget is not None:
                self._budget.set_rate(self._rate * share)

    def __len__(self) -> int:
        return len(self._resuming.since) + len(self._full.since)

    def is_busy(self, now: float) -> bool:
        """Whether a handshake that comes now has to wait for others, or for other work."""
        return self.is_awaited or not self._time.has_credit(now, _in_handshakes())

    def holds_back(self, now: float) -> bool:
        """Whether one that comes now may not begin without join()."""
        return self._stops_all or self.is_busy(now)

    def charge_accepting(self, seconds: float, now: float) -> float:
        """Accepting clients has taken so long, while others waited here: how long to leave it."""
        self._time.charge(seconds)
        self._time.has_credit(now, _in_handshakes())
        debt = self._time.debt
        return debt if debt > ACCEPTING_DEBT else 0.0

    def join(self, client: Waiting, now: float, *, resumes: bool) -> bool:
        """Have its handshake begun: now, if that may be, or when it may.  Whether it was now."""
        if not self.is_busy(now) and (
            self._budget is None or self._budget.wait(now, resumes=resumes) <= 0.0
        ):
            if self._budget is not None:
                self._budget.take(resumes=resumes)
            client.begin_handshake(waited=False)
            return True
        (self._resuming if resumes else self._full).since[client] = now
        self.is_awaited = True
        self._wake()
        return False

    def leave(self, client: Waiting) -> None:
        """It is closed; does nothing for who does not wait."""
        for line in self._lines:
            line.since.pop(client, None)
        self.is_awaited = len(self) > 0

    def was_full(self) -> None:
        """One that said it would resume."""
        if self._budget is not None:
            self._budget.take_rest()

    def close(self) -> None:
        self._sleep()
        self._idle.close()
        self._each_turn.close()

    # The loop's calls.

    def _on_turn(self) -> None:
        """There may be other work: go on as long as the share lasts."""
        self._go_on(clock.monotonic())

    def _on_idle(self) -> None:
        now = clock.monotonic()
        self._time.grant()
        if not self._go_on(now):
            self._sleep()
            if self.is_awaited:
                self._rest_until_one_may(now)
            else:
                self._time.restore()

    def _go_on(self, now: float) -> bool:
        """Begin as many as there is time for; False when none is left that may begin."""
        while self._time.has_credit(now, _in_handshakes()):
            is_done = self._step(now)
            self.is_awaited = len(self) > 0
            if not is_done:
                return False
            now = clock.monotonic()
        return True

    def _on_rested(self) -> None:
        self._end_rest()
        if self:
            self._wake()

    # One after the other.

    def _step(self, now: float) -> bool:
        """Begin one, having turned away some that have waited too long; whether anything was done."""
        done = False
        for line in self._lines:
            if line.since:
                done |= self._turn_away(line, now)
            if not line.since:
                continue
            line.was_held = self._held(line, now) > 0.0
            if not line.was_held:
                client, since = line.take_next(now)
                if self._budget is not None:
                    self._budget.take(resumes=line.resumes)
                client.begin_handshake(waited=now - since > LONG)
                return True
        return done

    def _turn_away(self, line: _Line, now: float) -> bool:
        """Those that have waited too long, as many as go at a time; whether there was one."""
        limit = "handshakes_per_second" if line.was_held else "handshake_queue"
        since, long_ago = line.since, now - self._patience
        for count in range(BATCH):
            first = next(iter(since), None)
            if first is None or since[first] > long_ago:
                return count > 0
            del since[first]
            first.turn_away(limit)
        return True

    def _held(self, line: _Line, now: float) -> float:
        """Seconds until the rate lets one begin."""
        return 0.0 if self._budget is None else self._budget.wait(now, resumes=line.resumes)

    # Awake while there is something to do, asleep while all that wait are held by the rate.

    def _wake(self) -> None:
        self._end_rest()
        if not self._is_awake:
            self._is_awake = True
            self._idle.start(self._on_idle)
            self._each_turn.start(self._on_turn)

    def _sleep(self) -> None:
        if self._is_awake:
            self._is_awake = False
            self._idle.stop()
            self._each_turn.stop()

    def _rest_until_one_may(self, now: float) -> None:
        waits = [
            min(self._held(line, now), next(iter(line.since.values())) + self._patience - now)
            for line in self._lines
            if line.since
        ]
        if waits:
            self._rest = self._loop.timer(max(min(waits), REST_MIN))
            self._rest.start(self._on_rested)

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.stop()
            self._rest.close()
            self._rest = None


def _in_handshakes() -> float:
    return nanoseconds_in_handshakes() * 1e-9
