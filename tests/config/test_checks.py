"""What no single setting can tell."""

from __future__ import annotations

from pathlib import Path

from termproxy.address import parse_address
from termproxy.config.checks import problems
from termproxy.config.schema import CertificateFiles, Cluster, Config, Frontend

PEM = CertificateFiles(Path("/site.pem"), None)


def frontend(name: str = "web", *listen: str, cluster: str = "app", certificates: int = 1) -> Frontend:
    return Frontend(
        name=name,
        listen=tuple(map(parse_address, listen or ["127.0.0.1:8443"])),
        cluster=cluster,
        certificates=(PEM,) * certificates,
    )


def config(*frontends: Frontend, clusters: tuple[str, ...] = ("app",)) -> Config:
    servers = (parse_address("127.0.0.1:8080"),)
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


def test_one_certificate_a_frontend() -> None:
    assert list(problems(config(frontend(certificates=2)))) == [
        (
            ("frontend", 0, "certificates"),
            "2 certificates",
            "name one: choosing among several by name is not built yet",
        )
    ]


def test_all_findings_are_told() -> None:
    broken = frontend(cluster="x", certificates=2)

    assert len(list(problems(config(broken, broken)))) == 6
