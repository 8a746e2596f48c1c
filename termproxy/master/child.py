"""A worker's process as the master holds it: its row of counters, its first word, and their talk.

Orders go out as fast as the worker takes them.  What a worker reports is not trusted: it may no longer
be itself, and one that says nonsense is not heard any more.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

from termproxy.master.spawn import READY, REASON_MAX
from termproxy.messages import REPORT_MAX, MessageReader
from termproxy.observability.scoreboard import Column, Row

log = logging.getLogger("master")

ORDERS_SEND = 1 << 16  # bytes at a time


@dataclass(slots=True)
class _Order:
    """What the worker has not taken yet of one."""

    rest: bytearray
    fds: list[int]  # ours, until they have gone with its first byte

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


class Child:
    """`on_ready(now)` is called when it says so, `on_report(report)` for each thing that it reports; the
    latter raises ValueError, TypeError or KeyError for nonsense.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what belongs to a process
        self,
        row: Row,
        startup_fd: int,
        talk: socket.socket,
        selector: selectors.BaseSelector,
        on_ready: Callable[[float], None],
        on_report: Callable[[dict[str, Any]], None],
        *,
        seat: int = 0,
        worn_out_at: float = inf,
    ) -> None:
        self.row = row
        self.seat = seat
        """Its row on the board of its generation."""
        self._worn_out_at = worn_out_at
        self._startup_fd: int | None = startup_fd
        self._talk = talk
        self._selector = selector
        self._on_ready = on_ready
        self._on_report = on_report
        self._unsent: deque[_Order] = deque()
        self._ordered = 0
        self._reports = MessageReader(REPORT_MAX)
        self._said = b""
        self._is_heard = True
        self._listen()
        selector.register(startup_fd, selectors.EVENT_READ, self._on_word)

    def order(self, message: bytes, fds: Iterable[int] = ()) -> int:
        """Have the worker do what `message` says, with the descriptors that it counts; they stay the
        caller's.  Returns the order's number, for `has_obeyed`.  OSError: no descriptor is left, and
        nothing was ordered.
        """
        order = _Order(bytearray(message), [])
        try:
            for fd in fds:
                order.fds.append(os.dup(fd))
        except OSError:
            order.close()
            raise
        self._ordered += 1
        self._unsent.append(order)
        if len(self._unsent) == 1:
            self._send_orders()
        return self._ordered

    def has_obeyed(self, number: int) -> bool:
        """Whether the worker says that it has carried out the order of this number, or refused it."""
        return int(self.row.words[Column.ORDERS]) >= number

    def is_worn_out(self) -> bool:
        """Whether it has accepted as many connections as it was to live for."""
        return bool(self.row.words[Column.ACCEPTED] >= self._worn_out_at)

    def bury(self) -> str:
        """It has gone, and was reaped: hear its last reports, and let go.  Returns its last words."""
        self._hear()
        self._forget_orders()
        self._is_heard = False
        self._listen()
        self._talk.close()
        return self._last_words()

    def leave(self) -> None:
        """In a process just forked: these are the master's."""
        self._talk.close()
        if self._startup_fd is not None:
            os.close(self._startup_fd)

    # Its first word.

    def _on_word(self, now: float) -> None:
        """It says that it is ready, or why it never will be."""
        if self._startup_fd is None:
            return  # it was reaped in the same turn of the loop, and its last words read then
        said = os.read(self._startup_fd, REASON_MAX)
        self._said += said
        if not said or self._said == READY:
            self._close_startup()
        if self._said == READY:
            self._said = b""
            self._on_ready(now)

    def _last_words(self) -> str:
        if self._startup_fd is not None:
            try:
                self._said += os.read(self._startup_fd, REASON_MAX)
            except BlockingIOError:
                pass  # a grandchild still holds the pipe; it said nothing
            self._close_startup()
        return self._said.decode(errors="replace").strip("\0")

    def _close_startup(self) -> None:
        if self._startup_fd is not None:
            self._selector.unregister(self._startup_fd)
            os.close(self._startup_fd)
            self._startup_fd = None

    # Their talk.

    def _on_talk(self, _: float) -> None:
        if self._talk.fileno() == -1:
            return  # it was reaped in the same turn of the loop
        self._send_orders()
        self._hear()

    def _send_orders(self) -> None:
        """Send what the worker takes now; the rest when it takes more."""
        try:
            while self._unsent:
                order = self._unsent[0]
                sent = socket.send_fds(self._talk, [order.rest[:ORDERS_SEND]], order.fds)
                order.close()  # they go with the first byte
                del order.rest[:sent]
                if not order.rest:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._forget_orders()  # it is on its way out; its replacement inherits what is served
        self._listen()

    def _forget_orders(self) -> None:
        while self._unsent:
            self._unsent.popleft().close()

    def _hear(self) -> None:
        if not self._is_heard:
            return
        try:
            data = self._talk.recv(REPORT_MAX)
        except OSError:  # nothing now, or never again
            return
        try:
            for report in self._reports.feed(data):
                self._on_report(report)
        except (ValueError, TypeError, KeyError) as error:
            log.error("a worker reports nonsense, and is not heard any more: %s", error)
            data = b""
        if not data:
            self._is_heard = False
            self._listen()

    def _listen(self) -> None:
        """Have the selector wait for what there is to do."""
        events = selectors.EVENT_READ if self._is_heard else 0
        events |= selectors.EVENT_WRITE if self._unsent else 0
        is_registered = self._talk in self._selector.get_map()
        if not events:
            if is_registered:
                self._selector.unregister(self._talk)
        elif is_registered:
            self._selector.modify(self._talk, events, self._on_talk)
        else:
            self._selector.register(self._talk, events, self._on_talk)
