"""`state_dir`: nobody else can slip something in, and nobody sees half a file."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master.state_dir import StateDir

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")

SOMEBODY = 12345  # a uid that is not ours

MAX = 100


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """What must not be readable has to be made so, whatever the umask."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def kept(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The folder.


def test_it_is_made_for_our_eyes_only(tmp_path: Path) -> None:
    StateDir(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700


def test_those_above_it_are_made_too(tmp_path: Path) -> None:
    StateDir(tmp_path / "var" / "lib" / "state")
    assert (tmp_path / "var" / "lib" / "state").is_dir()


@pytest.mark.parametrize("given", [0o700, 0o750, 0o755, 0o500])
def test_one_that_is_there_stays_as_it_is(tmp_path: Path, given: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(given)
    (folder / "a").touch(mode=0o600)
    assert StateDir(folder).read("a", MAX) == b""
    assert mode(folder) == given


@pytest.mark.parametrize("given", [0o770, 0o702, 0o777, 0o1777])
def test_one_that_others_can_write_in_is_refused(tmp_path: Path, given: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(given)
    with pytest.raises(StartError, match=f"state_dir {folder}: others can write there; chmod go-w"):
        StateDir(folder)


@as_root
def test_somebody_elses_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, SOMEBODY, -1)
    with pytest.raises(StartError, match="another user's"):
        StateDir(folder)


@as_root
def test_a_link_to_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", SOMEBODY, -1)
    (tmp_path / "state").symlink_to("theirs")
    with pytest.raises(StartError, match="another user's"):
        StateDir(tmp_path / "state")


def test_one_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    StateDir(tmp_path / "state")
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match=f"others can replace it; chmod go-w {tmp_path}"):
        StateDir(tmp_path / "state")


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
def test_none_of_those_that_are_made_can_be_replaced(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        StateDir(tmp_path / "lib" / "state")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "lib"), mode(tmp_path / "lib" / "state")) == (0o755, 0o700)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, why in (
        ("state", "File exists"),
        ("state/below", "File exists"),
        ("dangling", "exists"),
    ):
        with pytest.raises(StartError, match=f"state_dir {tmp_path / name}: .*{why}"):
            StateDir(tmp_path / name)


# Reading.


def test_what_was_written_is_read(kept: StateDir) -> None:
    kept.write("a", b"one")
    kept.write("b", b"")
    assert (kept.read("a", MAX), kept.read("b", MAX)) == (b"one", b"")
    assert StateDir(kept.path).read("a", MAX) == b"one"


def test_what_is_not_there_is_nothing(kept: StateDir) -> None:
    assert kept.read("a", MAX) is None


def test_a_file_may_be_as_large_as_is_allowed_and_no_larger(kept: StateDir) -> None:
    kept.write("a", b"x" * MAX)
    assert kept.read("a", MAX) == b"x" * MAX
    kept.write("a", b"x" * (MAX + 1))
    with pytest.raises(OSError, match=f"a is larger than {MAX} bytes"):
        kept.read("a", MAX)


def test_no_more_than_is_allowed_is_read_of_a_huge_one(kept: StateDir) -> None:
    with (kept.path / "a").open("wb") as stream:
        stream.truncate(1 << 40)  # a hole: it takes no room on the disk, and more memory than there is
    (kept.path / "a").chmod(0o600)
    with pytest.raises(OSError, match="larger"):
        kept.read("a", MAX)


def test_a_link_is_not_followed(kept: StateDir, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0o600)
    (kept.path / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="a") as refused:
        kept.read("a", MAX)
    assert refused.value.errno == errno.ELOOP


