"""Whether a folder is safe to keep something in: nobody else can take it away and put a link there.

In one that others can write, what a name stands for may change between a look and the next: so a log
file was a way to root in CVE-2016-1247.  The sticky bit, as of /tmp, keeps others from what is ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from termproxy.errors import StartError


def refuse_shared(folder: Path, what: str) -> None:
    """StartError, beginning with `what`, when somebody else than root and us could replace things there.

    A group's members count as others for root only: many users have a group of their own, which may
    write.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise StartError(f"{what}: {error.strerror}") from None
    if status.st_uid not in (0, os.geteuid()):
        raise StartError(f"{what}: {folder} is another user's; name a folder of root's or of your own")
    if status.st_mode & _others(status.st_gid) and not status.st_mode & stat.S_ISVTX:
        raise StartError(f"{what}: others can replace it; chmod go-w {folder}")


def _others(group: int) -> int:
    return stat.S_IWOTH | (stat.S_IWGRP if os.geteuid() == 0 and group != 0 else 0)
