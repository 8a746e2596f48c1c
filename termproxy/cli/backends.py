"""`termproxy backends`: see how the servers of every cluster are, and take one out of use."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from termproxy import clock
from termproxy.cli.control import ANSWER_TIMEOUT, CONFIG, CONTROL, JSON, ask, control_path

SERVER = click.argument("server", metavar="CLUSTER/SERVER")


@click.group(invoke_without_command=True)
@CONTROL
@CONFIG
@JSON
@click.pass_context
def backends(ctx: click.Context, control: Path | None, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The servers of every cluster: what state they are in, and what there is to do with them."""
    if ctx.invoked_subcommand is not None:
        return
    answer = _ask(ctx, {}, control, file)
    if as_json:
        click.echo(orjson.dumps(answer["backends"], option=orjson.OPT_INDENT_2))
    else:
        show(answer["backends"], Console())


@backends.command()
@SERVER
@CONTROL
@CONFIG
@click.pass_context
def drain(ctx: click.Context, server: str, control: Path | None, file: Path | None) -> None:
    """Give it no new connections; those that are open go on."""
    _wish(ctx, server, control, file)


@backends.command()
@SERVER
@CONTROL
@CONFIG
@click.pass_context
def disable(ctx: click.Context, server: str, control: Path | None, file: Path | None) -> None:
    """Give it no new connections, and use none that is open and idle."""
    _wish(ctx, server, control, file)


@backends.command()
@SERVER
@CONTROL
@CONFIG
@click.pass_context
def enable(ctx: click.Context, server: str, control: Path | None, file: Path | None) -> None:
    """Use it again."""
    _wish(ctx, server, control, file)


def _wish(ctx: click.Context, server: str, control: Path | None, file: Path | None) -> None:
    answer = _ask(ctx, {"do": ctx.info_name, "target": server}, control, file)
    click.echo(f"{answer['server']} is {answer['is']}")
    if answer["warning"]:
        click.echo(f"warning: {answer['warning']}", err=True)


def _ask(
    ctx: click.Context, question: dict[str, Any], control: Path | None, file: Path | None
) -> dict[str, Any]:
    """`termproxy backends -c FILE drain …` is as good as `termproxy backends drain -c FILE …`."""
    above = {} if ctx.parent is None else ctx.parent.params
    path = control_path(control or above.get("control"), file or above.get("file"))
    return ask(path, {"verb": "backends"} | question, timeout=ANSWER_TIMEOUT)


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The master's answer for a person's eyes."""
    numbers = [Column(name, justify="right") for name in ("weight", "active", "total", "failures")]
    server, check = Column("server", no_wrap=True), Column("check", overflow="fold")
    table = Table(server, "state", "for", *numbers, check, box=SIMPLE, padding=(0, 1, 0, 0))
    now = clock.utc_now()
    for row in rows:
        limit = f"/{row['max_connections']}" if row["max_connections"] else ""
        cells = (
            f"{row['cluster']}/{row['server']}{_address(row)}",
            row["state"],
            "ever" if row["since"] is None else length(row["since"], now),
            str(row["weight"]),
            f"{row['active']}{limit}",
            str(row["total"]),
            str(row["failures"]),
            _last_check(row["last_check"]),
        )
        table.add_row(*map(Text, cells))
    console.print(table)


def _address(row: dict[str, Any]) -> str:
    """For a name, which of its addresses it is."""
    if row["address"] == row["server"]:
        return ""
    return f" ({row['address'].rpartition(':')[0]})" if row["address"] else " (no address)"


def length(since: str, now: datetime) -> str:
    """How long that is, in words that fit into a table."""
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _last_check(check: dict[str, Any] | None) -> str:
    if check is None:
        return "-"
    status = f" ({check['status']})" if check["status"] else ""
    return f"{check['result']}{status}, {check['seconds_ago']:.0f} s ago"
