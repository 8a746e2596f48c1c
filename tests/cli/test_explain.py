"""`explain` asks a running master, without a client."""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import Any

import pytest

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import NAME
from tests.support.command import termproxy
from tests.support.server import Server
from tests.support.waiting import wait_until

NOWHERE = "127.0.0.1:9"


def test_it_says_what_a_client_of_that_name_gets(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--sni", NAME)

    assert result.returncode == 0
    assert "certificate: the exact name" in result.stdout
    assert "client certificates off" in result.stdout
    assert "cluster: main" in result.stdout


def test_it_agrees_with_what_a_client_really_gets(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address) as server:
        with dial(server):
            pass
        said = termproxy("explain", "-c", str(server.file), "--sni", NAME, "--json").stdout
        (line,) = server.wait_for_access(1)
    (answer,) = json.loads(said)

    assert [each["file"] for each in answer["certificates"]] == [line["certificate"]]


def test_a_name_that_is_none_is_explained_too(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--sni", "no name")

    assert "refused with the alert unrecognized_name" in result.stdout


def test_a_name_with_bytes_that_are_no_text_does_not_disturb_the_master(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--sni", "a\udcff")
        assert "refused" in result.stdout + result.stderr
        assert termproxy("status", "-c", str(server.file)).returncode == 0


def test_a_protocol_with_bytes_that_are_no_text_is_no_protocol(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--alpn", "h2\udcff")

    assert (result.returncode, result.stderr) == (0, "")


# Where the client comes from.


def test_who_cannot_come_is_told_so(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--sni", NAME, "--client-ip", "192.0.2.1")

    assert result.returncode == 0
    assert "cannot be reached: 192.0.2.1 has no way" in result.stdout
    assert "certificate" not in result.stdout


def test_who_can_come_is_told_what_it_gets(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        file = str(server.file)
        plain = termproxy("explain", "-c", file, "--sni", NAME)
        from_here = termproxy("explain", "-c", file, "--sni", NAME, "--client-ip", "127.0.0.1")
        said = termproxy("explain", "-c", file, "--client-ip", "127.0.0.1", "--json").stdout

    assert from_here.stdout == plain.stdout
    assert json.loads(said)[0]["client_ip"] == "127.0.0.1"


@pytest.mark.parametrize("address", ["localhost", "300.0.0.1", "", "1", "192.0.2.0/24", "a\udcff"])
def test_what_is_no_address_is_refused(serve: Serve, address: str) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--client-ip", address)
        assert (result.returncode, result.stdout) == (1, "")
        assert "IP address" in result.stderr
        assert termproxy("status", "-c", str(server.file)).returncode == 0


# Why clients fail.


def leave_at_once(server: Server, times: int = 1) -> None:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", server.port)).close()


def failures(server: Server) -> dict[str, Any]:
    result = termproxy("explain", "-c", str(server.file), "--failures", "--json")
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def wait_for_failures(server: Server, count: int) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = failures(server)["failures"]
        return found if sum(kind["count"] for kind in found) >= count else []

    return wait_until(look, f"{count} failures are told", poll=0.2)


def test_where_none_has_failed_it_says_since_when(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        result = termproxy("explain", "-c", str(server.file), "--failures")
        answer = failures(server)

    assert (result.returncode, answer["failures"]) == (0, [])
    assert result.stdout == f"no handshake has failed since {answer['since']}\n"


def test_failures_are_told_with_what_differs_and_the_cure_most_frequent_first(serve: Serve) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serve(NOWHERE) as server:
        leave_at_once(server, 3)
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(sock, server_hostname=NAME)
        frequent, rare = wait_for_failures(server, 4)
        said = termproxy("explain", "-c", str(server.file), "--failures").stdout

    assert (frequent["reason"], frequent["count"], frequent["name"]) == ("scanner", 3, None)
    assert (rare["reason"], rare["count"], rare["name"]) == ("no_shared_cipher", 1, NAME)
    assert (rare["frontend"], rare["client"]) == ("main", "127.0.0.1")
    first, cure, latest, second, other_cure, other_latest = said.splitlines()
    assert first == f"3 × scanner at main: {frequent['detail']}"
    assert cure == f"    cure: {frequent['cure']}"
    assert re.fullmatch(r"    latest: [-0-9T:]+\+00:00, 127\.0\.0\.1", latest)
    assert second.startswith("1 × no_shared_cipher at main: the client offers ECDHE-ECDSA-AES128-SHA")
    assert "`ciphers`" in other_cure
    assert other_latest.endswith(f", 127.0.0.1, asked for {NAME}")


@pytest.mark.parametrize("other", [["--sni", NAME], ["--alpn", "h2"], ["--client-ip", "127.0.0.1"]])
def test_failures_go_with_no_question_about_one_client(other: list[str]) -> None:
    result = termproxy("explain", "--failures", *other)

    assert (result.returncode, result.stdout) == (2, "")
    assert "--failures goes with none of" in result.stderr


def test_failures_of_a_server_that_does_not_run_cannot_be_told(serve: Serve) -> None:
    server = serve(NOWHERE)
    server.write_config()
    result = termproxy("explain", "-c", str(server.file), "--failures")

    assert (result.returncode, result.stdout) == (1, "")
