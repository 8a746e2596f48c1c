"""Tell the outcome: one table, what it cost, what was lost and why; JSON for programs."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loading.ledger import Judged, Ledger, Trouble, judge
from loading.run import Outcome, Served

# More of the load's cores in use than this, and latencies are the clients' own.
CROWDED = 0.9
LOSSES_SHOWN = 20


def judged(outcome: Outcome) -> Judged:
    return judge(outcome.clients.ledger.troubles, outcome.served.kills if outcome.served else ())


def problems(outcome: Outcome) -> list[str]:
    """Return why the run has failed: nothing if it has not."""
    clients, served = outcome.clients, outcome.served
    found = []
    lost = len(judged(outcome).lost) + clients.ledger.untold
    told = sum(not it.asked_again for it in clients.ledger.troubles) + clients.ledger.untold
    if lost:
        found.append(f"{lost} operations were lost")
    if told != sum(entry["failures"] for entry in clients.entries):
        found.append("locust counted another number of failures than its people told")
    if not clients.requests():
        found.append("nothing was asked")
    found += [f"a bug of the load, {it['count']} times: {it['traceback']}" for it in clients.bugs]
    if served is not None:
        found += [f"termproxy said: {line}" for line in served.complaints]
        if served.left_open:
            found.append(f"{served.left_open} connections are open though all clients have gone")
        if not served.kills and not lost and (seen := counted(clients.ledger)) != counted_by(served):
            found.append(
                f"clients had {seen} full and resumed handshakes, the server {counted_by(served)}"
            )
        untroubled = not (served.reloads_asked or served.kills)
        ended = clients.ledger.ended_idle + len(judged(outcome).again)
        if untroubled and ended:
            found.append(f"{ended} kept connections ended though nothing happened to the server")
        if served.reloads_asked and not served.generations:
            found.append("no reload was done")
    return found


def counted(ledger: Ledger) -> tuple[int, int]:
    """Return how many handshakes were full, and how many resumed, as clients saw them."""
    resumed = sum(count for (_, how), count in ledger.handshakes.items() if how == "resumed")
    return ledger.handshakes.total() - resumed, resumed


def counted_by(served: Served) -> tuple[int, int]:
    """Return the same as the server saw them."""
    resumed = served.handshakes["ticket"] + served.handshakes["session_id"]
    return served.handshakes["full"], resumed


def show(outcome: Outcome, console: Console) -> None:
    def say(name: str, text: str) -> None:
        console.print(f"{name:>20}  {text}", highlight=False, markup=False, soft_wrap=True)

    found = judged(outcome)
    console.print(title(outcome), highlight=False, soft_wrap=True)
    console.print(table(outcome, found))
    say("losses", by_class(found.lost, outcome.clients.ledger.untold))
    if outcome.served is not None and outcome.served.kills:
        say("killed with a worker", by_class(found.killed))
    say("kept connections", f"{outcome.clients.ledger.ended_idle} had ended when they were wanted again")
    killed_too = f", and {len(found.again_killed)} of a killed worker" if found.again_killed else ""
    say("asked again", f"{len(found.again)} requests that crossed the end of theirs{killed_too}")
    for name, text in resumption(outcome.clients.ledger, outcome.served):
        say(name, text)
    for name, text in costs(outcome):
        say(name, text)
    for trouble in found.lost[:LOSSES_SHOWN]:
        say("lost", f"{trouble.operation}: {trouble.loss}: {trouble.detail} ({trouble.client})")
    for problem in problems(outcome):
        console.print(f"[red]failed[/]: {problem}", highlight=False, soft_wrap=True)


def title(outcome: Outcome) -> str:
    plan, seconds = outcome.plan, outcome.clients.seconds
    what = f"{plan.profile.name}: {plan.profile.title}; mode {plan.mode}, {plan.users} people"
    return f"{what}, {seconds:.0f} s; times in ms, as the clients have them"


def table(outcome: Outcome, found: Judged) -> Table:
    clients = outcome.clients
    made = Table()
    made.add_column("operation", no_wrap=True)
    for heading in ("count", "a second", "p50", "p95", "p99", "lost", "killed"):
        made.add_column(heading, justify="right")
    lost = Counter(it.operation for it in found.lost)
    killed = Counter(it.operation for it in found.killed)
    seconds = max(clients.seconds, 1e-9)
    shown = ""
    for entry in sorted(clients.entries, key=lambda it: (it["kind"], it["name"])):
        if shown and shown != entry["kind"]:
            made.add_section()
        shown = entry["kind"]
        operation = f"{entry['kind']} {entry['name']}"
        times = (f"{1000 * entry[name]:.0f}" for name in ("p50", "p95", "p99"))
        made.add_row(
            operation,
            f"{entry['count']:,}",
            f"{entry['count'] / seconds:.1f}",
            *times,
            str(lost[operation]),
            str(killed[operation]),
        )
    made.add_section()
    total = clients.requests()
    made.add_row(
        "without handshakes",
        f"{total:,}",
        f"{total / seconds:.1f}",
        *("", "", ""),
        str(len(found.lost) + clients.ledger.untold),
        str(len(found.killed)),
    )
    return made


def by_class(troubles: Iterable[Trouble], untold: int = 0) -> str:
    counted = Counter(str(it.loss) for it in troubles)
    if untold:
        counted["not told in detail"] = untold
    return ", ".join(f"{count} {loss}" for loss, count in counted.most_common()) or "none"


def resumption(ledger: Ledger, served: Served | None) -> Iterable[tuple[str, str]]:
    full, resumed = counted(ledger)
    refused = sum(count for (_, how), count in ledger.handshakes.items() if how == "refused")
    offered = f"{refused} of {resumed + refused} were refused"
    yield "clients resumed", f"{share(resumed, full + resumed)}; {offered}"
    if served is not None:
        full, resumed = counted_by(served)
        yield "server resumed", share(resumed, full + resumed)


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} handshakes ({part / whole:.1%})" if whole else "no handshakes"


def costs(outcome: Outcome) -> Iterable[tuple[str, str]]:
    clients, served = outcome.clients, outcome.served
    requests = max(1, clients.requests())
    each = f"CPU for each of {requests:,} requests, their handshakes included"
    if served is None:
        if outcome.plan.master is None:  # else they are on other machines
            yield "clients", f"{1e6 * clients.cpu / requests:.0f} µs of {each}"
        return
    yield "server", f"{1e6 * served.cpu / requests:.0f} µs of {each}"
    backend = f"backend {1e6 * served.backend_cpu / requests:.0f} µs"
    yield "not the server's", f"clients {1e6 * clients.cpu / requests:.0f} µs, {backend}"
    crowded = " - CROWDED: latencies are the clients' own" if served.load_core_busy > CROWDED else ""
    yield "load's core", f"busy for {served.load_core_busy:.0%} of the time{crowded}"
    yield "server's core", f"other work took {served.others:.0%} of it"
    if served.reloads_asked:
        yield (
            "reloads",
            f"{served.generations} of {served.reloads_asked} (those that come together are one)",
        )
    if served.kills:
        clients_hit = sum(len(kill.clients) for kill in served.kills)
        yield "kills", f"{len(served.kills)}, of workers with {clients_hit} connections"


def write_json(outcome: Outcome, file: Path) -> None:
    file.write_text(json.dumps(as_json(outcome), indent=2) + "\n")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything in seconds."""
    plan, clients, served = outcome.plan, outcome.clients, outcome.served
    ledger = clients.ledger.take()
    clients.ledger.add(ledger)
    told = judged(outcome)
    return {
        "profile": asdict(plan.profile),
        "mode": plan.mode,
        "users": plan.users,
        "workers": plan.workers,
        "processes": plan.processes,
        "seconds": clients.seconds,
        "operations": clients.entries,
        "handshakes": ledger["handshakes"],
        "clients_cpu": clients.cpu,
        "served": served and served_as_json(served),
        **{name: [asdict(it) for it in getattr(told, name)] for name in Judged.__slots__},
        "untold": ledger["untold"],
        "ended_idle": ledger["ended_idle"],
        "problems": problems(outcome),
    }


def served_as_json(served: Served) -> dict[str, Any]:
    kills = [{"at": kill.at, "pid": kill.pid, "clients": sorted(kill.clients)} for kill in served.kills]
    # asdict() makes a Counter of a Counter's pairs.
    return asdict(served) | {"kills": kills, "handshakes": dict(served.handshakes)}
