"""Changes are noticed: the kernel's events are real, the time is told."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from termproxy.master import file_watch
from termproxy.master.file_watch import POLL_LOCAL, POLL_REMOTE, SETTLE, FileWatch, is_remote

START = 1000.0


@pytest.fixture
def watch() -> Iterator[FileWatch]:
    made = FileWatch()
    yield made
    made.close()


def is_readable(watch: FileWatch) -> bool:
    poll = select.poll()
    poll.register(watch.fd, select.POLLIN)
    return bool(poll.poll(0))


def noticed(watch: FileWatch, now: float) -> bool:
    """What the master's loop does: whether there was something."""
    if not is_readable(watch):
        return False
    watch.on_events(now)
    return True


def is_noticed(watch: FileWatch, now: float) -> bool:
    return noticed(watch, now) and not watch.is_due(now) and watch.is_due(now + SETTLE)


# Events.


def test_a_change_is_due_after_a_quiet_while_and_once(watch: FileWatch, tmp_path: Path) -> None:
    watch.watch([tmp_path], START)
    assert not watch.is_due(START)
    (tmp_path / "a").write_text("x")
    assert noticed(watch, START + 1)
    assert not watch.is_due(START + 1)
    assert not watch.is_due(START + 1 + SETTLE - 0.01)
    assert watch.is_due(START + 1 + SETTLE)
    assert not watch.is_due(START + 1 + SETTLE + 0.01)


