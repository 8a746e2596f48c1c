"""The file that holds the master's process id, and proves by a lock that the master lives.

A lock cannot go stale: it goes with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared

BESIDE = ".new"  # what its name ends with until it takes another's place


class Pidfile:
    """Taken when made; StartError when another master holds it or it is not a plain file of ours.

    With `beside`, it waits in a file beside it, until we take the place of the master that holds it.
    """

    def __init__(self, path: Path, *, beside: bool = False) -> None:
        self._place = path
        refuse_shared(path.parent, f"pidfile {path}")
        self.path = path = path.with_name(path.name + BESIDE) if beside else path
        # O_NONBLOCK: opening a FIFO that somebody left here must not wait for its other end.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise StartError(f"pidfile {path}: {_why(path, error)}") from None
        try:
            self._take()
        except StartError:
            os.close(self._fd)
            raise

    def _take(self) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise StartError(f"pidfile {self.path}: not a plain file of its own; remove it")
        if status.st_uid != os.geteuid():
            raise StartError(f"pidfile {self.path}: it is another user's; remove it")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            raise StartError(
                f"pidfile {self.path}: termproxy is already running as process {owner or '?'}"
            ) from None
        if not os.path.samestat(os.lstat(self.path), status):
            raise StartError(f"pidfile {self.path}: another master has just replaced it")
        os.fchmod(self._fd, status.st_mode & 0o644)  # who can write it says whom an operator stops
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def take_place(self) -> None:
        """In one step: there is no moment without the file.  OSError when that cannot be."""
        self.path.rename(self._place)
        self.path = self._place

    def is_ours(self) -> bool:
        """Whether what stands at the path is still this."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def remove(self) -> None:
        """At the master's end: unlink the file if it still is ours, then let go of the lock."""
        if self.is_ours():
            try:
                self.path.unlink()
            except OSError:
                pass  # the folder is no longer writable for us: the lock goes all the same
        self.close()

    def close(self) -> None:
        """In a worker: the file is the master's."""
        os.close(self._fd)


def _why(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "it is a symbolic link; name a plain file"
    return error.strerror or str(error)
