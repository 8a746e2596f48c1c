"""`termproxy top`: watch a running termproxy in a terminal of 80 columns and 24 lines.

A frame is made from two answers of the master's: what happens in a second is the difference of their
counters.  q, or Ctrl-C, ends it.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from termproxy import clock
from termproxy.cli.control import ANSWER_TIMEOUT, CONFIG, CONTROL, ask, control_path
from termproxy.errors import ControlError

WORKERS_TOLD, BACKENDS_TOLD, CERTIFICATES_TOLD, REASONS_TOLD = 5, 4, 2, 3

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the master has said at a time (monotonic, in seconds)."""

    taken: float
    utc: datetime
    status: Answer
    certificates: Sequence[Answer]
    backends: Sequence[Answer]


def snapshot(path: Path) -> Snapshot:
    """Ask for all that a frame shows.  ControlError when nobody answers."""

    def told(verb: str, **arguments: Any) -> Any:
        return ask(path, {"verb": verb, **arguments}, timeout=ANSWER_TIMEOUT)

    return Snapshot(
        clock.monotonic(),
        clock.utc_now(),
        told("status"),
        told("certs", first=CERTIFICATES_TOLD)["certificates"],
        told("backends")["backends"],
    )


@click.command()
@CONTROL
@CONFIG
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=2.0, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one frame, of the next interval, and end.")
def top(control: Path | None, file: Path | None, interval: float, once: bool) -> None:  # noqa: FBT001
    """Watch it work: rates, failures, workers, certificates, keys, backends.  q ends it."""
    path = control_path(control, file)
    console = Console()
    previous = snapshot(path)
    if once:
        time.sleep(interval)
        console.print(frame(previous, snapshot(path)))
        return
    with _keys() as wait_for_key:
        try:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                live.update(frame(previous, previous), refresh=True)
                while wait_for_key(interval) not in {"q", "Q"}:
                    previous = _show_next(path, previous, live)
        except KeyboardInterrupt:
            pass


def _show_next(path: Path, previous: Snapshot, live: Live) -> Snapshot:
    """The next frame; what was there stays while nobody answers."""
    try:
        now = snapshot(path)
    except ControlError as error:
        live.update(Group(Text(str(error), style="bold red"), frame(previous, previous)), refresh=True)
        return previous
    live.update(frame(previous, now), refresh=True)
    return now


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key, so many seconds at most; "" for none."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        return os.read(fd, 1).decode("latin-1") if ready else ""

    try:
        tty.setcbreak(fd)
        yield wait
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


# A frame: no terminal, no clock.


def frame(previous: Snapshot, now: Snapshot) -> RenderableType:
    """What there is to see; rates are unknown when the two are one."""
    return Group(
        _headline(now),
        _generations(now.status),
        *_rates(previous, now),
        _failures(previous, now),
        _workers(previous, now),
        _backends(previous, now),
        *_ages(now),
    )


def _headline(now: Snapshot) -> Text:
    status = now.status
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"termproxy {status['version']}", style="bold")
    state = status["state"]
    line.append(f"  process {status['pid']}  ")
    line.append(state, style="green" if state == "serving" else "yellow")
    line.append(f"  up {length(status['uptime_seconds'])}  {now.utc:%H:%M:%S} UTC")
    reload = status["last_reload"]
    if reload and not reload["ok"]:
        line.append("  last reload refused", style="bold red")
    return line


def _generations(status: Answer) -> Text:
    """Each with its workers and connections; older ones drain."""
    workers = Counter((each["generation"], each["state"]) for each in status["workers"])
    connections: Counter[int] = Counter()
    for each in status["workers"]:
        connections[each["generation"]] += each["connections"]
    told = [
        f"{generation}: {count} {state}, {connections[generation]} open"
        for (generation, state), count in sorted(workers.items(), reverse=True)
    ]
    draining = any(state != "ready" for _, state in workers)
    text = f"generations  {'; '.join(told) or 'none'}"
    if status["restarts"]:
        text += f"; {status['restarts']} workers died"
    return Text(text, style="yellow" if draining else "", no_wrap=True, overflow="ellipsis")


def _rates(previous: Snapshot, now: Snapshot) -> Iterator[Text]:
    total = now.status["totals"]
    per_second = _per_second(previous, now)

    def rate(name: str) -> str:
        return per_second(previous.status["totals"][name], total[name])

    before, after = _handshakes(previous.status), _handshakes(now.status)
    done = [then - first for first, then in zip(before, after, strict=True)]
    share = f"{done[1] / sum(done):.0%}" if sum(done) else "-"
    yield _line(
        f"connections  {sum(each['connections'] for each in now.status['workers'])} open, "
        f"{rate('accepted')}/s new; requests {rate('requests')}/s"
    )
    yield _line(
        f"handshakes   {per_second(before[0], after[0])}/s full, "
        f"{per_second(before[1], after[1])}/s resumed ({share}), {rate('handshakes_failed')}/s failed"
    )
    yield _line(
        f"bytes        {size(rate('bytes_from_clients'))}/s from clients, "
        f"{size(rate('bytes_from_backends'))}/s from backends, of connections that ended"
    )


