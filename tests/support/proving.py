"""Workers that prove themselves, as far as a proof sees them: their frontends, on their channels."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

import gevent

from termproxy.master.proof import Plan, plan
from termproxy.master.proof_helper import prepare
from termproxy.messages import MessageReader
from termproxy.worker.assembly import Assembly
from termproxy.worker.probes import Probes
from tests.support.waiting import PATIENCE


def prove(workers: Sequence[Sequence[Assembly]], *, resumes: bool = True) -> dict[str, Any]:
    """What the helper finds; the assemblies of the first worker are those that are planned for."""
    return carry_out(plan(workers[0], len(workers), resumes=resumes), workers)


def carry_out(todo: Plan, workers: Sequence[Sequence[Assembly]]) -> dict[str, Any]:
    """The helper blocks, and so has a thread; the workers are on this one's loop."""
    channels = []
    for assemblies in workers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        Probes(gevent.get_hub().loop, theirs, [assembly.frontend for assembly in assemblies])
        channels.append(ours)
    read_fd, write_fd = os.pipe()

    def help_out() -> None:
        with os.fdopen(write_fd, "wb") as write_end:
            prepare(todo, channels)(write_end.fileno())

    helper = threading.Thread(target=help_out)
    helper.start()
    with gevent.Timeout(PATIENCE):
        while helper.is_alive():
            gevent.sleep(0.005)
    for channel in channels:
        channel.close()
    gevent.sleep(0.01)  # so that they see it
    gevent.get_hub().destroy(destroy_loop=True)  # whoever needs a loop next gets one of its own
    with os.fdopen(read_fd, "rb") as said:
        (report,) = MessageReader(1 << 20).feed(said.read())
    return report
