"""Write configurations: the annotated reference file, and what is in force with where it came from."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from termproxy.address import Address, Name
from termproxy.config.load import Path_, Source, holds
from termproxy.config.schema import (
    CertificateFiles,
    Cluster,
    Config,
    FactFields,
    Frontend,
    Host,
    Route,
    Server,
    key_of,
    kind_of,
)

HEADER = """\
# Every setting of termproxy, with its default.  Generated from termproxy/config/schema.py by
# `scripts/check --fix`; conf/minimal.toml is what one needs to begin.
# Relative paths are relative to this file.
"""


def reference() -> str:
    """conf/termproxy.toml: every setting, its default or an example, and its sentence of help."""
    blocks = [HEADER, *_settings(Config)]
    for spec in fields(Config):
        if "section" in spec.metadata:
            blocks += [f"\n# {spec.metadata['help']}\n[{key_of(spec)}]"]
            blocks += _settings(spec.metadata["section"])
    blocks += ["\n# Where clients come in.\n[[frontend]]", *_settings(Frontend)]
    for spec in fields(Frontend):
        if "section" in spec.metadata:
            blocks += [f"\n# {spec.metadata['help']}\n[frontend.{key_of(spec)}]"]
            blocks += _settings(spec.metadata["section"])
    blocks += ['\n# Mode "http": requests that go elsewhere; the first that fits.']
    # As a comment: a route is not everybody's.
    blocks += [_commented(block) for block in ("[[frontend.route]]", *_settings(Route))]
    blocks += ["\n# What differs for some names."]
    blocks += ["[[frontend.host]]", *_settings(Host)]
    blocks += ["\n# Where they are forwarded to.\n[cluster.app]", *_settings(Cluster)]
    for spec in fields(Cluster):
        if "section" in spec.metadata:
            blocks += [f"\n# {spec.metadata['help']}\n[cluster.app.{key_of(spec)}]"]
            blocks += _settings(spec.metadata["section"])
    return "\n".join(blocks) + "\n"


def _commented(block: str) -> str:
    return "\n".join(line if line.startswith("#") else f"# {line}" for line in block.splitlines())


def _settings(cls: type) -> Iterator[str]:
    for spec in fields(cls):
        kind = kind_of(spec)
        if kind is not None:
            is_open = spec.default is None and spec.metadata["example"] is not None
            value = spec.metadata["example"] if is_open or spec.default is MISSING else spec.default
            notes = textwrap.wrap(f"{spec.metadata['help']}  ({kind.expects})", width=96)
            text = "\n".join(f"# {note}" for note in notes)
            yield f"{text}\n{'# ' if is_open else ''}{key_of(spec)} = {_toml(value, spec)}"


def dump(config: Config, source: Source) -> str:
    """Every setting in force as TOML, each with where it came from."""
    return "\n".join(_dump_table(config, source, ())) + "\n"


def _dump_table(table: Any, source: Source, path: Path_) -> Iterator[str]:
    nested = []
    for spec in fields(table):
        value = getattr(table, spec.name)
        here = (*path, key_of(spec))
        if value is None and spec.metadata.get("example") is not None:
            continue  # not given, and something else says what holds
        if kind_of(spec) is not None:
            origin = source.where(here) if holds(source.values, here) else "default"
            comment = "".join(mark if mark.isprintable() else "?" for mark in origin)
            yield f"{key_of(spec)} = {_toml(value, spec)}  # {comment}"
        else:
            nested.append((spec, value, here))
    for spec, value, here in nested:
        yield from _dump_nested(spec, value, source, here)


def _dump_nested(spec: Field[Any], value: Any, source: Source, path: Path_) -> Iterator[str]:
    if "sections" in spec.metadata:
        for index, item in enumerate(value):
            yield f"\n[[{_header(path)}]]"
            yield from _dump_table(item, source, (*path, index))
    elif "section_map" in spec.metadata:
        for name, item in value.items():
            yield f"\n[{_header((*path, name))}]"
            yield from _dump_table(item, source, (*path, name))
    else:
        yield f"\n[{_header(path)}]"
        yield from _dump_table(value, source, path)


def _header(path: Path_) -> str:
    """A table's name in TOML: without indices, in quotes where TOML needs them."""
    names = [part for part in path if isinstance(part, str)]
    bare = [name if re.fullmatch("[A-Za-z0-9_-]+", name) else _quote(name) for name in names]
    return ".".join(bare)


def _toml(value: Any, spec: Field[Any]) -> str:
    if value is None:
        return '"auto"' if spec.name == "workers" else '""'
    return _literal(value)


def _literal(value: Any) -> str:
    plain = _plain(value)
    match plain:
        case bool() | int() | float():
            return _number(plain)
        case str() | Path() | Address() | Name():
            return _quote(str(plain))
        case dict():
            pairs = ", ".join(f"{key} = {_literal(each)}" for key, each in plain.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return f"[{', '.join(map(_literal, plain))}]"


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line for each kind of value
    """What an operator would write for it: one thing where that is enough, else a table."""
    match value:
        case FactFields(pairs=pairs):
            return dict(pairs)
        case IPv4Network() | IPv6Network():
            return str(value)
        case CertificateFiles(chain=chain, key=None, passphrase=None):
            return chain
        case CertificateFiles():
            return {name: given for name, given in asdict(value).items() if given is not None}
        case Server(address=address, weight=1, max_connections=0):
            return address
        case Server(address=address, weight=weight, max_connections=limit):
            return {"address": address, "weight": weight} | ({"max_connections": limit} if limit else {})
        case _:
            return value


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if value == int(value) else repr(value)


def _quote(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def help_of(cls: type, name: str) -> str:
    """A setting's sentence of help and what it may be, for a flag of the same meaning."""
    spec = next(spec for spec in fields(cls) if spec.name == name)
    kind = kind_of(spec)
    return f"{spec.metadata['help']}  ({kind.expects if kind else ''})"


if __name__ == "__main__":
    sys.stdout.write(reference())
