"""`termproxy run`: serve, from a file or from flags."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from termproxy.config.load import FileSource, FlagSource, Path_, Source, absolute
from termproxy.config.reference import help_of
from termproxy.config.schema import Config, Frontend
from termproxy.master.arbiter import Arbiter

CONFIG_FILE = click.Path(path_type=Path)


@click.command()
@click.option("-c", "--config", "file", type=CONFIG_FILE, help="The configuration file (TOML).")
@click.option("--listen", multiple=True, metavar="ADDRESS", help=help_of(Frontend, "listen"))
@click.option("--cert", metavar="FILE", help="A PEM file: the certificate's chain, and its key.")
@click.option("--key", metavar="FILE", help="The key, when it is in a file of its own.")
@click.option("--backend", multiple=True, metavar="ADDRESS", help="Where to forward to.")
@click.option("--mode", metavar="MODE", help=help_of(Frontend, "mode"))
@click.option("--workers", metavar="N", help=help_of(Config, "workers"))
@click.option("--pidfile", metavar="PATH", help=help_of(Config, "pidfile"))
@click.option("--control", metavar="PATH", help=help_of(Config, "control"))
@click.pass_obj
def run(ignored: list[str] | None, /, file: Path | None, **flags: Any) -> None:
    r"""Serve until told to stop.

    Either from a file, `run -c termproxy.toml`, or without one:

    \b
      termproxy run --listen 127.0.0.1:8443 --cert site.pem --backend 127.0.0.1:8080

    TERM drains and stops, INT stops at once, HUP reloads.
    """
    given = sorted(name for name, value in flags.items() if value)
    if file is not None and given:
        raise click.UsageError(f"-c and --{given[0]} exclude each other: the file says it all")
    if file is None:
        for needed in ("listen", "cert", "backend"):
            if needed not in given:
                raise click.UsageError(f"give -c FILE, or --listen, --cert and --backend ({needed})")
    for name in ignored or ():
        click.echo(f"termproxy: {name} in the environment is ignored", err=True)
    sys.exit(Arbiter(file_source(file) if file is not None else lambda: flag_source(flags)).run())


def file_source(file: Path) -> Callable[[], Source]:
    """Reads the file anew at each call; made absolute now, wherever we may be then."""
    path = absolute(file)
    return lambda: FileSource.read(path)


def flag_source(flags: dict[str, Any]) -> FlagSource:
    """The tables that a file saying the same would hold."""
    certificate = {"chain": flags["cert"]} | ({"key": flags["key"]} if flags.get("key") else {})
    frontend = {
        "name": "main",
        "listen": list(flags["listen"]),
        "cluster": "main",
        "certificates": [certificate],
    }
    if flags.get("mode"):
        frontend["mode"] = flags["mode"]
    values: dict[str, Any] = {
        "frontend": [frontend],
        "cluster": {"main": {"servers": list(flags["backend"])}},
    }
    for name in ("pidfile", "control", "user"):
        if flags.get(name):
            values[name] = flags[name]
    if flags.get("workers"):
        values["workers"] = number_or_text(flags["workers"])
    return FlagSource(values, _FLAGS)


def number_or_text(text: str) -> int | str:
    """As TOML would have it: "auto" is a text and 4 is not."""
    return int(text) if text.isascii() and text.isdigit() else text


_FLAGS: dict[Path_, str] = {
    ("frontend", 0, "listen"): "--listen",
    ("frontend", 0, "certificates"): "--cert",
    ("frontend", 0, "mode"): "--mode",
    ("cluster", "main"): "--backend",
    ("workers",): "--workers",
    ("pidfile",): "--pidfile",
    ("control",): "--control",
}
