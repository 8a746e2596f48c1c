"""What no single setting can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from termproxy.address import parse_address, parse_listening_address
from termproxy.config.checks import problems
from termproxy.config.schema import (
    Admin,
    CertificateFiles,
    Cluster,
    Config,
    Frontend,
    Health,
    Host,
    Passive,
    Server,
    Tls,
)

PEM = CertificateFiles(Path("/site.pem"), None)


def frontend(name: str = "web", *listen: str, cluster: str = "app") -> Frontend:
    return Frontend(
        name=name,
        listen=tuple(map(parse_address, listen or ["127.0.0.1:8443"])),
        cluster=cluster,
        certificates=(PEM,),
    )


def config(*frontends: Frontend, clusters: tuple[str, ...] = ("app",)) -> Config:
    servers = (Server(parse_address("127.0.0.1:8080")),)
    return Config(frontends=frontends, clusters={name: Cluster(servers=servers) for name in clusters})


def test_a_configuration_in_order_has_no_findings() -> None:
    assert list(problems(config(frontend(), frontend("b", "[::1]:8443")))) == []


def test_a_cluster_that_nobody_uses_is_fine() -> None:
    assert list(problems(config(frontend(), clusters=("app", "spare")))) == []


def test_there_is_at_least_one_frontend() -> None:
    assert list(problems(config())) == [
        ((), "no frontend", "write [[frontend]] with name, listen, cluster and certificates")
    ]


def test_a_frontend_s_cluster_exists() -> None:
    assert list(problems(config(frontend(), frontend("b", "[::1]:1", cluster="zebra")))) == [
        (("frontend", 1, "cluster"), "there is no cluster 'zebra'", "write [cluster.zebra]")
    ]


def test_a_cluster_s_name_nearly_right_is_guessed() -> None:
    assert list(problems(config(frontend(cluster="ap"), clusters=("api", "app", "web")))) == [
        (("frontend", 0, "cluster"), "there is no cluster 'ap'", "did you mean 'app'?")
    ]


def test_names_are_used_once() -> None:
    assert list(problems(config(frontend(), frontend("web", "[::1]:1")))) == [
        (("frontend", 1, "name"), "a second frontend named 'web'", "give each its own name")
    ]


def test_addresses_are_used_once() -> None:
    first, second = frontend("a", "127.0.0.1:1", "[::1]:1"), frontend("b", "127.0.0.1:2", "[0::1]:1")

    assert list(problems(config(first, second))) == [
        (
            ("frontend", 1, "listen"),
            "[::1]:1 is already listened on by frontend 'a'",
            "give each address to one frontend",
        )
    ]


def test_an_address_stands_once_in_one_frontend_too() -> None:
    (finding,) = problems(config(frontend("a", "127.0.0.1:1", "127.0.0.1:1")))

    assert finding[1] == "127.0.0.1:1 is already listened on by frontend 'a'"


def test_metrics_are_not_served_where_clients_are() -> None:
    admin = Admin(listen=parse_address("127.0.0.1:8443"))

    assert list(problems(replace(config(frontend()), admin=admin))) == [
        (
            ("admin", "listen"),
            "127.0.0.1:8443 is already listened on by frontend 'web'",
            "give it an address of its own",
        )
    ]


def test_several_certificates_are_fine() -> None:
    assert list(problems(config(replace(frontend(), certificates=(PEM, PEM))))) == []


def test_all_findings_are_told() -> None:
    broken = frontend(cluster="x")

    assert len(list(problems(config(broken, broken)))) == 4


# Names and what is demanded of clients.


def host(*names: str, **settings: Any) -> Host:
    return Host(names=names or ("a.test",), **settings)


def found(*hosts: Host, **tls: Any) -> list[tuple[str, str]]:
    """Where, and what: of one frontend with these."""
    web = replace(frontend(), tls=Tls(**tls), hosts=hosts)
    return [(".".join(map(str, path)), what) for path, what, cure in problems(config(web)) if cure]


def test_hosts_in_order_have_no_findings() -> None:
    ca = Path("/ca")
    assert found(host("a.test"), host("b.test", "*.a.test", cluster="app")) == []
    assert found(host(client_auth="required"), client_ca=ca) == []
    assert found(host(client_auth="required", client_ca=ca)) == []
    assert found(host(client_auth="off"), client_auth="required", client_ca=ca) == []
    assert found(host(max_version="1.2"), min_version="1.2") == []


def test_a_host_s_cluster_exists() -> None:
    assert found(host("a.test"), host("b.test", cluster="none")) == [
        ("frontend.0.host.1.cluster", "there is no cluster 'none'")
    ]


def test_a_host_is_named_once() -> None:
    assert found(host("a.test", "b.test"), host("*.b.test", "b.test")) == [
        ("frontend.0.host.1.names", "b.test is in two host blocks")
    ]
    assert len(found(host("a.test", "a.test"))) == 1


def test_two_frontends_may_have_the_same_host() -> None:
    one = replace(frontend("a", "[::1]:1"), hosts=(host(),))
    other = replace(frontend("b", "[::1]:2"), hosts=(host(),))
    assert list(problems(config(one, other))) == []


@pytest.mark.parametrize(
    ("tls", "block", "where"),
    [
        ({"min_version": "1.3", "max_version": "1.2"}, {"max_version": "1.3"}, "tls"),
        ({"preset": "modern", "max_version": "1.2"}, {"preset": "intermediate"}, "tls"),
        ({}, {"min_version": "1.3", "max_version": "1.2"}, "host.0"),
        ({"min_version": "1.3"}, {"max_version": "1.2"}, "host.0"),
        ({"max_version": "1.2"}, {"preset": "modern"}, "host.0"),
    ],
)
def test_a_version_is_left(tls: dict[str, Any], block: dict[str, Any], where: str) -> None:
    assert found(host(**block), **tls) == [
        (f"frontend.0.{where}.max_version", "no version is from 1.3 to 1.2")
    ]


@pytest.mark.parametrize("demand", ["optional", "required"])
def test_who_demands_certificates_says_who_issues_them(demand: str) -> None:
    what = f'client_auth is "{demand}", but nobody may issue certificates'
    assert found(host(client_auth=demand)) == [("frontend.0.host.0.client_auth", what)]
    assert found(client_auth=demand) == [("frontend.0.tls.client_auth", what)]


def test_a_ca_without_a_demand_is_told() -> None:
    """Whoever named it believes that clients are asked."""
    what = 'client_ca has no effect: client_auth is "off"'
    assert found(client_ca=Path("/ca")) == [("frontend.0.tls.client_ca", what)]
    assert found(host(client_auth="off"), client_ca=Path("/ca")) == [("frontend.0.tls.client_ca", what)]


@pytest.mark.parametrize("tls", [{}, {"client_auth": "off"}])
@pytest.mark.parametrize("others", [(), (host("b.test", client_auth="required"),)])
def test_a_host_s_ca_without_a_demand_is_told(tls: dict[str, Any], others: tuple[Host, ...]) -> None:
    """Fails open: clients of this name are asked for nothing, in silence."""
    tls = {"client_ca": Path("/frontend")} | tls if others else tls
    assert [where for where, _ in found(host(client_ca=Path("/ca")), *others, **tls)] == [
        "frontend.0.host.0.client_ca"
    ]


@pytest.mark.parametrize("block", [{}, {"client_ca": Path("/ca")}])
def test_a_crl_without_a_demand_is_told(block: dict[str, Any]) -> None:
    assert any("client_crl" in where for where, _ in found(client_crl=Path("/crl"), **block))


# Clusters.


def cluster_problems(**settings: Any) -> list[tuple[Any, str, str]]:
    servers = settings.pop("servers", ["127.0.0.1:1"])
    cluster = Cluster(servers=tuple(Server(parse_address(each)) for each in servers), **settings)
    return list(problems(Config(frontends=(frontend(),), clusters={"app": cluster})))


def test_a_server_stands_in_a_cluster_once() -> None:
    """A second one would be counted, checked and drained with the first."""
    assert cluster_problems(servers=["127.0.0.1:1", "[::1]:1", "[0:0::1]:1"]) == [
        (("cluster", "app", "servers", 2), "[::1]:1 is there twice", "name it once, with a weight")
    ]


def test_the_longest_ejection_is_not_shorter_than_the_first() -> None:
    assert cluster_problems(passive=Passive(eject=60, eject_max=30)) == [
        (
            ("cluster", "app", "passive", "eject_max"),
            "eject_max = 30 is less than eject",
            "write 60 or more",
        )
    ]


def test_settings_of_checks_that_nobody_makes_are_told() -> None:
    assert cluster_problems(health=Health(path="/healthz", rise=1)) == [
        (
            ("cluster", "app", "health", "kind"),
            "path and rise without effect: nothing is checked",
            'write kind = "tcp" or "http"',
        )
    ]


def test_settings_of_http_that_nobody_speaks_are_told() -> None:
    assert cluster_problems(health=Health(kind="tcp", path="/healthz", rise=1)) == [
        (
            ("cluster", "app", "health", "path"),
            'path has no effect: kind is "tcp"',
            'remove it, or write kind = "http"',
        )
    ]


def test_a_cluster_with_checks_in_order_has_no_findings() -> None:
    health = Health(kind="http", path="/healthz", host="app", expect=("200",), interval=1)

    assert cluster_problems(health=health, passive=Passive(failures=0)) == []


def test_a_redirect_from_clients_that_come_by_an_unknown_port_names_one() -> None:
    given = frontend("web")
    given = replace(
        given,
        mode="http",
        listen=(parse_listening_address("systemd:web"),),
        redirect_from=(parse_address("127.0.0.1:8080"),),
    )

    assert list(problems(config(given))) == [
        (
            ("frontend", 0, "redirect_port"),
            "nothing says which port systemd:web has for clients",
            "write redirect_port = 443",
        )
    ]
    assert list(problems(config(replace(given, redirect_port=443)))) == []
