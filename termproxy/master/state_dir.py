"""`state_dir`: what outlives the master, in files that nobody else can write or slip in.

A file is replaced in one step and never half written.  What is not ours, or is a link, is not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared


class StateDir:
    """Made when it is not there.  StartError when others could write in it.

    Its methods raise OSError; names are plain file names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            for parent in reversed(path.parents):
                parent.mkdir(mode=0o755, exist_ok=True)
            refuse_shared(path.parent, f"state_dir {path}")
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.stat()
        except OSError as error:
            raise StartError(f"state_dir {path}: {error.strerror}") from None
        if status.st_uid != os.geteuid():
            raise StartError(f"state_dir {path}: it is another user's; give it to the one who starts us")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(f"state_dir {path}: others can write there; chmod go-w {path}")

    def read(self, name: str, size_max: int) -> bytes | None:
        """What the file holds; None when there is none.

        PermissionError for one that others can write, OSError for a link or one that is larger.
        """
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(f"{name} is no plain file")
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{name} is not ours alone to write")
            with os.fdopen(fd, "rb", closefd=False) as stream:
                content = stream.read(size_max + 1)
        finally:
            os.close(fd)
        if len(content) > size_max:
            raise OSError(f"{name} is larger than {size_max} bytes")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put `content` in the place of what was there, in one step, for our eyes only."""
        temporary = self.path / f".{name}.new"
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path / name)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self, name: str) -> Path:
        """Keep a file that is of no use, where it is not looked at: its new place."""
        aside = self.path / f"{name}.unusable"
        (self.path / name).replace(aside)
        return aside

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def names(self, suffix: str) -> Iterator[str]:
        """The files that end so."""
        for entry in os.scandir(self.path):
            if entry.name.endswith(suffix) and not entry.name.startswith("."):
                yield entry.name
