"""Make a real server's workers hang or crash, without a hook for that in the product.

Python imports `sitecustomize` from PYTHONPATH before anything else: in there the worker's class gets a
tick, and a beginning, that ask whether files are there: a worker may open none.
"""

from __future__ import annotations

from pathlib import Path

TAMPERED = """
import ctypes, os
from termproxy.worker.main import Worker

def is_there(name):
    return os.path.exists(os.path.join({folder!r}, name))

def busy():
    while True:
        pass

def blocked():
    ctypes.PyDLL(None).sleep(3600)  # with the interpreter's lock: not even a signal's handler runs

tick, run = Worker._tick, Worker.run

def tampered_tick(self):
    for hang in (busy, blocked):
        if is_there(f"{{hang.__name__}}.{{os.getpid()}}"):
            hang()
    tick(self)

def tampered_run(self):
    if is_there("crash"):
        os.abort()
    run(self)

Worker._tick, Worker.run = tampered_tick, tampered_run
"""


class Tampering:
    """`environment` is a server's; the rest can be called while it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "sitecustomize.py").write_text(TAMPERED.format(folder=str(folder)))
        self.environment = {"PYTHONPATH": str(folder)}

    def hang(self, how: str, pid: int) -> None:
        """Have a worker hang within a tick: "busy" in a loop of Python's, or "blocked" in C."""
        (self._folder / f"{how}.{pid}").touch()

    def let_workers_crash(self, crash: bool) -> None:  # noqa: FBT001 - reads as what it sets
        """As soon as they are born, from now on."""
        if crash:
            (self._folder / "crash").touch()
        else:
            (self._folder / "crash").unlink()
