"""What the figures were measured on: cores, versions, and the OpenSSL each server has loaded."""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from comparison.metering import serving_pids


class CoresError(Exception):
    """Without a core each, load and server would measure one another."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The core that serves, and the one for load and backend."""

    serving: int
    load: int
    # For servers with more than one worker.
    more: tuple[int, ...] = ()

    def serving_for(self, workers: int) -> tuple[int, ...]:
        """Return as many cores as there are workers, or as there are."""
        return (self.serving, *self.more)[:workers]

    def __str__(self) -> str:
        siblings = " (threads of one physical core)" if self.load in siblings_of(self.serving) else ""
        return f"serving on core {self.serving}, load and backend on core {self.load}{siblings}"


def choose_cores() -> Cores:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CoresError(
            f"needs 2 cores, one to serve and one to load it; this process may use {len(allowed)}"
        )
    serving, *others = allowed
    # Two threads of one physical core slow each other down: take another core if there is one.
    apart = [core for core in others if core not in siblings_of(serving)]
    load = (apart or others)[0]
    return Cores(serving, load, tuple(core for core in others if core != load))


def siblings_of(core: int) -> set[int]:
    topology = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return parse_cpu_list(topology.read_text())
    except OSError:
        return set()


def parse_cpu_list(text: str) -> set[int]:
    """Read the kernel's notation: "0-1,4" is 0, 1 and 4."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def cpu_model() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def describe_machine(cores: Cores, now: str) -> dict[str, str]:
    return {
        "date": now,
        "CPU": f"{cpu_model()}, {os.cpu_count()} logical; {cores}",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
    }


@cache
def groups_offered() -> str:
    """Return the key exchanges that every server may use: post-quantum first, where OpenSSL can.

    Only for servers that have a list of their own, and an old one.
    """
    usual = "X25519:P-256:P-384"
    known = subprocess.run(
        ["openssl", "list", "-kem-algorithms"], capture_output=True, text=True, check=False
    )
    return f"X25519MLKEM768:{usual}" if "X25519MLKEM768" in known.stdout else usual


def first_line(command: list[str]) -> str:
    """Return the first line a program says about itself, on whichever stream it chooses."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def python_of(termproxy: Path) -> str:
    """Return the versions of the interpreter and of gevent beside the command."""
    program = "import platform, gevent; print(platform.python_version(), gevent.__version__)"
    said = first_line([str(termproxy.parent / "python"), "-c", program]).split()
    return f"Python {said[0]}, gevent {said[1]}" if len(said) == 2 else "Python unknown"


def loaded_openssl(root: int) -> str:
    """Return the OpenSSL version a running server has mapped, told by the library file itself."""
    for pid in serving_pids(root):
        mapped = re.search(r"\S*/libcrypto\S*", Path(f"/proc/{pid}/maps").read_text())
        if mapped:
            # Through /proc/PID/root the path is the server's own, whatever its root directory.
            library = Path(f"/proc/{pid}/root{mapped[0]}").read_bytes()
            version = re.search(rb"OpenSSL \d+\.\d+\.\d+[^\0]*", library)
            return f"{version[0].decode() if version else 'unknown'} ({mapped[0]})"
    return "none mapped (linked statically?)"
