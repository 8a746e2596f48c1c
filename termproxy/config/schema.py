"""THE table of settings: every name, default, bound and sentence of help.

The loader, `conf/termproxy.toml`, the command line's help and `termproxy config dump` are made from it.
To add a setting, add a field here; a `Kind` says what its value may be.  A configuration is never
edited: a reload makes a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from termproxy.address import Address, Name, parse_address, parse_listening_address
from termproxy.hostname import is_host_name


class BadValue(ValueError):  # noqa: N818 - it reads as what it is: raise BadValue(what, cure)
    """A value a setting cannot have: what is wrong, and what would be right."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


class BadItems(Exception):  # noqa: N818 - as BadValue
    """Items that a list cannot have, each with its index."""

    def __init__(self, items: list[tuple[int, BadValue]]) -> None:
        super().__init__(items)
        self.items = items


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting's value may be: `read` makes it from TOML's (and the base folder of paths)."""

    expects: str  # "a number of seconds, at least 0.1": stands in errors and in the reference
    read: Callable[[Any, Path], Any]


def setting(
    help: str,  # noqa: A002 - the field's own word
    kind: Kind,
    default: Any = MISSING,
    *,
    example: Any = None,
) -> Any:
    """A field of the table.  Without a default the key must be given; `example` shows one then."""
    metadata = {"help": help, "kind": kind, "example": example}
    return field(default=default, metadata=metadata)


def section(cls: type, help: str) -> Any:  # noqa: A002
    """A field that is a table of settings of its own, as in [timeouts]."""
    return field(default_factory=cls, metadata={"help": help, "section": cls})


def kind_of(spec: Field[Any]) -> Kind | None:
    """None for a section, a list of sections or a map of them."""
    return spec.metadata.get("kind")


# ---------------------------------------------------------------------------------------- kinds


def _wrong_type(value: Any, expects: str) -> BadValue:
    return BadValue(f"{value!r} is {_toml_type(value)}", f"write {expects}")


def _toml_type(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "not that")


def whole(at_least: int, at_most: int, unit: str = "") -> Kind:
    expects = f"a whole number{unit and f' of {unit}'} from {at_least} to {at_most}"

    def read(value: Any, _: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, expects)
        if not at_least <= value <= at_most:
            raise BadValue(f"{value} is out of bounds", f"write {expects}")
        return value

    return Kind(expects, read)


def seconds(at_least: float, at_most: float = 86400.0) -> Kind:
    expects = f"a number of seconds from {at_least:g} to {at_most:g}"

    def read(value: Any, _: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, expects)
        if not at_least <= value <= at_most:  # False for NaN, too
            raise BadValue(f"{value} is out of bounds", f"write {expects}")
        return float(value)

    return Kind(expects, read)


def fraction() -> Kind:
    expects = "a number from 0 to 1"

    def read(value: Any, _: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, expects)
        if not 0 <= value <= 1:  # False for NaN, too
            raise BadValue(f"{value} is out of bounds", f"write {expects}")
        return float(value)

    return Kind(expects, read)


def _boolean(value: Any, _: Path) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "true or false")
    return value


BOOLEAN = Kind("true or false", _boolean)


def choice(*words: str) -> Kind:
    expects = " or ".join(f'"{word}"' for word in words)

    def read(value: Any, _: Path) -> str:
        if value not in words:
            raise BadValue(f"unknown value {value!r}", f"write {expects}")
        return str(value)

    return Kind(expects, read)


def auto_or(number: Kind) -> Kind:
    """None stands for "auto"."""
    expects = f'"auto" or {number.expects}'

    def read(value: Any, base: Path) -> int | None:
        if value == "auto":
            return None
        if isinstance(value, str):
            raise BadValue(f"unknown value {value!r}", f"write {expects}")
        result: int = number.read(value, base)
        return result

    return Kind(expects, read)


def _text(value: Any, _: Path) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a text in quotes")
    return value


def _name(value: Any, base: Path) -> str:
    text = _text(value, base)
    if not text or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise BadValue(f"{text!r} is not a name", "use letters, digits, dots, dashes, underscores")
    return text


def _file(value: Any, base: Path) -> Path:
    text = _text(value, base)
    if not text or "\0" in text:
        raise BadValue("an empty path", "name a file")
    return base / text


def _optional_file(value: Any, base: Path) -> Path | None:
    return None if value == "" else _file(value, base)


def _files(value: Any, base: Path) -> tuple[Path, ...]:
    given = value if isinstance(value, list) else [value] if value != "" else []
    return tuple(_file(each, base) for each in given)


def _access(value: Any, base: Path) -> Path | str:
    return str(value) if value in ("-", "off") else _file(value, base)


def _backend(value: Any, base: Path) -> Address | Name:
    host, _, port = _text(value, base).rpartition(":")
    is_name = is_host_name(host.lower()) and not host.rpartition(".")[2].isdigit()
    if is_name and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return Name(host.lower(), int(port))
    return _address(value, base)


def _address(value: Any, base: Path, parse: Callable[[str], Address] = parse_address) -> Address:
    try:
        return parse(_text(value, base))
    except BadValue:
        raise
    except ValueError as error:
        what, _, cure = str(error).partition("; ")
        raise BadValue(what, cure) from None


def _listen(value: Any, base: Path) -> Address:
    return _address(value, base, parse_listening_address)


def _optional_listen(value: Any, base: Path) -> Address | None:
    if value == "":
        return None
    address = _address(value, base)
    if address.is_unix:
        raise BadValue(
            f"cannot listen on {address}", "write an IP address and port, as in 127.0.0.1:9090"
        )
    return address


def _listens(value: Any, base: Path) -> tuple[Address, ...]:
    expects = 'a list of addresses, as in ["0.0.0.0:80"]'
    addresses: tuple[Address, ...] = () if value == [] else some(_listen, expects).read(value, base)
    return addresses


def _host_name(value: Any, base: Path) -> str:
    text = _text(value, base)
    if not is_host_name(text):
        raise BadValue(f"{text!r} is not a host name", "write it in lower case, without a port")
    return text


def _host_names(value: Any, base: Path) -> tuple[str, ...]:
    expects = 'a list of names, as in ["gate.example.com"]'
    names: tuple[str, ...] = () if value == [] else some(_host_name, expects).read(value, base)
    return names


def _host_pattern(value: Any, base: Path) -> str:
    text = _text(value, base)
    name = text.removeprefix("*.")
    if not is_host_name(name):
        raise BadValue(
            f"{text!r} is not a host name",
            "write it in lower case, an international one as its A-label (xn--…), *. for one label",
        )
    return text


@dataclass(frozen=True, slots=True)
class Server:
    """A backend of a cluster."""

    address: Address | Name
    weight: int = 1
    max_connections: int = 0  # 0: no limit

    def __str__(self) -> str:
        return str(self.address)


_SERVER_NUMBERS = {"weight": whole(1, 256), "max_connections": whole(0, 1_000_000)}


def _server(value: Any, base: Path) -> Server:
    if not isinstance(value, dict):
        return Server(_backend(value, base))
    _only_keys(value, {"address", *_SERVER_NUMBERS})
    if "address" not in value:
        raise BadValue("no address", 'write "127.0.0.1:8080", or { address = "127.0.0.1:8080" }')
    numbers = {}
    for name, number in _SERVER_NUMBERS.items():
        if name in value:
            try:
                numbers[name] = number.read(value[name], base)
            except BadValue as bad:
                raise BadValue(f"{name}: {bad}", bad.cure) from None
    return Server(_backend(value["address"], base), **numbers)


def _statuses(value: Any, base: Path) -> str:
    """One status, or a range of them: "200-399"."""
    text = str(value) if type(value) is int else _text(value, base)
    ends = [end for end in text.split("-", 1) if end.isascii() and end.isdigit()]
    if len(ends) != text.count("-") + 1 or not 200 <= int(ends[0]) <= int(ends[-1]) <= 599:
        raise BadValue(f"{text!r} is no status", 'write a number from 200 to 599, or "200-399"')
    return text


def _visible(value: Any, base: Path) -> str:
    """What may stand in a request's head without ending a word, or a line."""
    text = _text(value, base)
    if not all("!" <= mark <= "~" for mark in text):
        raise BadValue(f"{text!r} has spaces or other marks", "write printable ASCII without spaces")
    return text


