"""The admin process, a real one; its master is the test, at the other end of the pair."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from termproxy import clock
from termproxy.admin.main import CLIENTS_MAX, LAST_WORDS, REQUEST_TIMEOUT
from termproxy.admin.routes import BODY_MAX
from termproxy.messages import MessageReader, message
from tests.support.waiting import PATIENCE, wait_until

ADMIN = """
import sys
from socket import AF_INET, AF_UNIX
from termproxy import clock
from termproxy.admin.main import Door, prepare
talk, control, public = map(int, sys.argv[1:])
doors = [Door(control, AF_UNIX, False), Door(public, AF_INET, True)]
prepare(doors, talk)(-1)
"""


class Admin:
    def __init__(self, path: Path, public: socket.socket | None = None) -> None:
        self.path = path
        self.talk, theirs = socket.socketpair()
        self.talk.settimeout(PATIENCE)
        self._reader = MessageReader(1 << 20)
        self._questions: list[dict[str, Any]] = []
        with ExitStack() as listening:
            listening.enter_context(theirs)
            control = listening.enter_context(socket.socket(socket.AF_UNIX))
            control.bind(str(path))
            control.listen()
            if public is None:
                public = listening.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = public.getsockname()[1]
            fds = [sock.fileno() for sock in (theirs, control, public)]
            self.process = subprocess.Popen(
                [sys.executable, "-c", ADMIN, *map(str, fds)], pass_fds=fds, stderr=subprocess.PIPE
            )

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path))
        return sock

    def connect_publicly(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def question(self) -> dict[str, Any]:
        """The next one that the master is asked; signs of life are none."""
        while not self._questions:
            data = self.talk.recv(1 << 16)
            assert data, "the admin process has gone"
            self._questions += [told for told in self._reader.feed(data) if told]
        return self._questions.pop(0)

    def answer(self, question: dict[str, Any], answer: dict[str, Any]) -> None:
        self.talk.sendall(message({"id": question["id"], "answer": answer}))

    def was_not_asked(self) -> bool:
        """Whether nothing but a question of ours, asked now, comes."""
        with self.connect() as sock:
            sock.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return bool(self.question()["verb"] == "live")

    def close(self) -> None:
        self.talk.close()
        try:
            assert self.process.wait(PATIENCE) == 0
            assert self.process.stderr is not None
            assert self.process.stderr.read() == b""
        finally:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    admin = Admin(tmp_path / "c")
    yield admin
    admin.close()


def get(sock: socket.socket, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> None:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def said(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The whole answer, until it hangs up: status, fields and body."""
    received = b""
    while piece := sock.recv(1 << 16):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), body


