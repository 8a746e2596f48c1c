"""Draw the ratios: below the line at 1, termproxy needs less than that peer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.loads import GROWTH
from comparison.report import Result, headings
from comparison.summary import Row, Spread

COLOURS = ("#777777", "#4477aa", "#ee8833", "#228866", "#aa3377")
GROUP_WIDTH = 0.8


def draw(result: Result, file: Path) -> None:
    """Write a PNG: for each mode a group of bars per load, and how cost grows if that was measured."""
    mpl.use("Agg")
    panels = [panel for mode in modes(result) for panel in panels_of(result, mode)]
    widest = max(len(shown) for _, shown in panels)
    size = (3 + 1.5 * widest, 5.2 * len(panels))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    for axes, (mode, shown) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        if shown[0].quantity is GROWTH:
            draw_growth(axes, result, mode, shown)
        else:
            draw_ratios(axes, result, mode, shown)
        axes.axhline(1.0, color="black", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def modes(result: Result) -> list[str]:
    return list(dict.fromkeys(row.mode for row in result.rows))


def panels_of(result: Result, mode: str) -> list[tuple[str, list[Row]]]:
    """Return what to draw: the first quantity of each load, and all growth."""
    of_mode = [row for row in result.rows if row.mode == mode]
    firsts = [row for row in of_mode if row.quantity is row.load.shows[0]]
    growths = [row for row in of_mode if row.quantity is GROWTH]
    return [(mode, shown) for shown in (firsts, growths) if shown]


def draw_ratios(axes: Axes, result: Result, mode: str, shown: Sequence[Row]) -> None:
    ours, *peers = shown[0].figures
    for index, peer in enumerate(peers):
        ratios = [row.ratios[peer] for row in shown]
        draw_bars(axes, ratios, f"÷ {peer}", index, len(peers), colour_of(result, peer))
    draw_targets(axes, shown)
    axes.set_xticks(range(len(shown)), [tick_label(row) for row in shown], fontsize=8)
    axes.set_ylabel(f"{result.columns[ours]} ÷ peer, less is better")
    axes.set_title(
        f"{mode}: what an operation costs, {result.columns[ours]} beside its peers", loc="left"
    )


def draw_growth(axes: Axes, result: Result, mode: str, shown: Sequence[Row]) -> None:
    servers = list(shown[0].figures)
    for index, server in enumerate(servers):
        growths = [row.figures[server] for row in shown]
        draw_bars(axes, growths, result.columns[server], index, len(servers), colour_of(result, server))
    axes.set_xticks(range(len(shown)), [tick_label(row) for row in shown], fontsize=8)
    axes.set_ylabel("cost ÷ that with one, or the fewest")
    axes.set_title(f"{mode}: how the cost of an operation grows, each server beside itself", loc="left")


def colour_of(result: Result, server: str) -> str:
    """The same for a program in all panels."""
    return COLOURS[headings(result).index(result.columns[server]) % len(COLOURS)]


def draw_bars(  # noqa: PLR0913, PLR0917 - a bar chart has that many
    axes: Axes, spreads: Sequence[Spread | None], label: str, index: int, count: int, colour: str
) -> None:
    width = GROUP_WIDTH / count
    places, heights, below, above = [], [], [], []
    for group, spread in enumerate(spreads):
        if spread:
            places.append(group - GROUP_WIDTH / 2 + (index + 0.5) * width)
            heights.append(spread.median)
            below.append(spread.median - spread.least)
            above.append(spread.most - spread.median)
    bars = axes.bar(
        places,
        heights,
        width * 0.92,
        yerr=(below, above),
        label=label,
        color=colour,
        error_kw={"linewidth": 0.8, "capsize": 2, "ecolor": "#333333"},
    )
    axes.bar_label(
        bars,
        [f"{height:.2f}" for height in heights],
        label_type="center",
        fontsize=7,
        color="white",
    )


def draw_targets(axes: Axes, shown: Sequence[Row]) -> None:
    label = "target, to the best peer"
    for group, row in enumerate(shown):
        if row.load.target:
            ends = (group - GROUP_WIDTH / 2 - 0.05, group + GROUP_WIDTH / 2 + 0.05)
            axes.hlines(row.load.target.ratio, *ends, color="#cc3311", linestyle="--", label=label)
            label = ""


def tick_label(row: Row) -> str:
    title = row.load.title.replace(", ", "\n")
    return f"{title}\n{row.quantity.title}"
