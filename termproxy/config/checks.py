"""What no single setting can tell: that names meet and addresses don't."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from termproxy.config.schema import Config

Finding = tuple[tuple[str | int, ...], str, str]  # where, what, cure


def problems(config: Config) -> Iterator[Finding]:
    """Everything in `config` that contradicts itself."""
    if not config.frontends:
        yield (), "no frontend", "write [[frontend]] with name, listen, cluster and certificates"
    yield from _clusters_that_are_missing(config)
    yield from _names_used_twice(config)
    yield from _addresses_used_twice(config)
    yield from _too_many_certificates(config)


def _clusters_that_are_missing(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        if frontend.cluster not in config.clusters:
            close = difflib.get_close_matches(frontend.cluster, config.clusters, n=1)
            cure = f"did you mean {close[0]!r}?" if close else f"write [cluster.{frontend.cluster}]"
            yield ("frontend", index, "cluster"), f"there is no cluster {frontend.cluster!r}", cure


def _names_used_twice(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, frontend in enumerate(config.frontends):
        if frontend.name in seen:
            path = ("frontend", index, "name")
            yield path, f"a second frontend named {frontend.name!r}", "give each its own name"
        seen.add(frontend.name)


def _addresses_used_twice(config: Config) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for index, frontend in enumerate(config.frontends):
        for address in map(str, frontend.listen):
            if address in seen:
                what = f"{address} is already listened on by frontend {seen[address]!r}"
                yield ("frontend", index, "listen"), what, "give each address to one frontend"
            seen[address] = frontend.name


def _too_many_certificates(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        if len(frontend.certificates) > 1:
            yield (
                ("frontend", index, "certificates"),
                f"{len(frontend.certificates)} certificates",
                "name one: choosing among several by name is not built yet",
            )