@pytest.mark.parametrize("given", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_read(kept: StateDir, given: int) -> None:
    kept.write("a", b"one")
    (kept.path / "a").chmod(given)
    with pytest.raises(PermissionError, match="a is not ours alone to write"):
        kept.read("a", MAX)


@as_root
def test_somebody_elses_file_is_not_read(kept: StateDir) -> None:
    kept.write("a", b"one")
    os.chown(kept.path / "a", SOMEBODY, -1)
    with pytest.raises(PermissionError, match="not ours"):
        kept.read("a", MAX)


def test_a_fifo_is_not_waited_for(kept: StateDir) -> None:
    os.mkfifo(kept.path / "a", 0o600)
    with pytest.raises(PermissionError, match="a is no plain file"):
        kept.read("a", MAX)


def test_a_folder_is_no_file(kept: StateDir) -> None:
    (kept.path / "a").mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="a is no plain file"):
        kept.read("a", MAX)


def test_a_refusal_leaves_no_descriptor_open(kept: StateDir) -> None:
    (kept.path / "folder").mkdir(mode=0o700)
    os.mkfifo(kept.path / "fifo", 0o600)
    kept.write("large", b"x" * (MAX + 1))
    (kept.path / "link").symlink_to("large")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
    for name in ("folder", "fifo", "large", "link"):
        with pytest.raises(OSError, match=r"."):
            kept.read(name, MAX)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


# Writing.


def test_a_file_is_for_our_eyes_only(kept: StateDir) -> None:
    kept.write("a", b"one")
    assert mode(kept.path / "a") == 0o600


def test_nothing_else_is_left_behind(kept: StateDir) -> None:
    kept.write("a", b"one")
    kept.write("a", b"two")
    assert os.listdir(kept.path) == ["a"]  # noqa: PTH208


def test_what_was_there_is_replaced_whatever_it_was(kept: StateDir, tmp_path: Path) -> None:
    """A link is not written through."""
    (tmp_path / "other").write_bytes(b"stays")
    (kept.path / "a").symlink_to(tmp_path / "other")
    (kept.path / ".a.new").symlink_to(tmp_path / "other")
    kept.write("a", b"new")
    assert (tmp_path / "other").read_bytes() == b"stays"
    assert kept.read("a", MAX) == b"new"


def test_what_an_earlier_end_left_half_done_is_no_hindrance(kept: StateDir) -> None:
    kept.write("a", b"old")
    (kept.path / ".a.new").write_bytes(b"hal")
    (kept.path / ".a.new").chmod(0o666)
    assert kept.read("a", MAX) == b"old"
    kept.write("a", b"new")
    assert kept.read("a", MAX) == b"new"
    assert mode(kept.path / "a") == 0o600


def test_a_reader_never_sees_half_a_file(kept: StateDir) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    kept.write("a", contents[0])
    seen: set[bytes | None] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(kept.read("a", 1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(100):
            kept.write("a", contents[turn % 2])
    finally:
        over.set()
        reader.join()
    assert seen <= set(contents)


def test_a_write_that_fails_leaves_what_was_there(kept: StateDir) -> None:
    kept.write("a", b"old")
    (kept.path / ".a.new").mkdir()
    with pytest.raises(OSError, match=r"\.a\.new"):
        kept.write("a", b"new")
    assert kept.read("a", MAX) == b"old"


# Names, and removing.


def test_the_names_are_those_that_end_so(kept: StateDir) -> None:
    for name in ("a.ocsp", "b.ocsp", "a.other", ".c.ocsp", ".a.ocsp.new", "ocsp"):
        (kept.path / name).touch(mode=0o600)
    assert sorted(kept.names(".ocsp")) == ["a.ocsp", "b.ocsp"]


def test_what_is_removed_is_gone_and_may_be_gone_already(kept: StateDir) -> None:
    kept.write("a", b"one")
    kept.remove("a")
    kept.remove("a")
    assert kept.read("a", MAX) is None


def test_a_link_is_removed_and_not_what_it_leads_to(kept: StateDir, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    (kept.path / "a").symlink_to(tmp_path / "other")
    kept.remove("a")
    assert not (kept.path / "a").is_symlink()
    assert (tmp_path / "other").exists()
