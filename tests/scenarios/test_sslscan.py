"""What sslscan, which others judge us with, finds to complain of: nothing.

It leaves two questions open.  Compression and renegotiation it tries in TLS 1.0 only, which is refused.
So compression is asked for here, and renegotiation in names/test_policy.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from termproxy.tls._openssl import knows
from tests.conftest import Serve
from tests.support.backends import Backend, receive_exactly
from tests.support.clients import NAME
from tests.support.pki import Authority
from tests.support.server import Server
from tests.support.waiting import PATIENCE

ServeWith = Callable[..., Server]

needs_sslscan = pytest.mark.skipif(
    shutil.which("sslscan") is None, reason="sslscan is not installed (Debian: apt-get install sslscan)"
)

VERSIONS = {"ssl 2", "ssl 3", "tls 1.0", "tls 1.1", "tls 1.2", "tls 1.3"}
GOOD_VERSIONS = {"tls 1.2", "tls 1.3"}
GOOD_STRENGTHS = {"strong", "acceptable"}
AEADS = ("GCM", "CCM", "CHACHA20")
CIPHERSUITES = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
CLASSIC_GROUPS = {"0x001d", "0x0017", "0x0018"}  # IANA's numbers: X25519, P-256, P-384
POST_QUANTUM_GROUPS = {"0x11ec"} if knows("groups", "X25519MLKEM768") else set()
WEAK_HASHES = ("md5", "sha1")


@dataclass(frozen=True, slots=True)
class Scan:
    """`words` say what the report leaves out: of TLS_FALLBACK_SCSV it tells only since 2.0.8."""

    report: ET.Element
    words: str

    def all(self, kind: str, name: str) -> set[str]:
        """One attribute of every element of a kind."""
        return {element.attrib[name] for element in self.report.iter(kind)}

    def versions(self, enabled: str) -> set[str]:
        return {
            f"{protocol.attrib['type']} {protocol.attrib['version']}"
            for protocol in self.report.iter("protocol")
            if protocol.attrib["enabled"] == enabled
        }

    def signature(self) -> str:
        return self.report.findtext(".//certificate/signature-algorithm", "none")


def scan(server: Server) -> Scan:
    file = server.folder / "sslscan.xml"
    command = ["sslscan", "--no-colour", f"--sni-name={NAME}", f"--xml={file}"]
    done = subprocess.run(
        [*command, f"127.0.0.1:{server.port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return Scan(ET.parse(file).getroot(), done.stdout)  # noqa: S314 - who wrote it is no stranger


def complaints(found: Scan) -> list[str]:
    """All that is wrong with a server, by what sslscan found."""
    wrong = [f"{version} is spoken" for version in sorted(found.versions(enabled="1") - GOOD_VERSIONS)]
    wrong += of_ciphers(found)
    wrong += of_groups(found)
    wrong += of_attacks(found)
    if any(weak in found.signature().lower() for weak in WEAK_HASHES):
        wrong.append(f"the certificate is signed with {found.signature()}")
    return wrong


def of_ciphers(found: Scan) -> Iterator[str]:
    """CBC, and RSA for the key exchange, are acceptable to sslscan itself; not to us."""
    for cipher in found.report.iter("cipher"):
        name, version = cipher.attrib["cipher"], cipher.attrib["sslversion"]
        if cipher.attrib["strength"] not in GOOD_STRENGTHS:
            yield f"{version}: {name} is {cipher.attrib['strength']}"
        if version != "TLSv1.3" and not name.startswith(("ECDHE-", "TLS_ECDHE_")):
            yield f"{version}: {name} has no ECDHE"
        if not any(aead in name for aead in AEADS):
            yield f"{version}: {name} has no AEAD"


def of_groups(found: Scan) -> Iterator[str]:
    for group in found.report.iter("group"):
        if group.attrib["id"] not in CLASSIC_GROUPS | POST_QUANTUM_GROUPS:
            yield f"{group.attrib['sslversion']}: {group.attrib['name']} is a group"


def of_attacks(found: Scan) -> Iterator[str]:
    for heartbleed in found.report.iter("heartbleed"):
        if heartbleed.attrib["vulnerable"] != "0":
            yield f"{heartbleed.attrib['sslversion']}: heartbleed"
    for renegotiation in found.report.iter("renegotiation"):
        if (renegotiation.attrib["supported"], renegotiation.attrib["secure"]) == ("1", "0"):
            yield "insecure renegotiation"
    if found.all("compression", "supported") - {"0"}:
        yield "compression"
    if "Server supports TLS Fallback SCSV" not in found.words:
        yield "no TLS_FALLBACK_SCSV"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("root")


@pytest.fixture
def serve_with(serve: Serve, tmp_path: Path, root: Authority) -> ServeWith:
    """A function that makes a Server: with an ECDSA or RSA key, and a TLS policy."""

    def serve_with(backend: Backend, key: str, **tls: Any) -> Server:
        issued = root.issue(NAME, rsa_bits=2048 if key == "RSA" else None)
        server = serve(backend.address)
        [frontend] = server.values["frontend"]
        frontend["certificates"] = [str(issued.write(tmp_path / "site.pem"))]
        frontend["tls"] = tls
        return server

    return serve_with


@needs_sslscan
@pytest.mark.parametrize("key", ["ECDSA", "RSA"])
def test_sslscan_has_nothing_to_complain_of(serve_with: ServeWith, key: str) -> None:
    with Backend() as backend, serve_with(backend, key) as server:
        found = scan(server)
        assert complaints(found) == []
        # It found nothing although it has looked everywhere.
        assert found.versions(enabled="0") == VERSIONS - GOOD_VERSIONS
        assert found.versions(enabled="1") == GOOD_VERSIONS
        ends = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
        assert found.all("cipher", "cipher") == CIPHERSUITES | {f"ECDHE-{key}-{end}" for end in ends}
        assert found.all("group", "id") >= CLASSIC_GROUPS
        assert found.all("heartbleed", "sslversion") == {"TLSv1.2", "TLSv1.3"}
        assert found.all("renegotiation", "supported") == {"0"}
        assert "sha256" in found.signature().lower()


@needs_sslscan
def test_a_fallback_is_refused_for_what_it_is(serve: Serve) -> None:
    """Any failure of a fallback is TLS_FALLBACK_SCSV to sslscan; the log says why it failed."""
    with Backend() as backend, serve(backend.address) as server:
        scan(server)
        server.wait_for_access(that=lambda line: line.get("alert") == "inappropriate_fallback")


@needs_sslscan
@pytest.mark.parametrize(
    ("key", "tls", "complaint"),
    [
        (
            "ECDSA",
            {"ciphers": ["ECDHE-ECDSA-AES128-SHA256"]},  # CBC
            "TLSv1.2: ECDHE-ECDSA-AES128-SHA256 has no AEAD",
        ),
        ("RSA", {"ciphers": ["AES128-GCM-SHA256"]}, "TLSv1.2: AES128-GCM-SHA256 has no ECDHE"),
        ("ECDSA", {"groups": ["X25519", "P-521"]}, "TLSv1.3: secp521r1 (NIST P-521) is a group"),
    ],
)
def test_a_weaker_policy_is_complained_of(
    serve_with: ServeWith, key: str, tls: dict[str, list[str]], complaint: str
) -> None:
    """Who never complains may be blind."""
    with Backend() as backend, serve_with(backend, key, **tls) as server:
        assert complaints(scan(server)) == [complaint]


ECDHE_ECDSA_AES128_GCM = b"\xc0\x2b"
NULL, DEFLATE = b"\x00", b"\x01"  # methods of compression (RFC 3749 §2)

# Where a ServerHello's session id begins: after the record's header, the message's, version and random.
SESSION_ID = 5 + 4 + 2 + 32


def test_compression_is_not_agreed_to(serve: Serve) -> None:
    """CRIME (CVE-2012-4929).  Clients do not offer it any more, so this hello is made by hand."""
    with Backend() as backend, serve(backend.address) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            sock.sendall(hello_with_compression())
            answer = receive_exactly(sock, 128)
        cipher = SESSION_ID + 1 + answer[SESSION_ID]
        assert answer[cipher : cipher + 3] == ECDHE_ECDSA_AES128_GCM + NULL


def hello_with_compression() -> bytes:
    """A ClientHello of TLS 1.2 (RFC 5246 §7.4.1.2) that would rather have DEFLATE."""
    groups = extension(10, vector(b"\x00\x17", 2))  # P-256
    signatures = extension(13, vector(b"\x04\x03", 2))  # ECDSA with P-256 and SHA-256
    body = b"\x03\x03" + os.urandom(32) + vector(b"", 1) + vector(ECDHE_ECDSA_AES128_GCM, 2)
    body += vector(DEFLATE + NULL, 1) + vector(groups + signatures, 2)
    return b"\x16\x03\x01" + vector(b"\x01" + vector(body, 3), 2)


def extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2) + vector(body, 2)


def vector(content: bytes, size: int) -> bytes:
    """`content` behind its length, which takes `size` bytes."""
    return len(content).to_bytes(size) + content
