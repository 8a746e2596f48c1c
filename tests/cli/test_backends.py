"""`termproxy backends`: how the servers are, and taking one out of use."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from termproxy import clock
from termproxy.cli.backends import length, show
from tests.conftest import Dial, Serve
from tests.support.backends import Backend, greeting
from tests.support.clients import exchange, leave, read_to_end
from tests.support.command import termproxy

NOW = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    known = {
        "cluster": "app",
        "server": "127.0.0.1:8080",
        "address": changes.get("server", "127.0.0.1:8080"),
        "state": "up",
        "since": None,
        "weight": 1,
        "max_connections": 0,
        "active": 0,
        "total": 0,
        "failures": 0,
        "checks": 0,
        "checks_failed": 0,
        "last_check": None,
    }
    return known | changes


def shown(*rows: dict[str, Any], width: int = 80) -> list[str]:
    out = io.StringIO()
    show(list(rows), Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


# What is told.


def test_a_server_is_a_line() -> None:
    since = (clock.utc_now() - timedelta(seconds=300)).isoformat(timespec="seconds")
    head, _, *lines = shown(
        row(),
        row(server="[2001:db8::12]:65535", state="draining", active=1234, total=1234567, failures=99),
        row(state="down", since=since, max_connections=500, active=17),
        width=120,
    )

    assert [" ".join(line.split()) for line in (head, *lines)] == [
        "server state for weight active total failures check",
        "app/127.0.0.1:8080 up ever 1 0 0 0 -",
        "app/[2001:db8::12]:65535 draining ever 1 1234 1234567 99 -",
        "app/127.0.0.1:8080 down 5 min 1 17/500 0 0 -",
    ]


def test_eighty_columns_are_enough_to_name_a_server_whole() -> None:
    check = {"result": "wrong_status", "status": 503, "seconds_ago": 1.2}
    lines = shown(row(server="127.123.234.123:65535", state="disabled", last_check=check))

    assert max(map(len, lines)) <= 80
    assert any("app/127.123.234.123:65535 " in line for line in lines)


def test_a_check_is_told_with_its_status_and_age() -> None:
    check = {"result": "wrong_status", "status": 503, "seconds_ago": 1.2}

    assert shown(row(last_check=check), width=120)[2].endswith("wrong_status (503), 1 s ago")
    passed = {"result": "passed", "status": None, "seconds_ago": 0.4}
    assert shown(row(last_check=passed), width=120)[2].endswith("passed, 0 s ago")


def test_what_an_operator_wrote_is_shown_as_it_is() -> None:
    """Square brackets are markup elsewhere."""
    assert "[red]x/127.0.0.1:8080" in shown(row(cluster="[red]x"), width=120)[2]


def test_an_address_of_a_name_is_told_with_it() -> None:
    lines = shown(
        row(server="app.internal:80", address="192.0.2.1:80"),
        row(server="app.internal:80", address="[2001:db8::1]:80"),
        row(server="app.internal:80", address=None, state="down"),
        width=120,
    )

    assert [line.split("  ")[0].strip() for line in lines[2:]] == [
        "app/app.internal:80 (192.0.2.1)",
        "app/app.internal:80 ([2001:db8::1])",
        "app/app.internal:80 (no address)",
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"),
     (172_800, "2 d")],
)  # fmt: skip
def test_a_length_of_time_is_short(seconds: int, expected: str) -> None:
    assert length((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == expected


# A running server.


def test_the_table_and_its_json_tell_what_was_counted(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server, dial(server) as client:
        exchange(client)
        said = termproxy("backends", "-c", str(server.file)).stdout
        assert f"main/{backend.address} up " in " ".join(said.split())
        [told] = json.loads(termproxy("backends", "--control", str(server.control), "--json").stdout)
        assert (told["active"], told["total"], told["failures"]) == (1, 1, 0)
        leave(client)


def test_a_server_is_taken_out_of_use_and_back(serve: Serve, dial: Dial) -> None:
    with (
        Backend(greeting(b"a")) as a,
        Backend(greeting(b"b")) as b,
        serve(a.address, b.address, workers=2) as server,
    ):

        def heard() -> set[bytes]:
            words = set()
            for _ in range(8):
                with dial(server) as client:
                    words.add(read_to_end(client))
            return words

        target = f"main/{a.address}"
        done = termproxy("backends", "drain", target, "-c", str(server.file))
        assert (done.returncode, done.stdout) == (0, f"{target} is draining\n")
        assert heard() == {b"b"}
        done = termproxy("backends", "-c", str(server.file), "enable", target)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{target} is enabled\n", "")
        assert heard() == {b"a", b"b"}
        assert f"cluster main: server {a.address} is draining, as asked for" in server.said()


def test_taking_the_last_one_is_done_and_warned_of(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        done = termproxy("backends", "disable", "main/127.0.0.1:9", "-c", str(server.file))

    assert (done.returncode, done.stdout) == (0, "main/127.0.0.1:9 is disabled\n")
    assert done.stderr == "warning: no server of cluster main is up\n"


def test_an_error_says_what_would_be_right(serve: Serve) -> None:
    with serve("127.0.0.1:9") as server:
        wrong = termproxy("backends", "drain", "mian/127.0.0.1:9", "-c", str(server.file))
        assert wrong.returncode == 1
        assert "there is no server 'mian/127.0.0.1:9'; did you mean main/127.0.0.1:9?" in wrong.stderr
        assert termproxy("backends", "drain", "-c", str(server.file)).returncode == 2


def test_without_a_server_that_runs_there_is_nothing_to_tell() -> None:
    assert termproxy("backends", "--control", "/nonexistent/control").returncode == 1
