"""The access log says whose certificate a client showed: on one line, and again when it resumes."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.scenarios.names.parties import (
    TLS_1_3,
    VERSIONS,
    Place,
    Recorder,
    attempt,
    client_of,
    session_of,
)
from tests.support.pki import CLIENT, Authority, Issued, now, self_signed_client
from tests.support.server import Server

NAME = "site.test"
FACTS = ("client_certificate", "client_subject", "client_serial")


def served(place: Place, clients: Authority, backend: Recorder, demand: str = "required") -> Server:
    place.site("site.pem", NAME)
    place.tls = {"client_auth": demand, "client_ca": place.write("clients.pem", clients.pem)}
    return place.server(backend.address)


def facts(line: dict[str, Any]) -> dict[str, str]:
    return {name: line[name] for name in FACTS if name in line}


def facts_of(issued: Issued, subject: str) -> dict[str, str]:
    serial = f"{issued.certificate.serial_number:x}"
    return dict(zip(FACTS, (issued.sha256, subject, serial), strict=True))


def named(clients: Authority, *attributes: tuple[x509.ObjectIdentifier, str]) -> Issued:
    """A client's certificate with a subject that `Authority` would not make."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_pem_private_key(clients.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(
        issuer_name=clients.certificate.subject,
        subject_name=x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes]),
        public_key=key.public_key(),
        serial_number=0xABC,
        not_valid_before=now() - timedelta(hours=1),
        not_valid_after=now() + timedelta(days=1),
    ).add_extension(x509.ExtendedKeyUsage([CLIENT]), critical=False)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_line_says_who_the_client_was(
    place: Place, clients: Authority, root: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    alice = clients.client("alice")
    context = client_of(root, version, shows=alice, folder=tmp_path)
    with Recorder() as backend, served(place, clients, backend) as server:
        answer, line = attempt(server, context, NAME)
    assert answer
    assert facts(line) == facts_of(alice, "CN=alice")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_connection_is_the_same_clients(
    place: Place, clients: Authority, root: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    alice = clients.client("alice")
    context = client_of(root, version, shows=alice, folder=tmp_path)
    with Recorder() as backend, served(place, clients, backend) as server:
        session = session_of(server.port, context, NAME)
        answer, line = attempt(server, context, NAME, session)
    assert answer
    assert line["resumed"] is True
    assert facts(line) == facts_of(alice, "CN=alice")


def test_two_clients_are_told_apart(
    place: Place, clients: Authority, root: Authority, tmp_path: Path
) -> None:
    """The facts are kept, so that a client that comes often costs little."""
    pair = [clients.client("alice"), clients.client("alice"), clients.client("bob")]
    contexts = [client_of(root, TLS_1_3, shows=each, folder=tmp_path) for each in pair]
    with Recorder() as backend, served(place, clients, backend) as server:
        for _ in range(2):
            for issued, context, name in zip(pair, contexts, ("alice", "alice", "bob"), strict=True):
                _, line = attempt(server, context, NAME)
                assert facts(line) == facts_of(issued, f"CN={name}")


def test_a_client_that_shows_none_has_no_facts(
    place: Place, clients: Authority, root: Authority
) -> None:
    with Recorder() as backend, served(place, clients, backend, "optional") as server:
        answer, line = attempt(server, client_of(root), NAME)
    assert answer
    assert facts(line) == {}


@pytest.mark.parametrize("demand", ["optional", "required"])
def test_what_a_refused_client_claims_to_be_is_not_told(
    place: Place, clients: Authority, root: Authority, tmp_path: Path, demand: str
) -> None:
    """Nobody has verified it."""
    mallory = self_signed_client("alice")
    with Recorder() as backend, served(place, clients, backend, demand) as server:
        for version in VERSIONS:
            context = client_of(root, version, shows=mallory, folder=tmp_path)
            answer, line = attempt(server, context, NAME)
            assert not answer
            assert facts(line) == {}
        assert not backend.received


def test_an_evil_name_stays_on_its_line(
    place: Place, clients: Authority, root: Authority, tmp_path: Path
) -> None:
    evil = 'a"\n{"client":"forged"}\r\x1b[2J\x7f\u2028ü'
    issued = named(clients, (NameOID.ORGANIZATION_NAME, "Ex, Inc."), (NameOID.COMMON_NAME, evil))
    context = client_of(root, shows=issued, folder=tmp_path)
    with Recorder() as backend, served(place, clients, backend) as server:
        answer, line = attempt(server, context, NAME)
        assert answer
        assert len(server.access_lines()) == 1
        raw = (server.folder / "access.log").read_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert line["client_subject"].isprintable()
    assert line["client_subject"].endswith(",O=Ex\\, Inc.")
    assert "\\x0a" in line["client_subject"]
    assert line["client_serial"] == "abc"


def test_a_subject_may_be_empty(
    place: Place, clients: Authority, root: Authority, tmp_path: Path
) -> None:
    issued = named(clients)
    context = client_of(root, shows=issued, folder=tmp_path)
    with Recorder() as backend, served(place, clients, backend) as server:
        answer, line = attempt(server, context, NAME)
    assert answer
    assert facts(line) == facts_of(issued, "")
