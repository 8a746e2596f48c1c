"""Which context and cluster a ClientHello leads to, real ones and such as no client sends."""

from __future__ import annotations

import itertools
import ssl
from typing import Any

import pytest

from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.errors import TlsError
from termproxy.tls._openssl import Context
from termproxy.tls.context import Policy
from termproxy.tls.failures import explain
from termproxy.tls.selection import NameTable
from termproxy.worker.frontend import Choice, Frontend, Served
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, server_context
from tests.tls.pki import an_authority, issue, loaded, showing

SERVER = Server(parse_address("127.0.0.1:1"))
CA = an_authority()
CLUSTERS = {name: Cluster(name, [SERVER]) for name in ("open", "guarded", "any")}
BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


class Hello:
    """A connection whose ClientHello has this server_name extension."""

    def __init__(self, extension: bytes | None) -> None:
        self.extension = extension
        self.note: Any = None

    def client_hello_extension(self, number: int) -> bytes | None:
        assert number == 0
        return self.extension


def asking(name: bytes) -> bytes:
    entry = b"\0" + len(name).to_bytes(2) + name
    return len(entry).to_bytes(2) + entry


def served(name: str, context: Context | None = None) -> Served:
    return Served.of(context or server_context(), CLUSTERS[name], Policy(scope=name), ())


OPEN, GUARDED, ANY = (served(name) for name in CLUSTERS)


def frontend(*, reject: bool = False) -> Frontend:
    made = Frontend("web", reject_unknown=reject)
    table: NameTable[Served] = NameTable()
    table.add("guarded.test", GUARDED)
    table.add("*.any.test", ANY)
    made.serve(OPEN, table)
    return made


def asked(extension: bytes | None, *, reject: bool = False) -> tuple[Context | int | None, Any]:
    hello: Any = Hello(extension)
    return frontend(reject=reject).on_client_hello(hello), hello.note


# Decisions.


@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize(
    ("sent", "name", "expected"),
    [
        (b"guarded.test", "guarded.test", GUARDED),
        (b"GUARDED.Test.", "guarded.test", GUARDED),
        (b"a.any.test", "a.any.test", ANY),
    ],
)
def test_a_name_gets_what_belongs_to_it(
    sent: bytes, name: str, expected: Served, *, reject: bool
) -> None:
    assert asked(asking(sent), reject=reject) == (expected.context, Choice(name, expected))


@pytest.mark.parametrize("sent", [b"other.test", b"any.test", b"a.b.any.test", b"guarded.test.evil"])
def test_an_unknown_name_gets_the_default_or_an_alert(sent: bytes) -> None:
    assert asked(asking(sent)) == (OPEN.context, Choice(sent.decode(), OPEN))
    assert asked(asking(sent), reject=True) == (112, Choice(sent.decode(), None))


@pytest.mark.parametrize("extension", [None, asking(b"192.0.2.1"), asking(b"::1")])
def test_no_name_gets_the_default_or_an_alert(extension: bytes | None) -> None:
    assert asked(extension) == (OPEN.context, Choice(None, OPEN))
    assert asked(extension, reject=True) == (112, Choice(None, None))


@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize(
    ("extension", "alert"),
    [
        (b"", 50),
        (asking(b""), 50),
        (asking(b"guarded.test")[:-1], 50),
        (asking(b"guarded.test") + b"\0", 50),
        (asking(b"guarded.test\0"), 112),
        (asking(b"guarded..test"), 112),
        (asking(b"*.any.test"), 112),
    ],
)
def test_a_broken_name_never_gets_the_default(extension: bytes, alert: int, *, reject: bool) -> None:
    number, note = asked(extension, reject=reject)
    assert number == alert
    assert note.served is None


def test_what_is_shown_can_be_changed_at_any_time() -> None:
    changing = frontend()
    changing.serve(ANY, NameTable())
    assert changing.entry is ANY.context
    hello: Any = Hello(asking(b"guarded.test"))
    assert changing.on_client_hello(hello) is ANY.context


