"""Who is measured when: alternating rounds, so that a slow minute hits all alike.

In each round every load is given to every server in turn, and the order turns
with the round.  Loads that want fresh processes come first, while nothing else
runs; for all others, servers are started once and warmed up.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from comparison.clients import ask, connect
from comparison.loads import Load
from comparison.metering import MeasurementError
from comparison.processes import Running, Starter
from comparison.servers import Server

AnyServer = TypeVar("AnyServer")

WARM_UP_CONNECTIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    rounds: int
    seconds: float
    fresh_rounds: int
    # When to stop beginning rounds, on the clock of time.perf_counter.
    deadline: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    round: int
    load: str
    server: str
    figures: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One run: who, what, how often, and where to say how it goes."""

    plan: Plan
    servers: Sequence[Server]
    loads: Sequence[Load]
    starter: Starter
    tell: Callable[[str], None]

    def run(self) -> Iterator[Measurement]:
        yield from self.rounds_with_fresh_processes()
        yield from self.rounds_with_warm_processes()

    def rounds_with_fresh_processes(self) -> Iterator[Measurement]:
        loads = [load for load in self.loads if load.fresh_processes]
        for number in range(self.plan.fresh_rounds):
            for load in loads:
                for server in rotated(self.servers, number):
                    with self.start(server, load.certificate) as subject:
                        yield self.measure(number, load, subject)

    def rounds_with_warm_processes(self) -> Iterator[Measurement]:
        loads = [load for load in self.loads if not load.fresh_processes]
        if not loads:
            return
        with ExitStack() as stack:
            running = {
                (server.name, kind): stack.enter_context(self.start(server, kind))
                for kind in sorted({load.certificate for load in loads})
                for server in self.servers
            }
            self.warm_up(running.values())
            for number in self.numbers():
                for load in loads:
                    for server in rotated(self.servers, number):
                        subject = running[server.name, load.certificate]
                        yield self.measure(number, load, subject)

    def numbers(self) -> Iterator[int]:
        """Count rounds; end early when the next would not end before the deadline."""
        for number in range(self.plan.rounds):
            began = time.perf_counter()
            yield number
            now = time.perf_counter()
            if number + 1 < self.plan.rounds and 2 * now - began > self.plan.deadline:
                self.tell(f"stopped after {number + 1} rounds: no time for another")
                return

    def start(self, server: Server, kind: str) -> AbstractContextManager[Running]:
        return self.starter.start(server, kind, core=self.starter.cores.serving)

    def warm_up(self, subjects: Iterable[Running]) -> None:
        """Touch every page and cache once; what the first requests cost is not compared."""
        for subject in subjects:
            self.tell(f"warming up {subject.server.name}")
            context = subject.tls_context()
            for _ in range(WARM_UP_CONNECTIONS):
                with connect(subject.port, context) as connection:
                    ask(connection, "/small")
            for name in subject.server.names:
                with connect(subject.port, context, name) as connection:
                    ask(connection, "/small")

    def measure(self, number: int, load: Load, subject: Running) -> Measurement:
        name = subject.server.name
        self.tell(f"round {number + 1}: {load.title}: {name}")
        try:
            figures = load.tool.measure(subject, self.plan.seconds)
        except MeasurementError as problem:
            return Measurement(round=number, load=load.name, server=name, problem=str(problem))
        return Measurement(round=number, load=load.name, server=name, figures=figures)


def rotated(servers: Sequence[AnyServer], turns: int) -> list[AnyServer]:
    first = turns % len(servers)
    return [*servers[first:], *servers[:first]]
