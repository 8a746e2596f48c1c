"""Where workers have to connect, and whether those that run may."""

from __future__ import annotations

import pytest

from termproxy.address import Name, parse_address
from termproxy.config.reach import backend_ports, may_connect
from termproxy.config.schema import Cluster, Config, Server


def clusters(**servers: list[str]) -> Config:
    made = {
        name: Cluster(servers=tuple(Server(parse_address(each)) for each in addresses))
        for name, addresses in servers.items()
    }
    return Config(frontends=(), clusters=made)


def test_the_ports_are_those_of_every_cluster() -> None:
    config = clusters(app=["127.0.0.1:8080", "[::1]:8081"], api=["10.0.0.1:8080"])
    assert backend_ports(config) == {8080, 8081}


def test_a_unix_socket_has_none() -> None:
    assert backend_ports(clusters(app=["unix:/run/app.sock"])) == frozenset()


def test_a_name_s_port_is_known_before_its_addresses() -> None:
    config = Config(frontends=(), clusters={"app": Cluster(servers=(Server(Name("app.test", 9000)),))})
    assert backend_ports(config) == {9000}


@pytest.mark.parametrize(
    ("servers", "may"),
    [
        (["127.0.0.1:8080"], True),
        (["10.9.9.9:8080", "[::1]:8081"], True),  # other servers, known ports
        (["127.0.0.1:8080", "unix:/run/app.sock"], True),
        (["127.0.0.1:8082"], False),
        (["127.0.0.1:8080", "127.0.0.1:8082"], False),
    ],
)
def test_workers_serve_what_has_no_port_that_they_may_not_connect_to(
    servers: list[str], *, may: bool
) -> None:
    assert may_connect(frozenset({8080, 8081}), clusters(app=servers)) is may


def test_workers_that_are_kept_from_no_port_serve_anything() -> None:
    assert may_connect(None, clusters(app=["127.0.0.1:8082"]))
