"""What the command line of `perf/compare` chooses: loads and servers, by their names."""

from collections.abc import Sequence

import click

from comparison.loads import LOADS, Load
from comparison.scale import SCALE_LOADS
from comparison.servers import SERVERS


def chosen_loads(_context: click.Context, _option: click.Parameter, value: str | None) -> list[Load]:
    """Read a comma-separated list of names of loads, or of their first words."""
    known = [*LOADS, *SCALE_LOADS]
    return [] if value is None else choose(value, known)


def choose(names: str, known: Sequence[Load]) -> list[Load]:
    """Return the loads that are named, in their own order: "handshake" is all of "handshake-…"."""
    words = [word.strip() for word in names.split(",")]
    matches = {
        word: {load.name for load in known if f"{load.name}-".startswith(f"{word}-")} for word in words
    }
    if unknown := [word for word, found in matches.items() if not found]:
        everything = ", ".join(load.name for load in known)
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {everything}")
    wanted = set().union(*matches.values())
    return [load for load in known if load.name in wanted]


def chosen_servers(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str]:
    """Read a comma-separated list of servers, or of programs, which are all of their servers."""
    known = {name for peers in SERVERS.values() for it in peers for name in (it.name, it.column) if name}
    names = [] if value is None else [name.strip() for name in value.split(",")]
    if unknown := sorted(set(names) - known):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return names