def test_a_certificate_is_known_by_what_is_on_the_wire() -> None:
    certificate = loaded(issue("a", "a.test"), "certs/a.pem")
    shown = Served.of(server_context(), CLUSTERS["open"], Policy(), (certificate,))
    assert shown.label_of(certificate.leaf_der) == "certs/a.pem"
    assert shown.label_of(b"another") is None
    assert shown.label_of(None) is None


# With real hellos: one name is guarded, the rest is not.


def guarding(*, reject: bool = False) -> Frontend:
    made = Frontend("web", reject_unknown=reject)
    table: NameTable[Served] = NameTable()
    guarded = server_context(client_auth="required", client_ca=CA.pem, session_id_context=b"guarded")
    table.add("guarded.test", served("guarded", guarded))
    entry = server_context(session_id_context=b"open", on_client_hello=made.on_client_hello)
    made.serve(served("open", entry), table)
    return made


def client(version: int | None = None) -> ssl.SSLContext:
    context = client_context(version=version)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def refusal(pair: Pair) -> str:
    with pytest.raises(TlsError) as failure:
        pair.handshake()
    return explain(failure.value).reason


@BOTH_VERSIONS
def test_a_guarded_name_asks_for_a_certificate_and_the_rest_does_not(version: int) -> None:
    web = guarding()
    for name in ("open.test", None, "127.0.0.1"):
        with Pair(web.entry, client(version), name=name) as pair:
            assert pair.handshake().server.note.served.cluster.name == "open"
    with Pair(web.entry, client(version), name="guarded.test") as pair:
        assert refusal(pair) == "no_client_certificate"
    shown = issue("client", by=CA)
    with Pair(web.entry, showing(client(version), shown), name="guarded.test") as pair:
        assert pair.handshake().server.note.served.cluster.name == "guarded"
        assert pair.server.peer_certificate == shown.der


@BOTH_VERSIONS
@pytest.mark.parametrize("name", ["GUARDED.test", "guarded.TEST."])
def test_no_way_of_writing_the_name_gets_around_the_guard(version: int, name: str) -> None:
    with Pair(guarding().entry, client(version), name=name) as pair:
        assert refusal(pair) == "no_client_certificate"


@BOTH_VERSIONS
def test_a_session_of_the_open_names_does_not_get_around_the_guard(version: int) -> None:
    web, theirs = guarding(), client(version)
    with Pair(web.entry, theirs, name="open.test") as pair:
        session = pair.handshake().client.session()
    with Pair(web.entry, theirs, name="guarded.test", session=session) as pair:
        assert refusal(pair) == "no_client_certificate"
    with Pair(web.entry, theirs, name="also-open.test", session=session) as pair:
        assert pair.handshake().server.resumed


@BOTH_VERSIONS
def test_a_session_of_the_guarded_name_stays_there(version: int) -> None:
    web, theirs = guarding(), showing(client(version), issue("client", by=CA))
    with Pair(web.entry, theirs, name="guarded.test") as pair:
        session = pair.handshake().client.session()
    with Pair(web.entry, theirs, name="open.test", session=session) as pair:
        assert not pair.handshake().server.resumed
    with Pair(web.entry, theirs, name="guarded.test", session=session) as pair:
        assert pair.handshake().server.resumed


@BOTH_VERSIONS
def test_an_unknown_name_is_refused_before_anything_is_shown(version: int) -> None:
    with Pair(guarding(reject=True).entry, client(version), name="other.test") as pair:
        assert refusal(pair) == "unknown_name"
        assert pair.client.alert() == 112
        assert pair.server.note == Choice("other.test", None)
        assert len(pair.client.heard) == 7  # a record with an alert, and nothing else


# ClientHellos in pieces (CVE-2026-32305: sniffing only the first record found no name).


