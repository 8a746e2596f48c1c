"""TERM and QUIT drain, at most as long as `drain` allows; INT, and asking twice, end at once."""

from __future__ import annotations

import os
import random
import signal
import socket

import pytest

from termproxy import clock
from tests.conftest import Dial, Serve
from tests.support.backends import Backend, digest
from tests.support.clients import exchange, half_close, leave, read_to_end, sha256
from tests.support.server import Server
from tests.support.waiting import wait_until

# More than the buffers on the way hold: the transfer is under way for as long as its reader waits.
CONTENT = random.Random(5).randbytes(64 << 20)


def send_content(sock: socket.socket) -> None:
    sock.sendall(CONTENT)


def is_refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_long_download_is_finished_after_the_server_was_told_to_stop(
    serve: Serve, dial: Dial, signum: signal.Signals
) -> None:
    with Backend(send_content) as backend:
        with serve(backend.address, workers=2, timeouts={"drain": 30}) as server:
            clients = [dial(server) for _ in range(3)]
            begins = [client.recv(1 << 20) for client in clients]
            server.signal(signum)
            server.wait_for_words("draining")
            wait_until(lambda: is_refused(server.port), "new clients are refused")
            assert server.exit_status is None
            for client, begin in zip(clients, begins, strict=True):
                assert sha256(begin + read_to_end(client)) == sha256(CONTENT)
                leave(client)
            assert server.wait_until_gone() == 0
        ends = [line["ended"] for line in server.access_lines() if line["bytes_from_backend"]]
        assert ends == ["done"] * 3


def test_a_long_upload_is_finished_after_the_server_was_told_to_stop(serve: Serve, dial: Dial) -> None:
    with Backend(digest) as backend, serve(backend.address) as server, dial(server) as client:
        client.sendall(CONTENT[: 1 << 20])
        server.signal(signal.SIGTERM)
        server.wait_for_words("draining")
        client.sendall(CONTENT[1 << 20 :])
        half_close(client)
        assert read_to_end(client) == sha256(CONTENT)
        client.close()
        assert server.wait_until_gone() == 0


def test_a_connection_that_outlives_the_drain_is_closed_and_the_log_says_so(
    serve: Serve, dial: Dial
) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 1}) as server:
        with dial(server) as client:
            exchange(client)
            begun = clock.monotonic()
            server.signal(signal.SIGTERM)
            with pytest.raises(OSError):  # noqa: PT011 - an abort, in whichever words
                read_to_end(client)
            assert clock.monotonic() - begun >= 1
        assert server.wait_until_gone() == 0
        assert "1 connections outlived the drain" in server.said()
        assert server.access_lines()[0]["ended"] == "drain_timeout"


def test_an_upload_that_the_drain_cut_short_resets_its_backend(serve: Serve, dial: Dial) -> None:
    """A backend must not take the part for the whole, whoever it was that broke off."""
    with (
        Backend(digest) as backend,
        serve(backend.address, timeouts={"drain": 0}) as server,
        dial(server) as client,
    ):
        client.sendall(b"the first half")
        wait_until(lambda: backend.accepted == 1, "the backend has the connection")
        server.signal(signal.SIGTERM)
        [end] = backend.wait_for_ends()
        assert isinstance(end, ConnectionResetError)


def test_idle_workers_stop_without_waiting(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address, workers=2, timeouts={"drain": 600}) as server:
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_int_and_a_second_term_stop_at_once(
    serve: Serve, dial: Dial, signals: list[signal.Signals]
) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 600}) as server:
        with dial(server) as client:
            exchange(client)
            for signum in signals:
                assert server.exit_status is None
                server.signal(signum)
                server.wait_for_words("stopping")
            assert server.wait_until_gone() == 0
        assert "stopping at once" in server.said()


def test_a_reload_asked_for_during_the_drain_changes_nothing(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, timeouts={"drain": 30}) as server:
        with dial(server) as client:
            exchange(client)
            server.signal(signal.SIGTERM)
            server.wait_for_words("draining")
            server.signal(signal.SIGHUP)
            assert exchange(client) == b"ping"
            leave(client)
        assert server.wait_until_gone() == 0
        assert "reloaded" not in server.said()


def test_after_the_end_no_file_of_the_server_is_left(serve: Serve) -> None:
    with Backend() as backend, serve(backend.address) as server:
        assert _files(server) == {"control", "pid"}
        assert int((server.folder / "pid").read_text()) == server.pid
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0
        assert _files(server) == set()


def _files(server: Server) -> set[str]:
    return {file.name for file in server.folder.iterdir()} & {"control", "pid"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_to_every_process_drains_as_one_to_the_master_does(
    serve: Serve, dial: Dial, signum: signal.Signals
) -> None:
    """TERM comes so from systemd (KillMode=control-group), QUIT from the terminal (its Ctrl-4)."""
    with Backend() as backend, serve(backend.address) as server, dial(server) as client:
        exchange(client)
        os.killpg(server.pid, signum)
        server.wait_for_words("draining")
        wait_until(lambda: is_refused(server.port), "new clients are refused")
        assert exchange(client) == b"ping"
        leave(client)
        assert server.wait_until_gone() == 0