def _handshakes(status: Answer) -> tuple[int, int]:
    """Full and resumed ones."""
    totals = status["totals"]
    return totals["handshakes"] - totals["handshakes_resumed"], totals["handshakes_resumed"]


def _failures(previous: Snapshot, now: Snapshot) -> Text:
    """The causes of the interval, and else those since the start."""
    before, after = (_causes(each.status) for each in (previous, now))
    new = after - before
    when, causes = ("", new) if new or not after else ("since the start: ", after)
    told = ", ".join(f"{count} {reason}" for reason, count in causes.most_common(REASONS_TOLD))
    return _line(f"failures     {when}{told or 'none'}", "red" if new else "")


def _causes(status: Answer) -> Counter[str]:
    causes: Counter[str] = Counter()
    for frontend in status["frontends"]:
        causes.update(frontend["totals"]["handshakes_failed"])
    return causes


def _workers(previous: Snapshot, now: Snapshot) -> Table:
    """Those that have most to do, with what is out of order first."""
    before = {each["pid"]: each for each in previous.status["workers"]}
    per_second = _per_second(previous, now)
    workers = now.status["workers"]
    most = max((each["connections"] for each in workers), default=0)
    table = _table("worker", "slot", "gen", "state", "open", "", "new/s", "failed/s", "beat")
    ranked = sorted(workers, key=lambda each: (each["state"] == "ready", -each["connections"]))
    for each in ranked[:WORKERS_TOLD]:
        known = before.get(each["pid"], each)
        age = each["heartbeat_age_seconds"]
        table.add_row(
            str(each["pid"]),
            str(each["slot"]),
            str(each["generation"]),
            Text(each["state"], style="green" if each["state"] == "ready" else "yellow"),
            str(each["connections"]),
            "█" * (round(10 * each["connections"] / most) if most else 0),
            per_second(known["accepted"], each["accepted"]),
            per_second(known["handshakes_failed"], each["handshakes_failed"]),
            "-" if age is None else f"{age:.1f} s",
        )
    return _with_rest(table, len(workers) - WORKERS_TOLD)


def _backends(previous: Snapshot, now: Snapshot) -> Table:
    """Those that are out of use first, and then those that have most to do."""
    before = {_place(each): each for each in previous.backends}
    per_second = _per_second(previous, now)
    table = _table("backend", "state", "active", "new/s", "failed/s")
    ranked = sorted(now.backends, key=lambda each: (each["state"] == "up", -each["active"]))
    for each in ranked[:BACKENDS_TOLD]:
        known = before.get(_place(each), each)
        name = f"{each['cluster']}/{each['address'] or each['server']}"
        table.add_row(
            Text(name, no_wrap=True, overflow="ellipsis"),
            Text(each["state"], style="green" if each["state"] == "up" else "bold red"),
            str(each["active"]),
            per_second(known["total"], each["total"]),
            per_second(known["failures"], each["failures"]),
        )
    return _with_rest(table, len(now.backends) - BACKENDS_TOLD)


def _place(backend: Answer) -> tuple[str, str, str]:
    return backend["cluster"], backend["server"], str(backend["address"])


def _ages(now: Snapshot) -> Iterator[Text]:
    """Certificates that expire soonest, and the keys of tickets."""
    for each in now.certificates:
        left = (datetime.fromisoformat(each["not_after"]) - now.utc).total_seconds()
        names = ", ".join(each["names"]) or each["file"]
        ocsp = f"; OCSP {each['ocsp']}" if each["ocsp"] else ""
        when = f"expires in {length(left)}" if left > 0 else "HAS EXPIRED"
        style = "bold red" if left < 7 * 86400 else "yellow" if left < 21 * 86400 else ""
        yield _line(f"certificate  {when}: {names}{ocsp}", style)
    keys = now.status["ticket_keys"]
    told = [
        f"{key['role']} for {length(key['age_seconds'])}"
        for key in keys
        if key["role"] == "issuing" and key["age_seconds"] is not None
    ]
    others = Counter(key["role"] for key in keys if key["role"] != "issuing")
    told += [f"{count} {role}" for role, count in others.items()]
    yield _line(f"ticket keys  {', '.join(told) or 'none'}")


# What it is made of.


def _per_second(previous: Snapshot, now: Snapshot) -> Callable[[int, int], str]:
    seconds = now.taken - previous.taken

    def rate(before: int, after: int) -> str:
        if seconds <= 0:
            return "-"
        return f"{max(0, after - before) / seconds:.{0 if after - before >= 10 * seconds else 1}f}"

    return rate


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(first: str, *others: str) -> Table:
    left = {"state", ""}
    columns = [
        Column(name, justify="left" if name in left else "right", no_wrap=True) for name in others
    ]
    return Table(
        Column(first, no_wrap=True, ratio=1 if first == "backend" else None),
        *columns,
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )


def _with_rest(table: Table, more: int) -> Table:
    if more > 0:
        table.add_row(Text(f"and {more} more", style="dim"))
    return table


def length(seconds: float) -> str:
    """A time in the two largest units that it has."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, each in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= each or (unit == "s" and not parts):
            parts.append(f"{left // each} {unit}")
        left %= each
    return " ".join(parts[:2])


def size(count: str) -> str:
    """Bytes, as a rate has them, in words that stay short."""
    if count == "-":
        return count
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
