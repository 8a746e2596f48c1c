"""Handshakes that the master's proof asks for, before this worker has any client.

The channel brings descriptors, one with each packet, and the number of the frontend that is to answer
there: as to a client, with its contexts, keys and ClientHello callback.  None of it is counted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.socket import wait_read, wait_write

from termproxy.errors import TlsError
from termproxy.outcome import DONE, WANT_WRITE
from termproxy.relay.pump import Ready
from termproxy.tls._openssl import Connection
from termproxy.worker.frontend import Frontend

AT_ONCE = 16  # handshakes
TIMEOUT = 10.0  # seconds for each
PACKET_MAX = 16  # bytes: a number, in decimal


class Probes:
    """Answers on `channel`, a socket of packets, until its other end is closed."""

    def __init__(self, loop: Any, channel: socket.socket, frontends: Sequence[Frontend]) -> None:
        self._channel = channel
        self._frontends = frontends
        self._at_work = 0
        channel.setblocking(False)
        self._watcher: Any = loop.io(channel.fileno(), Ready.READABLE)
        self._watcher.start(self._on_packet)

    def _on_packet(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._channel, PACKET_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._watcher.stop()
            self._watcher.close()
            self._channel.close()
        for fd in fds:
            if self._at_work < AT_ONCE:
                self._at_work += 1
                gevent.spawn(self._answer, fd, self._frontends[int(packet)])
            else:
                os.close(fd)

    def _answer(self, fd: int, frontend: Frontend) -> None:
        os.set_blocking(fd, False)
        tls = Connection(frontend.entry, fd)
        try:
            _until_done(tls.handshake, fd)
            tls.shutdown()
        except (TlsError, TimeoutError):
            pass  # whoever asked sees as much
        finally:
            tls.close()
            os.close(fd)
            self._at_work -= 1


def _until_done(step: Callable[[], int], fd: int) -> None:
    """TimeoutError when the other side takes too long."""
    while (outcome := step()) != DONE:
        wait = wait_write if outcome == WANT_WRITE else wait_read
        wait(fd, TIMEOUT, TimeoutError())
