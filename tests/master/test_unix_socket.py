"""Listening sockets that have a path."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from termproxy.address import UNIX_PATH_MAX
from termproxy.errors import StartError
from termproxy.master.unix_socket import inode_of, is_at, listen, remove


def test_the_path_has_its_permissions_and_somebody_answers(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(path, "control", 0o640, 5), socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        client.connect(str(path))


def test_the_mask_of_before_is_back(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        listen(tmp_path / "socket", "control", 0o600, 5).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(path, "control", 0o600, 5).close()

    listen(path, "control", 0o600, 5).close()


def test_one_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(path, "it", 0o600, 5):
        with pytest.raises(StartError, match=r"it: a running process answers there; stop it, or choose"):
            listen(path, "it", 0o600, 5)
        assert path.exists()


def test_so_is_one_that_is_too_busy_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(path, "it", 0o600, 0), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(StartError, match="a running process answers there"):
            listen(path, "it", 0o600, 5)


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_something_else_is_not_touched(what: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    match what:
        case "file":
            path.write_text("precious")
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "folder":
            path.mkdir()
    with pytest.raises(StartError, match="something that is not a socket is there; remove it"):
        listen(path, "it", 0o600, 5)

    assert os.path.lexists(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_path_that_is_too_long_or_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a socket's path has at most 107 bytes"):
        listen(Path("/" + "a" * UNIX_PATH_MAX), "it", 0o600, 5)
    with pytest.raises(StartError, match="it: No such file"):
        listen(tmp_path / "nowhere" / "socket", "it", 0o600, 5)


def test_what_is_another_s_by_now_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(path, "it", 0o600, 5):
        ours = inode_of(path)
        path.rename(tmp_path / "elsewhere")
        with listen(path, "it", 0o600, 5):
            assert not is_at(path, ours)
            remove(path, ours)
            assert path.exists()
            remove(path, inode_of(path))
    assert not path.exists()
    remove(path, ours)
