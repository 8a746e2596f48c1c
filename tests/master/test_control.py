"""The control socket's place: whose it is, how it comes to be, and how it goes."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master.control import ControlSocket, Request


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSocket]:
    control = ControlSocket(tmp_path / "control.sock")
    yield control
    control.remove()


def test_an_answer_goes_to_whoever_asked() -> None:
    said: list[dict[str, object]] = []
    Request(said.append).answer({"stopped": True})

    assert said == [{"stopped": True}]


def test_only_the_master_s_user_may_connect(control: ControlSocket, tmp_path: Path) -> None:
    mode = (tmp_path / "control.sock").stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_umask_is_left_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        ControlSocket(tmp_path / "c").remove()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_the_socket_of_a_killed_master_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    control = ControlSocket(tmp_path / "control.sock")
    connect(tmp_path / "control.sock")
    control.remove()


def test_the_socket_of_a_living_master_is_left_alone(control: ControlSocket, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a running process answers there"):
        ControlSocket(tmp_path / "control.sock")

    connect(tmp_path / "control.sock")


def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "c"))
        with pytest.raises(StartError, match="Protocol wrong type for socket"):
            ControlSocket(tmp_path / "c")
    assert (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo"])
def test_what_is_not_a_socket_is_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path)
        case "dangling link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
    with pytest.raises(StartError, match="something that is not a socket is there; remove it"):
        ControlSocket(path)

    assert os.path.lexists(path)


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"control .*/none/c: No such file or directory"):
        ControlSocket(tmp_path / "none" / "c")


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="Not a directory"):
        ControlSocket(tmp_path / "file" / "c")


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a socket's path has at most 107 bytes"):
        ControlSocket(tmp_path / ("x" * 108))


def test_the_path_goes_with_the_master(tmp_path: Path) -> None:
    ControlSocket(tmp_path / "c").remove()

    assert not (tmp_path / "c").exists()


def test_a_path_that_is_another_s_by_now_stays(control: ControlSocket, tmp_path: Path) -> None:
    (tmp_path / "control.sock").rename((tmp_path / "control.sock").with_suffix(".old"))
    (tmp_path / "control.sock").write_text("another's")
    control.remove()

    assert (tmp_path / "control.sock").read_text() == "another's"


def test_a_path_that_has_gone_is_no_error(control: ControlSocket, tmp_path: Path) -> None:
    (tmp_path / "control.sock").unlink()
    control.remove()


def test_a_process_just_forked_only_lets_go(control: ControlSocket, tmp_path: Path) -> None:
    control.close()

    assert control.sock.fileno() == -1
    assert (tmp_path / "control.sock").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_socket_that_another_user_left_is_not_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "c"))
    os.chown(tmp_path / "c", 65534, 65534)
    with pytest.raises(StartError, match="another user's socket is there; remove it"):
        ControlSocket(tmp_path / "c")

    assert (tmp_path / "c").exists()


def test_a_folder_in_which_others_could_replace_it_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match=r"control .*/c: others can replace it; chmod go-w "):
        ControlSocket(tmp_path / "c")

    assert not (tmp_path / "c").exists()
