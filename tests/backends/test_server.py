"""One backend: where it is."""

from __future__ import annotations

import pytest

from termproxy.address import parse_address
from termproxy.backends.server import Server


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:8080", "unix:/run/app.sock"])
def test_a_server_is_named_by_its_address(text: str) -> None:
    assert str(Server(parse_address(text))) == text


def test_servers_of_one_address_are_one_server() -> None:
    one, other = Server(parse_address("[::1]:1")), Server(parse_address("[0::1]:1"))

    assert one == other
    assert len({one, other}) == 1
