"""Run rows of the reliability table for as long as asked, and print what was run and what was lost."""

from __future__ import annotations

import sys
import traceback

import click

from termproxy import clock
from tests.soak.rows import ROWS, Result


@click.command()
@click.option(
    "--seconds", default=60.0, show_default=True, help="For each row, besides its start and end."
)
@click.option("--only", default=",".join(ROWS), show_default=True, metavar="ROWS", help="Such as R1,R3.")
def soak(seconds: float, only: str) -> None:
    """Reload, kill, hang and storm a real server under load, and say what clients lost."""
    names = only.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise click.UsageError(f"there is no row {unknown[0]}; there are {', '.join(ROWS)}")
    lines, failed = [], False
    for name in names:
        row = ROWS[name]
        print(f"{name}: {row.__doc__}", file=sys.stderr, flush=True)
        begun = clock.monotonic()
        try:
            result = row(seconds)
        except AssertionError as error:
            traceback.print_exc()
            result = Result("it ended early", str(error).splitlines()[0], passed=False)
        lasted = clock.monotonic() - begun
        failed |= not result.passed
        verdict = "yes" if result.passed else "NO"
        lines.append(f"| {name} | {result.run} | {lasted:.0f} s | {result.lost} | {verdict} |")
        print(lines[-1], file=sys.stderr, flush=True)
    print("| row | what was run | for | what was lost | as it should be |\n|---|---|---|---|---|")
    print("\n".join(lines))
    sys.exit(failed)


soak()
