"""What is told to a backend about a request's way to it, and the head that tells it.

Where a client came from, and with which protocol, is ours to say (X-Forwarded-*, and RFC 7239's
Forwarded): what a client says of that itself is taken out, unless it is one of those that are trusted;
then it stands before ours.  The same for X-Request-ID, and for the fields that the configuration fills
with facts about TLS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from termproxy.http.head import (
    CHUNKED,
    CLAIMS,
    FORWARDED,
    NEVER_FORWARDED,
    STRICT_TRANSPORT_SECURITY,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    X_REQUEST_ID,
    Request,
    Response,
    mask,
    mask_of,
)

CODING = b"Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a frontend."""

    x_forwarded: bool = True
    forwarded: bool = True
    request_id: bool = True
    via: bool = False
    fact_fields: tuple[tuple[str, str], ...] = ()
    """Pairs of a field's name and a fact's."""

    def configured_names(self) -> tuple[bytes, ...]:
        """For head.request_reader: the fields that are never a client's to fill."""
        return tuple(name.lower().encode() for name, _ in self.fact_fields)


class Forwarder:
    """Writes the heads of one connection's requests.

    `facts` are texts by name; one that is missing leaves its field out.  `port` is the one that the
    client has connected to.
    """

    __slots__ = (
        "_added",
        "_authority",
        "_client",
        "_fixed",
        "_is_trusted",
        "_port",
        "_settings",
        "_without",
        "_without_all",
    )

    def __init__(
        self,
        settings: Settings,
        client: str,
        port: int,
        facts: Mapping[str, str | None],
        *,
        is_trusted: bool,
    ) -> None:
        self._settings = settings
        self._client = client.encode()
        self._port = b"%d" % port
        self._is_trusted = is_trusted
        self._without = mask_of(settings.configured_names())
        if not is_trusted:
            self._without |= CLAIMS
        self._without_all = NEVER_FORWARDED | self._without
        self._fixed = b"".join(_fact_lines(settings.fact_fields, facts))
        self._authority: bytes | None = None  # of the last request, and
        self._added = b""  # what was added to it: mostly the next one's, too

    def head(self, request: Request, request_id: bytes, more: bytes = b"") -> bytes:
        """The head for the backend; `more` are lines with CRLF."""
        without = request.without | self._without
        if self._is_trusted:
            added, without = self._after_claims(request, without)
        else:
            if request.authority != self._authority:
                self._authority, self._added = request.authority, self._lines(request.authority)
            added = self._added
        if self._settings.request_id and not (self._is_trusted and request.head.value(X_REQUEST_ID)):
            without |= mask(X_REQUEST_ID)
            more = b"X-Request-ID: %b\r\n%b" % (request_id, more)
        if request.body == CHUNKED:
            more += CODING
        if self._settings.via:
            more += b"Via: 1.%d termproxy\r\n" % request.head.minor
        if request.upgrade is not None:
            more += b"Connection: upgrade\r\n"
        return request.head.with_fields(
            b"%b %b HTTP/1.1\r\n" % (request.method, request.target), without, added + more
        )

    def plain_way(self, authority: bytes, prefix: bytes) -> tuple[int, bytes, bool]:
        """For Head.forward_plain(), of requests for the host `authority`, of a client that is not
        trusted: the mask of what they lose, the lines that they get, and whether a number follows these.
        """
        added = self._lines(authority)
        if self._settings.via:
            added += b"Via: 1.1 termproxy\r\n"
        if self._settings.request_id:
            added += b"X-Request-ID: %b" % prefix
        return self._without_all, added, self._settings.request_id

    def _lines(self, authority: bytes) -> bytes:
        """The facts, X-Forwarded-* and Forwarded."""
        lines = self._fixed
        if self._settings.x_forwarded:
            lines += b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: %b\r\n" % (
                self._client,
                self._port,
            )
            if authority:
                lines += b"X-Forwarded-Host: %b\r\n" % authority
        if self._settings.forwarded:
            lines += b"Forwarded: %b\r\n" % self._element(authority)
        return lines

    def _element(self, authority: bytes) -> bytes:
        """One hop, in RFC 7239's words."""
        client = b'"[%b]"' % self._client if b":" in self._client else self._client
        host = b';host="%b"' % authority if authority else b""
        return b"for=%b;proto=https%b" % (client, host)

    def _after_claims(self, request: Request, without: int) -> tuple[bytes, int]:
        """Of a trusted client: its lists go on with ours, and its single values stay."""
        head, settings, lines = request.head, self._settings, self._fixed
        if settings.x_forwarded:
            without |= mask(X_FORWARDED_FOR)
            fors = b", ".join([*filter(None, head.values(X_FORWARDED_FOR)), self._client])
            lines += b"X-Forwarded-For: %b\r\n" % fors
            for number, name, value in (
                (X_FORWARDED_PROTO, b"Proto", b"https"),
                (X_FORWARDED_PORT, b"Port", self._port),
                (X_FORWARDED_HOST, b"Host", request.authority),
            ):
                if value and not head.value(number):
                    without |= mask(number)
                    lines += b"X-Forwarded-%b: %b\r\n" % (name, value)
        if settings.forwarded:
            without |= mask(FORWARDED)
            hops = b", ".join([*filter(None, head.values(FORWARDED)), self._element(request.authority)])
            lines += b"Forwarded: %b\r\n" % hops
        return lines, without


FACT_MAX = 16_384
"""Bytes: a field with a longer fact, which a certificate may well hold, is left out."""


def _fact_lines(fields: tuple[tuple[str, str], ...], facts: Mapping[str, str | None]) -> list[bytes]:
    values = [
        (name.encode(), _plain(text)) for name, fact in fields if (text := facts.get(fact)) is not None
    ]
    return [b"%b: %b\r\n" % (name, value) for name, value in values if len(value) <= FACT_MAX]


def _plain(text: str) -> bytes:
    """Safe in a field's value: what is not printable ASCII, percent-encoded."""
    return _NOT_PLAIN.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "surrogatepass"))


_NOT_PLAIN = re.compile(rb"[^ -$&-~]")


def response_head(
    response: Response, *, http_1_0: bool, close: bool, hsts: bytes, more: bytes = b""
) -> bytes:
    """The head for the client.

    `http_1_0`: the client speaks that, and keeps the connection only when told so.  `hsts` is the value
    of Strict-Transport-Security, which then is ours; `more` are lines with CRLF.
    """
    without = response.without
    if response.body == CHUNKED and not http_1_0:
        more += CODING
    if hsts:
        without |= _HSTS
        more += b"Strict-Transport-Security: %b\r\n" % hsts
    if close:
        more += b"Connection: close\r\n"
    elif http_1_0:
        more += b"Connection: keep-alive\r\n"
    head = response.head
    return head.with_fields(b"HTTP/1.1 %d %b\r\n" % (response.status, head.reason), without, more)


_HSTS = mask(STRICT_TRANSPORT_SECURITY)
