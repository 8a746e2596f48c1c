"""The control socket as the master has it: where it is, whose it is, and how a question is answered.

It is a Unix socket of mode 0600.  The master binds it, and removes it at its end; the admin process
(admin/main.py) serves it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from termproxy.master import unix_socket

BACKLOG = 64  # clients that wait while there is no admin process


class Request:
    """One operator's question.  `answer` may come later; the operator waits."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say

    def answer(self, answer: dict[str, Any]) -> None:
        """Once.  Whoever asked may have gone."""
        self._say(answer)


class ControlSocket:
    """With `beside`, it waits beside its path, until we take the place of the master that has it."""

    def __init__(self, path: Path, *, beside: bool = False) -> None:
        self._place = path
        self.path = path.with_name(path.name + unix_socket.BESIDE) if beside else path
        self._listen()

    def _listen(self) -> None:
        self.sock = unix_socket.listen(self.path, f"control {self.path}", 0o600, BACKLOG)
        self._inode = unix_socket.inode_of(self.path)

    def take_place(self) -> None:
        """In one step: there is no moment in which nobody answers.  OSError when that cannot be."""
        self.path.rename(self._place)
        self.path = self._place

    def is_ours(self) -> bool:
        """Whether what stands at the path is still this."""
        return unix_socket.is_at(self.path, self._inode)

    def renew(self) -> None:
        """Be there again, after another took our place and died; the socket of before stays open."""
        self._listen()

    def remove(self) -> None:
        """At the master's end: the path goes, if it still is ours."""
        unix_socket.remove(self.path, self._inode)
        self.close()

    def close(self) -> None:
        """In a process just forked: it is the master's."""
        self.sock.close()
