"""Lets the tests import `comparison`, which is a directory to run, not a package to install."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
