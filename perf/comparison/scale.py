"""How cost grows: the same operation with more workers, certificates and connections.

Rows like those of `loads`; each but the first of a kind names the one it grows from.
"""

import resource
from dataclasses import replace
from typing import Literal

from comparison.loads import CPU, P50, P99, RATE, Load
from comparison.open_loop import OpenLoop
from comparison.servers import Setting
from comparison.wrk import Wrk
from many_names.certificates import MANY, NAMES, ONE

_, OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
# A connection takes two of a server's files, and they may not suffice for 10,000.
CONNECTIONS = (100, 1_000, min(10_000, OPEN_FILES // 200 * 100 - 300))


KEEPALIVE = Wrk(path="/small", connections=64)
HANDSHAKE = Wrk(path="/small", connections=32, handshakes="full")


def with_workers(number: int, kind: Literal["keepalive", "handshake"]) -> Load:
    what = "full handshakes" if kind == "handshake" else "keep-alive requests"
    return Load(
        name=f"scale-workers-{kind}-{number}",
        title=f"{what}, {number} worker{'s' if number > 1 else ''}",
        tool=HANDSHAKE if kind == "handshake" else KEEPALIVE,
        shows=(CPU, RATE),
        setting=Setting(workers=number),
        grows_from=f"scale-workers-{kind}-1" if number > 1 else "",
    )


def with_certificates(number: int) -> Load:
    one = number == 1
    return Load(
        name=f"scale-certificates-{number}",
        title=f"full handshakes, {number:,} certificate{'' if one else 's'}",
        tool=replace(HANDSHAKE, asks_for="first" if one else "every"),
        shows=(CPU, RATE),
        setting=Setting(certificate=ONE if one else MANY),
        grows_from="" if one else "scale-certificates-1",
    )


def with_connections(number: int) -> Load:
    fewest = CONNECTIONS[0]
    return Load(
        name=f"scale-connections-{number}",
        title=f"the same rate, {number:,} connections",
        tool=OpenLoop(path="/small", connections=number),
        shows=(CPU, P50, P99),
        setting=Setting(connections=CONNECTIONS[-1] + 64),
        grows_from="" if number == fewest else f"scale-connections-{fewest}",
    )


SCALE_LOADS = (
    *(with_workers(number, "keepalive") for number in (1, 2)),
    *(with_workers(number, "handshake") for number in (1, 2)),
    *(with_certificates(number) for number in (1, len(NAMES))),
    *(with_connections(number) for number in CONNECTIONS),
)
