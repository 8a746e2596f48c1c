"""Whether a folder is safe to keep something in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from termproxy.errors import StartError
from termproxy.master.folders import refuse_shared

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")


def refusal(folder: Path) -> str:
    try:
        refuse_shared(folder, "pidfile")
    except StartError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o555, 0o1777, 0o1770])
def test_one_in_which_nobody_else_replaces_things_is_safe(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert refusal(tmp_path) == ""


def test_one_that_everybody_writes_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o757)
    assert refusal(tmp_path) == f"pidfile: others can replace it; chmod go-w {tmp_path}"


@as_root
def test_one_that_a_group_writes_is_not_for_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    os.chown(tmp_path, 0, 65534)
    assert "others can replace it" in refusal(tmp_path)
    os.chown(tmp_path, 0, 0)
    assert refusal(tmp_path) == "", "root's own group"


def test_one_that_our_group_writes_is_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each user has a group, whatever they make can be written by it."""
    tmp_path.chmod(0o775)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner or 1000)
    assert refusal(tmp_path) == ""


@as_root
def test_another_user_s_is_not(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert f"{tmp_path} is another user's; name a folder" in refusal(tmp_path)


def test_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == "pidfile: No such file or directory"
