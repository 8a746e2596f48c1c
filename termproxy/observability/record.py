"""What is known of a connection when it is over: the access log's line, and nobody else's business."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar

from termproxy.errors import Fault


@dataclass(slots=True, kw_only=True)
class ConnectionRecord:
    """Names are the access log's keys.  Durations in seconds; bytes are plaintext."""

    time: datetime  # when it was accepted
    client: str
    frontend: str
    sni: str | None = None
    alpn: str | None = None
    certificate: str | None = None  # the file of the one we showed
    client_certificate: str | None = None  # SHA-256 of the one the client showed, verified
    client_subject: str | None = None  # RFC 4514
    client_serial: str | None = None
    version: str | None = None  # None: the handshake did not finish
    cipher: str | None = None
    group: str | None = None
    resumed: bool | None = None
    resumption: str | None = None  # "ticket", "session_id", or why not: one of metrics.MISSES
    ticket_age: int | None = None  # seconds since the session that was resumed was made
    backend: str | None = None
    bytes_from_client: int = 0
    bytes_from_backend: int = 0
    handshake_seconds: float | None = None
    connect_seconds: float | None = None
    seconds: float = 0.0
    count: int | None = None  # of failed handshakes that this line stands for, when it is not one
    ended: str = "done"  # one word, stable: "done", "idle_timeout", "no_shared_cipher" …
    fault: Fault = Fault.NONE
    detail: str | None = None  # a sentence, when it did not end as it should
    alert: str | None = None  # the TLS alert that ended it
    alert_from: str | None = None

    def as_common(self) -> str:
        """In the Common Log Format: a connection without a request."""
        host = self.client.rpartition(":")[0].strip("[]")
        sent = self.bytes_from_backend or "-"
        return f'{host or "-"} - - [{_clf_time(self.time)}] "-" - {sent}'

    def as_combined(self) -> str:
        return f'{self.as_common()} "-" "-"'

    def as_line(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is left out."""
        line: dict[str, Any] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                line[name] = _to_microseconds(value) if isinstance(value, float) else value
        line["fault"] = self.fault.value
        return line


_NAMES = tuple(spec.name for spec in fields(ConnectionRecord))


@dataclass(slots=True, kw_only=True)
class ExchangeRecord:
    """A request and its answer; `facts` are of the connection's handshake, by the keys in FACTS."""

    FACTS: ClassVar[tuple[str, ...]] = (
        "client",
        "frontend",
        "sni",
        "alpn",
        "client_certificate",
        "client_subject",
        "client_serial",
        "version",
        "cipher",
        "group",
        "resumed",
        "resumption",
    )

    facts: dict[str, Any]
    time: datetime  # when its head was whole
    method: str | None = None  # None: it was refused before it could be read
    host: str | None = None
    path: str | None = None
    minor: int = 1  # of the client's version of HTTP
    referer: str | None = None
    user_agent: str | None = None
    status: int | None = None  # None: the client has got no answer
    request_id: str | None = None
    backend: str | None = None
    retries: int = 0
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    first_byte_seconds: float | None = None
    seconds: float = 0.0
    ended: str = "done"
    fault: Fault = Fault.NONE
    detail: str | None = None
    alert: str | None = None
    alert_from: str | None = None

    def as_common(self) -> str:
        """In the Common Log Format; the subject of the client's certificate has the user's place."""
        host = str(self.facts.get("client", "-")).rpartition(":")[0].strip("[]")
        user = str(self.facts.get("client_subject", "-")).replace(" ", "%20")
        request = "-" if self.method is None else f"{self.method} {self.path} HTTP/1.{self.minor}"
        status, sent = self.status or "-", self.bytes_to_client or "-"
        return f'{host} - {user} [{_clf_time(self.time)}] "{_quoted(request)}" {status} {sent}'

    def as_combined(self) -> str:
        """The same with where the client came from, and what it is."""
        return f'{self.as_common()} "{_quoted(self.referer)}" "{_quoted(self.user_agent)}"'

    def as_line(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is left out."""
        first_byte = self.first_byte_seconds
        line = {
            "time": self.time,
            **self.facts,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "status": self.status,
            "request_id": self.request_id,
            "backend": self.backend,
            "retries": self.retries,
            "bytes_from_client": self.bytes_from_client,
            "bytes_to_client": self.bytes_to_client,
            "first_byte_seconds": None if first_byte is None else _to_microseconds(first_byte),
            "seconds": _to_microseconds(self.seconds),
            "ended": self.ended,
            "fault": self.fault.value,
        }
        if self.detail is not None or self.alert is not None:
            line |= {"detail": self.detail, "alert": self.alert, "alert_from": self.alert_from}
        elif None not in (
            self.method,
            self.host,
            self.status,
            self.request_id,
            self.backend,
            first_byte,
        ):
            return line  # as nearly all are
        return {name: value for name, value in line.items() if value is not None}


def _to_microseconds(seconds: float) -> float:
    """Rounded to them, still in seconds; round(seconds, 6) would write it out and read it again."""
    return round(seconds * 1e6) / 1e6


def _clf_time(time: datetime) -> str:
    """As in 10/Oct/2000:13:55:36 +0000: English, wherever we are."""
    return f"{time.day:02}/{_MONTHS[time.month - 1]}/{time:%Y:%H:%M:%S} +0000"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _quoted(text: str | None) -> str:
    """What stands between quotes; it is printable() already."""
    return "-" if not text else text.replace('"', "\\x22")


def logged_path(target: bytes, *, with_query: bool) -> str:
    """A request's target as the access log has it: queries hold what is nobody else's business."""
    return printable(target if with_query else target.partition(b"?")[0])


def printable(raw: bytes) -> str:
    r"""What a client sent, made safe for logs and terminals: anything but plain ASCII as \\xNN."""
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text  # as nearly all are
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
