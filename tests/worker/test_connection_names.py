"""One client before a frontend with names: its backend, its record, and who never gets to a backend."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import gevent
import pytest

from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import Host
from termproxy.observability.scoreboard import Column
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from tests.relay.ends import until
from tests.support.tls import TLS_1_2, TLS_1_3, client_context, ticket_ring
from tests.tls.pki import DAY, NOW, SERVER_USE, Issued, an_authority, crl_of, issue, loaded, showing
from tests.worker.harness import Bench
from tests.worker.test_assembly import CA_FILE, CRL_FILE, GUARD, frontend

RESUMPTION = Resumption(Stores(tickets=ticket_ring()))
CA = an_authority()
REVOKED = issue("revoked", by=CA)
PEM = {CA_FILE: CA.pem, CRL_FILE: crl_of(CA, REVOKED)}
OPEN, GUARDED = (
    loaded(issue("open", "open.test"), "open.pem"),
    loaded(issue("g", "guarded.test"), "g.pem"),
)
BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])

BAD: dict[str, tuple[Issued | None, str]] = {
    "none": (None, "no_client_certificate"),
    "wrong authority": (issue("x", by=an_authority("others")), "client_certificate_refused"),
    "expired": (
        issue("x", by=CA, not_before=NOW - 9 * DAY, not_after=NOW - DAY),
        "client_certificate_refused",
    ),
    "not yet valid": (issue("x", by=CA, not_before=NOW + DAY), "client_certificate_refused"),
    "revoked": (REVOKED, "client_certificate_refused"),
    "for servers": (issue("x", by=CA, use=SERVER_USE), "client_certificate_refused"),
    "self-signed": (issue("x"), "client_certificate_refused"),
    "forged": (issue("x", by=issue("Tests' root", is_authority=True)), "client_certificate_refused"),
}


def before_names(bench: Bench, *, reject: bool = False) -> None:
    """The open name and the guarded one have the same backend, so that nobody is missed."""
    cluster = Cluster("app", [Server(parse_address(bench.address))])
    unknown = "reject" if reject else "default"
    block = Host(names=("guarded.test",), client_crl=CRL_FILE, **GUARD)
    assembly = Assembly(
        frontend(block, unknown_name=unknown),
        {"app": cluster},
        PEM,
        RESUMPTION,
    )
    assembly.serve([OPEN, GUARDED], PEM, NOW)
    bench.given = assembly.frontend


def client(version: int | None, shown: Issued | None = None) -> ssl.SSLContext:
    context = client_context(version=version)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return showing(context, shown)


class Said:
    """A client that says "let me in" as soon as it may; `ended` once its handshake, or all, is over."""

    def __init__(
        self,
        bench: Bench,
        context: ssl.SSLContext,
        name: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.sock = context.wrap_socket(
            bench.accept(), server_hostname=name, do_handshake_on_connect=False, session=session
        )
        bench._socks.append(self.sock)
        try:
            self._until(self.sock.do_handshake)
            self.sock.send(b"let me in")
        except (ssl.SSLError, OSError) as error:
            self.error: Exception | None = error
        else:
            self.error = None

    @staticmethod
    def _until(step: Any) -> None:
        for _ in range(2000):
            try:
                step()
                return
            except ssl.SSLWantReadError:
                gevent.sleep(0.001)
        raise AssertionError("the handshake hangs")

    def session(self) -> ssl.SSLSession | None:
        """TLS 1.3's comes after the handshake."""
        try:
            self.sock.recv(1)
        except ssl.SSLWantReadError:
            pass
        return self.sock.session


def nobody_came(bench: Bench) -> bool:
    try:
        bench.listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


def arrived(bench: Bench) -> bytes:
    backend = bench.backend()
    received: list[bytes] = []

    def receive() -> bool:
        try:
            received.append(backend.recv(100))
        except BlockingIOError:
            return False
        return True

    until(receive, "the client's words")
    backend.shutdown(socket.SHUT_RDWR)
    return received[0]


# Fail closed: security checklist L2, S5.


