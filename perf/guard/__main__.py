"""The command line of `scripts/bench-check`."""

import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from comparison.site import make_certificate
from guard.judgement import (
    BASELINE,
    COUNTS,
    MARGIN,
    Change,
    Figures,
    changes,
    least,
    middle,
    store,
    stored_figures,
    this_build,
)
from guard.loads import LOADS, backend
from guard.server import Server, ServerError, count, started


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--update", is_flag=True, help=f"Store today's figures in perf/{BASELINE.name}.")
def main(*, update: bool) -> None:
    """Count the instructions that operations take, beside those stored.

    Exits with 1 when one takes more than 15 % more than is stored for this build of Python.
    """
    # A timeout ends the server, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=100)
    build = this_build()
    stored = stored_figures(BASELINE, build)
    with tempfile.TemporaryDirectory(prefix="bench-check-") as directory:
        certificate = make_certificate(Path(directory), "ecdsa")
        try:
            with backend() as port, started(Path(directory), certificate.pem, port) as server:
                figures = count_typical(server) if update else count_against(server, stored)
        except ServerError as error:
            raise click.ClickException(str(error)) from error
    found = changes(stored, figures)
    console.print(table(found, build))
    if update:
        store(BASELINE, build, figures)
        click.echo(f"written: perf/{BASELINE.name}")
        return
    if all(change.stored is None for change in found):
        click.echo(
            "Nothing is stored for this build of Python, so nothing is compared; --update stores."
        )
    regressions = [change.load for change in found if change.is_regression]
    if regressions:
        click.echo(f"More than {MARGIN:.0%} dearer: {', '.join(regressions)}")
        sys.exit(1)


def count_typical(server: Server) -> Figures:
    return middle([count(server, LOADS, tell) for _ in range(COUNTS)])


def count_against(server: Server, stored: Figures) -> Figures:
    """Count again what looks dearer, and believe the least."""
    counts: list[Figures] = []
    loads = list(LOADS)
    while loads and len(counts) < COUNTS:
        counts.append(count(server, loads, tell))
        dearer = {it.load for it in changes(stored, least(counts)) if it.is_regression}
        loads = [load for load in LOADS if load.name in dearer]
    return least(counts)


def tell(what: str) -> None:
    click.echo(f"counting {what}", err=True)


def table(found: list[Change], build: str) -> Table:
    made = Table(title=f"instructions an operation, without OpenSSL's; {build}", title_justify="left")
    made.add_column("operation")
    for heading in ("stored", "now", "change"):
        made.add_column(heading, justify="right")
    for change in found:
        stored = f"{change.stored:,}" if change.stored else "–"
        ratio = f"{change.ratio - 1:+.1%}" if change.ratio else "–"
        made.add_row(change.load, stored, f"{change.now:,}", ratio)
    return made


if __name__ == "__main__":
    main(prog_name="scripts/bench-check")
