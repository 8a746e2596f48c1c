"""Whose claims about a request's way are believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from termproxy.address import is_in
from termproxy.http.head import request_reader, response_reader
from termproxy.worker.gateway import Gateway

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


def gateway(**settings: object) -> Gateway:
    return Gateway(request_reader(4096, 1024, 100), response_reader(8192, 100), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "is_there"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("2001:db8::1%eth0", True),
    ],
)
def test_an_address_is_in_a_network_however_it_is_written(client: str, is_there: bool) -> None:  # noqa: FBT001
    assert is_in(client, NETWORKS) is is_there


def test_nobody_is_trusted_unless_it_is_said() -> None:
    assert not gateway().trusts("127.0.0.1")
    assert not gateway(trusted=()).trusts("10.1.2.3")


def test_who_is_in_a_trusted_network_is_trusted() -> None:
    trusting = gateway(trusted=NETWORKS)

    assert trusting.trusts("10.1.2.3")
    assert not trusting.trusts("192.0.2.1")


def test_a_gateway_without_settings_has_no_limits_of_bodies_and_no_routes() -> None:
    plain = gateway()

    assert (plain.body_max, plain.body_rate, plain.hsts, plain.logs_query) == (0, 0, b"", False)
    assert plain.routes.find("site.test", b"/") is None
