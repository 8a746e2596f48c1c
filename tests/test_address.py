"""Where to listen and where to connect, as operators write it."""

from __future__ import annotations

import re
import socket
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.address import UNIX_PATH_MAX, Address, Name, parse_address, parse_listening_address


@pytest.mark.parametrize(
    ("text", "family", "sockaddr"),
    [
        ("127.0.0.1:8443", socket.AF_INET, ("127.0.0.1", 8443)),
        ("0.0.0.0:1", socket.AF_INET, ("0.0.0.0", 1)),
        ("[::1]:65535", socket.AF_INET6, ("::1", 65535)),
        ("[::]:443", socket.AF_INET6, ("::", 443)),
        ("unix:/run/app.sock", socket.AF_UNIX, "/run/app.sock"),
        ("unix:/a:b", socket.AF_UNIX, "/a:b"),
    ],
)
def test_an_address_is_read_and_written_back(
    text: str, family: socket.AddressFamily, sockaddr: tuple[str, int] | str
) -> None:
    address = parse_address(text)

    assert address == Address(family, sockaddr)
    assert str(address) == text
    assert address.is_unix == (family is socket.AF_UNIX)


def test_two_spellings_of_one_address_are_equal() -> None:
    assert parse_address("[0:0:0:0:0:0:0:1]:443") == parse_address("[::1]:443")
    assert parse_address("127.0.0.1:0443") == parse_address("127.0.0.1:443")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("8443", "'8443' has no port; write 127.0.0.1:8443, [::1]:8443 or unix:/path"),
        ("", "'' has no port; write"),
        ("[::1]", "'[::1]': an IPv6 address stands in brackets, as in [::1]:8443"),
        ("::1:443", "'::1:443': an IPv6 address stands in brackets, as in [::1]:8443"),
        ("localhost:443", "'localhost:443': 'localhost' is not an IP address; write 127.0.0.1"),
        ("a.example:443", "'a.example:443': 'a.example' is not an IP address; write its IP address"),
        ("127.0.0.1:", "'127.0.0.1:': '' is not a port; write a number from 1 to 65535"),
        ("127.0.0.1:0", "'127.0.0.1:0': '0' is not a port"),
        ("127.0.0.1:65536", "'65536' is not a port"),
        ("127.0.0.1:-1", "'-1' is not a port"),
        ("127.0.0.1:80 ", "'80 ' is not a port"),
        ("127.0.0.1:http", "'http' is not a port"),
        ("127.0.0.1:\u0668\u0660", "is not a port"),
        ("127.0.0.1:²", "is not a port"),
        (":443", "'' is not an IP address"),
        ("[]:443", "'' is not an IP address"),
        ("127.1:443", "'127.1' is not an IP address"),
        ("010.0.0.1:443", "'010.0.0.1' is not an IP address"),
        ("unix:run/app.sock", "'unix:run/app.sock': write the whole path, as in unix:/run/app.sock"),
        ("unix:", "'unix:': write the whole path"),
        ("unix:/" + "a" * UNIX_PATH_MAX, "a socket's path has at most 107 bytes"),
        ("unix:/" + "é" * 54, "a socket's path has at most 107 bytes"),
        ("unix:/a\0b", "'unix:/a\0b'"),
    ],
)
def test_what_is_no_address_is_refused_with_a_cure(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_address(text)


def test_the_longest_path_of_a_socket_fits(tmp_path: object) -> None:
    longest = "unix:/" + "a" * (UNIX_PATH_MAX - 1)

    assert str(parse_address(longest)) == longest


@settings(deadline=None)
@given(text=st.text("0123456789.:[]unix/abf% \n\0é", max_size=30))
def test_whatever_is_written_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as refused:
        assert str(refused)  # noqa: PT017 - it is raised for some texts only
    else:
        assert parse_address(str(address)) == address


@settings(deadline=None)
@given(ip=st.ip_addresses(), port=st.integers(1, 65535))
def test_every_ip_address_and_port_is_an_address(ip: object, port: int) -> None:
    host = f"[{ip}]" if ":" in str(ip) else str(ip)
    address = parse_address(f"{host}:{port}")

    assert address.sockaddr == (str(ip), port)
    assert parse_address(str(address)) == address


def test_a_name_becomes_addresses_of_its_port() -> None:
    name = Name("app.internal", 80)

    assert str(name) == "app.internal:80"
    assert name.at("192.0.2.1") == parse_address("192.0.2.1:80")
    assert name.at("2001:db8::1") == parse_address("[2001:db8::1]:80")


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/run/a", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(text: str, *, is_loopback: bool) -> None:
    assert parse_address(text).is_loopback == is_loopback


@pytest.mark.parametrize("name", ["web", "termproxy.socket", "a-b_c", "x" * 255])
def test_what_systemd_passes_has_a_name(name: str) -> None:
    address = parse_listening_address(f"systemd:{name}")

    assert str(address) == f"systemd:{name}"
    assert (address.is_activated, address.is_shared, address.is_unix) == (True, True, False)
    assert address.port == 0


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "é"])
def test_not_every_text_is_such_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="that is no name; write FileDescriptorName="):
        parse_listening_address(f"systemd:{name}")


def test_what_is_listened_on_else_is_an_address_as_any() -> None:
    for text in ("127.0.0.1:1", "unix:/run/a"):
        assert parse_listening_address(text) == parse_address(text)
    assert [parse_address(text).is_shared for text in ("127.0.0.1:1", "unix:/run/a")] == [False, True]


def test_an_address_is_packed_as_the_kernel_has_it() -> None:
    assert parse_address("127.0.0.1:258").packed.hex() == "020001027f000001" + "00" * 8
    assert (
        parse_address("[2001:db8::1]:258").packed.hex()
        == "0a0001020000000020010db8" + "00" * 11 + "0100000000"
    )
    assert parse_address("unix:/run/a").packed == b"\1\0/run/a\0"


@pytest.mark.parametrize(
    ("scope", "number"), [("lo", socket.if_nametoindex("lo")), ("7", 7), ("no-such", 0)]
)
def test_the_interface_of_a_link_s_address_is_part_of_it(scope: str, number: int) -> None:
    assert parse_address(f"[fe80::1%{scope}]:80").packed[-4:] == number.to_bytes(4, sys.byteorder)
