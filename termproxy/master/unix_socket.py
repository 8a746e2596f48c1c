"""Listening sockets that have a path: taken without a moment in which others may connect, given back
when they still are ours.

The socket of a process that was killed is replaced; anything else that is there is not touched.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from termproxy.address import UNIX_PATH_MAX
from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared

Inode = tuple[int, int]
"""The device, and the number on it."""

BESIDE = ".new"  # what a path ends with until it takes another's place


def listen(path: Path, what: str, mode: int, backlog: int) -> socket.socket:
    """A socket that listens at `path`, whose permissions are `mode` from its first moment on.

    StartError when it cannot be had; it begins with `what`.
    """
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise StartError(f"{what}: a socket's path has at most {UNIX_PATH_MAX} bytes")
    refuse_shared(path.parent, what)
    _make_room(path, what)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(os.fspath(path))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise StartError(f"{what}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def inode_of(path: Path) -> Inode:
    """What is there now.  OSError when nothing is."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def is_at(path: Path, inode: Inode) -> bool:
    """Whether that is what is there now."""
    try:
        return inode_of(path) == inode
    except OSError:
        return False


def remove(path: Path, inode: Inode) -> None:
    """The path goes, if it still is ours."""
    try:
        if inode_of(path) == inode:
            path.unlink()
    except OSError:
        pass  # somebody was faster, or the folder is no longer writable for us


def _make_room(path: Path, what: str) -> None:
    """Remove the socket of a process that was killed; refuse anything else that is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"{what}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise StartError(f"{what}: something that is not a socket is there; remove it")
    if status.st_uid != os.geteuid():
        raise StartError(f"{what}: another user's socket is there; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # so busy that its queue is full
        except OSError as error:
            raise StartError(f"{what}: {error.strerror}") from None
    raise StartError(f"{what}: a running process answers there; stop it, or choose another path")
