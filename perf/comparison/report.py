"""Tell the result: one table with its verdicts for the terminal, JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from comparison.introductions import Introduction
from comparison.rounds import Measurement, Plan
from comparison.summary import Row, Spread, Verdict

ENOUGH_ROUNDS = 5
# Other work on the serving core beyond this part of its time is worth a warning.
DISTURBING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything a run has found out."""

    machine: dict[str, str]
    plan: Plan
    introductions: dict[str, Introduction]
    measurements: Sequence[Measurement]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]

    def rounds(self) -> int:
        """Return how many rounds there were: fewer than planned when time was short."""
        return 1 + max(it.round for it in self.measurements)

    def invalid(self) -> list[Measurement]:
        return [it for it in self.measurements if it.problem]


def show(result: Result, console: Console) -> None:
    for name, value in result.machine.items():
        console.print(f"{name:>20}  {value}", highlight=False, soft_wrap=True)
    for name, introduction in result.introductions.items():
        console.print(f"{name:>20}  {introduction}", highlight=False, soft_wrap=True)
    console.print(table(result))
    show_verdicts(result, console)
    show_doubts(result, console)


def table(result: Result) -> Table:
    ours, *peers = result.introductions
    title = f"median [dim]least–most[/], rounds: {result.rounds()}; ÷ peer: {ours} ÷ that peer"
    made = Table(title=title, title_justify="left", title_style="")
    for heading in ("operation", ""):
        made.add_column(heading, no_wrap=True)
    for heading in (*result.introductions, *(f"÷ {name}" for name in peers)):
        made.add_column(heading, justify="right")
    shown = ""
    for row in result.rows:
        if shown and shown != row.load.title:
            made.add_section()
        title = "" if shown == row.load.title else row.load.title
        shown = row.load.title
        scale = row.quantity.scale
        figures = (cell(row.figures[name], scale) for name in result.introductions)
        made.add_row(title, label(row), *figures, *(ratio_cell(row.ratios[name]) for name in peers))
    return made


def label(row: Row) -> str:
    arrow = "↓" if row.quantity.less_is_better else "↑"
    return f"{row.quantity.title} {row.quantity.unit} {arrow}"


def cell(spread: Spread | None, scale: float) -> str:
    if spread is None:
        return "[red]invalid[/]"
    median, least, most = (short(value * scale) for value in (spread.median, spread.least, spread.most))
    return f"{median} [dim]{least}–{most}[/]"


def ratio_cell(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.median:.2f}"


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
    indicative = "" if result.rounds() >= ENOUGH_ROUNDS else " (indicative: fewer than 5 rounds)"
    console.print(f"\nTargets{indicative}")
    for verdict in result.verdicts:
        mark = "[green]pass[/]" if verdict.is_met else "[red]miss[/]"
        console.print(f"  {mark}  {verdict_text(verdict)}", highlight=False)


def verdict_text(verdict: Verdict) -> str:
    target = verdict.load.target
    assert target is not None
    text = (
        f"{verdict.load.title}: {verdict.quantity.title} {verdict.ratio:.2f} times that of"
        f" {verdict.best_peer}, the best peer (target ≤ {target.ratio:.2f})"
    )
    if target.at_most is not None:
        scale, unit = verdict.quantity.scale, verdict.quantity.unit
        value, limit = short(verdict.value * scale), short(target.at_most * scale)
        text += f"; {value} {unit} (target ≤ {limit})"
    return text


def show_doubts(result: Result, console: Console) -> None:
    """Say what makes these figures worth less than they look."""
    for what in ("openssl", "agreed"):
        if len({getattr(it, what).split(" (")[0] for it in result.introductions.values()}) > 1:
            console.print(f"\n[yellow]Servers differ in their {what}: see above.[/]")
    others = [it.figures["others"] for it in result.measurements if "others" in it.figures]
    disturbed = sum(part > DISTURBING for part in others)
    if disturbed:
        console.print(
            f"\n[yellow]Other work took more than {DISTURBING:.0%} of the serving core in"
            f" {disturbed} of {len(others)} measurements (at most {max(others):.0%}).[/]"
        )
    for it in result.invalid():
        console.print(
            f"[red]invalid[/]: round {it.round + 1}, {it.load}, {it.server}: {it.problem}",
            highlight=False,
        )


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
        "load": row.load.name,
        "quantity": row.quantity.name,
        "figures": {name: it and asdict(it) for name, it in row.figures.items()},
        "ratios": {name: it and asdict(it) for name, it in row.ratios.items()},
    }


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    assert verdict.load.target is not None
    return {
        "load": verdict.load.name,
        "quantity": verdict.quantity.name,
        "best_peer": verdict.best_peer,
        "ratio": verdict.ratio,
        "value": verdict.value,
        "target": asdict(verdict.load.target),
        "is_met": verdict.is_met,
    }
