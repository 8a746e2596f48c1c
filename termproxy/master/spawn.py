"""Fork a worker: the only os.fork() there is.

At the fork the master has one thread and no gevent hub, so the child begins alone.  Before it touches
a client it gives up, in this order: the master's signals, the master's descriptors, its user and its
capabilities, the right to gain new ones, files and ports (landlock.py), and being read by others of
its user.  Whatever of it fails: there is no worker.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NoReturn

from termproxy.errors import StartError, TermproxyError
from termproxy.master import rights
from termproxy.master.generation import User
from termproxy.master.landlock import Reach, confine
from termproxy.master.signals import OPERATORS_SIGNALS, signals_blocked
from termproxy.worker.main import Assignment, Worker, has_hub

log = logging.getLogger("worker")

READY = b"\0"  # a worker's first word on its startup pipe; anything else says why it failed
CANNOT_START = 3  # the exit status of a worker that never was ready
REASON_MAX = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker as the master sees it."""

    pid: int
    startup_fd: int  # where it says that it is ready, or why it never will be
    talk: socket.socket  # the master's end of what they say to each other


@dataclass(frozen=True, slots=True)
class Helper:
    """A process without rights, which does something for the master."""

    pid: int
    fd: int  # where it says what it found; its end is the end


@dataclass(slots=True)
class Channels:
    """A worker's ends."""

    startup_fd: int | None  # None: it has been used, and its number is another's
    talk: socket.socket

    def fds(self) -> set[int]:
        return {fd for fd in (self.startup_fd, self.talk.fileno()) if fd is not None}

    def tell(self, message: bytes) -> None:
        """The one word on the startup pipe: that the worker is ready, or why it never will be."""
        if self.startup_fd is None:
            return
        fd, self.startup_fd = self.startup_fd, None
        try:
            os.write(fd, message[:REASON_MAX])
        finally:
            os.close(fd)


def spawn(
    assignment: Assignment, user: User | None, leave_master: Callable[[], None], reach: Reach
) -> Spawned:
    """Fork a worker, which reaches no more than `reach`.

    `leave_master` closes, in the child, what belongs to the master alone.
    """
    talk, talk_of_worker = socket.socketpair()
    talk.setblocking(False)
    talk_of_worker.setblocking(False)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    channels = Channels(write_fd, talk_of_worker)

    def become(master: int, mask: set[signal.Signals]) -> NoReturn:
        talk.close()
        _become_worker(assignment, user, leave_master, reach, channels, master, mask)

    try:
        pid = _fork(become)
    except OSError:
        os.close(read_fd)
        talk.close()
        raise
    finally:
        os.close(write_fd)
        talk_of_worker.close()
    return Spawned(pid, read_fd, talk)


def spawn_helper(
    prepare: Callable[[], Callable[[int], None]],
    user: User | None,
    leave_master: Callable[[], None],
    reach: Reach,
    keep: Collection[int] = (),
) -> Helper:
    """Fork a helper: `prepare` imports what it needs and returns its work, which is done without rights,
    in `reach`, and gets the descriptor that the master reads.  Of the master's it keeps those in `keep`.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)

    def become(master: int, mask: set[signal.Signals]) -> NoReturn:
        _become_helper(prepare, user, leave_master, reach, write_fd, {write_fd, *keep}, master, mask)

    try:
        return Helper(_fork(become), read_fd)
    except OSError:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)


def _fork(become: Callable[[int, set[signal.Signals]], NoReturn]) -> int:
    """The child's process id; the child gets the master's and the signals to let through again."""
    if has_hub() or threading.active_count() != 1:
        raise RuntimeError("the master has a gevent hub or a second thread: forking is not safe")
    master = os.getpid()
    gc.freeze()  # what is shared now stays shared: the collector will not write to it
    with signals_blocked() as mask:
        pid = os.fork()  # noqa: TID251 - the place that the ban points to
        if pid == 0:
            try:
                become(master, mask)
            finally:
                os._exit(CANNOT_START)  # whatever happens: there must be no second master
    return pid


def _become_helper(  # noqa: PLR0913, PLR0917 - as _become_worker
    prepare: Callable[[], Callable[[int], None]],
    user: User | None,
    leave_master: Callable[[], None],
    reach: Reach,
    fd: int,
    keep: set[int],
    master: int,
    mask: set[signal.Signals],
) -> NoReturn:
    status = CANNOT_START
    try:
        leave_master()
        _close_all_but({0, 1, 2, *keep})
        work = prepare()  # imports modules, which `user` perhaps may not read
        _give_up_rights(user, reach)
        _die_with(master)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        work(fd)
        status = 0
    except (BrokenPipeError, StartError):
        pass  # the master has gone
    except BaseException:
        logging.getLogger("helper").exception("a helper failed; please report this")
    finally:
        os._exit(status)


def _become_worker(  # noqa: PLR0913, PLR0917 - a fork's child has only what it is handed
    assignment: Assignment,
    user: User | None,
    leave_master: Callable[[], None],
    reach: Reach,
    channels: Channels,
    master: int,
    mask: set[signal.Signals],
) -> NoReturn:
    """Live as a worker, and exit without running what the master has set up for its own exit."""
    status = CANNOT_START
    try:
        leave_master()
        keep = {0, 1, 2, *channels.fds(), *(sock.fileno() for _, sock, _ in assignment.listeners)}
        if assignment.access_log is not None:
            keep.add(assignment.access_log.fd)
        if assignment.probe is not None:
            keep.add(assignment.probe.fileno())
        _close_all_but(keep)
        faulthandler.enable()  # a hung worker is aborted, and says where it hung
        # Making the loop imports modules, which `user` perhaps may not read.
        worker = Worker(assignment, channels.talk, lambda: channels.tell(READY))
        _give_up_rights(user, reach)
        _die_with(master)
        for signum in OPERATORS_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)  # sent to all: the master decides what it means
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        worker.run()
        status = 0
    except TermproxyError as error:
        channels.tell(str(error).encode())
    except BaseException as error:
        log.exception("the worker failed; please report this")
        channels.tell(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(status)


def _close_all_but(keep: set[int]) -> None:
    """Close what we inherited from whoever started the master, too."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - all names before the first close
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of the listing itself


def _give_up_rights(user: User | None, reach: Reach) -> None:
    """For good, and without exception."""
    rights.drop_bounding_set()
    if user is not None:
        _become_user(user)
    rights.drop_capabilities()
    rights.forbid_new_ones()
    confine(reach)
    # Keys are in this memory: no other process of the same user may look in, and, as in the master,
    # there is no core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rights.close_to_others()


def _become_user(user: User) -> None:
    """And prove it.  None of its groups: what they may read, the master has read."""
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    try:
        os.setuid(0)
    except PermissionError:
        pass
    else:
        raise RuntimeError("the worker could become root again")


def _die_with(master: int) -> None:
    """When the master dies, drain.  Set after the change of user, which clears it (prctl(2))."""
    rights.be_told_of_parents_death(signal.SIGTERM)
    if os.getppid() != master:
        raise StartError("the master died while this process was being made")
