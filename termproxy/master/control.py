"""The control socket as the master has it: where it is, whose it is, and how a question is answered.

It is a Unix socket of mode 0600.  The master binds it, and removes it at its end; the admin process
(admin/main.py) serves it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from termproxy.address import UNIX_PATH_MAX
from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared

BACKLOG = 64  # clients that wait while there is no admin process


class Request:
    """One operator's question.  `answer` may come later; the operator waits."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say

    def answer(self, answer: dict[str, Any]) -> None:
        """Once.  Whoever asked may have gone."""
        self._say(answer)


class ControlSocket:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.sock = _bind(path)
        self._inode = os.lstat(path).st_ino

    def remove(self) -> None:
        """At the master's end: the path goes, if it still is ours."""
        try:
            if os.lstat(self._path).st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # somebody was faster
        self.close()

    def close(self) -> None:
        """In a process just forked: it is the master's."""
        self.sock.close()


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise StartError(f"control {path}: a socket's path has at most {UNIX_PATH_MAX} bytes")
    refuse_shared(path.parent, f"control {path}")
    _make_room(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # born with mode 0600: there is no moment in which others may connect
    try:
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"control {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def _make_room(path: Path) -> None:
    """Remove the socket of a master that was killed; refuse anything else that is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"control {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise StartError(f"control {path}: something that is not a socket is there; remove it")
    if status.st_uid != os.geteuid():
        raise StartError(f"control {path}: another user's socket is there; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise StartError(f"control {path}: {error.strerror}") from None
    raise StartError(f"control {path}: a running termproxy answers there")
