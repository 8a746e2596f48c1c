"""The `termproxy` command as a shell would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.waiting import PATIENCE

TERMPROXY = [sys.executable, "-m", "termproxy"]


def termproxy(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end: its exit code, and what it said."""
    return subprocess.run(
        [*TERMPROXY, *arguments],
        cwd=cwd,
        env=dict(os.environ) | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
