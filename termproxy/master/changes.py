"""What differs between two configurations, in words, and what follows: whether the running workers can
take it over, so that their connections live on, or new ones must come.

What is not known here to be taken over takes new workers.  Reads no file, sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from termproxy.config.schema import Cluster, Config, Frontend, Host, key_of

TEXT_MAX = 120  # characters of a value

Place = tuple[str, ...]


class Takes(Enum):
    NOTHING = "the running workers take it over"
    WORKERS = "it takes new workers"
    RESTART = "it takes a restart; the old one stays"


@dataclass(frozen=True, slots=True)
class Change:
    text: str
    takes: Takes

    def __str__(self) -> str:
        return f"{self.text}; {self.takes.value}" if self.takes is Takes.RESTART else self.text


# What running workers can follow: a setting, or all below it.
FOLLOWED: frozenset[Place] = frozenset(
    {
        ("log", "level"),
        ("log", "query"),
        ("timeouts",),
        ("limits", "connections"),
        ("limits", "request_head"),
        ("limits", "request_target"),
        ("limits", "request_fields"),
        ("limits", "request_body"),
        ("limits", "body_rate"),
        ("dns",),
        ("frontend", "cluster"),
        ("frontend", "certificates"),
        ("frontend", "accept_proxy_from"),
        ("frontend", "trust_forwarded_from"),
        ("frontend", "http"),
        ("frontend", "route"),
        ("frontend", "host", "cluster"),
        ("cluster",),
    }
)

# Below those: a prober's last word would stand for ever where none comes any more.
NOT_FOLLOWED: frozenset[Place] = frozenset({("cluster", "health", "kind")})

FIXED = ("pidfile", "control", "state_dir", "admin")


def changes(old: Config, new: Config) -> list[Change]:
    """All that differs, in the order of the table of settings."""
    found: list[Change] = []
    for spec in fields(Config):
        before, after = getattr(old, spec.name), getattr(new, spec.name)
        if spec.name in FIXED and before != after:
            found.append(Change(f"{spec.name} {_text(before)} -> {_text(after)}", Takes.RESTART))
        elif spec.name == "frontends":
            found += _of_frontends(before, after)
        elif spec.name == "clusters":
            found += _of_clusters(before, after)
        elif spec.name not in FIXED:
            found += _of_setting("", (spec.name,), spec.name, before, after)
    return found


def needs_new_workers(found: Sequence[Change]) -> bool:
    """Whether one of these takes new workers, and so all of them go with it."""
    return any(change.takes is Takes.WORKERS for change in found)


def _of_frontends(old: Sequence[Frontend], new: Sequence[Frontend]) -> Iterator[Change]:
    before, after = ({each.name: each for each in side} for side in (old, new))
    yield from _come_and_gone("frontend", before, after, Takes.WORKERS)
    if before.keys() == after.keys() and list(before) != list(after):
        yield Change("frontends in another order", Takes.WORKERS)
    for name in before.keys() & after.keys():
        for spec in fields(Frontend):
            one, other = getattr(before[name], spec.name), getattr(after[name], spec.name)
            who, key = f"frontend {name}: ", key_of(spec)
            if spec.name == "hosts":
                yield from _of_hosts(who, one, other)
            elif spec.name == "routes" and one != other:
                yield Change(f"{who}routes {_text(one)} -> {_text(other)}", Takes.NOTHING)
            else:
                yield from _of_setting(who, ("frontend", key), key, one, other)


def _of_hosts(who: str, old: Sequence[Host], new: Sequence[Host]) -> Iterator[Change]:
    before, after = ({each.names: each for each in side} for side in (old, new))
    for names in (*before, *(names for names in after if names not in before)):
        host = f"{who}host {', '.join(names)}"
        if names not in after:
            yield Change(f"{host} removed", Takes.WORKERS)
        elif names not in before:
            yield Change(f"{host} added", Takes.WORKERS)
        else:
            one, other = before[names], after[names]
            yield from _of_table(f"{host}: ", ("frontend", "host"), "", one, other)


def _of_clusters(old: Mapping[str, Cluster], new: Mapping[str, Cluster]) -> Iterator[Change]:
    yield from _come_and_gone("cluster", old, new, Takes.NOTHING)
    for name in (name for name in old if name in new):
        who, one, other = f"cluster {name}: ", old[name], new[name]
        before, after = ({str(each): each for each in side.servers} for side in (one, other))
        yield from _come_and_gone(f"{who}server", before, after, Takes.NOTHING)
        for server in (server for server in before if server in after):
            values = before[server], after[server]
            yield from _of_table(f"{who}server {server}: ", ("cluster",), "", *values)
        for spec in fields(Cluster):
            if spec.name != "servers":
                values = getattr(one, spec.name), getattr(other, spec.name)
                yield from _of_setting(who, ("cluster", spec.name), spec.name, *values)


def _come_and_gone(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], takes: Takes
) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change(f"{what} {name} removed", takes)
    for name in new:
        if name not in old:
            yield Change(f"{what} {name} added", takes)


def _of_setting(who: str, place: Place, name: str, old: Any, new: Any) -> Iterator[Change]:
    """Of a setting, or of all in a table of them; `name` is how the file has it."""
    if old == new:
        return
    if _is_table(old) and type(old) is type(new):
        yield from _of_table(who, place, name, old, new)
        return
    is_followed = any(place[:length] in FOLLOWED for length in range(1, len(place) + 1))
    takes = Takes.NOTHING if is_followed and place not in NOT_FOLLOWED else Takes.WORKERS
    yield Change(f"{who}{name} {_text(old)} -> {_text(new)}", takes)


def _of_table(who: str, place: Place, name: str, old: Any, new: Any) -> Iterator[Change]:
    for spec in fields(old):
        key = key_of(spec)
        values = getattr(old, spec.name), getattr(new, spec.name)
        yield from _of_setting(who, (*place, key), f"{name}.{key}".lstrip("."), *values)


def _is_table(value: Any) -> bool:
    """Whether it is more than one value, which says itself what it is."""
    return is_dataclass(value) and "__str__" not in vars(type(value))


def _text(value: Any) -> str:
    """As the file has it, about."""
    match value:
        case None | "" | ():
            text = "(none)"
        case bool():
            text = str(value).lower()
        case float():
            text = f"{value:g}"
        case str() | int() | Path():
            text = str(value)
        case tuple():
            text = f"[{', '.join(map(_text, value))}]"
        case _ if _is_table(value):
            parts = (getattr(value, spec.name) for spec in fields(value))
            text = " ".join(_text(part) for part in parts if part not in {None, ""})
        case _:
            text = str(value)
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"