def _request_path(value: Any, base: Path) -> str:
    text = _visible(value, base)
    if not text.startswith("/") or "#" in text:
        raise BadValue(f"{text!r} is not a path", "begin it with a slash, and leave out any #")
    return text


Network = IPv4Network | IPv6Network


def _networks(value: Any, _: Path) -> tuple[Network, ...]:
    """As some(), but none is right, too."""
    if not isinstance(value, list):
        raise _wrong_type(value, 'a list, as in ["10.0.0.0/8", "::1"]')
    networks, bad = [], []
    for index, each in enumerate(value):
        try:
            networks.append(ip_network(_text(each, _)))
        except BadValue as problem:
            bad.append((index, problem))
        except ValueError as error:
            cure = 'write an address or a network, as in "192.0.2.1" or "10.0.0.0/8"'
            bad.append((index, BadValue(str(error), cure)))
    if bad:
        raise BadItems(bad)
    return tuple(networks)


FACTS = (
    "tls_version",
    "tls_cipher",
    "tls_name",
    "tls_resumed",
    "client_subject",
    "client_issuer",
    "client_serial",
    "client_sha256",
    "client_names",
    "client_certificate",
)
"""What a field for backends may be filled with; the last one as RFC 9440 writes it."""

FACT_FIELDS_MAX = 20