def test_every_way_to_change_a_file_is_noticed(watch: FileWatch, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    watch.watch([tmp_path], START)
    steps: list[Callable[[], object]] = [
        lambda: (tmp_path / "a").write_text("x"),
        lambda: (tmp_path / "a").write_text("y"),
        lambda: (tmp_path / "a").replace(tmp_path / "b"),
        lambda: (tmp_path / "b").chmod(0o600),
        lambda: (tmp_path / "link").symlink_to("b"),
        lambda: (tmp_path / "b").rename(tmp_path.parent / "away"),
        lambda: (tmp_path.parent / "away").rename(tmp_path / "b"),
        (tmp_path / "b").unlink,
        (tmp_path / "folder").mkdir,
    ]
    for number, step in enumerate(steps):
        step()
        assert is_noticed(watch, START + number), number


def test_reading_is_no_change(watch: FileWatch, tmp_path: Path) -> None:
    """Or the master would look for ever, because it looked."""
    (tmp_path / "a").write_text("x")
    watch.watch([tmp_path], START)
    (tmp_path / "a").read_text()
    list(tmp_path.iterdir())
    assert not is_readable(watch)


def test_events_that_follow_one_another_are_looked_at_together(watch: FileWatch, tmp_path: Path) -> None:
    watch.watch([tmp_path], START)
    for number in range(3):
        (tmp_path / "a").write_text("x")
        noticed(watch, START + 0.1 * number)
    assert not watch.is_due(START + 0.2 + SETTLE - 0.01)
    assert watch.is_due(START + 0.2 + SETTLE)
    assert not watch.is_due(START + 1)


def test_a_busy_folder_does_not_put_it_off_for_ever(watch: FileWatch, tmp_path: Path) -> None:
    """A log file beside the certificates; they are to be served within two seconds."""
    watch.watch([tmp_path], START)
    was_due = False
    for tick in range(20):
        (tmp_path / "log").write_text("x")
        noticed(watch, START + 0.1 * tick)
        was_due = was_due or watch.is_due(START + 0.1 * tick)
    assert was_due


def test_a_folder_that_is_not_watched_any_more_is_not_noticed(watch: FileWatch, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    watch.watch([one, other], START)
    watch.watch([other], START)
    if is_readable(watch):  # that the watch is gone is an event, too
        watch.on_events(START)
        watch.is_due(START + SETTLE)
    (one / "a").touch()
    assert not is_readable(watch)
    (other / "a").touch()
    assert is_readable(watch)


def test_the_swap_of_a_link_is_noticed(watch: FileWatch, tmp_path: Path) -> None:
    """Kubernetes: the files that are shown do not change, `..data` beside them does."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
    (tmp_path / "..data").symlink_to("..1")
    watch.watch([tmp_path, tmp_path / "..1"], START)
    (tmp_path / "..data_tmp").symlink_to("..2")
    noticed(watch, START)
    watch.is_due(START + SETTLE)
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert is_noticed(watch, START + 1)


# Folders that go and come.


def test_a_folder_that_is_not_there_is_polled_for(watch: FileWatch, tmp_path: Path) -> None:
    watch.watch([tmp_path / "none"], START)
    assert not watch.is_due(START + POLL_LOCAL - 1)
    assert watch.is_due(START + POLL_LOCAL)
    (tmp_path / "none").mkdir()
    watch.watch([tmp_path / "none"], START)
    (tmp_path / "none" / "a").touch()
    assert is_noticed(watch, START)


def test_a_folder_that_is_removed_does_no_harm(watch: FileWatch, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    watch.watch([folder], START)
    folder.rmdir()
    noticed(watch, START)
    watch.watch([folder], START)
    watch.watch([], START)


def test_a_folder_that_is_removed_and_back_is_watched_again(watch: FileWatch, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    watch.watch([tmp_path, folder], START)
    folder.rmdir()
    folder.mkdir()
    noticed(watch, START)
    watch.watch([tmp_path, folder], START)  # as the master does after each look
    watch.is_due(START + SETTLE)
    (folder / "a").touch()
    assert is_noticed(watch, START + 1)


def test_a_folder_in_another_s_place_is_watched(watch: FileWatch, tmp_path: Path) -> None:
    """`mv certs certs.old; mv certs.new certs`."""
    folder, new = tmp_path / "certs", tmp_path / "certs.new"
    folder.mkdir()
    new.mkdir()
    watch.watch([tmp_path, folder], START)
    folder.rename(tmp_path / "certs.old")
    new.rename(folder)
    noticed(watch, START)
    watch.watch([tmp_path, folder], START)
    watch.is_due(START + SETTLE)
    (folder / "a").touch()
    assert is_noticed(watch, START + 1)


def test_another_reason_to_look_is_due_at_once_and_once(watch: FileWatch, tmp_path: Path) -> None:
    """A new generation read its files before they were watched for it."""
    watch.watch([tmp_path], START)
    watch.look_now(START + 1)
    assert watch.is_due(START + 1)
    assert not watch.is_due(START + 2)


# Polling.


def test_local_folders_are_polled_seldom(watch: FileWatch, tmp_path: Path) -> None:
    watch.watch([tmp_path], START)
    assert not watch.is_due(START + POLL_LOCAL - 1)
    assert watch.is_due(START + POLL_LOCAL)
    assert not watch.is_due(START + POLL_LOCAL + 1)
    assert watch.is_due(START + 2 * POLL_LOCAL)


def test_folders_that_others_can_change_are_polled_often(
    watch: FileWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "is_remote", lambda folder: folder == tmp_path)
    watch.watch([tmp_path, tmp_path.parent], START)
    assert not watch.is_due(START + POLL_REMOTE / 2)
    assert watch.is_due(START + POLL_REMOTE)
    watch.watch([tmp_path.parent], START)
    assert not watch.is_due(START + POLL_REMOTE)


class Mounted:
    def __init__(self, mountpoint: Path, fstype: str) -> None:
        self.mountpoint, self.fstype = str(mountpoint), fstype


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        ("nfs4", True),
        ("cifs", True),
        ("fuse.sshfs", True),
        ("ceph", True),
        ("virtiofs", True),
        ("ext4", False),
        ("overlay", False),
        ("tmpfs", False),
    ],
)
def test_a_folder_is_what_it_is_mounted_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, remote: bool
) -> None:
    mounts = [Mounted(Path("/"), "nfs"), Mounted(tmp_path, kind), Mounted(tmp_path / "x", "nfs")]
    monkeypatch.setattr("termproxy.master.file_watch.psutil.disk_partitions", lambda **_: mounts)
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "certs" / "none", tmp_path / "link"):
        assert is_remote(folder) == remote
    assert is_remote(tmp_path / "x" / "y")


def test_no_folder_at_all_is_watched_without_harm(watch: FileWatch) -> None:
    watch.watch([], START)
    assert not watch.is_due(START)
    assert not is_readable(watch)
