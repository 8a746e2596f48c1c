"""The command line of `perf/names`: how long, and where the result goes."""

import sys
from pathlib import Path

import click

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
from many_names.certificates import make_site_of_many
from many_names.rows import LOADS, SERVERS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@quick_option
@rounds_option
@seconds_option
@termproxy_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    default=OUTPUT / "names.json",
    help="Where the figures go.  [default: build/perf/names.json]",
)
def main(*, quick: bool, rounds: int, seconds: int, termproxy: Path, json_file: Path) -> None:
    """Compare what termproxy costs with one certificate and with 10,000.

    Exits with 1 when a measurement was invalid; a missed target is no error.
    """
    plan = make_plan(quick=quick, rounds=rounds, seconds=seconds)
    result = run(plan, LOADS, {"": SERVERS}, termproxy, make_site_of_many)
    print_result(result)
    write_json(result, json_file)
    click.echo(f"\nwritten: {json_file}")
    sys.exit(1 if result.invalid() else 0)


if __name__ == "__main__":
    main(prog_name="perf/names")
