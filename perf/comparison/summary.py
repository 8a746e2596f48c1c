"""Medians, spreads, ratios and verdicts.  Reads measurements, touches nothing else.

A ratio is taken between two servers in one round and only then is the median of
the rounds taken: what slows a whole round down, slows both alike.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from comparison.loads import GROWTH, Load, Quantity
from comparison.rounds import Measurement

# By round: a figure that is missing was not measured or not valid.
Series = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and how far they were apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        measured = list(values)
        if not measured:
            return None
        return cls(statistics.median(measured), min(measured), max(measured))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of one load: every server's figures, and ours divided by each peer's."""

    mode: str = ""
    load: Load
    quantity: Quantity
    figures: dict[str, Spread | None]
    ratios: dict[str, Spread | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one target.  The best peer is the one our ratio is highest to."""

    mode: str = ""
    load: Load
    quantity: Quantity
    best_peer: str
    ratio: float
    value: float
    is_met: bool


def rows(
    measurements: Sequence[Measurement], loads: Sequence[Load], servers: Sequence[str], mode: str = ""
) -> list[Row]:
    """Summarise; the first server is the one divided by the others."""
    ours, *peers = servers
    made = []
    for load in loads:
        for quantity in load.shows:
            series = {name: series_of(measurements, load.name, quantity, name) for name in servers}
            row = Row(
                mode=mode,
                load=load,
                quantity=quantity,
                figures={name: Spread.of(series[name].values()) for name in servers},
                ratios={name: Spread.of(ratios(series[ours], series[name])) for name in peers},
            )
            made.append(row)
        if load.grows_from:
            made.append(growth(measurements, load, servers, mode))
    return made


def growth(measurements: Sequence[Measurement], load: Load, servers: Sequence[str], mode: str) -> Row:
    """Divide each server by itself: this load by the one that it grows from."""
    quantity = load.shows[0]
    figures = {}
    for name in servers:
        now = series_of(measurements, load.name, quantity, name)
        before = series_of(measurements, load.grows_from, quantity, name)
        figures[name] = Spread.of(ratios(now, before))
    nothing = dict.fromkeys(servers[1:])
    return Row(mode=mode, load=load, quantity=GROWTH, figures=figures, ratios=nothing)


def series_of(measurements: Iterable[Measurement], load: str, quantity: Quantity, server: str) -> Series:
    return {
        it.round: it.figures[quantity.name]
        for it in measurements
        if (it.load, it.server) == (load, server) and quantity.name in it.figures
    }


def ratios(ours: Series, theirs: Series) -> list[float]:
    """Divide round by round, where both were measured."""
    return [ours[number] / theirs[number] for number in ours if theirs.get(number)]


def verdicts(summary: Iterable[Row]) -> list[Verdict]:
    """Judge the first quantity of every load that has a target and could be measured."""
    made = []
    for row in summary:
        target = row.load.target
        if target is None or row.quantity is not row.load.shows[0]:
            continue
        medians = {name: ratio.median for name, ratio in row.ratios.items() if ratio}
        ours = next(iter(row.figures.values()))
        if not medians or ours is None:
            continue
        best_peer = max(medians, key=medians.__getitem__)
        verdict = Verdict(
            mode=row.mode,
            load=row.load,
            quantity=row.quantity,
            best_peer=best_peer,
            ratio=medians[best_peer],
            value=ours.median,
            is_met=target.is_met(medians[best_peer], ours.median),
        )
        made.append(verdict)
    return made
