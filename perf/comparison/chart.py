"""Draw the ratios: below the line at 1, termproxy needs less than that peer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.report import Result
from comparison.summary import Row

COLOURS = ("#4477aa", "#ee8833", "#228866", "#aa3377", "#777777")
GROUP_WIDTH = 0.8


def draw(result: Result, file: Path) -> None:
    """Write a PNG with one group of bars per load: the first quantity it shows."""
    mpl.use("Agg")
    ours, *peers = result.introductions
    shown = [row for row in result.rows if row.quantity is row.load.shows[0]]
    figure = Figure(figsize=(2 + 1.7 * len(shown), 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for index, peer in enumerate(peers):
        draw_peer(axes, shown, peer, index, len(peers))
    draw_targets(axes, shown)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set_xticks(range(len(shown)), [tick_label(row) for row in shown], fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{ours} ÷ peer, less is better")
    axes.set_title(f"What an operation costs: {ours} beside its peers", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def draw_peer(axes: Axes, shown: Sequence[Row], peer: str, index: int, peers: int) -> None:
    width = GROUP_WIDTH / peers
    places, heights, below, above = [], [], [], []
    for group, row in enumerate(shown):
        if ratio := row.ratios[peer]:
            places.append(group - GROUP_WIDTH / 2 + (index + 0.5) * width)
            heights.append(ratio.median)
            below.append(ratio.median - ratio.least)
            above.append(ratio.most - ratio.median)
    bars = axes.bar(
        places,
        heights,
        width * 0.92,
        yerr=(below, above),
        label=f"÷ {peer}",
        color=COLOURS[index % len(COLOURS)],
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
