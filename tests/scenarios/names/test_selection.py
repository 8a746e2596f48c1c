"""The name a client asks for decides which certificate, which policy and which backend it gets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.scenarios.names.hellos import alert_in, answer_to, hello_asking
from tests.scenarios.names.parties import TLS_1_2, Place, Recorder, client_of, finish, serial_of, served
from tests.support.clients import connect
from tests.support.pki import Authority, Issued, now
from tests.support.server import Server
from tests.support.waiting import wait_until


@dataclass
class Scene:
    server: Server
    issued: dict[str, Issued]
    context: ssl.SSLContext
    main: Recorder
    other: Recorder


@pytest.fixture(scope="module")
def scene(module_place: Place, root: Authority) -> Iterator[Scene]:
    place = module_place
    issued = {
        "first": place.site("first.pem", "first.test"),
        "exact": place.site("exact.pem", "www.example.test"),
        "wild": place.site("wild.pem", "*.example.test"),
        "deep": place.site("deep.pem", "*.deep.example.test", "xn--bcher-kva.test"),
        "other": place.site("other.pem", "other.test"),
    }
    place.host("other.test", "api.example.test", cluster="other")
    context = client_of(root)
    context.check_hostname = False
    with Recorder(b"main") as main, Recorder(b"other") as other:
        place.clusters["other"] = [other.address]
        with place.server(main.address, workers=2) as server:
            yield Scene(server, issued, context, main, other)


def asked(scene: Scene, name: str | None) -> tuple[str, bytes]:
    """Which certificate, and which backend's word."""
    with connect(scene.server.port, scene.context, name=name) as client:  # type: ignore[arg-type]
        word = client.recv(5)
        serial = serial_of(client)
        finish(client)
    [which] = [which for which, issued in scene.issued.items() if issued.serial == serial]
    return which, word


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("www.example.test", "exact"),
        ("mail.example.test", "wild"),
        ("a.deep.example.test", "deep"),
        ("deep.example.test", "wild"),
        ("a.b.example.test", "first"),  # a wildcard stands for one label
        ("example.test", "first"),  # … and not for none
        ("a.b.deep.example.test", "first"),
        ("first.test", "first"),
        ("unknown.test", "first"),
        ("WWW.Example.TEST", "exact"),
        ("www.example.test.", "exact"),
        ("MAIL.EXAMPLE.TEST.", "wild"),
        ("xn--bcher-kva.test", "deep"),
        ("XN--BCHER-KVA.test", "deep"),
        (None, "first"),
        ("192.0.2.1", "first"),  # Python sends no name then
        ("test", "first"),
    ],
)
def test_the_exact_name_then_the_wildcard_then_the_first(
    scene: Scene, name: str | None, which: str
) -> None:
    assert asked(scene, name)[0] == which


@pytest.mark.parametrize("raw", [b"192.0.2.1", b"::1", b"[2001:db8::1]"])
def test_an_address_as_a_name_is_no_name(scene: Scene, raw: bytes) -> None:
    """RFC 6066 §3 does not allow it, and clients do it: the default serves them."""
    answer = answer_to(scene.server.port, [hello_asking(raw)])
    assert answer[0] == 22


@pytest.mark.parametrize(
    ("name", "which", "word"),
    [
        ("www.example.test", "exact", b"main"),
        ("other.test", "other", b"other"),
        ("api.example.test", "wild", b"other"),  # a host block may name what a wildcard serves
        ("OTHER.test.", "other", b"other"),
        ("unknown.test", "first", b"main"),
    ],
)
def test_the_hosts_cluster_gets_the_connection(scene: Scene, name: str, which: str, word: bytes) -> None:
    assert asked(scene, name) == (which, word)


def test_the_log_tells_the_name_and_the_certificate(scene: Scene) -> None:
    for name, file, sni in [
        ("MAIL.example.test", "wild.pem", {"MAIL.example.test", "mail.example.test"}),
        ("nobody.test", "first.pem", {"nobody.test"}),
    ]:
        asked(scene, name)
        lines = scene.server.wait_for_access(that=lambda line, sni=sni: line.get("sni") in sni)  # type: ignore[misc]
        assert lines[-1]["certificate"] == str(scene.server.folder / file)
    asked(scene, None)
    assert scene.server.wait_for_access(that=lambda line: "sni" not in line)


