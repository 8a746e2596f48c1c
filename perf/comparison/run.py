"""One run, from what its command line says to its result: start, measure, summarise, show."""

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from comparison.introductions import Introduction, introduce
from comparison.loads import Load
from comparison.machine import Cores, CoresError, choose_cores, describe_machine, python_of
from comparison.processes import Starter, StartError
from comparison.report import Result, show
from comparison.rounds import Comparison, Measurement, Plan
from comparison.servers import BACKEND, Server
from comparison.site import Site, make_site
from comparison.summary import rows, verdicts

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "perf"
# The idle connections of a load: both ends of each are ours or a child's.
OPEN_FILES = 4096
QUICK_ENDS_AFTER = 105.0
# Wide enough for four servers when the output is not a terminal but a file.
WIDTH = 172

SiteMaker = Callable[[Path], Site]

# The options that every command has.
quick_option = click.option(
    "--quick", is_flag=True, help="A first impression: 3 rounds of 1 s, within 2 minutes."
)
rounds_option = click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
seconds_option = click.option(
    "--seconds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Length of each measurement.",
)
termproxy_option = click.option(
    "--termproxy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(sys.executable).with_name("termproxy"),
    help="The command to measure.  [default: the one beside this Python]",
)


def make_plan(*, quick: bool, rounds: int, seconds: int) -> Plan:
    if quick:
        deadline = time.perf_counter() + QUICK_ENDS_AFTER
        return Plan(rounds=3, seconds=1, fresh_rounds=1, deadline=deadline)
    return Plan(rounds=rounds, seconds=seconds, fresh_rounds=min(rounds, 3))


def run(
    plan: Plan,
    loads: Sequence[Load],
    servers: Sequence[Server],
    termproxy: Path,
    make_site: SiteMaker = make_site,
) -> Result:
    """What a command does.  Raises ClickException."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        allow_open_files()
        return compare(plan, loads, servers, termproxy.absolute(), make_site)
    except (CoresError, StartError) as error:
        raise click.ClickException(str(error)) from error


def compare(
    plan: Plan,
    loads: Sequence[Load],
    servers: Sequence[Server],
    termproxy: Path,
    make_site: SiteMaker,
) -> Result:
    cores = choose_cores()
    # Children inherit this: only servers are moved to the serving core.
    os.sched_setaffinity(0, {cores.load})
    with started_backend(cores, termproxy, make_site) as starter:
        machine = describe_machine(cores, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        machine["termproxy's Python"] = python_of(termproxy)
        introductions: dict[str, Introduction] = {}
        measurements: list[Measurement] = []
        # Redrawn rarely: this process shares the core with the load.
        with Console(stderr=True).status("starting", refresh_per_second=2) as status:
            for server in servers:
                introductions[server.name] = introduce(server, starter)
            comparison = Comparison(
                plan=plan, servers=servers, loads=loads, starter=starter, tell=status.update
            )
            measurements.extend(comparison.run())
    summary = rows(measurements, loads, [server.name for server in servers])
    return Result(
        machine=machine,
        introductions=introductions,
        plan=plan,
        measurements=measurements,
        rows=summary,
        verdicts=verdicts(summary),
    )


@contextmanager
def started_backend(cores: Cores, termproxy: Path, make_site: SiteMaker) -> Iterator[Starter]:
    """Make the site and run its backend until the block ends; nothing of it stays behind."""
    with tempfile.TemporaryDirectory(prefix="perf-compare-") as directory:
        starter = Starter(site=make_site(Path(directory)), cores=cores, termproxy=termproxy)
        with starter.start(BACKEND, "ecdsa", core=starter.cores.load) as backend:
            yield replace(starter, backend_port=backend.port)


def allow_open_files() -> None:
    """Raise our own limit, which every child inherits, as far as it may go."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < OPEN_FILES:
        raise click.ClickException(f"needs {OPEN_FILES} open files; ulimit -Hn says {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def print_result(result: Result) -> None:
    console = Console()
    show(result, console if console.is_terminal else Console(width=WIDTH))
