"""Have every worker write its access log to the file that has the log's name now.

logrotate renames a file and says so; whoever writes to it goes on writing to the old one.  Workers may
open nothing: the master opens the files, as it did at the start, and hands them over (worker/orders.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from termproxy.errors import StartError
from termproxy.master.child import Child
from termproxy.master.control import Request
from termproxy.master.generation import Generation
from termproxy.master.supervisor import WorkerProcess
from termproxy.observability.access_log import open_file
from termproxy.worker.orders import reopen_order

log = logging.getLogger("master")

# Seconds for a worker to say that it has; one that hangs is found, aborted and gone before that.
PATIENCE = 8.0


@dataclass(slots=True)
class _Reopening:
    request: Request | None
    files: list[str]
    workers: int
    awaited: dict[int, int]  # by process, the number of its order
    until: float


class LogKeeper:
    """`children` are those that live, at any time."""

    def __init__(self, children: Mapping[int, Child]) -> None:
        self._children = children
        self._pending: list[_Reopening] = []

    def reopen(
        self,
        generations: Mapping[int, Generation],
        workers: Collection[WorkerProcess],
        request: Request | None,
        now: float,
    ) -> None:
        """Open the files of all `generations` anew, or none; `request` is answered once every worker
        writes to them.
        """
        files: dict[Path, int] = {}
        try:
            for each in generations.values():
                target = _target(each)
                if target is not None and target not in files:
                    files[target] = open_file(target, () if each.user is None else (each.user.uid,))
            awaited = self._hand_over(files, generations, workers)
        except (StartError, OSError) as error:
            log.error("logs are not opened anew, the old ones are written on: %s", error)
            if request is not None:
                request.answer({"error": f"the old files are written on: {error}"})
            return
        finally:
            for fd in files.values():
                os.close(fd)
        names = [str(file) for file in files]
        log.info("opened anew: %s", ", ".join(names) or "no log is a file")
        self._pending.append(_Reopening(request, names, len(awaited), awaited, now + PATIENCE))
        self.tick(now)

    def _hand_over(
        self,
        files: Mapping[Path, int],
        generations: Mapping[int, Generation],
        workers: Collection[WorkerProcess],
    ) -> dict[int, int]:
        """To workers that live, and for those yet to be forked.  Gives the orders' numbers."""
        fds = {number: files.get(_target(each) or Path()) for number, each in generations.items()}
        for number, generation in generations.items():
            fd = fds[number]
            if fd is not None and generation.access_log is not None:
                generation.access_log.reopen(fd)
        return {
            worker.pid: self._children[worker.pid].order(reopen_order(), [fd])
            for worker in workers
            if (fd := fds[worker.generation]) is not None
        }

    def tick(self, now: float) -> None:
        """Answer those whose workers all have, and those that waited for too long."""
        for each in list(self._pending):
            each.awaited = {p: n for p, n in each.awaited.items() if self._is_awaited(p, n)}
            if not each.awaited or now >= each.until:
                self._pending.remove(each)
                if each.request is not None:
                    each.request.answer(_outcome(each))

    def _is_awaited(self, pid: int, number: int) -> bool:
        child = self._children.get(pid)
        return child is not None and not child.has_obeyed(number)


def _target(generation: Generation) -> Path | None:
    target = generation.config.log.access
    return target if isinstance(target, Path) else None


def _outcome(done: _Reopening) -> dict[str, Any]:
    if done.awaited:
        pids = ", ".join(map(str, done.awaited))
        return {
            "error": f"not every worker has taken the new files: {pids} hang, see `termproxy status`"
        }
    return {"reopened": done.files, "workers": done.workers}
