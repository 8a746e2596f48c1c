"""Have a new generation's workers prove themselves, before they get clients.

A helper asks (proof_helper.py), on a channel that each worker has had from its birth; what is asked, and
what the answers mean, is decided in proof.py.  No answer is no proof.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable

from termproxy import clock
from termproxy.master.generation import Generation
from termproxy.master.proof import plan
from termproxy.master.proof_helper import prepare
from termproxy.master.spawn import Helper
from termproxy.messages import MessageReader
from termproxy.observability.record import printable

log = logging.getLogger("master")

READ = 1 << 16  # bytes at a time
REPORT_MAX = 1 << 20  # bytes
GRACE = 5.0  # seconds past the proof's own deadline: for the helper's birth, and its last question

Fork = Callable[[Callable[[], Callable[[int], None]], set[int]], Helper]


class Prover:
    """`on_end(generation, reason)` is told how a proof went; the reason is empty when it went well."""

    def __init__(self, selector: selectors.BaseSelector, on_end: Callable[[int, str], None]) -> None:
        self._selector = selector
        self._on_end = on_end
        self._channels: dict[int, socket.socket] = {}  # the master's ends, by slot
        self._generation: int | None = None  # the one that is being proved
        self._helper: Helper | None = None
        self._alive: set[int] = set()  # helpers' processes that have not been reaped
        self._reader = MessageReader(REPORT_MAX)
        self._said = ""
        self._until = 0.0

    @property
    def generation(self) -> int | None:
        """The one that is being proved."""
        return self._generation

    def channel(self, slot: int) -> socket.socket:
        """The worker's end of its channel; the caller closes it once the worker has been forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channels[slot] = ours
        return theirs

    def prove(self, generation: Generation, fork: Fork) -> None:
        """Begin; all workers of the generation are ready, and each has its channel."""
        settings = generation.config.resumption
        channels = [self._channels[slot] for slot in sorted(self._channels)]
        todo = plan(
            [site.assembly for site in generation.sites],
            len(channels),
            resumes=settings.tickets or settings.session_cache > 0,
        )
        self._generation, self._until = generation.number, clock.monotonic() + todo.seconds + GRACE
        self._reader, self._said = MessageReader(REPORT_MAX), "its helper ended before it was done"
        try:
            helper = fork(lambda: prepare(todo, channels), {channel.fileno() for channel in channels})
        except OSError as error:
            self._end(f"no helper: {error.strerror}")
            return
        self._helper = helper
        self._alive.add(helper.pid)
        self._selector.register(helper.fd, selectors.EVENT_READ, lambda _: self._hear(helper))

    def tick(self, now: float) -> None:
        if self._helper is not None and now >= self._until:
            self._said = "it took too long"
            self._kill(self._helper.pid)  # the end of what it says ends the proof
            self._until = now + GRACE

    def on_exit(self, pid: int) -> bool:
        """A process has been reaped; whether it was a helper of ours."""
        was_ours = pid in self._alive
        self._alive.discard(pid)
        return was_ours

    def give_up(self) -> None:
        """There is nothing to prove any more."""
        self._generation = None
        if self._helper is not None:
            self._kill(self._helper.pid)
            self._close_helper()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def stop(self) -> None:
        """At the end: nothing of it stays behind."""
        self.give_up()
        for pid in self._alive:
            os.waitpid(pid, 0)
        self._alive.clear()

    def close(self) -> None:
        """In a worker: this is the master's.  Its channels are closed with all that is not kept."""
        if self._helper is not None:
            os.close(self._helper.fd)

    def _kill(self, pid: int) -> None:
        if pid in self._alive:  # else it may have become another's
            os.kill(pid, signal.SIGKILL)

    def _hear(self, helper: Helper) -> None:
        if helper is not self._helper:
            return  # it was given up in the same turn of the loop
        data = os.read(helper.fd, READ)
        try:
            for report in self._reader.feed(data):
                self._said = _verdict(report)
        except (ValueError, TypeError, KeyError) as error:
            self._said, data = f"its helper says nonsense: {error}", b""
        if not data:
            self._close_helper()
            self._end(self._said)

    def _close_helper(self) -> None:
        assert self._helper is not None  # noqa: S101 - the callers looked
        self._selector.unregister(self._helper.fd)
        os.close(self._helper.fd)
        self._helper = None

    def _end(self, reason: str) -> None:
        generation = self._generation
        self.give_up()
        if generation is not None:
            self._on_end(generation, reason)


def _verdict(report: dict[str, object]) -> str:
    """What stands against the generation."""
    failures, unproved = report["failures"], report["unproved"]
    if not isinstance(failures, list) or not isinstance(unproved, list):
        raise TypeError("no lists")
    for question in unproved:
        log.warning("%s: not proved, its policy leaves the proof nothing to offer", _plain(question))
    log.info("proved: %s certificates shown, %s sessions resumed", report["shown"], report["resumed"])
    return "; ".join(map(_plain, failures))


def _plain(text: object) -> str:
    return printable(str(text).encode("utf-8", "replace"))[:300]
