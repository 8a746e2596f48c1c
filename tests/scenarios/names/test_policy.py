"""What is demanded of a client may differ from name to name, and holds from the first byte."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from termproxy.tls._openssl import knows, openssl_version
from tests.scenarios.names.parties import (
    TLS_1_2,
    TLS_1_3,
    Place,
    Recorder,
    attempt,
    client_of,
    finish,
    served,
)
from tests.support.clients import connect, exchange
from tests.support.command import termproxy
from tests.support.pki import Authority, Issued
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

POST_QUANTUM = "X25519MLKEM768"


@dataclass
class Scene:
    server: Server
    root: Authority
    backend: Recorder
    folder: Path
    good: Issued


@pytest.fixture(scope="module")
def scene(module_place: Place, root: Authority, clients: Authority) -> Iterator[Scene]:
    place = module_place
    place.site(
        "site.pem",
        *(
            f"{name}.test"
            for name in ("open", "modern", "old", "chacha", "suite", "alpn", "p384", "mtls")
        ),
    )
    place.site("dhe.pem", "dhe.test", rsa_bits=2048)
    place.host("modern.test", preset="modern")
    place.host("old.test", max_version="1.2")
    place.host("chacha.test", ciphers=["ECDHE-ECDSA-CHACHA20-POLY1305"])
    place.host("suite.test", ciphersuites=["TLS_AES_256_GCM_SHA384"])
    place.host("alpn.test", alpn=["http/1.1", "acme-tls/1"])
    place.host("p384.test", groups=["P-384"])
    place.host("dhe.test", ciphers=["DHE-RSA-AES128-GCM-SHA256"])
    place.host("mtls.test", client_auth="required", client_ca=place.write("clients.ca", clients.pem))
    with Recorder() as backend, place.server(backend.address) as server:
        yield Scene(server, root, backend, place.folder, clients.client("good"))


def refused(scene: Scene, context: ssl.SSLContext, name: str) -> tuple[str, str]:
    came = scene.backend.accepted
    answer, line = attempt(scene.server, context, name)
    assert answer == b""
    assert scene.backend.accepted == came
    return line["ended"], line["alert"]


def agreed(scene: Scene, context: ssl.SSLContext, name: str) -> tuple[str, str]:
    with connect(scene.server.port, context, name=name) as client:
        assert exchange(client) == b"ping"
        version, cipher = client.version(), client.cipher()
        assert version is not None
        assert cipher is not None
        finish(client)
        return version, cipher[0]


def test_modern_is_1_3_only(scene: Scene) -> None:
    old = client_of(scene.root, TLS_1_2)
    assert refused(scene, old, "modern.test") == ("no_shared_version", "protocol_version")
    assert agreed(scene, client_of(scene.root), "modern.test")[0] == "TLSv1.3"
    assert agreed(scene, old, "open.test")[0] == "TLSv1.2"


def test_a_newest_version_holds(scene: Scene) -> None:
    new = client_of(scene.root, TLS_1_3)
    assert refused(scene, new, "old.test") == ("no_shared_version", "protocol_version")
    assert agreed(scene, client_of(scene.root), "old.test")[0] == "TLSv1.2"
    assert agreed(scene, new, "open.test")[0] == "TLSv1.3"


def test_ciphers_hold(scene: Scene) -> None:
    context = client_of(scene.root, TLS_1_2)
    assert agreed(scene, context, "chacha.test")[1] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    assert agreed(scene, context, "open.test")[1] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    assert refused(scene, context, "chacha.test") == ("no_shared_cipher", "handshake_failure")


def test_ciphersuites_hold(scene: Scene) -> None:
    context = client_of(scene.root, TLS_1_3)
    assert agreed(scene, context, "suite.test")[1] == "TLS_AES_256_GCM_SHA384"
    assert agreed(scene, context, "open.test")[1] == "TLS_AES_128_GCM_SHA256"


def test_groups_hold(scene: Scene) -> None:
    curve = client_of(scene.root, TLS_1_3)
    curve.set_ecdh_curve("prime256v1")
    assert refused(scene, curve, "p384.test") == ("no_shared_group", "handshake_failure")
    assert agreed(scene, curve, "open.test")
    # Here the client's first guess is wrong, and the server asks for another one (HelloRetryRequest).
    assert agreed(scene, client_of(scene.root, TLS_1_3), "p384.test")


def test_dhe_works_where_it_is_asked_for(scene: Scene) -> None:
    context = client_of(scene.root, TLS_1_2)
    context.set_ciphers("DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=1")
    assert agreed(scene, context, "dhe.test")[1] == "DHE-RSA-AES128-GCM-SHA256"
    assert refused(scene, context, "open.test") == ("no_shared_cipher", "handshake_failure")


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_no_protocol_in_common_is_refused(scene: Scene, version: ssl.TLSVersion) -> None:
    """RFC 7301 §3.2, and the ALPACA attack's cure."""
    foo = client_of(scene.root, version, alpn=["foo"])
    assert refused(scene, foo, "alpn.test") == ("no_shared_protocol", "no_application_protocol")
    assert agreed(scene, foo, "open.test"), "nothing was said of protocols there"
    assert agreed(scene, client_of(scene.root, version), "alpn.test"), "who offers none may come in"
    both = client_of(scene.root, version, alpn=["foo", "acme-tls/1", "http/1.1"])
    with connect(scene.server.port, both, name="alpn.test") as client:
        assert client.selected_alpn_protocol() == "http/1.1"
        finish(client)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_what_is_older_than_1_2_is_refused_everywhere(scene: Scene, version: str) -> None:
    for name in ("open.test", "old.test", "unknown.test"):
        said = s_client(scene, name, version, "-cipher", "ALL:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said


def s_client(scene: Scene, name: str, *options: str, says: str = "a word\n") -> str:
    """OpenSSL's own client: what it said, once the proxy has closed or its standard input has ended."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{scene.server.port}"]
    result = subprocess.run(
        [*command, "-servername", name, *options],
        input=says,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_second_hello_changes_nothing(scene: Scene, version: str) -> None:
    """P-521 is guessed first, which we have not: the policy is chosen at the first hello, and stays."""
    groups = ["-groups", "P-521:P-256"]
    came = scene.backend.accepted
    said = s_client(scene, "mtls.test", version, *groups, "-ign_eof")
    assert "alert certificate required" in said or "alert handshake failure" in said
    assert scene.backend.accepted == came
    file = scene.good.write(scene.folder / "good.pem")
    said = s_client(scene, "mtls.test", version, *groups, "-cert", str(file), "-key", str(file))
    assert "alert" not in said
    wait_until(lambda: scene.backend.accepted == came + 1, "the backend is asked")


def test_no_client_changes_its_mind_by_renegotiation(scene: Scene) -> None:
    """CVE-2009-3555: what was said before and after would be taken for one client's word."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{scene.server.port}"]
    with subprocess.Popen(
        [*command, "-servername", "open.test", "-tls1_2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stderr is not None
        client.stdin.write("R\n")
        client.stdin.flush()
        client.wait(PATIENCE)
        assert "no renegotiation" in client.stderr.read()


def test_what_is_not_a_known_group_is_refused_by_name_and_version(place: Place) -> None:
    place.site("site.pem", "site.test")
    place.tls["groups"] = ["X25519", "X25519MLKEM9999"]
    place.host("site.test", ciphers=["ECDHE-ECDSA-AES128-GCM-SHA256", "RC5"], signature_algorithms=["?"])
    said = refusal(place)
    for name in ("'X25519MLKEM9999'", "'RC5'", "'?'"):
        assert f"{openssl_version()} cannot do {name}" in said
    assert "frontend[0].tls.groups" in said
    assert "frontend[0].host[0].ciphers" in said


def refusal(place: Place) -> str:
    server = place.server("127.0.0.1:9")
    server.write_config()
    result = termproxy("check", "-c", str(server.file))
    assert result.returncode == 1
    return result.stderr


@pytest.mark.skipif(knows("groups", POST_QUANTUM), reason="this OpenSSL can do it")
def test_a_post_quantum_group_that_this_openssl_has_not_is_refused(place: Place) -> None:
    place.site("site.pem", "site.test")
    place.host("site.test", groups=[POST_QUANTUM, "X25519"])
    assert f"{openssl_version()} cannot do '{POST_QUANTUM}'" in refusal(place)


@pytest.mark.skipif(not knows("groups", POST_QUANTUM), reason="this OpenSSL cannot do it")
def test_a_post_quantum_group_is_preferred_where_there_is_one(scene: Scene) -> None:
    assert f"Negotiated TLS1.3 group: {POST_QUANTUM}" in s_client(scene, "open.test")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ciphers", "aNULL"),
        ("ciphers", "ALL"),
        ("ciphers", "DEFAULT@SECLEVEL=0"),
        ("ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256:RC5"),
        ("groups", "X25519:P-256"),
        ("ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_NOPE"),
    ],
)
def test_an_openssl_expression_is_not_a_name(place: Place, kind: str, name: str) -> None:
    """A list of names that may hold "@SECLEVEL=0" would say more than its reader sees, or skip some."""
    place.site("site.pem", "site.test")
    place.tls[kind] = [name]
    assert repr(name) in refusal(place)


@pytest.mark.parametrize(
    "tls", [{"min_version": "1.3", "max_version": "1.2"}, {"preset": "modern", "max_version": "1.2"}]
)
def test_versions_that_leave_none_are_refused(place: Place, tls: dict[str, str]) -> None:
    place.site("site.pem", "site.test")
    place.tls |= tls
    assert "no version is from 1.3 to 1.2" in refusal(place)


def test_1000_certificates_in_a_folder_are_served(place: Place, root: Authority) -> None:
    certs = place.folder / "certs"
    certs.mkdir()
    key = root.issue("key.test").private_key  # one for all: making a thousand would take longest
    serials = {}
    for number in range(1000):
        issued = root.issue(f"n{number}.test", key=key)
        serials[number] = issued.serial
        (certs / f"{number:04}.pem").write_bytes(issued.pem)
    place.certificates.append("certs")
    context = client_of(root)
    with Recorder() as backend, place.server(backend.address) as server:
        for number in range(0, 1000, 100):
            assert served(server.port, context, f"n{number}.test") == serials[number]
