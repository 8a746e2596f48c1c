"""The helper asks real HTTP servers, good and evil, and always has something to tell about each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from termproxy.master import ocsp_helper
from termproxy.master.ocsp_helper import PROBLEM_MAX, prepare, reach_of
from termproxy.master.staple_book import ROUND_MAX, Question
from termproxy.master.stapler import HELPER_MAX, MESSAGE_MAX
from termproxy.messages import MessageReader
from termproxy.tls.ocsp import RESPONSE_MAX
from tests.support.backends import Backend, Behaviour, receive_exactly
from tests.support.ocsp import HttpServer, saying

Handle = Callable[[BaseHTTPRequestHandler, bytes], None]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """The helper is a process of its own; here it is ours."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "the alarm still rings"
    signal.signal(signal.SIGALRM, before)


class Helper:
    def __init__(self, file: Path) -> None:
        self._file = file

    def ask(self, *urls: str) -> list[dict[str, Any]]:
        """What it tells about each, in a file in place of the pipe."""
        questions = [Question(f"{at:064x}", url, b"a question") for at, url in enumerate(urls)]
        with self._file.open("wb") as stream:
            prepare(questions)(stream.fileno())
        return list(MessageReader(MESSAGE_MAX).feed(self._file.read_bytes()))

    def response(self, url: str) -> bytes:
        [answer] = self.ask(url)
        assert "problem" not in answer, answer
        return str(answer["response"]).encode("latin-1")

    def problem(self, url: str) -> str:
        [answer] = self.ask(url)
        assert set(answer) == {"sha256", "problem"}
        problem = str(answer["problem"])
        assert problem.isascii()
        assert problem.isprintable()
        assert 0 < len(problem) <= PROBLEM_MAX
        return problem


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    return Helper(tmp_path / "told")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocsp_helper, "TIMEOUT", 0.3)


# Answers.


def test_the_question_is_posted_and_the_answer_told(helper: Helper) -> None:
    seen: dict[str, str] = {}

    def behave(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        seen.update(handler.headers)
        seen["method"] = handler.command
        saying(b"an answer")(handler, body)

    with HttpServer(behave) as server:
        assert helper.response(f"{server.url}path?query") == b"an answer"
    assert (server.requests, server.paths) == ([b"a question"], ["/path?query"])
    assert seen["method"] == "POST"
    assert seen["Content-Type"] == "application/ocsp-request"
    assert seen["Accept"] == "application/ocsp-response"


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)), bytes(RESPONSE_MAX), b"\xff" * RESPONSE_MAX, b"\x1f" * RESPONSE_MAX],
    ids=["nothing", "every byte", "zeros", "high ones", "controls"],
)
def test_any_bytes_come_through(helper: Helper, body: bytes) -> None:
    """JSON makes six characters of some; the master must not take that for nonsense."""
    with HttpServer(saying(body)) as server:
        assert helper.response(server.url) == body


def test_an_answer_without_a_length_ends_with_the_connection(helper: Helper) -> None:
    def behave(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nan answer")
        handler.close_connection = True

    with HttpServer(behave) as server:
        assert helper.response(server.url) == b"an answer"


def test_everybody_is_told_of_in_order_whatever_happens_to_the_others(helper: Helper) -> None:
    with HttpServer(saying(b"good")) as good, HttpServer(saying(b"", 404)) as bad:
        answers = helper.ask(good.url, bad.url, "http://127.0.0.1:1/", "http://", good.url)
    assert [int(answer["sha256"], 16) for answer in answers] == [0, 1, 2, 3, 4]
    assert ["response" in answer for answer in answers] == [True, False, False, False, True]


def test_with_nothing_to_ask_nothing_is_told(helper: Helper) -> None:
    assert helper.ask() == []


# Answers that are none.


@pytest.mark.parametrize("status", [201, 204])
def test_another_kind_of_success_is_left_to_the_master(helper: Helper, status: int) -> None:
    with HttpServer(saying(b"" if status == 204 else b"an answer", status)) as server:
        assert helper.response(server.url) in {b"", b"an answer"}


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 502, 503])
def test_a_refusal_is_a_problem(helper: Helper, status: int) -> None:
    with HttpServer(saying(b"an answer", status)) as server:
        assert str(status) in helper.problem(server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["http", "file", "itself"])
