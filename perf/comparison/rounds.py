"""Who is measured when: alternating rounds, so that a slow minute hits all alike.

In each round every load is given to every server in turn, and the order turns
with the round.  Loads that want fresh processes come first, while nothing else
runs; for all others, servers are started once and warmed up.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from comparison.clients import ask, connect
from comparison.loads import Load
from comparison.metering import MeasurementError
from comparison.open_loop import OpenLoop
from comparison.processes import Running, Starter
from comparison.servers import Server, Setting

AnyServer = TypeVar("AnyServer")
Subjects = dict[tuple[str, Setting], Running]

WARM_UP_CONNECTIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    rounds: int
    seconds: float
    fresh_rounds: int
    # After how many seconds to begin no more rounds.
    at_most: float = float("inf")


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
                for server in rotated(self.suited(load), number):
                    with self.starter.start(server, load.setting) as subject:
                        yield self.measure(number, load, subject)

    def rounds_with_warm_processes(self) -> Iterator[Measurement]:
        loads = [load for load in self.loads if not load.fresh_processes]
        if not loads:
            return
        began = time.perf_counter()
        with ExitStack() as stack:
            running: Subjects = {}
            for load in loads:
                for server in self.suited(load):
                    if (server.name, load.setting) not in running:
                        self.tell(f"starting {server.name}")
                        subject = stack.enter_context(self.starter.start(server, load.setting))
                        running[server.name, load.setting] = subject
            self.warm_up(running.values())
            loads = list(self.paced(loads, running))
            for number in self.numbers(began):
                for load in loads:
                    for server in rotated(self.suited(load), number):
                        yield self.measure(number, load, running[server.name, load.setting])

    def suited(self, load: Load) -> list[Server]:
        """Leave out those that cannot be set so."""
        needs_folder = self.starter.site.certificates[load.setting.certificate].pem.is_dir()
        return [server for server in self.servers if server.takes_folders or not needs_folder]

    def paced(self, loads: Iterable[Load], running: Subjects) -> Iterator[Load]:
        """Give loads of a fixed rate half of what the slowest server can; the same for one setting."""
        found: dict[Setting, float] = {}
        for load in loads:
            if not isinstance(load.tool, OpenLoop):
                yield load
                continue
            if load.setting not in found:
                self.tell("finding out what the slowest server can")
                subjects = [running[server.name, load.setting] for server in self.suited(load)]
                found[load.setting] = min(map(load.tool.capacity_of, subjects))
            yield replace(load, tool=load.tool.at_half_of(found[load.setting]))

    def numbers(self, began: float) -> Iterator[int]:
        """Count rounds; end early when the next would not end in time."""
        for number in range(self.plan.rounds):
            round_began = time.perf_counter()
            yield number
            now = time.perf_counter()
            if number + 1 < self.plan.rounds and 2 * now - round_began > began + self.plan.at_most:
                self.tell(f"stopped after {number + 1} rounds: no time for another")
                return

    def warm_up(self, subjects: Iterable[Running]) -> None:
        """Touch every page and cache once; what the first requests cost is not compared."""
        for subject in subjects:
            self.tell(f"warming up {subject.server.name}")
            context = subject.tls_context()
            for _ in range(WARM_UP_CONNECTIONS):
                with connect(subject.port, context) as connection:
                    ask(connection, "/small")
            for name in subject.names:
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
