"""What is known of a connection when it is over: the access log's line, and nobody else's business."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from termproxy.errors import Fault
from termproxy.observability._line import plain_exchange


class ConnectionRecord:
    """Names are the access log's keys.  Times in seconds; bytes are plaintext."""

    __slots__ = (  # noqa: RUF023 - as a line has them
        "time",
        "client",
        "frontend",
        "sni",
        "alpn",
        "certificate",
        "client_certificate",
        "client_subject",
        "client_serial",
        "version",
        "cipher",
        "group",
        "resumed",
        "resumption",
        "ticket_age",
        "backend",
        "bytes_from_client",
        "bytes_from_backend",
        "handshake_seconds",
        "connect_seconds",
        "seconds",
        "count",
        "ended",
        "fault",
        "detail",
        "alert",
        "alert_from",
    )

    def __init__(self, time: float, client: str, frontend: str) -> None:
        self.time = time  # when it was accepted, since 1970
        self.client = client
        self.frontend = frontend
        self.sni: str | None = None
        self.alpn: str | None = None
        self.certificate: str | None = None  # the file of the one we showed
        self.client_certificate: str | None = None  # SHA-256 of the one the client showed, verified
        self.client_subject: str | None = None  # RFC 4514
        self.client_serial: str | None = None
        self.version: str | None = None  # None: the handshake did not finish
        self.cipher: str | None = None
        self.group: str | None = None
        self.resumed: bool | None = None
        self.resumption: str | None = None  # "ticket", "session_id", or why not: one of metrics.MISSES
        self.ticket_age: int | None = None  # since the session that was resumed was made
        self.backend: str | None = None
        self.bytes_from_client = 0
        self.bytes_from_backend = 0
        self.handshake_seconds: float | None = None
        self.connect_seconds: float | None = None
        self.seconds = 0.0
        self.count: int | None = None  # of failed handshakes that this line stands for, when not one
        self.ended = "done"  # one word, stable: "done", "idle_timeout", "no_shared_cipher" …
        self.fault = Fault.NONE
        self.detail: str | None = None  # a sentence, when it did not end as it should
        self.alert: str | None = None  # the TLS alert that ended it
        self.alert_from: str | None = None

    def as_common(self) -> bytes:
        """In the Common Log Format: a connection without a request."""
        return f"{self._common()}\n".encode()

    def as_combined(self) -> bytes:
        return f'{self._common()} "-" "-"\n'.encode()

    def _common(self) -> str:
        host = self.client.rpartition(":")[0].strip("[]")
        sent = self.bytes_from_backend or "-"
        return f'{host or "-"} - - [{_clf_time(self.time)}] "-" - {sent}'

    def as_json(self) -> bytes:
        return orjson.dumps(self.as_line(), option=orjson.OPT_APPEND_NEWLINE)

    def as_line(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is left out."""
        line: dict[str, Any] = {"time": utc(self.time)}
        for name in ConnectionRecord.__slots__[1:]:
            value = getattr(self, name)
            if value is not None:
                line[name] = _to_microseconds(value) if isinstance(value, float) else value
        line["fault"] = self.fault.value
        return line


class Facts:
    """What a connection's handshake has settled, which each of its exchanges' lines has, too."""

    __slots__ = ("json", "values")

    def __init__(self, line: dict[str, Any]) -> None:
        """From the connection's own line."""
        self.values: dict[str, Any] = {name: line[name] for name in _FACTS if name in line}
        self.json = orjson.dumps(self.values)[1:-1].decode()


_FACTS: Final = (
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


class ExchangeRecord:
    """A request and its answer.  Names are the access log's keys, and times in seconds."""

    __slots__ = (
        "alert",
        "alert_from",
        "backend",
        "bytes_from_client",
        "bytes_to_client",
        "detail",
        "ended",
        "facts",
        "fault",
        "first_byte_seconds",
        "host",
        "method",
        "minor",
        "path",
        "referer",
        "request_id",
        "retries",
        "seconds",
        "status",
        "time",
        "user_agent",
    )

    def __init__(self, facts: Facts, time: float, seconds: float) -> None:
        self.facts = facts
        self.time = time  # when its head was whole, since 1970
        self.method: str | None = None  # None: it was refused before it could be read
        self.host: str | None = None
        self.path: str | None = None
        self.minor = 1  # of the client's version of HTTP
        self.referer: str | None = None
        self.user_agent: str | None = None
        self.status: int | None = None  # None: the client has got no answer
        self.request_id: str | None = None
        self.backend: str | None = None
        self.retries = 0
        self.bytes_from_client = 0
        self.bytes_to_client = 0
        self.first_byte_seconds: float | None = None
        self.seconds = seconds
        self.ended = "done"
        self.fault = Fault.NONE
        self.detail: str | None = None
        self.alert: str | None = None
        self.alert_from: str | None = None

    def as_common(self) -> bytes:
        """In the Common Log Format; the subject of the client's certificate has the user's place."""
        return f"{self._common()}\n".encode()

    def as_combined(self) -> bytes:
        """The same with where the client came from, and what it is."""
        return f'{self._common()} "{_quoted(self.referer)}" "{_quoted(self.user_agent)}"\n'.encode()

    def _common(self) -> str:
        host = str(self.facts.values.get("client", "-")).rpartition(":")[0].strip("[]")
        user = str(self.facts.values.get("client_subject", "-")).replace(" ", "%20")
        request = "-" if self.method is None else f"{self.method} {self.path} HTTP/1.{self.minor}"
        status, sent = self.status or "-", self.bytes_to_client or "-"
        return f'{host} - {user} [{_clf_time(self.time)}] "{_quoted(request)}" {status} {sent}'

    def as_json(self) -> bytes:
        """as_line(), by the short way when all is known and all went well."""
        if (
            self.method is not None
            and self.host is not None
            and self.path is not None
            and self.status is not None
            and self.request_id is not None
            and self.backend is not None
            and self.first_byte_seconds is not None
            and self.ended == "done"
            and self.fault is _NONE
            and self.detail is None
            and self.alert is None
        ):
            line = plain_exchange(
                self.time,
                self.facts.json,
                self.method,
                self.host,
                self.path,
                self.status,
                self.request_id,
                self.backend,
                self.retries,
                self.bytes_from_client,
                self.bytes_to_client,
                self.first_byte_seconds,
                self.seconds,
            )
            if line is not None:
                return line
        return orjson.dumps(self.as_line(), option=orjson.OPT_APPEND_NEWLINE)

    def as_line(self) -> dict[str, Any]:  # noqa: C901 - the same question about each field
        """Plain values for JSON; what is not known is left out."""
        line: dict[str, Any] = {"time": utc(self.time)}
        line |= self.facts.values
        if self.method is not None:
            line["method"] = self.method
        if self.host is not None:
            line["host"] = self.host
        if self.path is not None:
            line["path"] = self.path
        if self.status is not None:
            line["status"] = self.status
        if self.request_id is not None:
            line["request_id"] = self.request_id
        if self.backend is not None:
            line["backend"] = self.backend
        line["retries"] = self.retries
        line["bytes_from_client"] = self.bytes_from_client
        line["bytes_to_client"] = self.bytes_to_client
        if self.first_byte_seconds is not None:
            line["first_byte_seconds"] = _to_microseconds(self.first_byte_seconds)
        line["seconds"] = _to_microseconds(self.seconds)
        line["ended"] = self.ended
        line["fault"] = "none" if self.fault is _NONE else self.fault.value
        if self.detail is not None:
            line["detail"] = self.detail
        if self.alert is not None:
            line["alert"] = self.alert
        if self.alert_from is not None:
            line["alert_from"] = self.alert_from
        return line


_NONE = Fault.NONE


def utc(time: float) -> str:
    """A moment (seconds since 1970) as RFC 3339 has it: in UTC, to the microsecond."""
    second, microsecond = divmod(int(time * 1e6 + 0.5), 1_000_000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{microsecond:06d}Z"


def _to_microseconds(seconds: float) -> float:
    """Rounded to them, still in seconds; round(seconds, 6) would write it out and read it again."""
    return int(seconds * 1e6 + 0.5) / 1e6


def _clf_time(time: float) -> str:
    """As in 10/Oct/2000:13:55:36 +0000: English, wherever we are."""
    return _clf_second(int(time))


@lru_cache(maxsize=16)  # what ends together began in different seconds
def _clf_second(second: int) -> str:
    moment = datetime.fromtimestamp(second, UTC)
    return f"{moment.day:02}/{_MONTHS[moment.month - 1]}/{moment:%Y:%H:%M:%S} +0000"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _quoted(text: str | None) -> str:
    """What stands between quotes; it is printable() already."""
    return "-" if not text else text.replace('"', "\\x22")


def without_query(target: bytes) -> bytes:
    """A request's target as the access log has it: queries hold what is nobody else's business."""
    return target.partition(b"?")[0]


def printable(raw: bytes) -> str:
    r"""What a client sent, made safe for logs and terminals: anything but plain ASCII as \\xNN."""
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text  # as nearly all are
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
