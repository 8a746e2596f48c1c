"""`explain` asks a running master, without a client."""

from __future__ import annotations

import json

from tests.conftest import Dial, Serve
from tests.support.backends import Backend
from tests.support.clients import NAME
from tests.support.command import termproxy

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
