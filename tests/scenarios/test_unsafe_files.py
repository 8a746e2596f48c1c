"""What somebody has put where we write is refused in plain words, and nothing is written through it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.command import termproxy
from tests.support.server import Server

NOWHERE = "127.0.0.1:9"
SOMEBODY = 65534
PRECIOUS = "precious\n"

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give things away")


# What may be there, given a path and a file that is somebody's.


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made"))


def _hard_link(path: Path, victim: Path) -> None:
    os.link(victim, path)


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()


def _file(path: Path, _: Path) -> None:
    path.write_text(PRECIOUS)


def _another_users_file(path: Path, victim: Path) -> None:
    _file(path, victim)
    os.chown(path, SOMEBODY, SOMEBODY)


def _another_users_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    os.chown(path, SOMEBODY, SOMEBODY)


def _another_users_folder(path: Path, _: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, SOMEBODY, SOMEBODY)


def _folder_for_all(path: Path, _: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _link_to_another_users_folder(path: Path, victim: Path) -> None:
    theirs = victim.with_name("theirs")
    _another_users_folder(theirs, victim)
    path.symlink_to(theirs)


def _nothing_in_a_folder_for_all(path: Path, _: Path) -> None:
    path.parent.chmod(0o777)


def _nothing_in_a_group_s_folder(path: Path, _: Path) -> None:
    os.chown(path.parent, -1, SOMEBODY)
    path.parent.chmod(0o775)


def _nothing_in_another_users_folder(path: Path, _: Path) -> None:
    os.chown(path.parent, SOMEBODY, SOMEBODY)


Put = Callable[[Path, Path], None]

REFUSED: dict[str, list[tuple[Put, str]]] = {
    "pidfile": [
        (_link, "it is a symbolic link; name a plain file"),
        (_dangling_link, "it is a symbolic link; name a plain file"),
        (_hard_link, "not a plain file of its own; remove it"),
        (_fifo, "not a plain file of its own; remove it"),
        (_folder, "Is a directory"),
        (_another_users_file, "it is another user's; remove it"),
        (_nothing_in_a_folder_for_all, "others can replace it; chmod go-w"),
        (_nothing_in_a_group_s_folder, "others can replace it; chmod go-w"),
        (_nothing_in_another_users_folder, "is another user's; name a folder"),
    ],
    "control": [
        (_link, "something that is not a socket is there; remove it"),
        (_dangling_link, "something that is not a socket is there; remove it"),
        (_fifo, "something that is not a socket is there; remove it"),
        (_file, "something that is not a socket is there; remove it"),
        (_another_users_socket, "another user's socket is there; remove it"),
        (_nothing_in_a_folder_for_all, "others can replace it; chmod go-w"),
        (_nothing_in_a_group_s_folder, "others can replace it; chmod go-w"),
        (_nothing_in_another_users_folder, "is another user's; name a folder"),
    ],
    "state_dir": [
        (_dangling_link, "File exists"),
        (_file, "File exists"),
        (_another_users_folder, "it is another user's"),
        (_link_to_another_users_folder, "it is another user's"),
        (_folder_for_all, "others can write there; chmod go-w"),
        (_nothing_in_a_folder_for_all, "others can replace it; chmod go-w"),
    ],
    "log.access": [
        (_link, "it is a symbolic link; name the file"),
        (_dangling_link, "it is a symbolic link; name the file"),
        (_hard_link, "it is a hard link to a file that has other names, too; remove it"),
        (_fifo, "No such device or address"),
        (_folder, "Is a directory"),
        (_another_users_file, "it is another user's; remove it, or give it to `user`"),
    ],
}


def changes(setting: str, path: Path) -> dict[str, object]:
    return {"log": {"access": str(path)}} if setting == "log.access" else {setting: str(path)}


@as_root
@pytest.mark.parametrize(
    ("setting", "put", "why"),
    [
        pytest.param(setting, put, why, id=f"{setting}: {put.__name__.strip('_').replace('_', ' ')}")
        for setting, cases in REFUSED.items()
        for put, why in cases
    ],
)
def test_it_is_refused_and_left_as_it_is(
    serve: Serve, tmp_path: Path, setting: str, put: Put, why: str
) -> None:
    (tmp_path / "place").mkdir(mode=0o700)
    path, victim = tmp_path / "place" / "it", tmp_path / "victim"
    victim.write_text(PRECIOUS)
    server = serve(NOWHERE, **changes(setting, path))
    put(path, victim)
    before = _seen(tmp_path)
    said = refused(server)
    assert f"{setting}" in said
    assert why in said
    assert _seen(tmp_path) - before <= {server.file.name, "access.log"}
    assert victim.read_text() == PRECIOUS


def refused(server: Server) -> str:
    """What a server says that does not start."""
    server.write_config()
    result = termproxy("run", "-c", str(server.file), cwd=server.folder)
    assert result.returncode == 1, result
    assert " serves; " not in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def _seen(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


STATE_FILES = [_link, _dangling_link, _fifo, pytest.param(_another_users_file, marks=as_root)]


@pytest.mark.parametrize("put", STATE_FILES)
@pytest.mark.parametrize("name", ["tickets.key", "tickets.sealed"])
def test_a_state_file_is_made_anew_beside_what_was_there(
    serve: Serve, tmp_path: Path, put: Put, name: str
) -> None:
    """The folder is ours alone, so it was ourselves, or root: the server goes on, and says so."""
    victim = tmp_path / "victim"
    victim.write_text(PRECIOUS)
    (tmp_path / "state").mkdir(mode=0o700)
    put(tmp_path / "state" / name, victim)
    with serve(NOWHERE, state_dir="state", resumption={"persist": True}):
        file = tmp_path / "state" / name
        status = file.lstat()
        assert file.is_file()
        assert not file.is_symlink()
        assert (status.st_uid, status.st_mode & 0o777, status.st_nlink) == (os.getuid(), 0o600, 1)
    assert victim.read_text() == PRECIOUS
    assert not (tmp_path / "made").exists()


def test_what_we_make_is_for_nobody_else(serve: Serve, tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        with serve(NOWHERE, state_dir="state", resumption={"persist": True}):
            modes = {
                name: (tmp_path / name).stat().st_mode & 0o777
                for name in ("control", "pid", "access.log", "state", "state/tickets.key")
            }
    finally:
        os.umask(before)
    assert modes == {
        "control": 0o600,
        "pid": 0o644,
        "access.log": 0o640,
        "state": 0o700,
        "state/tickets.key": 0o600,
    }