@dataclass(frozen=True, slots=True)
class FactFields:
    """Pairs of a field's name and the fact that fills it."""

    pairs: tuple[tuple[str, str], ...] = ()


TAKEN_FIELDS = {
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
}
"""What frames a message, or is filled with something else: a second one could be taken for the first."""


def _facts(value: Any, _: Path) -> FactFields:
    if not isinstance(value, dict):
        raise _wrong_type(value, 'a table, as in { X-Client-Subject = "client_subject" }')
    for name, fact in value.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise BadValue(f"{name!r} is no name of a field", "use letters, digits and dashes")
        if name.lower() in TAKEN_FIELDS:
            raise BadValue(f"{name} has a meaning of its own", "choose another name for the field")
        if fact not in FACTS:
            raise BadValue(f"{name}: unknown fact {fact!r}", f"known: {', '.join(FACTS)}")
    if len(value) > FACT_FIELDS_MAX or len({name.lower() for name in value}) < len(value):
        raise BadValue("too many fields, or one twice", f"name each once, {FACT_FIELDS_MAX} at most")
    return FactFields(tuple(value.items()))


FIELD_VALUE_MAX = 1000  # characters: the head of an answer has to fit before its body


def _field_value(value: Any, base: Path) -> str:
    text = _text(value, base)
    if not all(" " <= mark <= "~" for mark in text):
        raise BadValue(f"{text!r} cannot be a field's value", "write printable ASCII")
    if len(text) > FIELD_VALUE_MAX:
        raise BadValue(f"{len(text)} characters", f"write at most {FIELD_VALUE_MAX}")
    return text.strip()


def _route_host(value: Any, base: Path) -> str:
    return "" if value == "" else _host_pattern(value, base)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    chain: Path
    key: Path | None  # None: in the chain's file, or beside it
    passphrase: Path | None = None  # a file; for keys that are encrypted


def _certificate(value: Any, base: Path) -> CertificateFiles:
    if isinstance(value, dict):
        _only_keys(value, {"chain", "key", "passphrase"})
        if "chain" not in value:
            raise BadValue("no chain", 'write { chain = "site.crt", key = "site.key" }')
        others = (_file(value[name], base) if name in value else None for name in ("key", "passphrase"))
        return CertificateFiles(_file(value["chain"], base), *others)
    return CertificateFiles(_file(value, base), None)


