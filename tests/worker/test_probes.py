"""A worker that has no client yet shows what it would show."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator

import gevent
import pytest

from termproxy.worker import probes
from termproxy.worker.assembly import Assembly
from termproxy.worker.probes import Probes
from tests.support.processes import descriptors
from tests.support.waiting import PATIENCE
from tests.worker.test_assembly import A, B, frontend, serving


@pytest.fixture
def assembly() -> Assembly:
    return serving(frontend(), A, B)


@pytest.fixture
def channel(assembly: Assembly) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Probes(gevent.get_hub().loop, theirs, [assembly.frontend])
    with ours:
        yield ours
    gevent.sleep(0.01)
    assert theirs.fileno() == -1, "the end of the channel is the end"


def knock(channel: socket.socket) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(channel, [b"0"], [theirs.fileno()])
    ours.settimeout(PATIENCE)
    return ours


def test_a_handshake_is_made_with_the_frontend_and_counted_nowhere(
    channel: socket.socket, assembly: Assembly
) -> None:
    shown: list[bytes | None] = []

    def greet() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with knock(channel) as sock, context.wrap_socket(sock, server_hostname="b.test") as client:
            shown.append(client.getpeercert(binary_form=True))

    thread = threading.Thread(target=greet)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.005)
    assert shown == [B.leaf_der]
    tally = assembly.frontend.tally
    assert not any(tally[index] for index in range(len(tally)))


def test_who_says_nothing_is_left(channel: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TIMEOUT", 0.05)
    with knock(channel) as sock:
        gevent.sleep(0.2)
        assert sock.recv(1) == b""


def test_who_speaks_no_tls_is_left(channel: socket.socket) -> None:
    with knock(channel) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        gevent.sleep(0.05)
        received = b""
        while piece := sock.recv(100):
            received += piece
        assert b"HTTP" not in received


def test_too_many_at_once_are_turned_away(channel: socket.socket) -> None:
    before = len(descriptors(os.getpid()))
    socks = [knock(channel) for _ in range(probes.AT_ONCE + 1)]
    gevent.sleep(0.1)
    assert socks[-1].recv(1) == b""
    for sock in socks:
        sock.close()
    gevent.sleep(0.1)
    assert len(descriptors(os.getpid())) <= before
