"""What a confined process can still do.  Each is a process of its own: there is no way back."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from termproxy.master import landlock

PRELUDE = """
import errno, fcntl, json, os, signal, socket, struct, sys
from pathlib import Path
from termproxy.master.landlock import Reach, abi, confine
from termproxy.master.rights import forbid_new_ones
sys.path.append(sys.argv[1])

def why(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def listening(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock

def connect(address, family=socket.AF_INET):
    with socket.socket(family) as sock:
        sock.connect(address)

forbid_new_ones()
"""

Confined = Callable[[str], Any]


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    """A function that runs code which confines itself: its last line, from JSON."""

    def confined(code: str) -> Any:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return confined


def since(version: int) -> pytest.MarkDecorator:
    reason = f"this kernel's Landlock is ABI {landlock.abi()}, and this takes {version}"
    return pytest.mark.skipif(landlock.abi() < version, reason=reason)


@since(1)
@pytest.mark.parametrize("version", range(1, landlock.abi() + 1))
def test_no_file_can_be_opened_made_or_removed(confined: Confined, tmp_path: Path, version: int) -> None:
    """Also by kernels that know less than this one."""
    (tmp_path / "there").write_text("secret")
    assert confined(f"""
        folder = Path(sys.argv[1])
        kept = open(folder / "there")
        confine(Reach(frozenset()), {version})
        tries = [
            why(os.open, folder / "there", os.O_RDONLY),
            why(os.open, folder / "there", os.O_WRONLY),
            why(os.open, folder / "new", os.O_WRONLY | os.O_CREAT),
            why(os.open, "/etc/passwd", os.O_RDONLY),
            why(os.open, "/dev/null", os.O_RDWR),
            why(os.open, "/proc/self/environ", os.O_RDONLY),
            why(os.listdir, folder),
            why(os.unlink, folder / "there"),
            why(os.mkdir, folder / "sub"),
            why(os.symlink, "there", folder / "link"),
            why(os.execv, "/bin/true", ["true"]),
        ]
        print(json.dumps([tries, kept.read()]))
    """) == [["EACCES"] * 11, "secret"]
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


@since(1)
def test_what_lies_in_a_folder_that_it_needs_can_be_read_and_not_written(
    confined: Confined, tmp_path: Path
) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    assert confined("""
        folder = Path(sys.argv[1])
        confine(Reach(frozenset(), (folder / "mine", folder / "missing", folder / "mine" / "file")))
        (folder / "mine" / "file").read_text()
        print(json.dumps([
            (folder / "mine" / "file").read_text(),
            os.listdir(folder / "mine"),
            why((folder / "mine" / "file").write_text, ""),
            why((folder / "mine" / "file").unlink),
            why((folder / "other" / "file").read_text),
        ]))
    """) == ["text", ["file"], "EACCES", "EACCES", "EACCES"]


@since(4)
def test_it_connects_to_its_ports_and_to_no_other_and_binds_nowhere(confined: Confined) -> None:
    assert confined("""
        mine, other, six = listening(), listening(), listening(socket.AF_INET6, ("::1", 0))
        ports = {mine.getsockname()[1], six.getsockname()[1]}
        confine(Reach(frozenset(ports)))
        connect(mine.getsockname())
        connect(six.getsockname(), socket.AF_INET6)
        print(json.dumps([
            why(connect, other.getsockname()),
            why(listening),
            why(listening, socket.AF_INET, ("127.0.0.1", mine.getsockname()[1])),
            mine.accept()[1][0],
        ]))
    """) == ["EACCES", "EACCES", "EACCES", "127.0.0.1"]


@since(1)
@pytest.mark.parametrize("version", [version for version in (1, 3) if version <= landlock.abi()])
def test_a_kernel_that_knows_no_ports_denies_none(confined: Confined, version: int) -> None:
    assert (
        confined(f"""
        other = listening()
        confine(Reach(frozenset()), {version})
        connect(other.getsockname())
        print(json.dumps(why(listening)))
    """)
        == "done"
    )


@since(4)
def test_who_may_go_to_any_port_still_opens_no_file(confined: Confined) -> None:
    assert (
        confined("""
        other = listening()
        confine(Reach(None))
        connect(other.getsockname())
        print(json.dumps(why(os.open, "/etc/passwd", os.O_RDONLY)))
    """)
        == "EACCES"
    )


@since(1)
def test_a_unix_socket_with_a_path_is_connected_to_as_before(confined: Confined) -> None:
    """Its file's mode says who may, and it is not opened."""
    assert (
        confined("""
        path = str(Path(sys.argv[1]) / "app.sock")
        server = listening(socket.AF_UNIX, path)
        confine(Reach(frozenset()))
        connect(path, socket.AF_UNIX)
        print(json.dumps(why(listening, socket.AF_UNIX, path + "2")))
    """)
        == "EACCES"
    )


@since(6)
def test_an_abstract_unix_socket_of_others_is_out_of_reach(confined: Confined) -> None:
    assert (
        confined("""
        server = listening(socket.AF_UNIX, "")
        confine(Reach(frozenset()))
        print(json.dumps(why(connect, server.getsockname().decode(), socket.AF_UNIX)))
    """)
        == "EPERM"
    )


@since(6)
def test_it_signals_itself_and_nobody_else(confined: Confined) -> None:
    assert confined("""
        confine(Reach(frozenset()))
        print(json.dumps([why(os.kill, os.getppid(), 0), why(os.kill, os.getpid(), 0)]))
    """) == ["EPERM", "done"]


@since(5)
def test_a_device_takes_no_orders_from_it(confined: Confined) -> None:
    """One in a folder that it may read; those of terminals could type for their users."""
    assert (
        confined("""
        RNDGETENTCNT = 0x80045200
        confine(Reach(frozenset(), (Path("/dev"),)))
        random = os.open("/dev/random", os.O_RDONLY)
        print(json.dumps(why(fcntl.ioctl, random, RNDGETENTCNT, bytes(4))))
    """)
        == "EACCES"
    )


@since(1)
def test_it_cannot_be_taken_off_or_widened(confined: Confined) -> None:
    assert confined("""
        confine(Reach(frozenset()))
        confine(Reach(None, (Path("/"),)))
        if (child := os.fork()) == 0:
            os._exit(0 if why(os.open, "/etc/passwd", os.O_RDONLY) == "EACCES" else 1)
        denied = why(os.open, "/etc/passwd", os.O_RDONLY)
        print(json.dumps([denied, os.waitpid(child, 0)[1]]))
    """) == ["EACCES", 0]


@since(1)
def test_no_descriptor_stays_open(confined: Confined) -> None:
    assert confined("""
        before = os.listdir("/proc/self/fd")
        confine(Reach(frozenset({80}), (Path("/proc"),)))
        print(json.dumps(before == os.listdir("/proc/self/fd")))
    """)


@since(1)
def test_what_the_kernel_refuses_is_told_and_not_passed_over(confined: Confined) -> None:
    """It stacks sixteen rule sets, and no more."""
    assert (
        confined("""
        for _ in range(17):
            outcome = why(confine, Reach(frozenset()))
        print(json.dumps(outcome))
    """)
        == "E2BIG"
    )


def test_without_landlock_everything_stays_as_it_was(confined: Confined) -> None:
    assert (
        confined("""
        confine(Reach(frozenset()), 0)
        print(json.dumps(why(os.open, "/etc/passwd", os.O_RDONLY)))
    """)
        == "done"
    )


@pytest.mark.parametrize(
    ("version", "words"), [(0, "has no Landlock"), (3, "ABI 3"), (4, None), (7, None), (99, None)]
)
def test_the_operator_is_told_what_a_kernel_cannot_do(
    monkeypatch: pytest.MonkeyPatch, version: int, words: str | None
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: version)
    told = landlock.shortfall()
    assert told is None if words is None else words in str(told)
    assert landlock.restricts_ports() == (version >= 4)
