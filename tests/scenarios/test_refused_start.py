"""A server that cannot start says why in one line, exits with 1, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.conftest import Dial, Serve, write_site
from tests.support.backends import Backend
from tests.support.clients import NAME, exchange
from tests.support.command import termproxy
from tests.support.ports import free_port
from tests.support.server import Server, settings

NOWHERE = "127.0.0.1:9"


def start(server: Server, environment: dict[str, str] | None = None) -> str:
    """What a server says that refuses to start."""
    server.write_config()
    result = termproxy("run", "-c", str(server.file), cwd=server.folder, environment=environment)
    assert result.returncode == 1, result
    assert " serves; " not in result.stderr
    assert result.stdout == ""
    assert not (server.folder / "control").exists()
    return result.stderr


def use_certificate(server: Server, certificate: object) -> None:
    server.values["frontend"][0]["certificates"] = [certificate]


def test_a_taken_port(serve: Serve) -> None:
    server = serve(NOWHERE)
    with socket.create_server(("127.0.0.1", server.port)):
        said = start(server)
    assert f"cannot listen on 127.0.0.1:{server.port}: the port is taken" in said
    assert not (server.folder / "pid").exists()


def test_a_port_taken_by_one_who_would_share_it(serve: Serve) -> None:
    """SO_REUSEPORT on both sides would let us take half of another server's clients in silence."""
    server = serve(NOWHERE)
    with socket.create_server(("127.0.0.1", server.port), reuse_port=True):
        assert "the port is taken" in start(server)


def test_an_address_that_is_not_ours(serve: Serve) -> None:
    server = serve(NOWHERE)
    server.values["frontend"][0]["listen"] = [f"192.0.2.1:{free_port()}"]
    assert "this machine does not have the address" in start(server)


def test_a_certificate_that_is_not_there(serve: Serve) -> None:
    server = serve(NOWHERE)
    use_certificate(server, "absent.pem")
    said = start(server)
    assert f"cannot read {server.folder / 'absent.pem'}: No such file or directory" in said
    assert "frontend[0].certificates" in said


def test_a_key_of_another_certificate(serve: Serve, ca: trustme.CA, tmp_path: Path) -> None:
    server = serve(NOWHERE)
    one, other = write_site(ca, tmp_path / "one.pem"), write_site(ca, tmp_path / "other.pem")
    use_certificate(server, {"chain": str(one), "key": str(other)})
    assert f"the key in {other} is not the key of the certificate in {one}" in start(server)


def test_a_key_that_cannot_be_read(serve: Serve, site: Path) -> None:
    server = serve(NOWHERE)
    use_certificate(server, {"chain": str(site), "key": str(server.folder)})
    assert f"cannot read {server.folder}: Is a directory" in start(server)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_a_key_that_we_may_not_read(serve: Serve, site: Path) -> None:
    server = serve(NOWHERE)
    key = server.folder / "key.pem"
    key.touch(mode=0o000)
    use_certificate(server, {"chain": str(site), "key": str(key)})
    assert f"cannot read {key}: Permission denied" in start(server)


def test_a_file_without_a_key(serve: Serve, ca: trustme.CA, tmp_path: Path) -> None:
    server = serve(NOWHERE)
    chain = tmp_path / "chain.pem"
    ca.issue_cert(NAME).cert_chain_pems[0].write_to_path(chain)
    use_certificate(server, str(chain))
    assert f"{chain} holds no private key" in start(server)