def rejecting(place: Place) -> Place:
    place.site("site.pem", "site.test", "*.wild.test")
    place.tls["unknown_name"] = "reject"
    return place


def test_unknown_names_can_be_refused(place: Place, root: Authority) -> None:
    context = client_of(root)
    context.check_hostname = False
    with Recorder() as backend, rejecting(place).server(backend.address) as server:
        for name in ("unknown.test", "a.b.wild.test", "wild.test", "192.0.2.1"):
            with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                connect(server.port, context, name=name)
        for version in (TLS_1_2, None):
            for raw in (None, b"192.0.2.1", b"x" * 300, b"site.test\0"):
                answer = answer_to(server.port, [hello_asking(raw, version)])
                assert alert_in(answer) in (50, 112)
        assert backend.accepted == 0
        for name in ("site.test", "Site.Test.", "a.wild.test"):
            assert served(server.port, context, name)
        lines = server.wait_for_access(that=lambda line: line["ended"] == "unknown_name")
        assert lines[0]["sni"] == "unknown.test"
        assert (lines[0]["alert"], lines[0]["alert_from"]) == ("unrecognized_name", "proxy")


@pytest.mark.parametrize("name", [b"a..site.test", b"two words", b"x" * 300, b"\xff\xfe"])
def test_where_there_is_only_one_certificate_broken_names_are_refused_too(
    place: Place, name: bytes
) -> None:
    """A broken or impossible name is never defaulted, whatever other names there are."""
    place.site("site.pem", "site.test")
    with Recorder() as backend, place.server(backend.address) as server:
        assert alert_in(answer_to(server.port, [hello_asking(name)])) == 112
        [line] = server.wait_for_access()
        assert line["ended"] == "unknown_name"


def test_the_clients_signature_algorithms_choose_between_rsa_and_ecdsa(
    place: Place, root: Authority
) -> None:
    rsa = place.site("rsa.pem", "site.test", "*.site.test", rsa_bits=2048)
    ecdsa = place.site("ecdsa.pem", "site.test", "*.site.test")
    both, only_rsa, only_ecdsa = (client_of(root, TLS_1_2) for _ in range(3))
    only_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    only_ecdsa.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with Recorder() as backend, place.server(backend.address) as server:
        for name in ("site.test", "a.site.test"):
            assert served(server.port, only_rsa, name) == rsa.serial
            assert served(server.port, only_ecdsa, name) == ecdsa.serial
            assert served(server.port, both, name) == ecdsa.serial
            assert served(server.port, client_of(root), name) == ecdsa.serial
        certificates = {line["certificate"] for line in server.wait_for_access(8)}
        assert certificates == {str(place.folder / "rsa.pem"), str(place.folder / "ecdsa.pem")}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_for_a_name_the_valid_one_that_expires_last_serves(
    place: Place, root: Authority, order: int
) -> None:
    best = place.site("best.pem", "site.test", not_after=now() + timedelta(days=90))
    place.site("sooner.pem", "site.test", not_after=now() + timedelta(days=30))
    place.site("expired.pem", "site.test", not_after=now() - timedelta(days=1))
    place.site(
        "later.pem",
        "site.test",
        not_before=now() + timedelta(days=1),
        not_after=now() + timedelta(days=900),
    )
    place.certificates[:] = place.certificates[::order]
    with Recorder() as backend, place.server(backend.address) as server:
        assert served(server.port, client_of(root), "site.test") == best.serial


def test_a_certificate_that_becomes_valid_while_it_waits_serves_then(
    place: Place, root: Authority
) -> None:
    """The next one is put there in advance; the old one runs out, and no file changes at that moment."""
    place.site("old.pem", "site.test", not_after=now() + timedelta(seconds=3))
    new = place.site("new.pem", "site.test", not_before=now() + timedelta(seconds=2))
    context = client_of(root)
    context.check_hostname = False
    with Recorder() as backend, place.server(backend.address) as server:

        def is_new() -> bool:
            try:
                return served(server.port, context, "site.test") == new.serial
            except ssl.SSLCertVerificationError:
                return False

        wait_until(is_new, "the new one serves", seconds=5, poll=0.2)
