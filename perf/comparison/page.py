"""One page with everything: the machine, the table, the chart, the targets, and what is doubtful.

The page is a file that needs no other.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from comparison.report import (
    Line,
    Result,
    about,
    caption,
    doubts,
    full_title,
    headings,
    invalid_text,
    lines,
    targets_title,
    verdict_text,
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 88rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td:nth-child(2), .about td { text-align: left; }
.about td { white-space: normal; }
tr.first td { border-top: 1px solid #ccc; }
small { color: #777; }
.miss { color: #b3261e; } .pass { color: #1a7f37; }
img { max-width: 100%; }
"""


def write_page(result: Result, chart: Path, file: Path) -> None:
    """Write the report as HTML, with the chart, a PNG that was drawn before, in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(page(result, chart.read_bytes())) + "\n")


def page(result: Result, chart: bytes) -> Iterator[str]:
    ours, *peers = headings(result)
    title = f"What an operation costs: {ours} beside {', '.join(peers) or 'nobody'}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield '<table class="about">'
    for name, value in about(result).items():
        yield f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
    yield "</table>"
    data = b64encode(chart).decode()
    yield f'<p><img alt="ratios of {escape(ours)} to its peers" src="data:image/png;base64,{data}"></p>'
    yield from table(result)
    if result.verdicts:
        yield f"<h2>{escape(targets_title(result))}</h2><ul>"
        for verdict in result.verdicts:
            word = "pass" if verdict.is_met else "miss"
            yield f'<li><b class="{word}">{word}</b> {escape(verdict_text(verdict))}</li>'
        yield "</ul>"
    remarks = [*doubts(result), *(f"invalid: {invalid_text(it)}" for it in result.invalid())]
    if remarks:
        yield "<h2>Doubts</h2><ul>"
        yield from (f"<li>{escape(remark)}</li>" for remark in remarks)
        yield "</ul>"
    yield "</body></html>"


def table(result: Result) -> Iterator[str]:
    programs = headings(result)
    yield f"<p>{escape(caption(result))}</p><table>"
    names = ("operation", "", *programs, *(f"÷ {name}" for name in programs[1:]))
    yield f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"
    yield from map(table_row, lines(result))
    yield "</table>"


def table_row(line: Line) -> str:
    title = full_title(line.mode, line.title) if line.is_first else ""
    ratios = (escape(ratio or "–") for ratio in line.ratios)
    cells = [escape(title), escape(line.label), *figures(line), *ratios]
    start = '<tr class="first">' if line.is_first else "<tr>"
    return f"{start}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def figures(line: Line) -> Iterable[str]:
    for figure, spread in zip(line.figures, line.spreads, strict=True):
        yield f"{escape(figure)} <small>{escape(spread)}</small>" if spread else escape(figure or "–")
