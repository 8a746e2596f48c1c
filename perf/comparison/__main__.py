"""The command line of `perf/compare`: what to compare, how long, where the result goes."""

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from comparison.chart import draw
from comparison.introductions import Introduction, introduce
from comparison.loads import LOADS, Load
from comparison.machine import Cores, CoresError, choose_cores, describe_machine, python_of
from comparison.processes import Starter, StartError
from comparison.report import Result, show, write_json
from comparison.rounds import Comparison, Measurement, Plan
from comparison.servers import BACKEND, SERVERS, Server
from comparison.site import make_site
from comparison.summary import rows, verdicts

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "perf"
# The idle connections of a load: both ends of each are ours or a child's.
OPEN_FILES = 4096
QUICK_ENDS_AFTER = 105.0
# Wide enough for four servers when the output is not a terminal but a file.
WIDTH = 172


def chosen(_context: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Read a comma-separated list of names of rows."""
    if value is None:
        return None
    known = [row.name for row in (SERVERS if option.name == "servers" else LOADS)]
    names = [name.strip() for name in value.split(",")]
    if unknown := sorted(set(names) - set(known)):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A first impression: 3 rounds of 1 s, within 2 minutes.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Length of each measurement.",
)
@click.option("--only", callback=chosen, help="Loads to measure, separated by commas.")
@click.option("--servers", callback=chosen, help="Servers to measure, separated by commas.")
@click.option(
    "--termproxy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(sys.executable).with_name("termproxy"),
    help="The command to measure.  [default: the one beside this Python]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    default=OUTPUT / "comparison.json",
    help="Where the figures go.  [default: build/perf/comparison.json]",
)
@click.option(
    "--chart",
    "chart_file",
    type=click.Path(path_type=Path),
    default=OUTPUT / "comparison.png",
    help="Where the chart of the ratios goes.  [default: build/perf/comparison.png]",
)
def main(  # noqa: PLR0913 - one parameter per option
    *,
    quick: bool,
    rounds: int,
    seconds: int,
    only: list[str] | None,
    servers: list[str] | None,
    termproxy: Path,
    json_file: Path,
    chart_file: Path,
) -> None:
    """Compare the CPU time termproxy and its peers need for the same work.

    Exits with 1 when a measurement was invalid; a missed target is no error.
    """
    plan = Plan(rounds=rounds, seconds=seconds, fresh_rounds=min(rounds, 3))
    if quick:
        deadline = time.perf_counter() + QUICK_ENDS_AFTER
        plan = Plan(rounds=3, seconds=1, fresh_rounds=1, deadline=deadline)
    loads = [load for load in LOADS if only is None or load.name in only]
    peers = [server for server in SERVERS if servers is None or server.name in servers]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        allow_open_files()
        result = compare(plan, loads, peers, termproxy.absolute())
    except (CoresError, StartError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    show(result, console if console.is_terminal else Console(width=WIDTH))
    write_json(result, json_file)
    draw(result, chart_file)
    click.echo(f"\nwritten: {json_file}, {chart_file}")
    sys.exit(1 if result.invalid() else 0)


def compare(plan: Plan, loads: Sequence[Load], servers: Sequence[Server], termproxy: Path) -> Result:
    cores = choose_cores()
    # Children inherit this: only servers are moved to the serving core.
    os.sched_setaffinity(0, {cores.load})
    with started_backend(cores, termproxy) as starter:
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
def started_backend(cores: Cores, termproxy: Path) -> Iterator[Starter]:
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


if __name__ == "__main__":
    main(prog_name="perf/compare")
