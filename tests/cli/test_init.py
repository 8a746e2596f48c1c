"""The command: verbs, and exit codes 0 done, 1 refused, 2 wrong usage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from termproxy.cli import VERBS
from tests.support.command import termproxy


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["run", "--help"]])
def test_what_only_informs_exits_with_0(arguments: list[str]) -> None:
    result = termproxy(*arguments)
    assert result.returncode == 0
    assert result.stdout


def test_the_help_names_every_verb() -> None:
    said = termproxy("--help").stdout
    assert [verb for verb in VERBS if f"\n  {verb} " not in said] == []


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    result = termproxy(verb, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["serve"], ["--verbose"], ["run", "--colour"], ["check"], ["config", "dump", "x", "y"]]
)
def test_wrong_usage_exits_with_2_and_says_what_was_wrong(arguments: list[str]) -> None:
    result = termproxy(*arguments)
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


def test_a_refusal_exits_with_1_in_one_line(tmp_path: Path) -> None:
    result = termproxy("check", "-c", str(tmp_path / "absent.toml"))
    assert result.returncode == 1
    assert result.stderr == (
        f"termproxy: {tmp_path}/absent.toml: No such file or directory; name a file you may read\n"
    )


def test_a_server_carries_no_code_for_tables_or_demos() -> None:
    """Each module is memory in the master, and in what its workers touch."""
    program = (
        "import sys, termproxy.cli.run; "
        "print([name for name in ('rich', 'trustme', 'http.server') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
