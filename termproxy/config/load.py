"""From a TOML file, or the flags of `run`, to a Config: all problems told at once, each with its cure.

A `Source` holds the plain values and can say where each came from.  The flags are turned into the same
tables that a file would hold, so there is one loader and one set of checks.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from termproxy.config import checks
from termproxy.config.schema import BadItems, BadValue, Config, Frontend, key_of, keys_of, kind_of
from termproxy.errors import ConfigError, Problem

Path_ = tuple[str | int, ...]  # ("frontend", 0, "listen")

FILE_MAX = 1 << 20  # bytes: a configuration is read whole


class Source(Protocol):
    """Plain values, the folder that their relative paths start from, and where each value stands."""

    @property
    def values(self) -> Mapping[str, Any]: ...

    @property
    def base(self) -> Path: ...

    def where(self, path: Path_) -> str: ...

    def line(self, path: Path_) -> int:
        """Where it stands among the other values."""


@dataclass(frozen=True)
class FileSource:
    """A TOML file."""

    file: Path
    text: str
    values: Mapping[str, Any]

    @property
    def base(self) -> Path:
        return self.file.parent

    @classmethod
    def read(cls, file: Path) -> FileSource:
        """ConfigError when the file cannot be read or is not TOML."""
        try:
            with file.open("rb") as stream:
                content = stream.read(FILE_MAX + 1)
            if len(content) > FILE_MAX:
                raise ConfigError([Problem(str(file), "larger than 1 MiB", "name a TOML file")])
            text = content.decode()
            return cls(file, text, tomllib.loads(text))
        except OSError as error:
            problem = Problem(str(file), error.strerror or str(error), "name a file you may read")
        except UnicodeDecodeError:
            problem = Problem(str(file), "not UTF-8", "TOML files are UTF-8 text")
        except tomllib.TOMLDecodeError as error:
            problem = Problem(f"{file}{_line_in(str(error))}", f"not TOML: {error}", "mend the syntax")
        except (ValueError, RecursionError) as error:  # a number too long, lists nested too deep
            problem = Problem(str(file), f"not readable as TOML: {error}", "mend the syntax")
        raise ConfigError([problem])

    def line(self, path: Path_) -> int:
        return line_of(self.text, path) or 0

    def where(self, path: Path_) -> str:
        line = self.line(path)
        return f"{self.file}{f':{line}' if line else ''}: {dotted(path)}"


@dataclass(frozen=True)
class FlagSource:
    """The flags of `termproxy run`; `flags` says which flag gave the value at a path."""

    values: Mapping[str, Any]
    flags: Mapping[Path_, str]

    @property
    def base(self) -> Path:
        return Path.cwd()

    def line(self, path: Path_) -> int:  # noqa: ARG002 - flags have no order that matters
        return 0

    def where(self, path: Path_) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in self.flags:
                return self.flags[path[:length]]
        return dotted(path)


@dataclass(frozen=True, slots=True)
class PlainSource:
    """Values of another process, which has checked them."""

    values: Mapping[str, Any]
    base: Path

    def line(self, path: Path_) -> int:  # noqa: ARG002 - they stand nowhere
        return 0

    def where(self, path: Path_) -> str:
        return dotted(path)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source gave: a Config, or the problems and the frontends that can be read all the same."""

    config: Config | None
    frontends: Mapping[int, Frontend]
    problems: Sequence[Problem]


def load(source: Source) -> Config:
    """The Config that `source` writes; ConfigError with every problem in it."""
    reading = read(source)
    if reading.config is None:
        raise ConfigError(reading.problems)
    return reading.config