def _only_keys(table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise BadValue(f"unknown key {key!r}", f"known here: {', '.join(sorted(known))}")


def some(item: Callable[[Any, Path], Any], expects: str) -> Kind:
    """A list of at least one item; every bad item is told by its place."""

    def read(value: Any, base: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong_type(value, expects)
        if not value:
            raise BadValue("an empty list", f"write {expects}")
        items, bad = [], []
        for index, each in enumerate(value):
            try:
                items.append(item(each, base))
            except BadValue as problem:
                bad.append((index, problem))
        if bad:
            raise BadItems(bad)
        return tuple(items)

    return Kind(expects, read)


def _name_server(value: Any, base: Path) -> Address:
    address = _address(value, base)
    if address.is_unix:
        raise BadValue(f"cannot ask {address}", "write an IP address and port, as in 127.0.0.1:53")
    return address


def _name_servers(value: Any, base: Path) -> tuple[Address, ...]:
    expects = 'a list of addresses, as in ["127.0.0.1:53"]'
    return () if value == [] else some(_name_server, expects).read(value, base)


# ------------------------------------------------------------------------------------ the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: str = setting(
        "How much to say on standard error.", choice("debug", "info", "warning", "error"), "info"
    )
    access: Path | str = setting(
        'One line a connection, or in mode "http" a request.',
        Kind('"-" for standard output, a path, or "off"', _access),
        "-",
    )
    format: str = setting(
        "All that is known, as JSON, or what web servers write.",
        choice("json", "common", "combined"),
        "json",
    )
    query: bool = setting("Write requests' queries, too, which may hold secrets.", BOOLEAN, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """All in seconds.  Each bounds one phase of a connection's life."""

    handshake: float = setting("From accept to a finished TLS handshake.", seconds(0.1), 10.0)
    connect: float = setting("From asking a backend to a connection, each.", seconds(0.1), 3.0)
    request_head: float = setting(
        'Mode "http": from a request\'s first byte to the end of its head, and to the first request.',
        seconds(0.1),
        10.0,
    )
    response: float = setting(
        'Mode "http": from the end of a request to the head of its answer.', seconds(0.1), 60.0
    )
    idle: float = setting("Without a byte either way, then a connection is closed.", seconds(1), 60.0)
    tunnel: float = setting(
        'Mode "http": the same for connections that were upgraded, as to WebSocket.', seconds(1), 3600.0
    )
    drain: float = setting(
        "What a stopping worker's connections have to finish; then they are closed.",
        seconds(0),
        30.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connections: int = setting(
        "Open at once in each worker; more wait in the listener's queue.",
        whole(1, 1_000_000),
        10_000,
    )
    connections_per_client: int = setting(
        "Open at once for one address (IPv6: /64) in all workers; 0: no limit.", whole(0, 1_000_000), 0
    )
    handshakes_per_second: int = setting(
        "Full TLS handshakes in all workers, or three times as many resumed ones; 0: no limit.",
        whole(0, 1_000_000),
        0,
    )
    handshakes_per_client: int = setting(
        "The same for one address (IPv6: /64); 0: no limit.", whole(0, 1000), 0
    )
    handshake_queue: float = setting(
        "How long a handshake may wait to begin while there is too much to do; then it is dropped.",
        seconds(0.05, 60.0),
        5.0,
    )
    recycle_after: int = setting(
        "A worker that has accepted so many, give or take a tenth, drains once a new one is there.  "
        "0: never.",
        whole(0, 1 << 50, "connections"),
        0,
    )
    request_head: int = setting(
        'Mode "http": of a request\'s line and fields.', whole(1024, 131_072, "bytes"), 32_768
    )
    request_target: int = setting("Of its target.", whole(64, 65_536, "bytes"), 8192)
    request_fields: int = setting("How many fields it may have.", whole(8, 1000), 100)
    request_body: int = setting("Of its body; 0: no limit.", whole(0, 1 << 50, "bytes"), 0)
    body_rate: int = setting(
        "What a request's body has to come with on average; 0: as slowly as it likes.",
        whole(0, 1 << 30, "bytes a second"),
        100,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    servers: tuple[Address, ...] = setting(
        "Who is asked; empty: those of /etc/resolv.conf.",
        Kind('a list of addresses, as in ["127.0.0.1:53"]', _name_servers),
        (),
    )
    hosts: Path | None = setting(
        "Names that stand in this file are not asked for.",
        Kind('a path, or "" for none', _optional_file),
        Path("/etc/hosts"),
    )


ROTATIONS_MAX = 20  # in the lifetime of a session: so many keys redeem at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    listen: Address | None = setting(
        "For GET /metrics, /ready and /live, in plain HTTP.",
        Kind('an address and a port, or "" for none', _optional_listen),
        None,
    )
    names: tuple[str, ...] = setting(
        "Names by which it may be called, besides localhost and any address.",
        Kind('a list of names, as in ["gate.example.com"]', _host_names),
        (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    tickets: bool = setting(
        "Whether clients get session tickets, which cost no memory here.", BOOLEAN, True
    )
    lifetime: int = setting("How long a session may be resumed.", whole(1, 604_800, "seconds"), 43_200)
    rotate: int = setting(
        "A new ticket key issues so often; keys redeem until their last ticket has expired.",
        whole(1, 604_800, "seconds"),
        14_400,
    )
    session_cache: int = setting(
        "Sessions kept in memory for all workers, for clients that take no tickets; 0: none.",
        whole(0, 10_000_000),
        20_000,
    )
    persist: bool = setting("Keep the ticket keys over restarts, sealed, in state_dir.", BOOLEAN, False)
    ticket_keys: tuple[Path, ...] = setting(
        "Ticket keys that others make and turn: files of 80 bytes (the first issues), or one with a key "
        "in base64 on each line (the last but one issues).  Then none are made here.",
        Kind("a file, or a list of files", _files),
        (),
        example="tickets.key",
    )
    tickets_per_handshake: int = setting(
        "Sent after a full TLS 1.3 handshake; one that resumes gets one.", whole(1, 8), 1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """What is demanded of clients.  None: as the frontend has it, or else the preset."""

    preset: str | None = setting(
        "Mozilla's guideline, version 5.7: what the settings below are when they are not given.",
        choice("intermediate", "modern"),
        None,
        example="intermediate",
    )
    min_version: str | None = setting(
        "The oldest TLS version a client may use.", choice("1.2", "1.3"), None, example="1.2"
    )
    max_version: str | None = setting(
        "The newest TLS version a client may use.", choice("1.2", "1.3"), None, example="1.3"
    )
    ciphers: tuple[str, ...] | None = setting(
        "For TLS 1.2, by OpenSSL's names, best first.",
        some(_text, "a list of names"),
        None,
        example=["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
    )
    ciphersuites: tuple[str, ...] | None = setting(
        "For TLS 1.3, best first.",
        some(_text, "a list of names"),
        None,
        example=["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"],
    )
    groups: tuple[str, ...] | None = setting(
        "For the key exchange, best first.",
        some(_text, "a list of names"),
        None,
        example=["X25519", "P-256"],
    )
    signature_algorithms: tuple[str, ...] | None = setting(
        "What handshakes are signed with, best first.",
        some(_text, "a list of names"),
        None,
        example=["ECDSA+SHA256", "RSA-PSS+SHA256"],
    )
    alpn: tuple[str, ...] | None = setting(
        "Protocols we agree to by ALPN, best first; a client that offers none of them is refused.",
        some(_text, "a list of names"),
        None,
        example=["http/1.1"],
    )
    client_auth: str | None = setting(
        "Whether a client must show a certificate.",
        choice("off", "optional", "required"),
        None,
        example="off",
    )
    client_ca: Path | None = setting(
        "Who issues clients' certificates.", Kind("a PEM file", _file), None, example="clients.pem"
    )
    client_crl: Path | None = setting(
        "Which of them are revoked: a CRL for every CA of the chain.",
        Kind("a PEM file", _file),
        None,
        example="clients.crl",
    )
    client_depth: int | None = setting(
        "How many intermediates there may be.", whole(0, 16), None, example=4
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls(TlsPolicy):
    unknown_name: str = setting(
        "A client that asks for no name of ours: the first certificate, or an alert.",
        choice("default", "reject"),
        "default",
    )
    stapling: bool = setting(
        "Fetch OCSP responses for the certificates that name a responder, and show them to clients.",
        BOOLEAN,
        True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Host(TlsPolicy):
    """What differs for some names of a frontend."""

    names: tuple[str, ...] = setting(
        "The names; *.example.com stands for one label more.",
        some(_host_pattern, 'a list, as in ["api.example.com", "*.api.example.com"]'),
        example=["api.example.com", "*.api.example.com"],
    )
    cluster: str | None = setting(
        "Which cluster gets these connections.", Kind("a name", _name), None, example="api"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    x_forwarded: bool = setting(
        "Tell backends of the client in X-Forwarded-For, -Proto, -Host and -Port.", BOOLEAN, True
    )
    forwarded: bool = setting("Tell them in Forwarded, too (RFC 7239).", BOOLEAN, True)
    request_id: bool = setting("Give every request an X-Request-ID.", BOOLEAN, True)
    via: bool = setting("Add Via: 1.1 termproxy.", BOOLEAN, False)
    facts: FactFields = setting(
        f"Fields that we fill, and with what: {', '.join(FACTS)}.  A client's own are taken out.",
        Kind('a table, as in { X-Client-Subject = "client_subject" }', _facts),
        FactFields(),
    )
    underscores: str = setting(
        "What becomes of fields with _ in their names, which CGI and WSGI take for a dash.",
        choice("reject", "drop", "pass"),
        "reject",
    )
    strict_transport_security: str = setting(
        "The value of that field in every answer; empty: as the backend has it.",
        Kind('a text, as in "max-age=31536000; includeSubDomains"', _field_value),
        "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    host: str = setting(
        "A name; *.example.com stands for one label more, and empty for any.",
        Kind("a host name", _route_host),
        "",
    )
    path_prefix: str = setting("How the path begins.", Kind("a path", _request_path), "/")
    cluster: str = setting("Which cluster gets the request.", Kind("a name", _name), example="static")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    name: str = setting("For logs and status.", Kind("a name", _name), example="web")
    listen: tuple[Address, ...] = setting(
        "Where clients connect: address and port, unix:/path, or systemd:NAME for what systemd passes.",
        some(_listen, 'a list of addresses, as in ["0.0.0.0:443", "[::]:443"]'),
        example=["127.0.0.1:8443", "[::1]:8443"],
    )
    redirect_from: tuple[Address, ...] = setting(
        'Mode "http": addresses where plain HTTP is answered with a 308 to HTTPS here.',
        Kind("a list of addresses", _listens),
        (),
        example=["127.0.0.1:8080"],
    )
    redirect_port: int = setting(
        "The port that it names; 0: that of the first address above.", whole(0, 65535), 0
    )
    mode: str = setting(
        "What is forwarded: the bytes, as they are, or HTTP/1.1, request by request.",
        choice("tcp", "http"),
        "tcp",
    )
    cluster: str = setting(
        "Which [cluster.NAME] gets the connections.", Kind("a name", _name), example="app"
    )
    certificates: tuple[CertificateFiles, ...] = setting(
        "PEM files with chain and key, globs or folders of them, or tables that name both, and the file "
        "with the passphrase of an encrypted key.",
        some(_certificate, 'a list, as in ["certs/*.pem", { chain = "site.crt", key = "site.key" }]'),
        example=["certs/*.pem", {"chain": "site.crt", "key": "site.key"}],
    )
    accept_proxy_from: tuple[Network, ...] = setting(
        "Balancers in front of us: a PROXY header (version 1 or 2) is demanded of them, and believed.",
        Kind("a list of addresses and networks", _networks),
        (),
    )
    trust_forwarded_from: tuple[Network, ...] = setting(
        'Mode "http": clients whose own X-Forwarded-*, Forwarded and X-Request-ID are kept.',
        Kind("a list of addresses and networks", _networks),
        (),
        example=["10.0.0.0/8"],
    )
    http: Http = section(Http, 'Mode "http".')
    tls: Tls = section(Tls, "What is demanded of clients.")
    routes: tuple[Route, ...] = field(
        default=(),
        metadata={
            "key": "route",
            "sections": Route,
            "help": 'Mode "http": requests that go elsewhere; the first that fits.',
        },
    )
    hosts: tuple[Host, ...] = field(
        default=(),
        metadata={"key": "host", "sections": Host, "help": "What differs for some names."},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One process asks every server for all workers."""

    kind: str = setting(
        "Whether a server must accept a connection, or answer a GET over HTTP/1.1, to be used.",
        choice("off", "tcp", "http"),
        "off",
    )
    path: str = setting("What is asked for.", Kind("a path", _request_path), "/")
    host: str = setting(
        "The Host header; empty: the server's address.",
        Kind("a name, with or without port", _visible),
        "",
    )
    expect: tuple[str, ...] = setting(
        "The statuses of a healthy server.",
        some(_statuses, 'a list of statuses and ranges of them, as in [204, "200-399"]'),
        ("200-399",),
    )
    interval: float = setting("From one check to the next.", seconds(0.1), 2.0)
    timeout: float = setting("For a whole check, to the answer's last line.", seconds(0.05, 60), 2.0)
    jitter: float = setting("The part by which an interval may be longer or shorter.", fraction(), 0.1)
    rise: int = setting("Checks in a row that must pass until a server is up.", whole(1, 100), 2)
    fall: int = setting("Checks in a row that must fail until it is down.", whole(1, 100), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passive:
    """What clients' connections tell of a server."""

    failures: int = setting(
        "A server that fails a worker so many times in a row is ejected; 0: never.", whole(0, 1000), 3
    )
    eject: float = setting(
        "How long it gets no connections; twice as long each time it fails again.", seconds(0.1), 10.0
    )
    eject_max: float = setting("And at most so long.", seconds(0.1), 300.0)
    eject_last: bool = setting("Whether the last one that is left may be ejected.", BOOLEAN, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    servers: tuple[Server, ...] = setting(
        "The backends.  One that refuses is skipped for the next; weights are their shares, and "
        "max_connections is for all workers together.  Every address of a name is a server.",
        some(
            _server,
            'a list, as in ["127.0.0.1:8080", '
            '{ address = "unix:/run/app.sock", weight = 2, max_connections = 100 }]',
        ),
        example=["127.0.0.1:8080", {"address": "unix:/run/app.sock", "weight": 2}],
    )
    balance: str = setting(
        "Who comes first: in turn, who has least to do (of all, or of two at random), or for each "
        "client's address the same.",
        choice("round_robin", "least_connections", "random_two", "client_hash"),
        "round_robin",
    )
    send_proxy: str = setting(
        "Begin connections with a PROXY header, which says who the client is; version 2 also tells what "
        "TLS has agreed on.",
        choice("off", "v1", "v2"),
        "off",
    )
    queue: int = setting(
        "So many clients of a worker wait when all servers have their max_connections.",
        whole(0, 100_000),
        100,
    )
    queue_timeout: float = setting("And so long.", seconds(0.1, 600), 5.0)
    idle_connections: int = setting(
        'Mode "http": so many connections to each server a worker keeps for the next request; 0: none.',
        whole(0, 10_000),
        64,
    )
    idle_timeout: float = setting("And for how long.", seconds(0.1, 3600), 30.0)
    slow_start: float = setting(
        "A server that comes back gets its whole share after so long, and less until then.",
        seconds(0, 3600),
        0.0,
    )
    health: Health = section(Health, "Checks, whether clients come or not.")
    passive: Passive = section(Passive, "Servers that fail clients' connections are left alone.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    workers: int | None = setting(
        "Worker processes; auto is one for each CPU termproxy may use.",
        auto_or(whole(1, 256)),
        None,
    )
    user: str = setting(
        "Workers run as this user when termproxy is started as root.",
        Kind('a user\'s name, or "" to stay', _text),
        "",
    )
    pidfile: Path | None = setting(
        "Holds the master's process id.", Kind('a path, or "" for none', _optional_file), None
    )
    control: Path | None = setting(
        "The socket that `termproxy stop` and `status` speak to.",
        Kind('a path, or "" for none', _optional_file),
        None,
    )
    state_dir: Path | None = setting(
        "What outlives a restart is kept here: OCSP responses, and ticket keys if asked for.",
        Kind('a path, or "" for none', _optional_file),
        None,
    )
    log: Log = section(Log, "What is said, and where.")
    admin: Admin = section(Admin, "For those who watch it; operators have `control`.")
    timeouts: Timeouts = section(Timeouts, "Seconds.")
    limits: Limits = section(Limits, "What a worker takes on.")
    resumption: Resumption = section(Resumption, "How sessions are resumed, by every worker.")
    dns: Dns = section(Dns, "How names of backends become addresses.")
    frontends: tuple[Frontend, ...] = field(
        default=(),
        metadata={"key": "frontend", "sections": Frontend, "help": "Where clients come in."},
    )
    clusters: dict[str, Cluster] = field(
        default_factory=dict,
        metadata={"key": "cluster", "section_map": Cluster, "help": "Where they are forwarded to."},
    )


def key_of(spec: Field[Any]) -> str:
    """The name in the file: that of the field, but for lists of tables, which TOML names in singular."""
    return str(spec.metadata.get("key", spec.name))


def keys_of(cls: type) -> list[str]:
    return [key_of(spec) for spec in fields(cls)]