@BOTH_VERSIONS
@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_not_a_byte_of_a_refused_client_reaches_the_backend(
    bench: Bench, version: int, case: str, *, reject: bool
) -> None:
    before_names(bench, reject=reject)
    shown, reason = BAD[case]
    Said(bench, client(version, shown), "guarded.test")
    record = bench.record()

    assert (record["ended"], record["fault"], record["sni"]) == (reason, "client", "guarded.test")
    assert record["bytes_from_client"] == 0
    assert "backend" not in record
    assert "client_certificate" not in record
    assert nobody_came(bench)
    assert bench.count(Column.HANDSHAKES) == 0
    assert bench.count(Column.HANDSHAKES_FAILED) == 1


@BOTH_VERSIONS
def test_a_verified_client_reaches_the_backend_and_is_in_the_record(bench: Bench, version: int) -> None:
    before_names(bench)
    shown = issue("good", by=CA)
    said = Said(bench, client(version, shown), "guarded.test")
    assert arrived(bench) == b"let me in"
    said.sock.close()
    record = bench.record()

    assert record["client_certificate"] == loaded(shown).sha256
    assert (record["sni"], record["certificate"]) == ("guarded.test", "g.pem")


@BOTH_VERSIONS
def test_a_session_of_the_open_name_does_not_reach_the_guarded_one(bench: Bench, version: int) -> None:
    before_names(bench)
    context = client(version)
    said = Said(bench, context, "open.test")
    assert arrived(bench) == b"let me in"
    session = said.session()
    assert session is not None
    Said(bench, context, "guarded.test", session)

    assert bench.record()["ended"] == "no_client_certificate"  # the first one is still open
    assert nobody_came(bench)


# Names.


@pytest.mark.parametrize("name", ["other.test", None, "192.0.2.1"])
def test_who_asks_for_no_name_of_ours_is_refused_where_that_is_wanted(
    bench: Bench, name: str | None
) -> None:
    before_names(bench, reject=True)
    Said(bench, client(None), name)
    record = bench.record()

    assert (record["ended"], record["alert"], record["alert_from"]) == (
        "unknown_name",
        "unrecognized_name",
        "proxy",
    )
    assert record.get("sni") == ("other.test" if name == "other.test" else None)
    assert nobody_came(bench)


@pytest.mark.parametrize("name", ["other.test", None])
def test_who_asks_for_no_name_of_ours_gets_the_first_certificate(bench: Bench, name: str | None) -> None:
    before_names(bench)
    said = Said(bench, client(None), name)
    assert arrived(bench) == b"let me in"
    said.sock.close()

    assert bench.record()["certificate"] == "open.pem"
    assert bench.record().get("sni") == name


@BOTH_VERSIONS
def test_a_resumed_session_s_record_has_the_name_asked_for_now_and_no_certificate(
    bench: Bench, version: int
) -> None:
    """In TLS 1.2 OpenSSL tells the name that the session began with; none was shown in either."""
    before_names(bench)
    context = client(version)
    said = Said(bench, context, "open.test")
    assert arrived(bench) == b"let me in"
    session = said.session()
    said.sock.close()
    said = Said(bench, context, "also-open.test", session)
    assert arrived(bench) == b"let me in"
    said.sock.close()
    until(lambda: len(bench.records) == 2, "both records")
    first, second = bench.records

    assert (first["resumed"], first["sni"], first["certificate"]) == (False, "open.test", "open.pem")
    assert (second["resumed"], second["sni"]) == (True, "also-open.test")
    assert "certificate" not in second


def test_a_connection_keeps_what_it_began_with(bench: Bench) -> None:
    """While its handshake is under way the frontend may show something else."""
    before_names(bench)
    given = bench.given
    assert given is not None
    cluster = Cluster("other", [Server(parse_address("127.0.0.1:1"))])
    said = client(None).wrap_socket(
        bench.accept(), server_hostname="guarded.test", do_handshake_on_connect=False
    )
    bench._socks.append(said)
    other = Assembly(frontend(unknown_name="reject"), {"app": cluster}, {}, RESUMPTION)
    other.serve([OPEN], {}, NOW)
    given.serve(other.frontend.default, other.frontend._by_name)
    try:
        Said._until(said.do_handshake)
    except ssl.SSLError:
        pass
    assert bench.record()["ended"] in ("unknown_name", "backend_refused", "no_client_certificate")
