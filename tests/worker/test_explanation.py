"""What `explain` says is what a client gets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy import clock
from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.load import FlagSource, load
from termproxy.tls.certificates import Certificate, load_certificate
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from termproxy.worker.explanation import explain

NOW = clock.utc_now()


def issue(folder: Path, file: str, *names: str, rsa: bool = False, days: int = 100) -> Certificate:
    kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = ca.issue_cert(*names, key_type=kind, not_after=NOW + timedelta(days=days))
    issued.private_key_and_cert_chain_pem.write_to_path(folder / file)
    return load_certificate(folder / file)


def assemble(
    certificates: list[Certificate],
    *hosts: dict[str, Any],
    listen: Sequence[str] = ("127.0.0.1:1",),
    **tls: Any,
) -> Assembly:
    values = {
        "frontend": [
            {
                "name": "web",
                "listen": list(listen),
                "cluster": "app",
                "certificates": ["unused.pem"],
                "tls": tls,
                "host": list(hosts),
            }
        ],
        "cluster": {"app": {"servers": ["127.0.0.1:2"]}, "api": {"servers": ["127.0.0.1:3"]}},
    }
    config = load(FlagSource(values, {}))
    server = Server(parse_address("127.0.0.1:2"))
    clusters = {name: Cluster(name, [server]) for name in config.clusters}
    assembly = Assembly(config.frontends[0], clusters, {}, Resumption(Stores()))
    assembly.serve(certificates, {}, NOW)
    return assembly


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    folder = tmp_path_factory.mktemp("certificates")
    return [
        issue(folder, "first.pem", "www.example.com"),
        issue(folder, "wild.pem", "*.example.com"),
        issue(folder, "api.pem", "api.example.com"),
        issue(folder, "api-rsa.pem", "api.example.com", rsa=True),
        issue(folder, "api-old.pem", "api.example.com", days=10),
    ]


def files(answer: dict[str, Any]) -> list[str]:
    return [Path(each["file"]).name for each in answer["certificates"]]


@pytest.mark.parametrize(
    ("sni", "shown", "why"),
    [
        ("www.example.com", ["first.pem"], "the exact name"),
        ("WWW.Example.COM.", ["first.pem"], "the exact name"),
        ("other.example.com", ["wild.pem"], "one label of *.example.com"),
        ("a.b.example.com", ["first.pem"], "no certificate has the name: the first one"),
        ("192.0.2.1", ["first.pem"], "no name was asked for (or an address, which is none)"),
        (None, ["first.pem"], "no name was asked for"),
        ("api.example.com", ["api.pem", "api-rsa.pem"], "of ecdsa and rsa the client's signature"),
    ],
)
def test_the_certificate_and_why(
    certificates: list[Certificate], sni: str | None, shown: list[str], why: str
) -> None:
    answer = explain(assemble(certificates), sni, (), None, NOW)

    assert files(answer) == shown
    assert why in answer["why"]
    assert answer["cluster"] == "app"


def test_a_certificate_that_another_outlives_is_named_with_the_reason(
    certificates: list[Certificate],
) -> None:
    (line,) = explain(assemble(certificates), "api.example.com", (), None, NOW)["not_shown"]

    assert "api-old.pem" in line
    assert "expires later" in line


def test_a_host_block_s_policy_and_cluster_are_told(certificates: list[Certificate]) -> None:
    block = {"names": ["*.example.com"], "preset": "modern", "groups": ["P-256"], "cluster": "api"}
    answer = explain(assemble(certificates, block), "other.example.com", (), None, NOW)

    assert answer["host_block"] == "the one for *.example.com (one label of a wildcard)"
    assert answer["policy"]["min_version"] == "1.3"
    assert answer["policy"]["groups"] == ["P-256"]
    assert answer["cluster"] == "api"


@pytest.mark.parametrize(
    ("sni", "alert"),
    [
        ("unknown.example.org", "unrecognized_name"),
        (None, "unrecognized_name"),
        ("two words", "unrecognized_name"),
        ("a" * 64 + ".example.com", "unrecognized_name"),
    ],
)
def test_a_refusal_is_told_by_its_alert(
    certificates: list[Certificate], sni: str | None, alert: str
) -> None:
    answer = explain(assemble(certificates, unknown_name="reject"), sni, (), None, NOW)

    assert answer["refused"] == alert
    assert "certificates" not in answer


@pytest.mark.parametrize(
    ("ours", "offers", "agreed"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "h2"),
        (["http/1.1"], ["h2", "http/1.1"], "http/1.1"),
        (["http/1.1"], [], None),
        ([], ["h2"], None),
    ],
)
def test_our_order_of_protocols_decides(
    certificates: list[Certificate], ours: list[str], offers: list[str], agreed: str | None
) -> None:
    """RFC 7301 §3.2: the server selects."""
    tls = {"alpn": ours} if ours else {}
    answer = explain(assemble(certificates, **tls), "www.example.com", offers, None, NOW)

    assert answer["alpn"] == agreed


def test_no_protocol_in_common_is_a_refusal(certificates: list[Certificate]) -> None:
    answer = explain(assemble(certificates, alpn=["http/1.1"]), "www.example.com", ["h3"], None, NOW)

    assert answer["refused"] == "no_application_protocol"


# Where the client comes from.


@pytest.mark.parametrize(
    ("client", "listen", "reaches"),
    [
        ("192.0.2.1", ["0.0.0.0:443"], True),
        ("192.0.2.1", ["198.51.100.1:443"], True),
        ("192.0.2.1", ["127.0.0.1:443"], False),
        ("192.0.2.1", ["127.0.0.1:443", "0.0.0.0:8443"], True),
        ("192.0.2.1", ["[::]:443"], False),
        ("192.0.2.1", ["[::]:443", "0.0.0.0:443"], True),
        ("127.0.0.1", ["127.0.0.1:443"], True),
        ("127.0.0.2", ["127.0.0.1:443"], True),
        ("127.0.0.1", ["198.51.100.1:443"], True),
        ("2001:db8::1", ["[::]:443"], True),
        ("2001:db8::1", ["0.0.0.0:443"], False),
        ("2001:db8::1", ["[::1]:443"], False),
        ("::1", ["[::1]:443"], True),
        ("::1", ["127.0.0.1:443"], False),
    ],
)
def test_a_client_reaches_listeners_of_its_family_and_loopback_only_from_here(
    certificates: list[Certificate], client: str, listen: list[str], *, reaches: bool
) -> None:
    """IPv6 listeners are for IPv6 only, as master/listeners.py makes them."""
    answer = explain(assemble(certificates, listen=listen), None, (), ip_address(client), NOW)

    assert answer["client_ip"] == client
    assert ("unreachable" not in answer) == reaches
    assert ("certificates" in answer) == reaches


def test_who_cannot_come_is_told_before_a_name_is_looked_at(certificates: list[Certificate]) -> None:
    answer = explain(assemble(certificates), "no name", (), ip_address("192.0.2.1"), NOW)

    assert "192.0.2.1 has no way" in answer["unreachable"]
    assert "refused" not in answer


def test_without_an_address_nothing_is_said_of_one(certificates: list[Certificate]) -> None:
    assert "client_ip" not in explain(assemble(certificates), None, (), None, NOW)