def test_an_expired_certificate_is_a_warning_and_is_served(
    serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    """Refusing it would take a site down that its clients may still accept."""
    then = datetime.now(UTC) - timedelta(days=1)
    expired = write_site(ca, tmp_path / "expired.pem", not_after=then)
    server = serve(NOWHERE)
    use_certificate(server, str(expired))
    with server:
        assert f"WARNING master[{server.pid}] {expired}: the certificate expired on " in server.said()


def test_an_unknown_key_is_told_with_its_line_and_what_was_meant(serve: Serve) -> None:
    server = serve(NOWHERE, timeouts={"handshak": 3})
    said = start(server)
    before, _, _ = server.file.read_text().partition("timeouts = ")
    line = before.count("\n") + 1
    assert f"{server.file}:{line}: timeouts.handshak: unknown key; did you mean 'handshake'?" in said


def test_every_problem_is_told_at_once(serve: Serve) -> None:
    server = serve("256.0.0.1:80", workers=0, user="no-such-user-here")
    said = start(server)
    assert "0 is out of bounds" in said
    assert "'256.0.0.1' is not an IP address" in said


def test_a_user_that_does_not_exist(serve: Serve) -> None:
    assert "there is no user 'no-such-user-here'" in start(serve(NOWHERE, user="no-such-user-here"))


def test_an_access_log_that_cannot_be_written(serve: Serve) -> None:
    server = serve(NOWHERE, log={"access": "nowhere/access.log"})
    assert "log.access: cannot write" in start(server)


def test_an_access_log_that_is_a_symbolic_link(serve: Serve) -> None:
    server = serve(NOWHERE)
    (server.folder / "access.log").symlink_to(server.folder / "target")
    assert "log.access: cannot write" in start(server)
    assert not (server.folder / "target").exists()


def test_workers_that_cannot_start_stop_the_server_with_their_reason(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import gevent\ngevent.get_hub = lambda: 1 / 0\n")
    said = start(serve(NOWHERE, workers=2), environment={"PYTHONPATH": str(tmp_path)})
    assert "cannot start: exited with status 3: ZeroDivisionError: division by zero" in said


class TestPidfile:
    def test_of_a_living_master_is_respected(
        self, serve: Serve, dial: Dial, site: Path, tmp_path: Path
    ) -> None:
        with Backend() as backend, serve(backend.address) as first:
            (tmp_path / "second").mkdir()
            pidfile = str(tmp_path / "pid")
            second = Server(tmp_path / "second", settings(site, [NOWHERE], pidfile=pidfile))
            said = start(second)
            assert f"termproxy is already running as process {first.pid}" in said
            assert (tmp_path / "pid").read_text() == f"{first.pid}\n"
            with dial(first) as client:
                assert exchange(client) == b"ping"

    def test_of_a_dead_master_is_taken_over(self, serve: Serve) -> None:
        server = serve(NOWHERE)
        # A living process, but not one that holds the lock.
        (server.folder / "pid").write_text(f"{os.getpid()}\nand more than a pid\n")
        with server:
            assert (server.folder / "pid").read_text() == f"{server.pid}\n"

    def test_that_is_a_symbolic_link_is_refused_and_not_followed(self, serve: Serve) -> None:
        server = serve(NOWHERE)
        target = server.folder / "precious"
        target.write_text("precious")
        (server.folder / "pid").symlink_to(target)
        assert "it is a symbolic link" in start(server)
        assert target.read_text() == "precious"
        assert (server.folder / "pid").is_symlink()

    def test_that_is_a_second_name_of_a_file_is_refused(self, serve: Serve) -> None:
        server = serve(NOWHERE)
        target = server.folder / "precious"
        target.write_text("precious")
        (server.folder / "pid").hardlink_to(target)
        assert "not a plain file of its own" in start(server)
        assert target.read_text() == "precious"

    def test_that_is_a_fifo_is_refused_without_waiting(self, serve: Serve) -> None:
        server = serve(NOWHERE)
        os.mkfifo(server.folder / "pid")
        assert "not a plain file of its own" in start(server)


class TestControlSocket:
    def test_path_that_holds_a_file_is_refused_and_the_file_stays(self, serve: Serve) -> None:
        server = serve(NOWHERE)
        server.values["control"] = "precious"
        (server.folder / "precious").write_text("precious")
        assert "something that is not a socket is there" in start(server)
        assert (server.folder / "precious").read_text() == "precious"
        assert not (server.folder / "pid").exists()

    def test_of_a_living_master_is_left_alone(self, serve: Serve, site: Path, tmp_path: Path) -> None:
        with serve(NOWHERE) as first:
            (tmp_path / "second").mkdir()
            control = str(tmp_path / "control")
            second = Server(tmp_path / "second", settings(site, [NOWHERE], control=control))
            assert "a running process answers there" in start(second)
            assert first.status()["pid"] == first.pid

    def test_is_its_owners_alone(self, serve: Serve) -> None:
        with serve(NOWHERE) as server:
            assert server.control.stat().st_mode & 0o777 == 0o600


def test_the_limit_of_descriptors_is_raised_to_what_is_needed(serve: Serve, tmp_path: Path) -> None:
    server = serve(NOWHERE, limits={"connections": 100})
    server.write_config()
    with server:
        limits = Path(f"/proc/{server.workers()[0]}/limits").read_text()
        soft = int(limits.partition("Max open files")[2].split()[0])
        assert soft >= 264


def test_a_hard_limit_that_is_too_low_is_told_with_its_cure(serve: Serve) -> None:
    server = serve(NOWHERE, limits={"connections": 1_000_000})
    with server:
        assert "limits.connections = 1000000 needs 2000065 descriptors a worker" in server.said()
        assert "LimitNOFILE=" in server.said()