def read(source: Source) -> Reading:
    """As load(), for callers that have more to check and want to tell all problems together."""
    reader = _Reader(source)
    config: Config | None = reader.table(Config, source.values, ())
    if config is not None:
        reader.found += checks.problems(config)
    found = sorted(reader.found, key=lambda finding: source.line(finding[0]))
    problems = [Problem(source.where(path), what, cure) for path, what, cure in found]
    return Reading(None if problems else config, reader.frontends, problems)


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[checks.Finding] = []
        self.frontends: dict[int, Frontend] = {}

    def table(self, cls: type, values: Any, path: Path_) -> Any:
        """An instance of `cls`, or None when something in it was wrong."""
        if not isinstance(values, Mapping):
            self._problem(path, f"{values!r} is not a table", f"write [{dotted(path)}]")
            return None
        self._unknown_keys(cls, values, path)
        arguments: dict[str, Any] = {}
        complete = True
        for spec in fields(cls):
            key = key_of(spec)
            if key in values:
                arguments[spec.name] = value = self._value(spec.metadata, values[key], (*path, key))
                complete = complete and value is not _BAD
            elif spec.default is MISSING and spec.default_factory is MISSING:
                kind = kind_of(spec)
                self._problem(path, f"{key} is missing", f"write {kind.expects if kind else key}")
                complete = False
        return cls(**arguments) if complete else None

    def _value(self, metadata: Mapping[str, Any], value: Any, path: Path_) -> Any:
        if "section" in metadata:
            return self._or_bad(self.table(metadata["section"], value, path))
        if "sections" in metadata:
            return self._sections(metadata["sections"], value, path)
        if "section_map" in metadata:
            return self._section_map(metadata["section_map"], value, path)
        try:
            return metadata["kind"].read(value, self.source.base)
        except BadItems as bad:
            for index, item in bad.items:
                self._problem((*path, index), str(item), item.cure)
        except BadValue as bad:
            self._problem(path, str(bad), bad.cure)
        return _BAD

    def _sections(self, cls: type, value: Any, path: Path_) -> Any:
        if not isinstance(value, list):
            self._problem(path, "not a list of tables", f"write [[{dotted(path)}]]")
            return _BAD
        items = [self.table(cls, item, (*path, index)) for index, item in enumerate(value)]
        if cls is Frontend:
            self.frontends = {index: item for index, item in enumerate(items) if item is not None}
        return _BAD if None in items else tuple(items)

    def _section_map(self, cls: type, value: Any, path: Path_) -> Any:
        if not isinstance(value, Mapping):
            self._problem(path, "not a table", f"write [{dotted(path)}.NAME]")
            return _BAD
        items = {name: self.table(cls, item, (*path, name)) for name, item in value.items()}
        return _BAD if None in items.values() else items

    def _unknown_keys(self, cls: type, values: Mapping[str, Any], path: Path_) -> None:
        known = keys_of(cls)
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                cure = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
                self._problem((*path, key), "unknown key", cure)

    def _or_bad(self, value: Any) -> Any:
        return _BAD if value is None else value

    def _problem(self, path: Path_, what: str, cure: str) -> None:
        self.found.append((path, what, cure))


_BAD: Any = object()  # None is a value


def dotted(path: Path_) -> str:
    """As in frontend[0].listen."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the file"


def line_of(text: str, path: Path_) -> int | None:
    """The line (from 1) on which the statement that sets `path` begins; None when none does.

    TOML's own parser finds it: the first prefix of the file, in whole statements, that holds the path,
    by halving.  A prefix that ends inside a statement of several lines does not parse, and grows.
    """
    if not path:
        return None
    lines = text.removesuffix("\n").split("\n")  # TOML knows no other line ends; splitlines() does
    begin, end = 0, len(lines)  # the statement begins on one of these lines
    found = False
    while begin < end:
        whole, values = _whole_statements(lines, (begin + end) // 2 + 1, end)
        if values is None:
            end = (begin + end) // 2
        elif holds(values, path):
            found, end = True, (begin + end) // 2
        else:
            begin = whole
    return begin + 1 if found else None


def _whole_statements(lines: list[str], least: int, most: int) -> tuple[int, Any]:
    """The first prefix of at least `least` lines that parses, and its values; None when none does."""
    for count in range(least, most + 1):
        try:
            return count, tomllib.loads("\n".join(lines[:count]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
    return most, None


def holds(values: Any, path: Path_) -> bool:
    """Whether there is something at `path`."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            # An item of a list written in one statement stands where its list does.
            return False
    return True


def _line_in(message: str) -> str:
    """Tomllib says "… (at line 3, column 7)"."""
    _, found, rest = message.rpartition("(at line ")
    return f":{rest.split(',')[0]}" if found else ""


def absolute(path: str | os.PathLike[str]) -> Path:
    """`path` made absolute without following links, so that errors name what the operator wrote."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() would follow links
