"""What the clients of a process saw, and how that is added up over processes.

Every operation that did not get its right answer is a loss, of one class and never left out.  One
excuse is known: it was on a connection that a worker held when it was killed, and of that the storm
keeps a list (`storm.Kill`).  It is no guess by the clock: a worker is stopped, asked the kernel for its
connections, and only then killed.

A kept connection may end between two requests: clients look before they ask.  A request that was on its
way just then is sent again on a new connection if no byte of an answer has come (RFC 9110 §9.2.2,
RFC 9112 §9.3.1), as browsers do.  Neither is a loss, but both are told.
"""

import ssl
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from tests.support.http_messages import CutError, MalformedError

# Each process remembers so many; the rest is counted.
TOLD_MAX = 10_000


class Loss(StrEnum):
    REFUSED = "refused"
    RESET = "reset"
    TIMEOUT = "timeout"
    ALERT = "alert"
    CERTIFICATE = "certificate"
    CLOSED = "closed unanswered"
    SHORT = "short body"
    HASH = "wrong hash"
    STATUS = "status"
    MALFORMED = "malformed"


class WrongError(Exception):
    """An answer came, and it is not the right one."""

    def __init__(self, loss: Loss, detail: str) -> None:
        super().__init__(detail)
        self.loss = loss


# The first that fits; ssl's errors are OSErrors, and its timeout is a TimeoutError.
CLASSES: tuple[tuple[type[Exception], Loss], ...] = (
    (ConnectionRefusedError, Loss.REFUSED),
    (ConnectionResetError, Loss.RESET),
    (BrokenPipeError, Loss.RESET),
    (TimeoutError, Loss.TIMEOUT),
    (ssl.SSLCertVerificationError, Loss.CERTIFICATE),
    (ssl.SSLEOFError, Loss.CLOSED),
    (ssl.SSLZeroReturnError, Loss.CLOSED),
    (MalformedError, Loss.MALFORMED),
)


def classify(error: Exception) -> Loss:
    """Return the class of what went wrong; what is not known is raised again: that is our bug."""
    match error:
        case WrongError():
            return error.loss
        case CutError():
            return Loss.SHORT if error.response is not None else Loss.CLOSED
        case ssl.SSLError(reason=str() as reason) if "_ALERT_" in reason:
            return Loss.ALERT
    for kind, loss in CLASSES:
        if isinstance(error, kind):
            return loss
    raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An operation that failed.

    Times are of time.perf_counter, which all processes of a machine share.
    """

    operation: str
    loss: Loss
    detail: str
    client: str
    """The client's address and port, "" when there was no connection."""
    opened: float
    ended: float
    asked_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A worker's end, and the clients whose connections it held then."""

    at: float
    pid: int
    clients: frozenset[str]

    def explains(self, trouble: Trouble) -> bool:
        return trouble.client in self.clients and trouble.opened <= self.at <= trouble.ended


class Ledger:
    """Counts are by (TLS version, how): "full", "resumed", or "refused" (a session that was offered)."""

    def __init__(self) -> None:
        self.handshakes: Counter[tuple[str, str]] = Counter()
        self.troubles: list[Trouble] = []
        self.untold = 0
        # Kept connections that had ended when they were wanted.
        self.ended_idle = 0

    def shook_hands(self, version: str, *, offered: bool, resumed: bool) -> None:
        how = "resumed" if resumed else "refused" if offered else "full"
        self.handshakes[version, how] += 1

    def note(self, trouble: Trouble) -> None:
        if len(self.troubles) < TOLD_MAX:
            self.troubles.append(trouble)
        else:
            self.untold += not trouble.asked_again

    def take(self) -> dict[str, Any]:
        """Return all of it for JSON or msgpack, and begin anew."""
        taken = {
            "handshakes": [[*key, count] for key, count in self.handshakes.items()],
            "troubles": [asdict(trouble) for trouble in self.troubles],
            "untold": self.untold,
            "ended_idle": self.ended_idle,
        }
        self.handshakes.clear()
        self.troubles.clear()
        self.untold = self.ended_idle = 0
        return taken

    def add(self, taken: dict[str, Any]) -> Self:
        for version, how, count in taken["handshakes"]:
            self.handshakes[version, how] += count
        for trouble in taken["troubles"]:
            self.note(Trouble(**trouble | {"loss": Loss(trouble["loss"])}))
        self.untold += taken["untold"]
        self.ended_idle += taken["ended_idle"]
        return self


@dataclass(frozen=True, slots=True)
class Judged:
    """Troubles told apart.  `lost` is what must be empty."""

    lost: list[Trouble]
    killed: list[Trouble]
    again: list[Trouble]
    again_killed: list[Trouble]


def judge(troubles: Iterable[Trouble], kills: Iterable[Kill]) -> Judged:
    known = list(kills)
    judged = Judged([], [], [], [])
    for trouble in troubles:
        excused = any(kill.explains(trouble) for kill in known)
        if trouble.asked_again:
            (judged.again_killed if excused else judged.again).append(trouble)
        else:
            (judged.killed if excused else judged.lost).append(trouble)
    return judged
