"""The file that proves that a master lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master.pidfile import Pidfile


def test_it_holds_our_process_id_while_we_live(tmp_path: Path) -> None:
    path = tmp_path / "t.pid"
    pidfile = Pidfile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 & ~0o644 == 0
    pidfile.remove()

    assert not path.exists()


def test_a_second_master_is_told_who_runs_already(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    with pytest.raises(StartError, match=f"termproxy is already running as process {os.getpid()}$"):
        Pidfile(tmp_path / "t.pid")
    assert (tmp_path / "t.pid").read_text() == f"{os.getpid()}\n"
    pidfile.remove()


def test_an_owner_who_has_not_written_yet_is_an_owner(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    os.truncate(tmp_path / "t.pid", 0)
    with pytest.raises(StartError, match=r"already running as process \?"):
        Pidfile(tmp_path / "t.pid")
    pidfile.remove()


def test_a_file_whose_master_was_killed_is_taken_over(tmp_path: Path) -> None:
    """A lock cannot go stale; the number in the file may be anybody's by now."""
    path = tmp_path / "t.pid"
    code = "import os, sys; from pathlib import Path; from termproxy.master.pidfile import Pidfile\n"
    code += "p = Pidfile(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text().strip().isdigit()
    path.write_text("1234567890123\n")
    pidfile = Pidfile(path)

    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()


def test_a_child_that_lets_go_does_not_unlock_it(tmp_path: Path) -> None:
    """The lock is the open file's; a worker closes its copy of the descriptor."""
    pidfile = Pidfile(tmp_path / "t.pid")
    os.close(os.dup(pidfile._fd))
    with pytest.raises(StartError, match="already running"):
        Pidfile(tmp_path / "t.pid")
    pidfile.remove()


def test_it_goes_to_no_program(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    assert not os.get_inheritable(pidfile._fd)
    pidfile.remove()


@pytest.mark.parametrize("target", ["missing", "there"])
def test_a_symbolic_link_is_not_followed(target: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "t.pid").symlink_to(target)
    with pytest.raises(StartError, match="it is a symbolic link; name a plain file"):
        Pidfile(tmp_path / "t.pid")

    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_a_hard_link_to_another_file_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    os.link(tmp_path / "there", tmp_path / "t.pid")
    with pytest.raises(StartError, match="not a plain file of its own; remove it"):
        Pidfile(tmp_path / "t.pid")

    assert (tmp_path / "there").read_text() == "precious"


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.pid")
    with pytest.raises(StartError, match="not a plain file of its own"):
        Pidfile(tmp_path / "t.pid")


@pytest.mark.parametrize(("path", "why"), [("", "Is a directory"), ("none/t.pid", "No such file")])
def test_what_cannot_be_opened_is_told(path: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=why):
        Pidfile(tmp_path / path)


def test_a_refused_file_leaves_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.pid")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    with pytest.raises(StartError):
        Pidfile(tmp_path / "t.pid")

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_that_is_another_s_by_now_is_not_removed(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    (tmp_path / "t.pid").unlink()
    (tmp_path / "t.pid").write_text("another master's")
    pidfile.remove()

    assert (tmp_path / "t.pid").read_text() == "another master's"


def test_a_file_that_has_gone_is_no_error(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    (tmp_path / "t.pid").unlink()
    pidfile.remove()


def test_a_worker_only_lets_go(tmp_path: Path) -> None:
    pidfile = Pidfile(tmp_path / "t.pid")
    pidfile.close()

    assert (tmp_path / "t.pid").exists()


def test_a_file_that_others_could_write_is_ours_alone_from_now_on(tmp_path: Path) -> None:
    """Who can write it says whom an operator's script stops."""
    (tmp_path / "t.pid").touch()
    (tmp_path / "t.pid").chmod(0o666)
    pidfile = Pidfile(tmp_path / "t.pid")
    assert (tmp_path / "t.pid").stat().st_mode & 0o777 == 0o644
    pidfile.remove()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_user_s_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t.pid").write_text("1\n")
    os.chown(tmp_path / "t.pid", 65534, 65534)
    with pytest.raises(StartError, match="it is another user's; remove it"):
        Pidfile(tmp_path / "t.pid")

    assert (tmp_path / "t.pid").read_text() == "1\n"


def test_a_folder_in_which_others_could_replace_it_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match=r"pidfile .*/t\.pid: others can replace it; chmod go-w "):
        Pidfile(tmp_path / "t.pid")

    assert not (tmp_path / "t.pid").exists()


def test_the_next_master_waits_beside_it_and_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    old = Pidfile(path)
    new = Pidfile(path, beside=True)
    path.write_text("1\n")
    assert old.is_ours()
    new.take_place()
    assert path.read_text() == f"{os.getpid()}\n"
    assert not old.is_ours()
    assert new.is_ours()

    old.remove()
    assert path.exists()
    new.remove()
    assert list(tmp_path.iterdir()) == []


def test_one_that_does_not_come_up_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    old = Pidfile(path)
    Pidfile(path, beside=True).close()  # it was killed
    Pidfile(path, beside=True).remove()

    assert old.is_ours()
    assert list(tmp_path.iterdir()) == [path]
    old.remove()