def in_records(hello: bytes, *cuts: int) -> bytes:
    """The same message in several records, cut at these places."""
    head, message = hello[:3], hello[5:]
    places = [0, *cuts, len(message)]
    pieces = [message[start:end] for start, end in itertools.pairwise(places)]
    return b"".join(head + len(piece).to_bytes(2) + piece for piece in pieces)


def is_guarded(web: Frontend, make: Any) -> bool:
    with Pair(web.entry, client(), name="guarded.test") as pair:
        for piece in make(pair.client.hello()):
            pair.client.wire.sendall(piece)
            assert pair.server.handshake() < 0
        pair.client.advance()
        return bool(pair.server.note.served.cluster.name == "guarded")


def test_a_hello_cut_anywhere_over_two_records_is_guarded() -> None:
    web = guarding()
    with Pair(web.entry, client(), name="guarded.test") as pair:
        length = len(pair.client.hello()) - 5
    for cut in range(1, length):
        assert is_guarded(web, lambda hello, cut=cut: [in_records(hello, cut)])


def test_a_hello_cut_anywhere_over_two_segments_is_guarded() -> None:
    web = guarding()
    with Pair(web.entry, client(), name="guarded.test") as pair:
        length = len(pair.client.hello())
    for cut in range(1, length):
        assert is_guarded(web, lambda hello, cut=cut: [hello[:cut], hello[cut:]])


def test_a_hello_in_records_of_few_bytes_is_guarded_or_refused() -> None:
    """One byte a record is more than OpenSSL takes: that is an alert, and not the default."""
    web = guarding()
    for size in (64, 16, 8, 4, 2, 1):
        with Pair(web.entry, client(), name="guarded.test") as pair:
            hello = pair.client.hello()
            pair.client.wire.sendall(in_records(hello, *range(size, len(hello) - 5, size)))
            try:
                pair.server.handshake()
            except TlsError:
                assert pair.server.note is None or pair.server.note.name == "guarded.test"
            else:
                assert pair.server.note.served.cluster.name == "guarded"


def without_name(hello: bytes, extension: bytes) -> bytes:
    """The hello with another server_name extension, all lengths put right."""
    old = b"\0\0" + len(asking(b"guarded.test")).to_bytes(2) + asking(b"guarded.test")
    new = b"\0\0" + len(extension).to_bytes(2) + extension
    start = hello.index(old)
    grown = len(new) - len(old)
    body = bytearray(hello.replace(old, new))
    total = _extensions_at(hello)
    assert total < start
    for place, size in ((3, 2), (6, 3), (total, 2)):
        value = int.from_bytes(hello[place : place + size]) + grown
        body[place : place + size] = value.to_bytes(size)
    return bytes(body)


def _extensions_at(hello: bytes) -> int:
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2])
    return at + 1 + hello[at]


@BOTH_VERSIONS
@pytest.mark.parametrize(
    "extension",
    [
        b"",
        b"\0",
        b"\0\0",
        asking(b""),
        asking(b"guarded.test")[:-1],
        asking(b"guarded.test") + b"x",
        asking(b"open.test") + asking(b"guarded.test"),
        asking(b"guarded.test\0"),
        asking(b"guarded.test\0.open.test"),
        asking(b"a" * 256),
        asking(b"\xff" * 20),
        b"\0\x0f\1\0\x0cguarded.test",
    ],
)
def test_a_broken_extension_on_the_wire_is_refused(version: int, extension: bytes) -> None:
    with Pair(guarding().entry, client(version), name="guarded.test") as pair:
        pair.client.wire.sendall(without_name(pair.client.hello(), extension))
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
        assert explain(failure.value).reason in ("malformed_name", "unknown_name")
        assert pair.client.alert() in (50, 112)


@BOTH_VERSIONS
def test_the_tool_that_breaks_extensions_leaves_good_ones_good(version: int) -> None:
    with Pair(guarding().entry, client(version), name="guarded.test") as pair:
        pair.client.wire.sendall(without_name(pair.client.hello(), asking(b"open.test")))
        pair.server.handshake()
        assert pair.server.note.name == "open.test"
