"""Notice that files have changed: inotify where the kernel sees every change, polling elsewhere.

Folders are watched, not files: files are mostly replaced by a rename, and Kubernetes swaps a symbolic
link (`..data`) beside those that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil
from inotify_simple import INotify, flags

SETTLE = 0.2  # seconds of quiet after an event, so that a key and its certificate are read together
SETTLE_MAX = 1.0  # seconds: something else may write there all the time
POLL_REMOTE = 1.0  # seconds: others change a network file system without this kernel's knowing
POLL_LOCAL = 30.0  # seconds: for a link far up the path, which no watched folder shows

# MOVE_SELF and DELETE_SELF: another folder may be put in its place.
_EVENTS = (
    flags.CLOSE_WRITE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.CREATE
    | flags.DELETE
    | flags.ATTRIB
    | flags.MOVE_SELF
    | flags.DELETE_SELF
)

_REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "fuse", "afs", "lustre", "virtiofs")


class FileWatch:
    """`fd` is readable when something has happened in a watched folder."""

    def __init__(self) -> None:
        self._inotify = INotify(nonblocking=True)
        self.fd = self._inotify.fileno()
        self._folders: dict[Path, int] = {}
        self._poll_every = POLL_LOCAL
        self._due: float | None = None
        self._latest = 0.0
        self._next_poll = 0.0

    def watch(self, folders: Iterable[Path], now: float) -> None:
        """Watch these folders from now on, and no others."""
        wanted = set(folders)
        for folder in set(self._folders) - wanted:
            self._forget(folder)
        for folder in wanted:
            # Again also where it is watched: another folder may stand there now.
            try:
                number = self._inotify.add_watch(folder, _EVENTS)
            except OSError:
                continue  # not there now: polling will see it come
            if self._folders.get(folder, number) != number:
                self._forget(folder)
            self._folders[folder] = number
        self._poll_every = POLL_REMOTE if any(map(is_remote, wanted)) else POLL_LOCAL
        self._next_poll = now + self._poll_every

    def on_events(self, now: float) -> None:
        """`fd` was readable: look at the files when it has been quiet for a while."""
        self._inotify.read(timeout=0)
        if self._due is None:
            self._latest = now + SETTLE_MAX
        self._due = min(now + SETTLE, self._latest)

    def look_now(self, now: float) -> None:
        """Something else is a reason to look."""
        self._due = now

    def is_due(self, now: float) -> bool:
        """Whether it is time to look at the files; once for each reason."""
        if now < self._next_poll and (self._due is None or now < self._due):
            return False
        self._due, self._next_poll = None, now + self._poll_every
        return True

    def close(self) -> None:
        self._inotify.close()

    def _forget(self, folder: Path) -> None:
        number = self._folders.pop(folder)
        if number in self._folders.values():
            return  # another path to the same folder
        try:
            self._inotify.rm_watch(number)
        except OSError:
            pass  # it was deleted, and its watch with it


def is_remote(folder: Path) -> bool:
    """Whether other machines can change what is in `folder`."""
    mounts = {partition.mountpoint: partition.fstype for partition in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents):
        if str(place) in mounts:
            return mounts[str(place)].startswith(_REMOTE)
    return False
