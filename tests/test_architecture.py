"""The import graph is the architecture.  Change LAYERS and ARCHITECTURE.md together."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "termproxy"
TESTS = Path(__file__).parent

# Lowest first.  A module imports only from rows before its own; names on one row are strangers.
LAYERS = [
    {"errors", "address", "clock", "shm", "outcome", "hostname", "environment", "messages", "_sockets"},
    {"config"},
    {"observability"},
    {"tls", "backends", "relay", "http"},
    {"worker", "admin"},
    {"master"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# What is safe in one place only: where each may appear.
FENCED = {
    "gevent": {
        "worker/",
        "admin/",
        "relay/pump.py",
        "backends/connect.py",
        "backends/prober.py",
        "backends/pool.py",
    },
    "os.fork": {"master/spawn.py", "master/upgrade.py"},
    "os.forkpty": set(),
    "time.time": {"clock.py"},
    "time.monotonic": {"clock.py"},
    "gevent.monkey": set(),
}


# What the checks are made of.


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Every module's path inside the package, and where it is."""
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyx")]):
        yield path.relative_to(package).as_posix(), path


def names_used(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, or takes from a module it imported."""
    if path.suffix == ".pyx":
        yield from _names_in_cython(path.read_text())
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _names_in_cython(text: str) -> Iterator[str]:
    for found in re.finditer(
        r"^\s*from ([\w.]+) c?import (.+)$|^\s*c?import ([\w.]+)", text, re.MULTILINE
    ):
        module, names, whole = found.groups()
        yield from [whole] if whole else (f"{module}.{name.strip()}" for name in names.split(","))


def upward_imports(package: Path) -> Iterator[str]:
    for here, path in modules(package):
        area = Path(here).parts[0].partition(".")[0]
        for name in names_used(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top != "termproxy" or other not in LEVEL or other == area:
                continue
            if area == "__init__" or LEVEL[other] >= LEVEL[area]:
                yield f"{here} imports {name}: {other} is not below {area}"


def places_without_a_level(package: Path) -> Iterator[str]:
    for here, _ in modules(package):
        area = Path(here).parts[0].partition(".")[0]
        if area not in LEVEL and area != "__init__":
            yield f"{here}: {area} stands in no row of LAYERS"


def broken_fences(package: Path) -> Iterator[str]:
    for here, path in modules(package):
        for name in names_used(path):
            for fenced, places in FENCED.items():
                inside = any(here == place or here.startswith(place) for place in places)
                if (name == fenced or name.startswith(f"{fenced}.")) and not inside:
                    yield f"{here} uses {name}: only {sorted(places)} may"


def without_tests(package: Path, tests: Path) -> Iterator[str]:
    """termproxy/a/b.py is tested by tests/a/test_b.py, or by several tests/a/test_b_*.py."""
    for here, path in modules(package):
        if not holds_code(path):
            continue
        folder = tests / Path(here).parent
        stem = path.stem.strip("_")
        if not (folder / f"test_{stem}.py").is_file() and not list(folder.glob(f"test_{stem}_*.py")):
            yield f"{here} has no {Path(here).parent / f'test_{stem}.py'}"


def holds_code(path: Path) -> bool:
    """Whether there is anything to test: a function or a class."""
    if path.suffix == ".pyx":
        return True
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) for node in ast.parse(path.read_text()).body)


def without_docstring(package: Path) -> Iterator[str]:
    for here, path in modules(package):
        text = path.read_text()
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#")).lstrip()
        if code and not code.startswith(('"""', 'r"""')):
            yield f"{here} does not begin by saying what it is for"


# The package.


def test_imports_only_go_down() -> None:
    assert list(upward_imports(PACKAGE)) == []


def test_every_module_stands_in_a_row() -> None:
    assert list(places_without_a_level(PACKAGE)) == []


def test_fenced_names_stay_in_their_places() -> None:
    assert list(broken_fences(PACKAGE)) == []


def test_every_module_has_its_tests() -> None:
    assert list(without_tests(PACKAGE, TESTS)) == []


def test_every_module_says_what_it_is_for() -> None:
    assert list(without_docstring(PACKAGE)) == []


def test_importing_the_master_makes_no_hub_and_no_thread() -> None:
    """A fork copies one thread; a hub made before it would be shared by master and worker."""
    code = (
        "import threading, termproxy.master.arbiter as arbiter\n"
        "from termproxy.worker.main import has_hub\n"
        "arbiter.Arbiter\n"
        "print(has_hub(), threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "1"]
    assert done.stderr == ""


def test_importing_everything_patches_nothing() -> None:
    """Not even a dependency of the master may have patched the standard library."""
    code = (
        "import socket, time, termproxy.master.arbiter, termproxy.cli.run\n"
        "print(socket.socket.__module__, time.sleep.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["socket", "time"]


# The checks themselves can fail.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package that is in order, to be spoilt."""
    package = tmp_path / "termproxy"
    for name in ("relay", "tls", "master", "worker"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").write_text('"""A toy."""\n')
    (package / "errors.py").write_text('"""Errors."""\n\n\nclass Oops(Exception): ...\n')
    (package / "relay" / "pump.py").write_text(
        '"""Pump."""\nimport gevent\nfrom termproxy import errors\n'
    )
    (package / "tls" / "_lib.pyx").write_text(
        '# cython\n"""Lib."""\nfrom termproxy.errors import Oops\n'
    )
    (package / "master" / "spawn.py").write_text('"""Spawn."""\nimport os\n\nos.fork()\n')
    (tmp_path / "tests" / "tls").mkdir(parents=True)
    (tmp_path / "tests" / "test_errors.py").touch()
    (tmp_path / "tests" / "tls" / "test_lib.py").touch()
    return package


def findings(package: Path) -> list[str]:
    return [
        *upward_imports(package),
        *places_without_a_level(package),
        *broken_fences(package),
        *without_tests(package, package.parent / "tests"),
        *without_docstring(package),
    ]


def test_a_tree_in_order_passes(tree: Path) -> None:
    assert findings(tree) == []


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("relay/pump.py", "import termproxy.worker.main", "worker is not below relay"),
        ("relay/pump.py", "from termproxy.tls.context import X", "tls is not below relay"),
        ("relay/pump.py", "from termproxy import tls", "tls is not below relay"),
        ("errors.py", "from termproxy.address import Address", "address is not below errors"),
        ("__init__.py", "from termproxy.errors import Oops", "errors is not below __init__"),
        ("tls/_lib.pyx", "from termproxy.worker import main", "worker is not below tls"),
        ("tls/_lib.pyx", "import termproxy.relay.pump", "relay is not below tls"),
        ("master/loop.py", "import gevent.event", "master/loop.py uses gevent.event"),
        ("relay/other.py", "from gevent import socket", "relay/other.py uses gevent.socket"),
        ("master/loop.py", "import os; os.fork()", "master/loop.py uses os.fork"),
        ("worker/main.py", "from os import fork", "worker/main.py uses os.fork"),
        ("worker/main.py", "import time; time.monotonic()", "worker/main.py uses time.monotonic"),
        ("worker/main.py", "from time import time", "worker/main.py uses time.time"),
        ("worker/main.py", "from gevent import monkey", "worker/main.py uses gevent.monkey"),
        ("worker/main.py", "from gevent.monkey import patch_all", "uses gevent.monkey.patch_all"),
        ("worker/main.py", "class Worker: ...", "worker/main.py has no worker/test_main.py"),
        ("tls/names.py", "def f(): ...", "tls/names.py has no tls/test_names.py"),
        ("tls/names.py", "X = 1", "tls/names.py does not begin by saying"),
        ("elsewhere.py", "X = 1", "elsewhere stands in no row"),
    ],
)
def test_a_tree_out_of_order_is_told(tree: Path, file: str, line: str, expected: str) -> None:
    with (tree / file).open("a") as stream:
        stream.write(f"{line}\n")

    assert any(expected in finding for finding in findings(tree)), findings(tree)


def test_one_module_may_have_several_files_of_tests(tree: Path) -> None:
    tests = tree.parent / "tests" / "tls"
    (tests / "test_lib.py").rename(tests / "test_lib_handshake.py")

    assert findings(tree) == []
