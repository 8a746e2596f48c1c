"""Name servers and the hosts file, asked for real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.address import parse_address
from termproxy.backends import resolver as module
from termproxy.backends.names import Found
from termproxy.backends.resolver import Resolver
from termproxy.config.schema import Dns
from tests.support.name_server import NameServer

A, B, V6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer(
        app_internal=[A, V6, B], old_internal=[A], new_internal=[V6], none_internal=[]
    ) as server:
        server.ttl = 60
        yield server


def resolver(server: NameServer, hosts: Path | None = None) -> Resolver:
    return Resolver(Dns(servers=(parse_address(server.address),), hosts=hosts))


def test_all_addresses_of_both_families_are_found_with_their_time(server: NameServer) -> None:
    found = resolver(server).look_up("app.internal")

    assert (sorted(found.v4 or ()), found.v6, found.ttl, found.problem) == ([A, B], [V6], 60, "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("old.internal", Found([A], [], 60.0)),
        ("new.internal", Found([], [V6], 60.0)),
        ("none.internal", Found([], [], float("inf"), "it has no address")),
        ("other.internal", Found([], [], float("inf"), "there is no such name")),
    ],
)
def test_what_there_is_not_is_told(server: NameServer, host: str, expected: Found) -> None:
    assert resolver(server).look_up(host) == expected


def test_a_server_that_fails_says_nothing_of_the_name(server: NameServer) -> None:
    server.fails = True
    found = resolver(server).look_up("app.internal")

    assert (found.v4, found.v6) == (None, None)
    assert "SERVFAIL" in found.problem


def test_a_silent_server_is_waited_for_and_not_for_long(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_UP_MAX", 0.2)
    server.is_silent = True
    found = resolver(server).look_up("app.internal")

    assert (found.v4, found.v6) == (None, None)
    assert found.problem


def test_the_hosts_file_is_looked_into_first_and_anew(server: NameServer, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    asking = resolver(server, hosts)
    assert asking.look_up("old.internal").v4 == [A]
    hosts.write_text("192.0.2.9 old.internal\n")
    asked = len(server.asked)

    assert asking.look_up("old.internal").v4 == ["192.0.2.9"]
    assert len(server.asked) == asked
    assert asking.look_up("new.internal").v6 == [V6]


def test_what_a_name_server_says_does_not_break_a_line_of_the_log(server: NameServer) -> None:
    assert module._plain(ValueError("a\nb\x1b[31m" + "x" * 1000)).isprintable()
    assert len(module._plain(ValueError("x" * 1000))) <= module.PROBLEM_MAX


def test_the_machine_s_own_servers_are_asked_when_none_are_named() -> None:
    """Whatever they say: it is an answer, or a problem in words."""
    found = Resolver(Dns(hosts=Path("/etc/hosts"))).look_up("localhost")

    assert found.v4 or found.v6 or found.problem


def test_the_master_does_not_carry_it() -> None:
    code = "import sys, termproxy.master.arbiter\nprint('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_after_it_is_made_no_module_is_loaded(server: NameServer) -> None:
    """Its process has no right to read files by then, perhaps."""
    code = f"""
import sys
from termproxy.address import parse_address
from termproxy.backends.resolver import Resolver
from termproxy.config.schema import Dns
resolver = Resolver(Dns(servers=(parse_address("{server.address}"),), hosts=None))
before = set(sys.modules)
for host in ("app.internal", "none.internal", "other.internal"):
    resolver.look_up(host)
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
