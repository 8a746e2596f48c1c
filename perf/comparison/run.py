"""One run, from what its command line says to its result: start, measure, summarise, show."""

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from comparison.servers import BACKEND, Server, Setting
from comparison.site import Site, make_site
from comparison.summary import Row, rows, verdicts

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "perf"
# Besides two for each connection: to its client and to its backend.
SPARE_FILES = 256
QUICK_SECONDS = 100.0
# Wide enough for four servers when the output is not a terminal but a file.
WIDTH = 172

SiteMaker = Callable[[Path], Site]

# The options that every command has.
quick_option = click.option(
    "--quick", is_flag=True, help="A first impression: 3 rounds of 1 s, within 2 minutes a mode."
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
        return Plan(rounds=3, seconds=1, fresh_rounds=1, at_most=QUICK_SECONDS)
    return Plan(rounds=rounds, seconds=seconds, fresh_rounds=min(rounds, 3))


def run(
    plan: Plan,
    loads: Sequence[Load],
    modes: Mapping[str, Sequence[Server]],
    termproxy: Path,
    make_site: SiteMaker = make_site,
) -> Result:
    """What a command does; of each mode's servers the first is ours.  Raises ClickException."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        allow_open_files(2 * max(load.setting.connections for load in loads) + SPARE_FILES)
        return compare(plan, loads, modes, termproxy.absolute(), make_site)
    except (CoresError, StartError) as error:
        raise click.ClickException(str(error)) from error


def compare(
    plan: Plan,
    loads: Sequence[Load],
    modes: Mapping[str, Sequence[Server]],
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
        summary: list[Row] = []
        # Redrawn rarely: this process shares the core with the load.
        with Console(stderr=True).status("starting", refresh_per_second=2) as status:
            for mode, servers in modes.items():
                for server in servers:
                    introductions[server.name] = introduce(server, starter, loads[0].setting)
                comparison = Comparison(
                    plan=plan, servers=servers, loads=loads, starter=starter, tell=status.update
                )
                measured = list(comparison.run())
                summary += rows(measured, loads, [server.name for server in servers], mode)
                measurements += measured
    return Result(
        machine=machine,
        columns={
            server.name: server.column or server.name for peers in modes.values() for server in peers
        },
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
        with starter.start(BACKEND, Setting(), (cores.load,)) as backend:
            yield replace(starter, backend_port=backend.port)


def allow_open_files(needed: int) -> None:
    """Raise our own limit, which every child inherits, as far as it may go."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < needed:
        raise click.ClickException(f"needs {needed} open files; ulimit -Hn says {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def print_result(result: Result) -> None:
    console = Console()
    show(result, console if console.is_terminal else Console(width=WIDTH))
