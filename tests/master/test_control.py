"""The control socket: served in a selector's loop, with real clients."""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from termproxy.errors import StartError
from termproxy.master.control import (
    CLIENTS_MAX,
    REQUEST_MAX,
    REQUEST_TIMEOUT,
    ControlSocket,
    Request,
)

NOW = 100.0


class Master:
    """Serves one control socket, a turn at a time; answers with what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.asked: list[tuple[str, dict[str, Any], Request]] = []
        self.silent = False
        self.control = ControlSocket(path, self.selector, self._on_request)
        self._clients: list[socket.socket] = []

    def _on_request(self, verb: str, arguments: dict[str, Any], request: Request) -> None:
        self.asked.append((verb, arguments, request))
        if not self.silent:
            request.answer({"verb": verb, **arguments})

    def turn(self) -> None:
        """All that is ready now, until nothing is."""
        while events := self.selector.select(0):
            for key, _ in events:
                key.data(NOW)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(str(self.path))
        self._clients.append(client)
        return client

    def ask(self, *pieces: bytes) -> dict[str, Any]:
        client = self.connect()
        for piece in pieces:
            client.send(piece)
            self.turn()
        return answer(client)

    def close(self) -> None:
        self.control.remove()
        self.selector.close()
        for client in self._clients:
            client.close()
        for _, _, request in self.asked:
            request.sock.close()


def answer(client: socket.socket) -> dict[str, Any]:
    received = b""
    while piece := client.recv(65536):
        received += piece
    assert received.endswith(b"\n")
    result: dict[str, Any] = json.loads(received)
    return result


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "control.sock")
    yield master
    master.close()


def test_a_line_is_asked_and_a_line_answered(master: Master) -> None:
    assert master.ask(b'{"verb": "status", "x": 1}\n') == {"verb": "status", "x": 1}


def test_a_request_may_come_in_pieces(master: Master) -> None:
    assert master.ask(b'{"ve', b'rb": "st', b'op"}', b"\n") == {"verb": "stop"}


def test_an_answer_may_come_later(master: Master) -> None:
    master.silent = True
    client = master.connect()
    client.send(b'{"verb": "stop"}\n')
    master.turn()
    master.control.expire(NOW + 1000)
    ((_, _, request),) = master.asked
    request.answer({"stopped": True})

    assert answer(client) == {"stopped": True}


def test_only_the_master_s_user_may_connect(master: Master) -> None:
    mode = master.path.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_umask_is_left_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Master(tmp_path / "c").close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"[1]\n",
        b"3\n",
        b'"status"\n',
        b"{}\n",
        b'{"verb": "a"} x\n',
        b"\xff\n",
        b"null\n",
    ],
)
def test_garbage_is_told_what_was_expected(master: Master, line: bytes) -> None:
    assert master.ask(line) == {"error": 'expected one line of JSON with a "verb"'}
    assert master.asked == []


def test_a_verb_is_a_word_whatever_was_sent(master: Master) -> None:
    assert master.ask(b'{"verb": ["a"]}\n') == {"verb": "['a']"}


def test_a_request_that_is_too_long_is_refused(master: Master) -> None:
    refused = master.ask(b"x" * (REQUEST_MAX - 1), b"xx")

    assert refused == {"error": "expected one line of JSON, at most 65536 bytes"}


def test_a_client_that_leaves_before_it_has_asked_is_forgotten(master: Master) -> None:
    client = master.connect()
    client.send(b'{"verb"')
    master.turn()
    client.shutdown(socket.SHUT_WR)
    master.turn()

    assert answer(client) == {"error": "expected one line of JSON, at most 65536 bytes"}
    assert master.control._requests == set()


def test_a_client_that_left_before_the_answer_is_no_error(master: Master) -> None:
    client = master.connect()
    client.send(b'{"verb": "status"}\n')
    client.close()
    master.turn()

    assert [verb for verb, _, _ in master.asked] == ["status"]


def test_a_client_that_does_not_ask_in_time_is_sent_away(master: Master) -> None:
    slow = master.connect()
    master.turn()
    master.control.expire(NOW + REQUEST_TIMEOUT - 0.1)
    assert len(master.control._requests) == 1
    master.control.expire(NOW + REQUEST_TIMEOUT)

    assert answer(slow) == {"error": "no request within 5 seconds"}
    assert master.control._requests == set()
    assert len(master.selector.get_map()) == 1


def test_too_many_clients_are_sent_away_and_the_others_served(master: Master) -> None:
    clients = []
    for _ in range(CLIENTS_MAX + 2):
        clients.append(master.connect())
        master.turn()

    assert answer(clients[-1]) == {"error": "too many control clients"}
    clients[0].send(b'{"verb": "status"}\n')
    master.turn()
    assert answer(clients[0]) == {"verb": "status"}
    assert master.ask(b'{"verb": "stop"}\n') == {"verb": "stop"}


def test_the_socket_of_a_killed_master_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    master = Master(tmp_path / "control.sock")

    assert master.ask(b'{"verb": "status"}\n') == {"verb": "status"}
    master.close()


def test_the_socket_of_a_living_master_is_left_alone(master: Master) -> None:
    with pytest.raises(StartError, match="a running termproxy answers there"):
        Master(master.path)

    assert master.ask(b'{"verb": "status"}\n') == {"verb": "status"}


def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "c"))
        with pytest.raises(StartError, match="Protocol wrong type for socket"):
            Master(tmp_path / "c")
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
        Master(path)

    assert os.path.lexists(path)


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"control .*/none/c: No such file or directory"):
        Master(tmp_path / "none" / "c")


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="Not a directory"):
        Master(tmp_path / "file" / "c")


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a socket's path has at most 107 bytes"):
        Master(tmp_path / ("x" * 108))


def test_the_path_goes_with_the_master(tmp_path: Path) -> None:
    Master(tmp_path / "c").close()

    assert not (tmp_path / "c").exists()


def test_a_path_that_is_another_s_by_now_stays(master: Master) -> None:
    master.path.rename(master.path.with_suffix(".old"))
    master.path.write_text("another's")
    master.control.remove()

    assert master.path.read_text() == "another's"


def test_a_path_that_has_gone_is_no_error(master: Master) -> None:
    master.path.unlink()
    master.control.remove()


def test_a_worker_only_lets_go(master: Master) -> None:
    client = master.connect()
    master.turn()
    master.control.close()

    assert client.recv(1) == b""
    assert master.path.exists()


def test_an_answer_larger_than_a_socket_s_buffer_arrives_whole(master: Master) -> None:
    """Many frontends, or a thousand workers during reloads, make long answers."""
    master.silent = True
    client = master.connect()
    client.send(b'{"verb": "status"}\n')
    master.turn()
    master.asked[0][2].answer({"frontends": ["x" * 1000] * 1000})
    received = b""
    while piece := client.recv(1 << 16):
        received += piece
        master.turn()

    assert received.endswith(b"\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_socket_that_another_user_left_is_not_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "c"))
    os.chown(tmp_path / "c", 65534, 65534)
    with pytest.raises(StartError, match="another user's socket is there; remove it"):
        Master(tmp_path / "c")

    assert (tmp_path / "c").exists()


def test_a_folder_in_which_others_could_replace_it_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match=r"control .*/c: others can replace it; chmod go-w "):
        Master(tmp_path / "c")

    assert not (tmp_path / "c").exists()
