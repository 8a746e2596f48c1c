"""The demo's backend mirrors what it was asked, and goes when the demo does."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.waiting import PATIENCE


@pytest.fixture
def backend() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "termproxy.cli.demo_backend"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def address_of(backend: subprocess.Popen[str]) -> tuple[str, int]:
    assert backend.stdout is not None
    host, _, port = backend.stdout.readline().strip().rpartition(":")
    return host, int(port)


def test_it_answers_with_what_it_saw(backend: subprocess.Popen[str]) -> None:
    connection = http.client.HTTPConnection(*address_of(backend), timeout=PATIENCE)
    for path in ("/", "/second?on=the&same=connection"):
        connection.request("GET", path, headers={"X-Mine": "here"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200
        assert f"GET {path} HTTP/1.1" in text
        assert "X-Mine: here" in text
    connection.close()


def test_it_ends_when_its_standard_input_does(backend: subprocess.Popen[str]) -> None:
    address_of(backend)
    assert backend.stdin is not None
    backend.stdin.close()
    assert backend.wait(PATIENCE) == 0


def test_ctrl_c_ends_it_in_silence(backend: subprocess.Popen[str]) -> None:
    address_of(backend)
    backend.send_signal(signal.SIGINT)
    assert backend.wait(PATIENCE) == 0
