"""What the head of a request or a response means, where its grammar is in order (RFC 9110, RFC 9112).

Whatever two readers might take in two ways is refused: a length said twice, a coding we do not undo, a
host that is missing, repeated or another than the target's.  So the message that a backend reads is the
one that was checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from termproxy.hostname import is_ip_address
from termproxy.http._wire import DISGUISED, UNDERSCORED, FieldNames, Head, HeadReader, MalformedError

# What a body is, when it is not a number of bytes.
CHUNKED = -1
UNTIL_CLOSE = -2

# The fields that mean something to us, by number.
(
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    UPGRADE,
    EXPECT,
    HTTP2_SETTINGS,
    PROXY,
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    X_FORWARDED_SERVER,
    X_FORWARDED_SSL,
    X_FORWARDED_SCHEME,
    X_FORWARDED_PREFIX,
    X_REAL_IP,
    X_REQUEST_ID,
    VIA,
    STRICT_TRANSPORT_SECURITY,
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    REFERER,
    USER_AGENT,
    X_FORWARDED_CLIENT_CERT,
) = range(30)

CONFIGURED = 30
"""From here on: fields that a configuration names."""

_NAMES = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": PROXY_CONNECTION,
    b"te": TE,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"http2-settings": HTTP2_SETTINGS,
    b"proxy": PROXY,
    b"forwarded": FORWARDED,
    b"x-forwarded-for": X_FORWARDED_FOR,
    b"x-forwarded-host": X_FORWARDED_HOST,
    b"x-forwarded-port": X_FORWARDED_PORT,
    b"x-forwarded-proto": X_FORWARDED_PROTO,
    b"x-forwarded-server": X_FORWARDED_SERVER,
    b"x-forwarded-ssl": X_FORWARDED_SSL,
    b"x-forwarded-scheme": X_FORWARDED_SCHEME,
    b"x-forwarded-prefix": X_FORWARDED_PREFIX,
    b"x-real-ip": X_REAL_IP,
    b"x-request-id": X_REQUEST_ID,
    b"via": VIA,
    b"strict-transport-security": STRICT_TRANSPORT_SECURITY,
    b"client-cert": CLIENT_CERT,
    b"client-cert-chain": CLIENT_CERT_CHAIN,
    b"x-forwarded-client-cert": X_FORWARDED_CLIENT_CERT,
    b"referer": REFERER,
    b"user-agent": USER_AGENT,
}


def mask(*numbers: int) -> int:
    """The fields with these numbers, as Head.seen speaks of them."""
    return sum(1 << number for number in numbers)


# For one connection only (RFC 9110 §7.6.1); where chunks pass we write a Transfer-Encoding of our own.
# Trailers do not pass.  Proxy is no field of HTTP's, but a variable of CGI's (CVE-2016-5385).
_HOP_BY_HOP = mask(
    CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS
)
NEVER_FORWARDED = _HOP_BY_HOP | mask(PROXY, DISGUISED)

# What only a trusted client may say of the way that a request has come.
CLAIMS = mask(
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    FORWARDED,
    X_FORWARDED_CLIENT_CERT,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
    X_FORWARDED_SCHEME,
    X_FORWARDED_SERVER,
    X_FORWARDED_SSL,
    X_REAL_IP,
    X_REQUEST_ID,
)

_CODING = mask(TRANSFER_ENCODING)
# One field each.
_CONNECTION, _UPGRADE, _EXPECT = mask(CONNECTION), mask(UPGRADE), mask(EXPECT)
_LENGTH = mask(CONTENT_LENGTH)
_FRAMING = mask(CONTENT_LENGTH, TRANSFER_ENCODING)
_UNDERSCORES = mask(DISGUISED, UNDERSCORED)
_RARE = mask(CONNECTION, UPGRADE, EXPECT) | _UNDERSCORES

# What a Connection field must not take out of a message.
_END_TO_END = frozenset(
    b"host content-length content-type content-encoding transfer-encoding authorization cookie "
    b"set-cookie cache-control expect range date origin referer".split()
)

_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE"})

# What a refused request is answered with, where that is not 400.
_STATUS = {
    "head_too_large": 431,
    "too_many_fields": 431,
    "target_too_long": 414,
    "unsupported_version": 505,
    "unknown_expectation": 417,
    "refused_method": 405,
    "too_many_connections": 429,
}


class RefusedRequestError(Exception):
    """A request that goes no further; `reason` is a stable word, `status` what it is answered with."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = _STATUS.get(reason, 400) if status is None else status


class BadResponseError(Exception):
    """A response that goes no further; `reason` is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Request:
    head: Head
    method: bytes
    target: bytes
    """In origin-form, or "*"."""
    authority: bytes
    """The Host field's value; empty when an HTTP/1.0 client has sent none."""
    host: str
    """The host in it: lower case, without port, brackets and final dot."""
    body: int
    """Its bytes, or CHUNKED."""
    keep_alive: bool
    without: int
    """The mask of the fields that are not forwarded."""
    upgrade: bytes | None = None
    """The protocols that it asks for."""


