"""Tell the result: one table with its verdicts for the terminal, JSON for programs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comparison.introductions import Introduction
from comparison.rounds import Measurement, Plan
from comparison.summary import Row, Spread, Verdict

ENOUGH_ROUNDS = 5
# Other work on the serving core beyond this part of its time is worth a warning.
DISTURBING = 0.05
# So is a load that sent its requests late by more than this part of the p99 that it saw.
LATE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything a run has found out."""

    machine: dict[str, str]
    plan: Plan
    # Of each server: the same program's modes share one.
    columns: dict[str, str]
    introductions: dict[str, Introduction]
    measurements: Sequence[Measurement]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]

    def rounds(self) -> int:
        """Return how many rounds there were: fewer than planned when time was short."""
        return 1 + max(it.round for it in self.measurements)

    def invalid(self) -> list[Measurement]:
        return [it for it in self.measurements if it.problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table, in words; `is_first` of its load."""

    mode: str
    title: str
    label: str
    figures: list[str]
    spreads: list[str]
    ratios: list[str]
    is_first: bool


def headings(result: Result) -> list[str]:
    """Return the programs compared: the first one is ours."""
    return list(dict.fromkeys(result.columns.values()))


def lines(result: Result) -> Iterator[Line]:
    programs = headings(result)
    invalid = {(it.load, it.server) for it in result.invalid()}
    shown = None
    for row in result.rows:
        servers = {result.columns[name]: name for name in row.figures}
        figures, spreads, ratios = [], [], []
        for program in programs:
            name = servers.get(program, "")
            median, spread = cell(row.figures.get(name), row.quantity.scale)
            figures.append("invalid" if not median and (row.load.name, name) in invalid else median)
            spreads.append(spread)
            ratios.append(f"{ratio.median:.2f}" if (ratio := row.ratios.get(name)) else "")
        is_first = shown != (row.mode, row.load.name)
        shown = (row.mode, row.load.name)
        yield Line(
            mode=row.mode,
            title=row.load.title,
            label=label(row),
            figures=figures,
            spreads=spreads,
            ratios=ratios[1:],
            is_first=is_first,
        )


def show(result: Result, console: Console) -> None:
    for name, value in about(result).items():
        console.print(f"{name:>20}  {value}", highlight=False, soft_wrap=True)
    console.print(table(result))
    show_verdicts(result, console)
    for doubt in doubts(result):
        console.print(f"\n[yellow]{escape(doubt)}[/]", highlight=False)
    for it in result.invalid():
        console.print(f"[red]invalid[/]: {escape(invalid_text(it))}", highlight=False)


def about(result: Result) -> dict[str, str]:
    """Return what was measured and where."""
    return {**result.machine, **{name: str(it) for name, it in result.introductions.items()}}


def caption(result: Result) -> str:
    ours, *_ = headings(result)
    return f"median least–most, rounds: {result.rounds()}; ÷ peer: {ours} ÷ that peer"


def table(result: Result) -> Table:
    programs = headings(result)
    made = Table(title=caption(result), title_justify="left", title_style="")
    for heading in ("operation", ""):
        made.add_column(heading, no_wrap=True)
    for heading in (*programs, *(f"÷ {name}" for name in programs[1:])):
        made.add_column(heading, justify="right")
    for line in lines(result):
        if line.is_first:
            made.add_section()
        title = full_title(line.mode, line.title) if line.is_first else ""
        cells = (
            f"{figure} [dim]{spread}[/]" if spread else figure or "–"
            for figure, spread in zip(line.figures, line.spreads, strict=True)
        )
        made.add_row(title, line.label, *cells, *(ratio or "–" for ratio in line.ratios))
    return made


def full_title(mode: str, title: str) -> str:
    return f"{mode}: {title}" if mode else title


def label(row: Row) -> str:
    arrow = "↓" if row.quantity.less_is_better else "↑"
    return f"{row.quantity.title} {row.quantity.unit} {arrow}"


def cell(spread: Spread | None, scale: float) -> tuple[str, str]:
    """Return the median, and the least and the most."""
    if spread is None:
        return "", ""
    median, least, most = (short(value * scale) for value in (spread.median, spread.least, spread.most))
    return median, f"{least}–{most}"


def short(value: float) -> str:
    """Write about three digits that matter."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show_verdicts(result: Result, console: Console) -> None:
    if not result.verdicts:
        return
    console.print(f"\n{targets_title(result)}")
    for verdict in result.verdicts:
        mark = "[green]pass[/]" if verdict.is_met else "[red]miss[/]"
        console.print(f"  {mark}  {verdict_text(verdict)}", highlight=False)


def targets_title(result: Result) -> str:
    return "Targets" if result.rounds() >= ENOUGH_ROUNDS else "Targets (indicative: fewer than 5 rounds)"


def verdict_text(verdict: Verdict) -> str:
    target = verdict.load.target
    assert target is not None
    text = (
        f"{full_title(verdict.mode, verdict.load.title)}: {verdict.quantity.title}"
        f" {verdict.ratio:.2f} times that of {verdict.best_peer}, the best peer"
        f" (target ≤ {target.ratio:.2f})"
    )
    if target.at_most is not None:
        scale, unit = verdict.quantity.scale, verdict.quantity.unit
        value, limit = short(verdict.value * scale), short(target.at_most * scale)
        text += f"; {value} {unit} (target ≤ {limit})"
    return text


def doubts(result: Result) -> list[str]:
    """Say what makes these figures worth less than they look."""
    found = [
        f"Servers differ in their {what}: see above."
        for what in ("openssl", "agreed")
        if len({getattr(it, what).split(" (")[0] for it in result.introductions.values()}) > 1
    ]
    others = [it.figures["others"] for it in result.measurements if "others" in it.figures]
    disturbed = sum(part > DISTURBING for part in others)
    if disturbed:
        found.append(
            f"Other work took more than {DISTURBING:.0%} of the serving core in"
            f" {disturbed} of {len(others)} measurements (at most {max(others):.0%})."
        )
    paced = [it.figures for it in result.measurements if "late_p99" in it.figures]
    late = [it for it in paced if it["late_p99"] > LATE * it["p99"]]
    if late:
        found.append(
            f"In {len(late)} measurements of latency the load itself was late by more than"
            f" {LATE:.0%} of the p99 shown: their latencies say little about the servers."
        )
    return found


def invalid_text(it: Measurement) -> str:
    return f"round {it.round + 1}, {it.load}, {it.server}: {it.problem}"


def write_json(result: Result, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(as_json(result), indent=2, ensure_ascii=False) + "\n")


def as_json(result: Result) -> dict[str, Any]:
    """Everything in seconds and bytes, whatever the table shows."""
    return {
        "machine": result.machine,
        "servers": {name: asdict(it) for name, it in result.introductions.items()},
        "rounds": result.rounds(),
        "seconds": result.plan.seconds,
        "summary": [row_as_json(row) for row in result.rows],
        "targets": [verdict_as_json(verdict) for verdict in result.verdicts],
        "measurements": [asdict(it) for it in result.measurements],
    }


def row_as_json(row: Row) -> dict[str, Any]:
    return {
        "mode": row.mode,
        "load": row.load.name,
        "quantity": row.quantity.name,
        "figures": {name: it and asdict(it) for name, it in row.figures.items()},
        "ratios": {name: it and asdict(it) for name, it in row.ratios.items()},
    }


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    assert verdict.load.target is not None
    return {
        "mode": verdict.mode,
        "load": verdict.load.name,
        "quantity": verdict.quantity.name,
        "best_peer": verdict.best_peer,
        "ratio": verdict.ratio,
        "value": verdict.value,
        "target": asdict(verdict.load.target),
        "is_met": verdict.is_met,
    }
