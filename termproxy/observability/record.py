"""What is known of a connection when it is over: the access log's line, and nobody else's business."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

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

    def as_line(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is left out."""
        line: dict[str, Any] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                line[name] = round(value, 6) if isinstance(value, float) else value
        line["fault"] = self.fault.value
        return line


_NAMES = tuple(spec.name for spec in fields(ConnectionRecord))


def printable(raw: bytes) -> str:
    r"""What a client sent, made safe for logs and terminals: anything but plain ASCII as \\xNN."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