@dataclass(slots=True)
class Response:
    head: Head
    status: int
    body: int
    """Its bytes, CHUNKED or UNTIL_CLOSE."""
    keep_alive: bool
    without: int


def request_reader(
    head_max: int, target_max: int, fields_max: int, configured: tuple[bytes, ...] = ()
) -> HeadReader:
    """Reads heads of requests; `configured` are names (lower case), with numbers from CONFIGURED on."""
    names = FieldNames(numbers(configured))
    return HeadReader(names, head_max, fields_max, target_max, _RARE | _CODING)


def numbers(configured: tuple[bytes, ...]) -> dict[bytes, int]:
    """The number of each field's name that is known, or configured."""
    others = dict.fromkeys(name for name in configured if name not in _NAMES)
    return _NAMES | {name: CONFIGURED + at for at, name in enumerate(others)}


@lru_cache(maxsize=64)
def mask_of(configured: tuple[bytes, ...]) -> int:
    """These fields; a name may well be a known one's, and so have another number than others."""
    by_name = numbers(configured)
    return mask(*{by_name[name] for name in configured})


def response_reader(head_max: int, fields_max: int) -> HeadReader:
    return HeadReader(FieldNames(_NAMES), head_max, fields_max, rare=_RARE | _CODING)


# Requests.


def read_request(head: Head, underscores: str = "reject") -> Request:
    """What `head` asks for.  RefusedRequestError for what may not be forwarded.

    `underscores` says what becomes of fields with "_" in their names, which CGI and WSGI take for "-":
    "reject", "drop" or "pass" (but never one that looks like a field of ours).
    """
    method, seen = head.method, head.seen
    if method in _REFUSED_METHODS:
        raise RefusedRequestError("refused_method")
    body = _request_body(head) if seen & _FRAMING else 0
    authority, host = b"", ""
    if seen & 1:  # HOST
        authority = head.value(HOST) or b""
        host = _host(authority)
        if head.count(HOST) > 1:
            raise RefusedRequestError("repeated_host")
    elif head.minor:
        raise RefusedRequestError("no_host")
    target = head.target
    if target[0] != 0x2F:
        target = _in_origin_form(method, target, authority)
    request = Request(head, method, target, authority, host, body, head.minor == 1, NEVER_FORWARDED)
    if seen & _RARE or not head.minor:
        _read_rare_fields(request, seen, underscores)
    return request


def _request_body(head: Head) -> int:
    try:
        return _body(head)
    except MalformedError as error:
        status = 501 if error.reason == "unknown_transfer_coding" else None
        raise RefusedRequestError(error.reason, status) from None


def _body(head: Head) -> int:
    """The body's bytes, or CHUNKED; there is a field that says so."""
    lengths, codings = head.values(CONTENT_LENGTH), head.values(TRANSFER_ENCODING)
    if lengths and codings:
        raise MalformedError("length_and_coding")
    if codings:
        if head.minor == 0:
            raise MalformedError("coding_in_http_1_0")
        # More white space around it is in order, but nobody writes so, and some readers stumble over it.
        is_padded = head.is_padded(TRANSFER_ENCODING)
        if len(codings) > 1 or codings[0].lower() != b"chunked" or is_padded:
            raise MalformedError("unknown_transfer_coding")
        return CHUNKED
    if len(lengths) > 1:
        raise MalformedError("repeated_length")
    if not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS_MAX:
        raise MalformedError("bad_length")
    return int(lengths[0])


LENGTH_DIGITS_MAX = 18  # what fits into 63 bits, whoever reads it


def _host(authority: bytes) -> str:
    host = read_authority(authority) if len(authority) <= AUTHORITY_MAX else None
    if host is None:
        raise RefusedRequestError("bad_host")
    return host


AUTHORITY_MAX = 300  # bytes: a name of 253, brackets, a port

_AUTHORITY = re.compile(
    rb"(?:([A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*)\.?|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?"
)


