"""One line for each connection, or exchange of HTTP, so that a slow or full log never holds up traffic.

Lines gather in the worker and go out on its tick, or when there are many.  Several workers share the
descriptor: each write is whole lines only, and except on a file at most PIPE_BUF bytes, which a pipe
never mixes with another's.
What cannot be written waits, up to a bound; beyond it the newest lines are lost, and counted.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Collection
from operator import methodcaller
from pathlib import Path

from termproxy.errors import StartError
from termproxy.observability.logs import STREAM
from termproxy.observability.record import ConnectionRecord, ExchangeRecord

_END_OF_TORN = b"\n"

WAITING_MAX = 1 << 20  # bytes of lines that wait for a slow reader
FILE_WRITE_MAX = 1 << 16  # bytes
MANY = 1 << 16  # bytes: more do not wait for the tick


Record = ConnectionRecord | ExchangeRecord


class AccessLog:
    """Lines to a descriptor that the master opened and this object owns."""

    def __init__(self, fd: int, form: str = "json") -> None:
        """`form` is that of `log.format`: "json", "common" or "combined"."""
        self.fd = fd
        self.names_agent = form == "combined"
        """Whether lines have a request's Referer and User-Agent."""
        self._write_out = methodcaller(f"as_{form}")
        self.lost = 0  # lines
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes in _lines
        self._patience = MANY  # with so many of them
        self._is_torn = False  # the last write ended inside a line
        self._write_max = _write_max(fd)
        mode = os.fstat(fd).st_mode
        # The journal's end of standard output is a socket, which others may use blocking.
        self._sock = socket.socket(fileno=fd) if stat.S_ISSOCK(mode) else None

    def write(self, record: Record) -> None:
        line: bytes = self._write_out(record)
        if self._waiting + len(line) > WAITING_MAX:
            self.lost += 1
            return
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= self._patience:
            self.flush()

    def flush(self) -> None:
        """Write what the descriptor takes now; keep the rest."""
        if not self._write_waiting():
            self._lose_all()
        self._patience = self._waiting + MANY  # a slow reader is not asked again for each line

    def _write_waiting(self) -> bool:
        """Whether the descriptor takes lines, now or later: the reader is there, the disk has room."""
        while self._lines:
            count = self._lines_that_fit()
            chunk = b"".join(self._lines[:count])
            try:
                written = self._put(chunk)
            except BlockingIOError:
                return True
            except OSError:  # traffic goes on
                return False
            if written == len(chunk):
                del self._lines[:count]
            else:  # a line over PIPE_BUF, or a disk that has just filled
                self._lines[:count] = chunk[written:].splitlines(keepends=True)
            self._is_torn = not chunk[:written].endswith(b"\n")
            self._waiting -= written
        return True

    def reopen(self, fd: int) -> None:
        """Write to what `fd` is open on from now on, which stays the caller's.  Lines that wait go out
        before, and those that the old file does not take to the new one.
        """
        self._write_waiting()
        if self._is_torn or self._lines[:1] == [_END_OF_TORN]:
            self.lost += self._is_torn
            self._waiting -= len(self._lines.pop(0))  # the rest of a line, whose begin stays behind
            self._is_torn = False
        os.dup2(fd, self.fd, inheritable=False)
        self._write_max = _write_max(fd)

    def _lose_all(self) -> None:
        self.lost += len(self._lines)
        # Whoever reads the log later finds one broken line, and the next one whole.
        self._lines[:] = [_END_OF_TORN] if self._is_torn else []
        self._waiting = len(self._lines)
        self._is_torn = False

    def _lines_that_fit(self) -> int:
        size, count = 0, 0
        for line in self._lines:
            size += len(line)
            if count and size > self._write_max:
                break
            count += 1
        return count

    def _put(self, chunk: bytes) -> int:
        if self._sock is not None:
            return self._sock.send(chunk, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self.fd, chunk)

    def close(self) -> None:
        """At the worker's end; what still waits is lost, and counted."""
        self.lost += len(self._lines)
        if self._sock is not None:
            self._sock.close()
        else:
            os.close(self.fd)


def _write_max(fd: int) -> int:
    """Bytes: so many the descriptor takes without mixing them with another's."""
    return FILE_WRITE_MAX if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF


def open_access_log(
    target: Path | str, form: str = "json", owners: Collection[int] = ()
) -> AccessLog | None:
    """The log for the setting's value: None when it is "off".  StartError when it cannot be opened.

    A file that is there already belongs to us, to root, to its folder's owner, or to one of `owners`
    (user ids): log rotation may make it so.
    """
    if target == "off":
        return None
    if target == "-":
        return AccessLog(_standard_output(), form)
    return AccessLog(open_file(Path(target), owners), form)


def open_file(path: Path, owners: Collection[int] = ()) -> int:
    """A descriptor to append to a file, made when missing, to a pipe or a device that takes characters.
    StartError when that cannot be.

    Not to what somebody may have put there so that root writes where they cannot: a link of either kind.
    Who may replace the file is not asked: what takes its place goes through the same gate.
    """
    try:
        fd = os.open(path, STREAM | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        why = "it is a symbolic link; name the file" if path.is_symlink() else error.strerror
        raise StartError(f"log.access: cannot write {path}: {why}") from None
    status = os.fstat(fd)
    allowed = {0, os.geteuid(), path.parent.stat().st_uid, *owners}
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        problem = "it is a hard link to a file that has other names, too; remove it"
    elif stat.S_ISREG(status.st_mode) and status.st_uid not in allowed:
        problem = "it is another user's; remove it, or give it to `user`"
    elif stat.S_ISBLK(status.st_mode):
        problem = "it is a disk"
    else:
        return fd
    os.close(fd)
    raise StartError(f"log.access: cannot write {path}: {problem}")


def _standard_output() -> int:
    """A descriptor of our own for standard output.

    A pipe or terminal is opened anew, so that not blocking is ours alone and not the shell's, too.  A
    file is not: its other writers and we must share one position in it.
    """
    try:
        mode = os.fstat(1).st_mode
    except OSError as error:
        raise StartError(f"log.access: standard output: {error.strerror}") from None
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open("/proc/self/fd/1", STREAM)
        except OSError:
            pass  # another user's terminal, say: better blocking than no log
    return os.dup(1)