def test_nobody_is_sent_elsewhere(helper: Helper, status: int, where: str, tmp_path: Path) -> None:
    """A responder could else have us ask inside our own network."""
    (tmp_path / "secret").write_bytes(b"secret")
    with HttpServer(saying(b"elsewhere")) as other:

        def behave(handler: BaseHTTPRequestHandler, _: bytes) -> None:
            handler.send_response(status)
            target = {"http": other.url, "file": f"file://{tmp_path}/secret", "itself": "/"}[where]
            handler.send_header("Location", target)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with HttpServer(behave) as server:
            assert str(status) in helper.problem(server.url)
            assert len(server.requests) == 1
        assert other.requests == []


def test_an_answer_that_is_too_large_is_a_problem(helper: Helper) -> None:
    with HttpServer(saying(bytes(RESPONSE_MAX + 1))) as server:
        assert helper.problem(server.url) == f"an answer of more than {RESPONSE_MAX} bytes"


def test_an_endless_answer_is_cut(helper: Helper) -> None:
    def behave(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(bytes(1 << 16))

    with HttpServer(behave) as server:
        assert helper.problem(server.url) == f"an answer of more than {RESPONSE_MAX} bytes"


def raw(*words: bytes) -> Behaviour:
    """Says these bytes to whoever asks, and hangs up."""

    def serve(sock: socket.socket) -> None:
        receive_exactly(sock, 1)
        for word in words:
            sock.sendall(word)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass

    return serve


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 nonsense OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 \xff\xfe\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem(helper: Helper, words: bytes) -> None:
    with Backend(raw(words)) as server:
        helper.problem(f"http://{server.address}/")


@pytest.mark.parametrize(
    "words",
    [
        b"evil \x1b[2J\r\rfake line\x85\x00\r\n\r\n",
        b"HTTP/1.1 404 \x1b[31mevil\r\x9b31m [/bold]\r\n\r\n",
        b"HTTP/1.1 500 " + b"long " * 1000 + b"\r\n\r\n",
        b"HTTP/1.1 \x1b[2J OK\r\n\r\n",
    ],
)
def test_what_a_server_says_is_made_safe_for_logs(helper: Helper, words: bytes) -> None:
    with Backend(raw(words)) as server:
        helper.problem(f"http://{server.address}/")


def test_half_an_answer_is_left_to_the_master_or_a_problem(helper: Helper) -> None:
    with Backend(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as server:
        [answer] = helper.ask(f"http://{server.address}/")
    assert answer.get("response", "half") == "half"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "http://[::1/",
        "http://127.0.0.1:none/",
        "http://127.0.0.1:99999/",
        "http://a b/",
        "http://a\nb/",
        "http://127.0.0.1:1/a b",
        "http://127.0.0.1:1/\r\nX: y",
        "http://..../",
        f"http://{'a' * 70}.test/",
        "http://user:pass@127.0.0.1:1/",
        "https://127.0.0.1:1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:,answer",
        "http://name.invalid/",
    ],
)
def test_an_address_that_leads_nowhere_is_a_problem(helper: Helper, url: str) -> None:
    """A certificate may name anything; no other schemes than HTTP's are followed."""
    with HttpServer(saying(b"good")) as good:
        answers = helper.ask(url, good.url)
    assert ["problem" in answer for answer in answers] == [True, False]


def test_nobody_at_the_port_is_a_problem(helper: Helper) -> None:
    assert "refused" in helper.problem("http://127.0.0.1:1/")


# Patience.


def silent(sock: socket.socket) -> None:
    while sock.recv(1 << 16):
        pass


def dripping(head: bytes) -> Behaviour:
    """Says a byte now and then: every one of them would begin a socket's timeout anew."""

    def serve(sock: socket.socket) -> None:
        receive_exactly(sock, 1)
        sock.sendall(head)
        pause = threading.Event()
        for _ in range(250):  # five seconds
            pause.wait(0.02)
            sock.sendall(b"x")

    return serve


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "behaviour",
    [silent, dripping(b""), dripping(b"HTTP/1.1 200 OK\r\nX: "), dripping(b"HTTP/1.1 200 OK\r\n\r\n")],
    ids=["silent", "status", "headers", "body"],
)
def test_a_slow_server_has_its_time_and_no_more(helper: Helper, behaviour: Behaviour) -> None:
    with Backend(behaviour) as slow, HttpServer(saying(b"good")) as good:
        answers = helper.ask(f"http://{slow.address}/", good.url)
    assert "Timeout" in answers[0]["problem"] or "timed out" in answers[0]["problem"]
    assert answers[1]["response"] == "good"


