"""`termproxy run`: from a file, or from flags that say the same."""

from __future__ import annotations

import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from termproxy.cli.run import file_source, flag_source
from termproxy.config.load import load
from tests.support.backends import Backend
from tests.support.clients import connect, exchange, leave
from tests.support.command import TERMPROXY, termproxy
from tests.support.ports import free_port
from tests.support.processes import session_members
from tests.support.server import settings, write_toml
from tests.support.waiting import PATIENCE, wait_until

NOWHERE = "127.0.0.1:9"


@contextmanager
def running(*flags: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server from flags, once it serves."""
    with (cwd / "said").open("wb") as said:
        process = subprocess.Popen(
            [*TERMPROXY, "run", *flags], cwd=cwd, stdout=said, stderr=said, start_new_session=True
        )
    try:
        wait_until(lambda: " serves; " in (cwd / "said").read_text(), "it serves")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        wait_until(lambda: not session_members(process.pid), "its processes are gone")


def test_flags_alone_are_enough_to_serve(tmp_path: Path, site: Path, trust: ssl.SSLContext) -> None:
    port = free_port()
    with Backend() as backend:
        flags = ["--listen", f"127.0.0.1:{port}", "--cert", str(site), "--backend", backend.address]
        with running(*flags, cwd=tmp_path):
            with connect(port, trust) as client:
                assert exchange(client) == b"ping"
                leave(client)
            wait_until(lambda: '"ended":"done"' in (tmp_path / "said").read_text(), "the access line")


def test_every_flag_has_its_effect(tmp_path: Path, site: Path, trust: ssl.SSLContext) -> None:
    first, second = free_port(), free_port()
    flags = (
        f"--listen 127.0.0.1:{first} --listen [::1]:{second} --cert {site} --key {site} --mode tcp "
        f"--workers 2 --pidfile {tmp_path}/pid --control {tmp_path}/control"
    ).split()
    with Backend() as backend, running(*flags, "--backend", backend.address, cwd=tmp_path) as process:
        with connect(second, trust, host="::1") as client:
            assert exchange(client) == b"ping"
        assert (tmp_path / "pid").read_text() == f"{process.pid}\n"
        status = termproxy("status", "--control", f"{tmp_path}/control", "--json")
        assert status.returncode == 0
        assert status.stdout.count('"slot"') == 2


def test_a_renewed_certificate_is_read_at_hup_though_flags_named_it(tmp_path: Path, site: Path) -> None:
    flags = ["--listen", f"127.0.0.1:{free_port()}", "--cert", str(site), "--backend", NOWHERE]
    with running(*flags, cwd=tmp_path) as process:
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded: " in (tmp_path / "said").read_text(), "the reload")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--listen", "127.0.0.1:8443"],
        ["--cert", "a.pem", "--backend", NOWHERE],
        ["-c", "a.toml", "--listen", "127.0.0.1:8443"],
        ["-c", "a.toml", "--workers", "1"],
    ],
)
def test_neither_file_nor_flags_or_both_is_wrong_usage(arguments: list[str]) -> None:
    result = termproxy("run", *arguments)
    assert result.returncode == 2
    assert "-c" in result.stderr


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [
        ("--listen", "8443", "--listen: '8443' has no port"),
        ("--listen", "localhost:8443", "--listen: 'localhost:8443': 'localhost' is not an IP address"),
        ("--backend", "app", "--backend: 'app' has no port"),
        ("--cert", "absent.pem", "--cert: cannot read "),
        ("--workers", "0", "--workers: 0 is out of bounds"),
        ("--workers", "two", "--workers: unknown value 'two'"),
        ("--workers", "-1", "--workers: unknown value '-1'"),
        ("--workers", "²", "--workers: unknown value '²'"),
        ("--mode", "http3", "--mode: unknown value 'http3'"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(
    site: Path, flag: str, value: str, why: str
) -> None:
    flags = {"--listen": f"127.0.0.1:{free_port()}", "--cert": str(site), "--backend": NOWHERE}
    given = [word for item in (flags | {flag: value}).items() for word in item]
    result = termproxy("run", *given)
    assert result.returncode == 1, result.stderr
    assert f"termproxy: {why}" in result.stderr


def test_flags_and_a_file_that_say_the_same_are_the_same_configuration(
    tmp_path: Path, site: Path
) -> None:
    flags = {"listen": ["127.0.0.1:8443"], "cert": str(site), "backend": [NOWHERE], "workers": "2"}
    file = tmp_path / "termproxy.toml"
    values = settings(site, [NOWHERE], workers=2)
    values["frontend"][0]["listen"] = ["127.0.0.1:8443"]
    for name in ("control", "pidfile", "log", "timeouts", "limits"):
        del values[name]
    file.write_text(write_toml(values))
    assert load(flag_source(flags)) == load(file_source(file)())


def test_a_relative_file_is_found_again_at_a_reload(tmp_path: Path, site: Path) -> None:
    values = settings(site, [NOWHERE])
    (tmp_path / "termproxy.toml").write_text(write_toml(values))
    with running("-c", "termproxy.toml", cwd=tmp_path) as process:
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded: " in (tmp_path / "said").read_text(), "the reload")
