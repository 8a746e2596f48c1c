"""`python -m termproxy` is the command itself."""

from __future__ import annotations

import termproxy as package
from tests.support.command import termproxy


def test_the_module_runs_as_the_command() -> None:
    result = termproxy("--version")
    assert (result.returncode, result.stdout) == (0, f"termproxy, version {package.__version__}\n")
