"""What can go wrong, and whose fault it is.

    TermproxyError
    ├── ConfigError             OPERATOR  one or more Problems, all told at once
    ├── StartError              OPERATOR  the server cannot start or reload, and why
    ├── ControlError            OPERATOR  a verb could not reach the master, or was refused
    ├── TlsError                CLIENT    a handshake or a TLS record failed (tls/failures.py)
    ├── BadProxyHeader          CLIENT    what should be a PROXY header is none (relay/proxy_protocol.py)
    └── BackendError            BACKEND   a backend refused, reset or was too slow

The fault decides who hears of it: a client's is counted, a backend's marks the server, an operator's
stops the start or keeps the old generation, and one of ours is logged with its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    CLIENT = "client"
    BACKEND = "backend"
    OPERATOR = "operator"
    PROXY = "proxy"
    NONE = "none"  # nobody's: the connection ended as it should


class TermproxyError(Exception):
    """Base of everything termproxy raises on purpose."""

    fault = Fault.PROXY


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration: where it stands, what it is, what would be right."""

    where: str  # "site.toml:12: frontend[0].listen", or the flag it came from
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.cure}" if self.cure else f"{self.where}: {self.what}"


class ConfigError(TermproxyError):
    """The configuration is refused.  `problems` holds every reason."""

    fault = Fault.OPERATOR

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class StartError(TermproxyError):
    """The server cannot start, or a reload cannot go ahead; the message says why."""

    fault = Fault.OPERATOR


class ControlError(TermproxyError):
    """A running master could not be asked, or said no."""

    fault = Fault.OPERATOR


class BackendError(TermproxyError):
    """A backend failed us.  `reason` is one word for logs and counters."""

    fault = Fault.BACKEND

    def __init__(self, reason: str, detail: str, fault: Fault = Fault.BACKEND) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.fault = fault


class TlsError(TermproxyError):
    """A TLS operation failed, as OpenSSL tells it.  `tls/failures.py` puts it in an operator's words.

    `code` is OpenSSL's reason code (SSL_R_…; 0 when the failure was the socket's, then `errno` says
    which).  `alert` is the TLS alert (RFC 8446 §6) that was sent, by `alert_from`: "client" or "proxy".
    """

    fault = Fault.CLIENT

    def __init__(
        self, reason: str, code: int, errno: int, alert: int | None, alert_from: str | None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.errno = errno
        self.alert = alert
        self.alert_from = alert_from


class TruncatedError(TlsError):
    """The client's socket ended without close_notify: what came may not be all (RFC 8446 §6.1)."""

    def __init__(self) -> None:
        super().__init__("unexpected eof", 294, 0, None, None)  # SSL_R_UNEXPECTED_EOF_WHILE_READING
