"""`termproxy check` and `termproxy config dump`: look at a configuration without serving it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from termproxy import clock
from termproxy.config.load import FileSource, absolute, load
from termproxy.config.reference import dump
from termproxy.master.generation import check as check_source
from termproxy.master.landlock import shortfall
from termproxy.tls.context import Stores
from termproxy.worker.assembly import findings_of

FILE = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="The file (TOML).",
)


@click.command()
@FILE
@click.option(
    "--deep",
    is_flag=True,
    help="Also tell what is weak or served by another, and what the kernel lacks.",
)
def check(file: Path, deep: bool) -> None:  # noqa: FBT001 - click's way
    """Say whether a configuration could serve: it, its certificates and keys.

    Every problem is told, with file, line and cure.  Warnings do not fail.
    """
    now = clock.utc_now()
    checked = check_source(FileSource.read(absolute(file)), uid=os.getuid(), now=now, stores=Stores())
    warnings = list(checked.warnings)
    if deep:
        for site in checked.sites:
            warnings += findings_of(site.store.certificates, now)
        warnings += [missing for missing in (shortfall(),) if missing]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{file}: fine")


@click.group()
def config() -> None:
    """Look at a configuration."""


@config.command(name="dump")
@FILE
def config_dump(file: Path) -> None:
    """Every setting in force, as TOML, and where each came from."""
    source = FileSource.read(absolute(file))
    click.echo(dump(load(source), source), nl=False)