def test_a_round_at_its_slowest_ends_before_it_is_ended() -> None:
    """Else whoever comes after a slow responder would never be asked about."""
    assert ROUND_MAX * (ocsp_helper.TIMEOUT + 1) < HELPER_MAX


# Proxies.


def test_a_proxy_is_asked_as_the_environment_says(
    helper: Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpServer(saying(b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert helper.response("http://responder.invalid/path") == b"by proxy"
        assert proxy.paths == ["http://responder.invalid/path"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with HttpServer(saying(b"directly")) as server:
            assert helper.response(server.url) == b"directly"


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "nonsense", "http://", "//", "http://[", "\udcff"]
)
def test_an_impossible_proxy_is_a_problem(
    helper: Helper, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    helper.problem("http://127.0.0.1:1/")


# The pipe, and the process.


def test_when_the_master_has_gone_it_has_nobody_to_tell() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with pytest.raises(BrokenPipeError):
            prepare([Question("ab", "http://127.0.0.1:1/", b"")])(write)
    finally:
        os.close(write)


@pytest.mark.parametrize(
    ("urls", "proxy", "ports"),
    [
        ([], "", set()),
        (["http://ocsp.test/", "https://ocsp.test/"], "", set()),
        (["http://ocsp.test:8080/", "https://[::1]:8443/x"], "", {8080, 8443}),
        (["http://ocsp.test:99999/", "http://ocsp.test:many/", "nonsense"], "", set()),
        (["http://ocsp.test/"], "http://proxy.test:3128", {3128}),
        (["http://ocsp.test/"], "proxy.test:3129", {3129}),
    ],
)
def test_it_connects_to_what_is_asked_and_to_name_servers(
    monkeypatch: pytest.MonkeyPatch, urls: list[str], proxy: str, ports: set[int]
) -> None:
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    wanted = frozenset(ports | {53, 80, 443})
    assert reach_of([Question("ab", url, b"") for url in urls]).ports == wanted


SPAWN = """
import json, os, pwd, signal, sys, time
from pathlib import Path
from termproxy.master import spawn as module
from termproxy.master.generation import User
from termproxy.master.ocsp_helper import prepare
from termproxy.master.signals import SignalInbox
from termproxy.master.landlock import Reach
from termproxy.master.spawn import spawn_helper
from termproxy.master.staple_book import Question
from termproxy.messages import MessageReader

REACH = Reach(None)

nobody = None
if os.getuid() == 0:
    entry = pwd.getpwnam("nobody")
    nobody = User("nobody", entry.pw_uid, entry.pw_gid)

def told(helper):
    os.set_blocking(helper.fd, True)
    said = b""
    while piece := os.read(helper.fd, 65536):
        said += piece
    return said

def end_of(helper):
    return os.waitstatus_to_exitcode(os.waitpid(helper.pid, 0)[1])

def done(*values):
    print(json.dumps(values))
"""


def run(code: str) -> Any:
    """What the code prints last, as JSON; what it says on standard error must be nothing."""
    command = [sys.executable, "-c", SPAWN + textwrap.dedent(code)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return [*json.loads(ended.stdout.splitlines()[-1]), ended.stderr]


def test_a_spawned_helper_asks_tells_and_goes() -> None:
    with HttpServer(saying(b"good")) as server:
        [messages, status, said] = run(f"""
            urls = {{"ab": {server.url!r}, "cd": "http://127.0.0.1:1/"}}
            questions = [Question(sha256, url, b"q") for sha256, url in urls.items()]
            helper = spawn_helper(lambda: prepare(questions), nobody, lambda: None, REACH)
            done(list(MessageReader(1 << 20).feed(told(helper))), end_of(helper))
        """)
    assert messages[0] == {"sha256": "ab", "response": "good"}
    assert messages[1]["sha256"] == "cd"
    assert "refused" in messages[1]["problem"]
    assert (status, said) == (0, "")


LOOK = """
    def prepare_to_look():
        def look(fd):
            lines = Path("/proc/self/status").read_text().splitlines()
            status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
            listed = os.listdir("/proc/self/fd")  # with the descriptor of the listing
            status["fds"] = [int(fd) for fd in listed if os.path.exists(f"/proc/self/fd/{fd}")]
            status["fd"] = fd
            status["core"] = module.resource.getrlimit(module.resource.RLIMIT_CORE)[0]
            try:
                os.setuid(0)
                status["root"] = os.getuid() == 0
            except PermissionError:
                status["root"] = False
            os.write(fd, json.dumps(status).encode())
        return look
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_helper_has_no_rights_left() -> None:
    [status, code, _] = run(f"""
        {textwrap.dedent(LOOK).replace(chr(10), chr(10) + " " * 8)}
        kept = open("/etc/passwd")  # of the master, for nobody else
        helper = spawn_helper(prepare_to_look, nobody, lambda: None, Reach(None, (Path("/proc"),)))
        done(json.loads(told(helper)), end_of(helper))
    """)
    assert code == 0
    assert len(set(status["Uid"].split())) == len(set(status["Gid"].split())) == 1
    assert "0" not in status["Uid"].split() + status["Gid"].split()
    assert status["Groups"].strip() == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["root"] is False
    assert status["core"] == 0
    assert [fd for fd in status["fds"] if fd > 2] == [status["fd"]]
    assert int(status["SigBlk"], 16) == 0


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"])
def test_a_helper_dies_of_what_the_master_only_notes(signum: str) -> None:
    [status, _] = run(f"""
        inbox = SignalInbox()
        def wait():
            return lambda fd: (os.write(fd, b"x"), time.sleep(600))
        helper = spawn_helper(wait, nobody, inbox.close, REACH)
        os.set_blocking(helper.fd, True)
        os.read(helper.fd, 1)
        os.kill(helper.pid, signal.{signum})
        done(end_of(helper))
    """)
    assert status == -getattr(signal, signum)


MASTER = """
import os, signal, time
from termproxy.master.landlock import Reach
from termproxy.master.spawn import spawn_helper
REACH = Reach(None)
def wait():
    return lambda fd: (os.write(fd, b"x"), time.sleep(600))
helper = spawn_helper(wait, None, lambda: None, REACH)
os.set_blocking(helper.fd, True)
os.read(helper.fd, 1)
print(helper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_helper_dies_with_its_master() -> None:
    """Here the master is a child of the test's, and the helper its child."""
    [said, _] = run(f"""
        read, write = os.pipe()
        command = [sys.executable, "-c", {MASTER!r}]
        out = [(os.POSIX_SPAWN_DUP2, write, 1)]
        master = os.posix_spawn(sys.executable, command, os.environ, file_actions=out)
        os.close(write)
        os.waitpid(master, 0)
        pid = int(os.read(read, 100))
        while os.read(read, 100):  # its end: standard output is the helper's as well
            pass
        done(pid > 0)
    """)
    assert said is True


def test_a_bug_in_a_helper_is_told_and_costs_nothing_else() -> None:
    [data, status, said] = run("""
        helper = spawn_helper(lambda: lambda fd: 1 / 0, nobody, lambda: None, REACH)
        done(told(helper).decode(), end_of(helper))
    """)
    assert (data, status) == ("", 3)
    assert "ZeroDivisionError" in said
    assert "please report this" in said


def test_a_helper_whose_master_reads_no_more_goes_in_silence() -> None:
    [status, said] = run("""
        def write_much():
            return lambda fd: os.write(fd, bytes(1 << 20))
        helper = spawn_helper(write_much, nobody, lambda: None, REACH)
        os.close(helper.fd)
        done(end_of(helper))
    """)
    assert (status, said) == (3, "")


def test_a_fork_that_fails_leaves_no_descriptor_open() -> None:
    [before, after, _] = run("""
        def fail():
            raise BlockingIOError(11, "no more processes")
        os.fork = fail
        before = os.listdir("/proc/self/fd")
        try:
            spawn_helper(lambda: None, nobody, lambda: None, REACH)
        except OSError:
            pass
        done(before, os.listdir("/proc/self/fd"))
    """)
    assert before == after
