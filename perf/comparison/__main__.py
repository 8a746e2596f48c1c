"""The command line of `perf/compare`: what to compare, how long, where the result goes."""

import sys
from pathlib import Path

import click

from comparison.chart import draw
from comparison.choices import chosen_loads, chosen_servers
from comparison.loads import LOADS, Load
from comparison.page import write_page
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
from comparison.scale import SCALE_LOADS
from comparison.servers import SERVERS
from comparison.site import make_site
from many_names.certificates import MANY, ONE, make_site_of_many

NAME = "comparison"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@quick_option
@rounds_option
@seconds_option
@click.option("--mode", type=click.Choice([*SERVERS, "both"]), default="both", show_default=True)
@click.option(
    "--only",
    "only",
    callback=chosen_loads,
    help="Loads to measure, separated by commas; the first words of names are all that begin so.",
)
@click.option("--scale", is_flag=True, help="Measure how cost grows, too: all that --only scale is.")
@click.option("--servers", callback=chosen_servers, help="Servers to measure, separated by commas.")
@termproxy_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=OUTPUT,
    help=f"The folder for {NAME}.json, .png and .html.  [default: build/perf]",
)
def main(  # noqa: PLR0913 - one parameter per option
    *,
    quick: bool,
    rounds: int,
    seconds: int,
    mode: str,
    only: list[Load],
    scale: bool,
    servers: list[str],
    termproxy: Path,
    output: Path,
) -> None:
    """Compare the CPU time termproxy and its peers need for the same work.

    With --root FOLDER, do so inside that tree: perf/debian13 makes one.
    Exits with 1 when a measurement was invalid; a missed target is no error.
    """
    plan = make_plan(quick=quick, rounds=rounds, seconds=seconds)
    extra = [load for load in SCALE_LOADS if scale and load not in only]
    loads = [*(only or LOADS), *extra]
    modes = {
        name: peers
        for name, every in SERVERS.items()
        if mode in {name, "both"}
        and (peers := [it for it in every if not servers or {it.name, it.column} & {*servers}])
    }
    if not modes:
        raise click.UsageError(f"none of these servers has mode {mode}: {', '.join(servers)}")
    names_wanted = any(load.setting.certificate in {ONE, MANY} for load in loads)
    result = run(plan, loads, modes, termproxy, make_site_of_many if names_wanted else make_site)
    print_result(result)
    files = [output / f"{NAME}{suffix}" for suffix in (".json", ".png", ".html")]
    data, chart, page = files
    write_json(result, data)
    draw(result, chart)
    write_page(result, chart, page)
    click.echo(f"\nwritten: {', '.join(map(str, files))}")
    sys.exit(1 if result.invalid() else 0)


if __name__ == "__main__":
    main(prog_name="perf/compare")
