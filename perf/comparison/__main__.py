"""The command line of `perf/compare`: what to compare, how long, where the result goes."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from comparison.chart import draw
from comparison.loads import LOADS
from comparison.report import write_json
from comparison.run import (
    OUTPUT,
    make_plan,
    print_result,
    quick_option,
    rounds_option,
    run,
    seconds_option,
    termproxy_option,
)
from comparison.servers import SERVERS


def chosen(_context: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Read a comma-separated list of names of rows."""
    if value is None:
        return None
    servers = [server for peers in SERVERS.values() for server in peers]
    known = [row.name for row in (servers if option.name == "servers" else LOADS)]
    names = [name.strip() for name in value.split(",")]
    if unknown := sorted(set(names) - set(known)):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@quick_option
@rounds_option
@seconds_option
@click.option("--mode", type=click.Choice(list(SERVERS)), default="tcp", show_default=True)
@click.option("--only", callback=chosen, help="Loads to measure, separated by commas.")
@click.option("--servers", callback=chosen, help="Servers to measure, separated by commas.")
@termproxy_option
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
    mode: str,
    only: list[str] | None,
    servers: list[str] | None,
    termproxy: Path,
    json_file: Path,
    chart_file: Path,
) -> None:
    """Compare the CPU time termproxy and its peers need for the same work.

    Exits with 1 when a measurement was invalid; a missed target is no error.
    """
    plan = make_plan(quick=quick, rounds=rounds, seconds=seconds)
    loads = [load for load in LOADS if only is None or load.name in only]
    if mode == "http":
        loads = [replace(load, target=load.http_target) for load in loads]
    peers = [server for server in SERVERS[mode] if servers is None or server.name in servers]
    result = run(plan, loads, peers, termproxy)
    print_result(result)
    write_json(result, json_file)
    draw(result, chart_file)
    click.echo(f"\nwritten: {json_file}, {chart_file}")
    sys.exit(1 if result.invalid() else 0)


if __name__ == "__main__":
    main(prog_name="perf/compare")