@lru_cache(maxsize=1024)
def read_authority(authority: bytes) -> str | None:
    """The host of an authority (RFC 3986 §3.2): lower case, no port, no final dot; None: it is none.

    Percent-encoding and user names are none, either: nobody needs them here but to confuse.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        return None
    if match[2] is not None:
        address = match[2].decode().lower()
        return address if ":" in address and is_ip_address(address) else None
    return match[1].decode().lower()


def _in_origin_form(method: bytes, target: bytes, authority: bytes) -> bytes:
    """The target of a request that is not in origin-form (RFC 9112 §3.2), as a server wants it."""
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RefusedRequestError("bad_target")
    if match[1].lower() != authority.lower():
        raise RefusedRequestError("target_and_host_differ")
    rest: bytes = match[2]
    if not rest:
        return b"*" if method == b"OPTIONS" else b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)((?:[/?].*)?)")


def _read_rare_fields(request: Request, seen: int, underscores: str) -> None:
    head = request.head
    if seen & _UNDERSCORES:
        if underscores == "reject":
            raise RefusedRequestError("underscore_in_name")
        if underscores == "drop":
            request.without |= _UNDERSCORES
    options = _connection_options(head) if seen & _CONNECTION else _NO_OPTIONS
    request.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    if seen & _EXPECT:
        if [value.lower() for value in head.values(EXPECT)] != [b"100-continue"]:
            raise RefusedRequestError("unknown_expectation")
        if not head.minor:
            request.without |= _EXPECT
    # A body would have to be read before the protocol changes; nobody upgrades so.
    if seen & _UPGRADE and b"upgrade" in options and not request.body and head.minor:
        protocols = head.values(UPGRADE)
        if len(protocols) == 1 and _is_upgrade(protocols[0].lower()):
            request.upgrade = protocols[0]
            request.without &= ~_UPGRADE


def _is_upgrade(protocols: bytes) -> bool:
    """Whether these, in lower case, may be asked of a backend: names, and none of them HTTP once more.

    That would give the client a connection to the backend on which nothing is checked.
    """
    if len(protocols) > _PROTOCOLS_MAX or _PROTOCOLS.fullmatch(protocols) is None:
        return False
    names = {protocol.strip(b" \t").partition(b"/")[0] for protocol in protocols.split(b",")}
    return not names & _HTTP_AGAIN


_PROTOCOL = rb"[a-z0-9!#$%&'*+.^_`|~-]+(?:/[a-z0-9!#$%&'*+.^_`|~-]+)?"
_PROTOCOLS = re.compile(_PROTOCOL + rb"(?:[ \t]*,[ \t]*" + _PROTOCOL + rb")*")
_PROTOCOLS_MAX = 256  # bytes: a dozen names
_HTTP_AGAIN = frozenset({b"h2c", b"h2", b"h3", b"http", b"tls"})


_NO_OPTIONS: frozenset[bytes] = frozenset()


def _connection_options(head: Head) -> frozenset[bytes]:
    """What the Connection fields say, in lower case."""
    value = b",".join(head.values(CONNECTION))
    return _options(value) if len(value) <= AUTHORITY_MAX else _options.__wrapped__(value)


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t").lower() for option in value.split(b",")) - {b""}


# What a Connection field says besides naming fields, and what is removed anyway.  That it names itself
# must not make us forget what else it says.
_KNOWN_OPTIONS = frozenset(
    b"close connection keep-alive proxy-connection upgrade te trailer http2-settings".split()
)


def fields_to_remove(head: Head) -> frozenset[bytes]:
    """The names (lower case) that the Connection fields say are for one connection only, and that nobody
    removes otherwise.  MalformedError when one of them is not theirs to remove.
    """
    if not head.seen & _CONNECTION:
        return _NO_OPTIONS
    names = _connection_options(head) - _KNOWN_OPTIONS
    if names & _END_TO_END:
        raise MalformedError("bad_connection")
    return names


def without_fields(reader: HeadReader, head: Head, names: frozenset[bytes]) -> Head:
    """The same head without the fields that have these names (lower case)."""
    first, *lines = head.lines()
    kept = (line for line in lines if line.partition(b":")[0].lower() not in names)
    data = b"\r\n".join([first, *kept, b"", b""])
    less = (reader.response if head.status else reader.request)(data, 0, len(data))
    assert less is not None  # noqa: S101 - it was whole, and still is
    return less


# Responses.


def read_response(head: Head, method: bytes) -> Response:
    """What `head` answers to a request with `method`.  BadResponseError: it may not be forwarded."""
    status, seen = head.status, head.seen
    try:
        body = _body(head) if seen & _FRAMING else UNTIL_CLOSE
    except MalformedError as error:
        raise BadResponseError(error.reason) from None
    without = NEVER_FORWARDED
    if status < 200 or status == 204:
        if seen & _CODING or body > 0:
            raise BadResponseError("body_not_allowed")
        body = 0
        without |= _LENGTH  # which RFC 9110 §8.6 forbids
    elif status == 304 or method == b"HEAD":
        body = 0
    keep_alive = head.minor == 1 and body != UNTIL_CLOSE
    if seen & _CONNECTION:
        options = _connection_options(head)
        keep_alive = (
            body != UNTIL_CLOSE
            and b"close" not in options
            and (head.minor == 1 or b"keep-alive" in options)
        )
    return Response(head, status, body, keep_alive, without)


def agreed_upgrade(head: Head, request: Request) -> bytes | None:
    """The protocol that a 101 changes to, if it is one that was asked for."""
    protocols = head.values(UPGRADE)
    if request.upgrade is None or len(protocols) != 1:
        return None
    asked = [protocol.strip(b" \t").lower() for protocol in request.upgrade.split(b",")]
    return protocols[0] if protocols[0].lower() in asked else None
