"""Turn asynchronous signals into something the master's loop can read.

The Python-level handler is empty: it may run between any two bytecodes, and logging or locking there
can deadlock.  The wake-up pipe carries the number (signal.set_wakeup_fd).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

# What operators want of a server, and not of one of its processes.
OPERATORS_SIGNALS = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, *OPERATORS_SIGNALS)


class SignalInbox:
    """Owns the wake-up pipe and the handlers; `fd` is readable when a signal has come."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in WATCHED:
            signal.signal(signum, _nothing)

    def read(self) -> list[signal.Signals]:
        """The signals since the last call, in order; never blocks."""
        try:
            return [signal.Signals(number) for number in os.read(self.fd, 4096)]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Back to how a new process finds it, in the child of a fork as in the master at its end."""
        signal.set_wakeup_fd(-1)
        for signum in WATCHED:
            signal.signal(signum, signal.SIG_DFL)
        os.close(self.fd)
        os.close(self._write_fd)


def _nothing(signum: int, frame: object) -> None:
    pass


@contextmanager
def signals_blocked() -> Iterator[set[signal.Signals]]:
    """Around a fork: the child must reset its handlers before one can run.  Gives the mask before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_in_foreground() -> bool:
    """Whether a terminal is ours: it sends WINCH when its window changes its size (ioctl_tty(2))."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
