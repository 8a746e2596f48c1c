"""Signals become bytes in a pipe; nothing is done inside a handler."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(code: str) -> list[str]:
    """In a process of its own: handlers and masks are everyone's."""
    program = "import os, select, signal\nfrom termproxy.master.signals import *\n" + textwrap.dedent(
        code
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_signals_are_read_in_order_and_once() -> None:
    assert run("""
        inbox = SignalInbox()
        for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(signum)
        print(*(s.name for s in inbox.read()), *inbox.read())
    """) == ["SIGHUP", "SIGTERM", "SIGHUP"]


def test_the_descriptor_is_readable_when_a_signal_has_come() -> None:
    assert run("""
        inbox = SignalInbox()
        print(bool(select.select([inbox.fd], [], [], 0)[0]))
        signal.raise_signal(signal.SIGCHLD)
        print(bool(select.select([inbox.fd], [], [], 0)[0]))
    """) == ["False", "True"]


def test_no_signal_that_operators_send_ends_the_master() -> None:
    assert run("""
        inbox = SignalInbox()
        for signum in WATCHED:
            signal.raise_signal(signum)
        print(len(inbox.read()) == len(WATCHED))
    """) == ["True"]


def test_a_flood_of_signals_neither_blocks_nor_says_a_word() -> None:
    assert run("""
        inbox = SignalInbox()
        for _ in range(70_000):
            signal.raise_signal(signal.SIGHUP)
        count = 0
        while read := inbox.read():
            count += len(read)
        print(count == 65536)
        signal.raise_signal(signal.SIGTERM)
        print(*(s.name for s in inbox.read()))
    """) == ["True", "SIGTERM"]


def test_after_close_all_is_as_in_a_new_process() -> None:
    assert run("""
        inbox = SignalInbox()
        fd = inbox.fd
        inbox.close()
        print(signal.set_wakeup_fd(-1), {signal.getsignal(s) for s in WATCHED} == {signal.SIG_DFL})
        try:
            os.fstat(fd)
        except OSError:
            print("closed")
    """) == ["-1", "True", "closed"]


def test_the_pipe_goes_to_no_program() -> None:
    assert run("print(os.get_inheritable(SignalInbox().fd))") == ["False"]


@pytest.mark.parametrize("end", ["pass", "raise ValueError"])
def test_signals_wait_while_they_are_blocked(end: str) -> None:
    assert run(f"""
        inbox = SignalInbox()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            with signals_blocked() as before:
                signal.raise_signal(signal.SIGHUP)
                print(*before, *inbox.read())
                {end}
        except ValueError:
            pass
        print(*(s.name for s in inbox.read()))
        print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """) == ["10", "SIGHUP", "10"]


ON_A_TERMINAL = """
import pty
from termproxy.master.signals import is_in_foreground
_, terminal = pty.openpty()
os.setsid()
print(is_in_foreground())
os.close(os.open(os.ttyname(terminal), os.O_RDWR))
print(is_in_foreground())
if os.fork() == 0:
    os.setpgid(0, 0)
    print(is_in_foreground(), flush=True)
    os._exit(0)
os.wait()
"""


def test_who_has_a_terminal_is_in_its_foreground_and_nobody_else() -> None:
    """A window that changes its size must not send the workers to rest."""
    command = [
        sys.executable,
        "-c",
        "import os, sys; os.fork() and (os.wait(), sys.exit());" + "exec(sys.argv[1])",
    ]
    done = subprocess.run([*command, ON_A_TERMINAL], capture_output=True, text=True, check=True)

    assert sorted(done.stdout.split()) == ["False", "False", "True"]