def test_a_request_is_put_to_the_master_and_its_answer_told(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/stop", method="POST", body=b'{"now": true}')
        question = admin.question()
        assert (question["verb"], question["arguments"]) == ("stop", {"now": True})
        admin.answer(question, {"stopped": True})
        status, fields, body = said(sock)

    assert (status, json.loads(body)) == (200, {"stopped": True})
    assert fields["Content-Type"] == "application/json"
    assert fields["Content-Length"] == str(len(body))
    assert fields["Connection"] == "close"


def test_answers_come_in_any_order(admin: Admin) -> None:
    """Whoever waits for a stop keeps nobody from looking."""
    with admin.connect() as stopping, admin.connect() as looking:
        get(stopping, "/stop", method="POST")
        stop = admin.question()
        get(looking, "/status")
        admin.answer(admin.question(), {"state": "stopping"})
        assert said(looking)[2] == b'{"state":"stopping"}\n'
        admin.answer(stop, {"stopped": True})
        assert said(stopping)[2] == b'{"stopped":true}\n'


def test_a_request_may_come_byte_by_byte(admin: Admin) -> None:
    whole = b'POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"now": true}'
    with admin.connect() as sock:
        for byte in whole:
            sock.sendall(bytes([byte]))
        assert admin.question()["arguments"] == {"now": True}


def test_a_body_is_sent_for_when_it_waits_to_be(admin: Admin) -> None:
    """As curl does for larger ones (RFC 9110 §10.1.1)."""
    with admin.connect() as sock:
        get(sock, "/stop", "Expect: 100-continue", "Content-Length: 2", method="POST")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert admin.question()["verb"] == "stop"


def test_a_head_gets_no_body(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/status", method="HEAD")
        admin.answer(admin.question(), {"a": 1})
        status, fields, body = said(sock)

    assert (status, fields["Content-Length"], body) == (200, "8", b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /status HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"POST /stop HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 403),
        (b"GET /stop HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"TRACE /stop HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 60 + b"\r\n", 431),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nnow", 400),
        (b"GET /status?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_what_cannot_be_is_refused_and_never_put_to_the_master(
    admin: Admin, data: bytes, expected: int
) -> None:
    with admin.connect() as sock:
        sock.sendall(data)
        status, _, body = said(sock)

    assert (status, "error" in json.loads(body)) == (expected, True)
    assert admin.was_not_asked()


def test_a_body_that_is_too_large_is_refused_though_all_of_it_is_sent(admin: Admin) -> None:
    """The answer arrives: it is not destroyed by what nobody read."""
    with admin.connect_publicly() as public:
        get(public, "/live", "Content-Length: 3", method="GET", body=b"abc")
        assert said(public)[0] == 400
    with admin.connect() as sock:
        get(sock, "/stop", method="POST", body=b"x" * (BODY_MAX + 1))
        assert said(sock)[0] == 413


@pytest.mark.parametrize("path", ["/status", "/stop", "/explain", "/"])
def test_through_the_public_door_there_is_nothing_but_metrics_and_life(admin: Admin, path: str) -> None:
    with admin.connect_publicly() as sock:
        get(sock, path, method="POST" if path == "/stop" else "GET")
        assert said(sock)[0] == 404

    assert admin.was_not_asked()


def test_who_does_not_ask_in_time_is_sent_away(admin: Admin) -> None:
    with admin.connect() as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\n")
        sock.settimeout(REQUEST_TIMEOUT + PATIENCE)
        assert said(sock)[0] == 408


def test_sixteen_are_served_at_a_time_and_the_public_ones_apart(admin: Admin) -> None:
    with ExitStack() as silent:
        for _ in range(CLIENTS_MAX):
            silent.enter_context(admin.connect_publicly())

        def is_full() -> bool:
            with admin.connect_publicly() as one_more:
                one_more.settimeout(0.1)
                try:
                    return said(one_more)[0] == 503
                except TimeoutError:
                    return False

        wait_until(is_full, "the sixteen are in")
        with admin.connect() as operator:
            get(operator, "/status")
            assert admin.question()["verb"] == "status"


def test_who_leaves_before_the_answer_makes_room(admin: Admin) -> None:
    """A stop may take as long as a drain."""
    for _ in range(CLIENTS_MAX + 1):
        with admin.connect() as sock:
            get(sock, "/stop", method="POST")
            stop = admin.question()
    admin.answer(stop, {"stopped": True})
    with admin.connect() as sock:
        get(sock, "/status")
        admin.answer(admin.question(), {})
        assert said(sock)[0] == 200


def test_a_master_that_does_not_answer_shows_no_life(admin: Admin) -> None:
    with admin.connect_publicly() as sock:
        get(sock, "/live")
        status, _, body = said(sock)

    assert status == 503
    assert "has not answered within 1 seconds" in json.loads(body)["error"]


def test_metrics_are_prometheus_text(admin: Admin) -> None:
    with admin.connect_publicly() as sock:
        get(sock, "/metrics")
        totals = dict.fromkeys(
            ("accepted", "backend_failures", "bytes_from_clients", "bytes_from_backends"), 7
        ) | dict.fromkeys(("access_lines_lost", "log_lines_lost", "orders", "requests"), 0)
        admin.answer(admin.question(), {"frontends": {}, "totals": totals, "measured": {}})
        status, fields, body = said(sock)

    assert (status, fields["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"\ntermproxy_connections_accepted_total 7.0\n" in body


def test_signals_that_go_to_everybody_are_left_to_the_master(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/stop", method="POST")
        question = admin.question()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            admin.process.send_signal(signum)
        admin.answer(question, {"stopped": True})
        assert said(sock)[0] == 200


def test_the_last_answer_is_passed_on_when_the_master_has_gone(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/stop", method="POST")
        admin.answer(admin.question(), {"stopped": True})
        admin.talk.close()
        assert said(sock)[0] == 200
        assert admin.process.wait(PATIENCE) == 0


def test_who_has_no_answer_when_the_master_goes_is_hung_up_on(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/stop", method="POST")
        admin.question()
        admin.talk.close()
        assert sock.recv(100) == b""


def test_who_has_not_asked_when_the_master_goes_holds_nobody_up(admin: Admin) -> None:
    with admin.connect() as silent, admin.connect() as slow:
        slow.sendall(b"GET /status HTTP/1.1\r\n")
        assert admin.was_not_asked()  # and so all of them are in
        begun = clock.monotonic()
        admin.talk.close()
        assert admin.process.wait(PATIENCE) == 0
        assert clock.monotonic() - begun < LAST_WORDS
        assert silent.recv(1) == b""


def test_who_has_come_when_it_is_to_finish_is_answered_and_it_goes(admin: Admin) -> None:
    with ExitStack() as clients:
        waiting, asking = (clients.enter_context(admin.connect()) for _ in range(2))
        get(waiting, "/stop", method="POST")
        first = admin.question()
        asking.sendall(b"GET /status ")
        queued = clients.enter_context(admin.connect())
        get(queued, "/certs")
        admin.talk.sendall(message({"finish": True}))
        second = admin.question()
        assert second["verb"] == "certs"
        asking.sendall(b"HTTP/1.1\r\nHost: localhost\r\n\r\n")
        third = admin.question()
        admin.answer(second, {"certificates": []})
        assert said(queued)[0] == 200
        wait_until(lambda: is_refused(admin.path), "its doors are closed")
        for sock, question in ((asking, third), (waiting, first)):
            assert admin.process.poll() is None
            admin.answer(question, {"yes": True})
            assert json.loads(said(sock)[2]) == {"yes": True}
        assert admin.process.wait(PATIENCE) == 0


def test_who_waits_at_the_public_door_when_it_is_to_finish_is_another_s(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as public:
        admin = Admin(tmp_path / "c", public)
        with admin.connect() as sock:
            get(sock, "/live")
            question = admin.question()
            admin.talk.sendall(message({"finish": True}))
            wait_until(lambda: is_refused(admin.path), "its doors are closed")
            with admin.connect_publicly():
                public.settimeout(PATIENCE)
                public.accept()[0].close()
            admin.answer(question, {"live": True})
            assert said(sock)[0] == 200
        admin.close()


def is_refused(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) != 0


def test_an_answer_larger_than_a_socket_s_buffer_arrives_whole(admin: Admin) -> None:
    with admin.connect() as sock:
        get(sock, "/status")
        admin.answer(admin.question(), {"frontends": ["x" * 1000] * 3000})
        status, _, body = said(sock)

    assert (status, len(json.loads(body)["frontends"])) == (200, 3000)
