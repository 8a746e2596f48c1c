"""The soak runs its rows as an operator starts it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.waiting import PATIENCE


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.soak", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)


def test_rows_are_run_and_told_in_a_table() -> None:
    done = soak("--seconds", "0.1", "--only", "R6,R7")
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head == "| row | what was run | for | what was lost | as it should be |"
    assert [row.split(" | ")[0] for row in rows] == ["| R6", "| R7"]
    assert all(row.endswith("| yes |") for row in rows)


def test_a_row_that_there_is_not_is_refused() -> None:
    done = soak("--only", "R1,R99")
    assert done.returncode == 2
    assert "there is no row R99; there are R1, " in done.stderr
