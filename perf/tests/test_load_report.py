"""When a run has failed, and what is told of it."""

import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from loading.ledger import Kill, Ledger, Loss, Trouble
from loading.profiles import PROFILES
from loading.report import as_json, problems, show
from loading.run import Clients, Outcome, Plan, Served

LOST = Trouble(
    operation="GET to 1 KiB",
    loss=Loss.SHORT,
    detail="10 of 20 bytes",
    client="127.0.0.1:40000",
    opened=1.0,
    ended=3.0,
)
KILL = Kill(at=2.0, pid=7, clients=frozenset({"127.0.0.1:40000"}))


def outcome(*troubles: Trouble, **changes: Any) -> Outcome:
    ledger = Ledger()
    for each in troubles:
        ledger.note(each)
    ledger.shook_hands("1.3", offered=True, resumed=True)
    times = {"p50": 0.001, "p95": 0.002, "p99": 0.003}
    failures = sum(not each.asked_again for each in troubles)
    entries = [
        {"kind": "GET", "name": "to 1 KiB", "count": 100, "failures": failures, **times},
        {"kind": "TLS", "name": "1.3 resumed", "count": 1, "failures": 0, **times},
    ]
    served: dict[str, Any] = {
        "cpu": 0.05,
        "backend_cpu": 0.01,
        "others": 0.0,
        "load_core_busy": 0.5,
        "handshakes": Counter(ticket=1),
        "reloads_asked": 2,
        "generations": 2,
        "kills": [],
        "left_open": 0,
        "complaints": [],
    }
    return Outcome(
        plan=Plan(
            profile=PROFILES["storm"],
            mode="http",
            users=10,
            seconds=10,
            workers=2,
            processes=1,
            termproxy=Path("termproxy"),
            output=Path("build"),
            with_access_log=False,
        ),
        clients=Clients(entries=entries, seconds=10.0, bugs=[], ledger=ledger),
        served=Served(**served | changes),
    )


def told(result: Outcome) -> str:
    text = StringIO()
    show(result, Console(file=text, width=200))
    return text.getvalue()


def test_a_run_without_a_loss_has_no_problem() -> None:
    assert problems(outcome()) == []


def test_one_lost_request_fails_a_run_and_is_told_with_its_connection() -> None:
    result = outcome(LOST)
    assert problems(result) == ["1 operations were lost"]
    assert "1 short body" in told(result)
    assert "10 of 20 bytes (127.0.0.1:40000)" in told(result)


def test_what_died_with_its_worker_is_told_and_fails_nothing() -> None:
    result = outcome(LOST, kills=[KILL])
    assert problems(result) == []
    assert "killed with a worker  1 short body" in told(result)


def test_connections_that_stay_complaints_and_reloads_that_were_not_done_fail_a_run() -> None:
    changes = {"left_open": 3, "generations": 0, "complaints": ["Traceback (most recent call last):"]}
    assert len(problems(outcome(**changes))) == 3


def test_both_sides_have_to_count_the_same_handshakes_unless_a_worker_was_killed() -> None:
    other = Counter(ticket=1, full=1)
    [problem] = problems(outcome(handshakes=other))
    assert problem == "clients had (0, 1) full and resumed handshakes, the server (1, 1)"
    assert problems(outcome(handshakes=other, kills=[KILL])) == []


def test_kept_connections_may_end_through_reloads_and_not_without_a_reason() -> None:
    crossed = replace(LOST, asked_again=True)
    assert problems(outcome(crossed)) == []
    [problem] = problems(outcome(crossed, reloads_asked=0, generations=0))
    assert "ended though nothing happened" in problem


def test_figures_are_per_request_and_both_sides_count_resumptions() -> None:
    text = told(outcome())
    assert "500 µs of CPU for each of 100 requests" in text
    assert text.count("1 of 1 handshakes (100.0%)") == 2


def test_the_outcome_is_plain_json() -> None:
    read = json.loads(json.dumps(as_json(outcome(LOST, kills=[KILL]))))
    assert read["served"]["handshakes"] == {"ticket": 1}
    assert read["served"]["kills"][0]["clients"] == ["127.0.0.1:40000"]
    assert [each["loss"] for each in read["killed"]] == ["short body"]
    assert (read["lost"], read["problems"]) == ([], [])
