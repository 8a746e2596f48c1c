"""The stored figures, and whether today's are worse.  Figures of two builds of Python do not compare."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

BASELINE = Path(__file__).resolve().parents[1] / "baseline.json"
# Two counts of one handshake may be 15 % apart, of one request 8 %.
MARGIN = 0.15
# So what is stored is the middle one of these, and what looks dearer is counted so often in all.
COUNTS = 3

Figures = Mapping[str, int]
"""Instructions an operation, by the load's name."""


@dataclass(frozen=True, slots=True)
class Change:
    load: str
    stored: int | None
    now: int

    @property
    def ratio(self) -> float | None:
        return self.now / self.stored if self.stored else None

    @property
    def is_regression(self) -> bool:
        return self.ratio is not None and self.ratio > 1 + MARGIN


def changes(stored: Figures, now: Figures) -> list[Change]:
    return [Change(name, stored.get(name), figure) for name, figure in now.items()]


def middle(counts: Sequence[Figures]) -> Figures:
    return {name: round(median(figures[name] for figures in counts)) for name in counts[0]}


def least(counts: Sequence[Figures]) -> Figures:
    """Return the least figure of each load, whichever counts have it: chance adds more than it takes."""
    names = dict.fromkeys(name for figures in counts for name in figures)
    return {name: min(figures[name] for figures in counts if name in figures) for name in names}


def this_build() -> str:
    """Name what decides how many instructions the same Python code takes."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python} ({platform.python_compiler()}), {platform.machine()}, gevent {version('gevent')}"


def stored_figures(file: Path, build: str) -> Figures:
    """Return nothing for a build that nobody has counted yet."""
    builds: dict[str, dict[str, int]] = json.loads(file.read_text()) if file.exists() else {}
    return builds.get(build, {})


def store(file: Path, build: str, figures: Figures) -> None:
    """Replace this build's figures, and keep the others'."""
    builds = json.loads(file.read_text()) if file.exists() else {}
    builds[build] = {**builds.get(build, {}), **figures}
    file.write_text(json.dumps(builds, indent=2, sort_keys=True) + "\n")
