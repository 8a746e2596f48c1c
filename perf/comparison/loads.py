"""The operations measured: one row each, with how it is loaded and what it should cost.

A target is about the first quantity a load shows, in either mode.
"""

import ssl
from dataclasses import dataclass
from typing import Protocol

from comparison.idle import IdleConnections
from comparison.open_loop import OpenLoop
from comparison.processes import Running
from comparison.servers import Setting
from comparison.wrk import Wrk

KIB = 1024
DEFAULTS = Setting()


class Tool(Protocol):
    """A way to load a server for a while."""

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        """Return figures by quantity name; raises MeasurementError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A figure as a report shows it: stored in seconds and bytes, shown times `scale`."""

    name: str
    title: str
    unit: str
    scale: float = 1.0
    less_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to reach: a ratio to the best peer and, for some, a figure of one's own."""

    ratio: float
    at_most: float | None = None

    def is_met(self, ratio: float, value: float) -> bool:
        return ratio <= self.ratio and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    name: str
    title: str
    tool: Tool
    shows: tuple[Quantity, ...]
    setting: Setting = DEFAULTS
    target: Target | None = None
    # Whether each measurement wants processes that have served nobody yet.
    fresh_processes: bool = False
    # The load whose first quantity this one's is a multiple of: how cost grows.
    grows_from: str = ""


CPU = Quantity(name="cpu", title="CPU", unit="µs/op", scale=1e6)
CPU_PER_MIB = Quantity(name="cpu", title="CPU", unit="ms/MiB", scale=1e3)
RATE = Quantity(name="rate", title="rate", unit="op/s", less_is_better=False)
MIB_RATE = Quantity(name="rate", title="rate", unit="MiB/s", less_is_better=False)
P50 = Quantity(name="p50", title="p50", unit="ms", scale=1e3)
P90 = Quantity(name="p90", title="p90", unit="ms", scale=1e3)
P99 = Quantity(name="p99", title="p99", unit="ms", scale=1e3)
P999 = Quantity(name="p99.9", title="p99.9", unit="ms", scale=1e3)
GROWTH = Quantity(name="growth", title="growth", unit="×")
PER_CONNECTION = Quantity(name="per_connection", title="PSS each", unit="KiB", scale=1 / KIB)
AT_START = Quantity(name="at_start", title="PSS at start", unit="MiB", scale=1 / KIB**2)

LOADS = (
    Load(
        name="keepalive",
        title="keep-alive request, 13 bytes",
        tool=Wrk(path="/small", connections=64),
        shows=(CPU, RATE, P50, P99),
        target=Target(ratio=1.0),
    ),
    Load(
        name="response-10k",
        title="keep-alive request, 10 KiB",
        tool=Wrk(path="/10k", connections=64),
        shows=(CPU, RATE),
        target=Target(ratio=0.95),
    ),
    Load(
        name="response-100k",
        title="keep-alive request, 100 KiB",
        tool=Wrk(path="/100k", connections=32),
        shows=(CPU, RATE),
    ),
    Load(
        name="handshake-rsa",
        title="full handshake, RSA-2048",
        tool=Wrk(path="/small", connections=32, handshakes="full"),
        shows=(CPU, RATE),
        setting=Setting(certificate="rsa"),
        target=Target(ratio=1.0),
    ),
    Load(
        name="handshake-ecdsa",
        title="full handshake, ECDSA P-256",
        tool=Wrk(path="/small", connections=32, handshakes="full"),
        shows=(CPU, RATE),
        target=Target(ratio=1.0),
    ),
    Load(
        name="resumed-1.2",
        title="resumed handshake, TLS 1.2",
        tool=Wrk(path="/small", connections=32, handshakes="resumed", version="1.2"),
        shows=(CPU, RATE),
        target=Target(ratio=0.95),
    ),
    Load(
        name="resumed-1.3",
        title="resumed handshake, TLS 1.3",
        tool=Wrk(path="/small", connections=32, handshakes="resumed", version="1.3"),
        shows=(CPU, RATE),
        target=Target(ratio=0.95),
    ),
    Load(
        name="bulk",
        title="bulk, 1 MiB answers",
        tool=Wrk(path="/1m", connections=8),
        shows=(CPU_PER_MIB, MIB_RATE),
        target=Target(ratio=0.75 if ssl.OPENSSL_VERSION_INFO < (3, 5) else 0.85),
    ),
    Load(
        name="latency",
        title="at half the slowest's capacity",
        tool=OpenLoop(path="/small", connections=64),
        shows=(P99, P50, P90, P999, CPU, RATE),
        target=Target(ratio=1.0),
    ),
    Load(
        name="memory",
        title="idle connection (of 1,000)",
        tool=IdleConnections(connections=1000, path="/small"),
        shows=(PER_CONNECTION, AT_START),
        target=Target(ratio=0.75, at_most=16 * KIB),
        fresh_processes=True,
    ),
)
