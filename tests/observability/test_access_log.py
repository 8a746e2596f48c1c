"""Lines that never hold up traffic: real files, pipes and sockets."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from termproxy.errors import StartError
from termproxy.observability.access_log import MANY, WAITING_MAX, AccessLog, open_access_log, open_file
from termproxy.observability.record import ConnectionRecord

WHEN = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def record(number: int, detail: str | None = None) -> ConnectionRecord:
    made = ConnectionRecord(WHEN, f"192.0.2.1:{number}", "web")
    made.detail = detail
    return made


def clients(text: bytes) -> list[int]:
    """The numbers of the records in whole lines of JSON."""
    assert not text or text.endswith(b"\n"), "half a line"
    return [int(json.loads(line)["client"].split(":")[1]) for line in text.splitlines()]


class Pipe:
    def __init__(self) -> None:
        self.read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.log = AccessLog(write_fd)

    def drain(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            try:
                piece = os.read(self.read_fd, 1 << 16)
            except BlockingIOError:
                return b"".join(pieces)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def hang_up(self) -> None:
        os.close(self.read_fd)
        self.read_fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.log.close()
    if pipe.read_fd >= 0:
        pipe.hang_up()


# Pipes.


def test_lines_go_out_at_a_flush_in_order(pipe: Pipe) -> None:
    for number in range(3):
        pipe.log.write(record(number))
    assert pipe.drain() == b""
    pipe.log.flush()

    assert clients(pipe.drain()) == [0, 1, 2]
    pipe.log.flush()
    assert pipe.drain() == b""


def test_a_time_is_in_utc_and_ends_in_z(pipe: Pipe) -> None:
    pipe.log.write(record(1))
    pipe.log.flush()

    assert json.loads(pipe.drain())["time"] == "2026-11-23T00:00:00.000000Z"


def test_a_write_to_a_pipe_is_never_larger_than_a_pipe_keeps_whole(pipe: Pipe) -> None:
    for number in range(200):
        pipe.log.write(record(number))
    while pipe.log._lines:
        count = pipe.log._lines_that_fit()
        size = sum(map(len, pipe.log._lines[:count]))
        assert size <= select.PIPE_BUF
        assert count == len(pipe.log._lines) or size + len(pipe.log._lines[count]) > select.PIPE_BUF
        del pipe.log._lines[:count]


def test_a_reader_that_stands_still_gets_whole_lines_when_it_goes_on(pipe: Pipe) -> None:
    for number in range(2000):
        pipe.log.write(record(number))
    pipe.log.flush()
    assert pipe.log._lines, "the pipe was to be full"
    received = pipe.drain()
    assert clients(received) == list(range(len(clients(received))))
    while pipe.log._lines:
        pipe.log.flush()
        received += pipe.drain()

    assert clients(received) == list(range(2000))
    assert pipe.log.lost == 0
    assert pipe.log._waiting == 0


def test_what_waits_is_bounded_and_the_newest_lines_are_lost_and_counted(pipe: Pipe) -> None:
    long = "x" * 1000
    for number in range(2000):
        pipe.log.write(record(number, long))
        pipe.log.flush()
    assert pipe.log._waiting == sum(map(len, pipe.log._lines)) <= WAITING_MAX
    received = pipe.drain()
    while pipe.log._lines:
        pipe.log.flush()
        received += pipe.drain()

    kept = clients(received)
    assert pipe.log.lost > 0
    assert kept == list(range(len(kept)))
    assert len(kept) + pipe.log.lost == 2000


def test_many_lines_do_not_wait_for_a_flush(pipe: Pipe) -> None:
    """Between two ticks of a busy worker there is more than may wait."""
    line = len(orjson.dumps({"detail": "x" * 1000}))
    for number in range(MANY // line + 1):
        pipe.log.write(record(number, "x" * 1000))

    received = clients(pipe.drain())
    assert received
    assert received == list(range(len(received)))


def test_a_slow_reader_is_not_asked_again_for_each_line(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def refuse(_fd: int, _data: bytes) -> int:
        nonlocal asked
        asked += 1
        raise BlockingIOError

    monkeypatch.setattr(os, "write", refuse)
    for number in range(5 * MANY // 1000):
        pipe.log.write(record(number, "x" * 1000))
    monkeypatch.undo()

    assert 3 <= asked <= 6
    assert pipe.log.lost == 0


def test_a_line_longer_than_a_pipe_keeps_whole_still_arrives(pipe: Pipe) -> None:
    pipe.log.write(record(1, "x" * 100_000))
    pipe.log.write(record(2))
    received = b""
    while pipe.log._lines:
        pipe.log.flush()
        received += pipe.drain()

    assert clients(received) == [1, 2]
    assert pipe.log._waiting == 0


def test_a_reader_that_has_gone_costs_its_lines_and_no_more(pipe: Pipe) -> None:
    pipe.hang_up()
    for number in range(3):
        pipe.log.write(record(number))
    pipe.log.flush()

    assert pipe.log.lost == 3
    assert (pipe.log._lines, pipe.log._waiting) == ([], 0)
    pipe.log.write(record(4))
    pipe.log.flush()
    assert pipe.log.lost == 4


def test_several_writers_to_one_pipe_mix_no_lines(pipe: Pipe) -> None:
    """All workers share the descriptor."""
    other = AccessLog(os.dup(pipe.log.fd))
    received = b""
    for round_ in range(50):
        for number in range(20):
            pipe.log.write(record(number, "a" * (round_ * 7 % 300)))
            other.write(record(number, "b" * (round_ * 13 % 300)))
        pipe.log.flush()
        other.flush()
        if round_ % 5 == 4:
            received += pipe.drain()
    for log in (pipe.log, other):
        while log._lines:
            log.flush()
            received += pipe.drain()
    other.close()

    assert len(clients(received + pipe.drain())) == 2000


# Files.


def test_a_file_is_appended_to_and_made_when_missing(tmp_path: Path) -> None:
    for number in (1, 2):
        log = open_access_log(tmp_path / "access.log")
        assert log is not None
        log.write(record(number))
        log.flush()
        log.close()

    assert clients((tmp_path / "access.log").read_bytes()) == [1, 2]
    assert (tmp_path / "access.log").stat().st_mode & 0o777 & ~0o640 == 0


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """In bytes: as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_was_full_leaves_one_broken_line_and_no_more(tmp_path: Path) -> None:
    log = open_access_log(tmp_path / "access.log")
    assert log is not None
    with files_of_at_most(60):
        log.write(record(1))
        log.flush()
    log.write(record(2))
    log.flush()
    log.close()
    broken, *whole = (tmp_path / "access.log").read_bytes().splitlines()

    assert len(broken) == 60
    assert [json.loads(line)["client"] for line in whole] == ["192.0.2.1:2"]


# A file that was renamed.


def test_after_a_reopening_lines_go_to_the_new_file_and_what_waited_to_the_old(tmp_path: Path) -> None:
    file, renamed = tmp_path / "access.log", tmp_path / "access.log.1"
    log = open_access_log(file)
    assert log is not None
    log.write(record(1))
    file.rename(renamed)
    fd = open_file(file)
    log.reopen(fd)
    os.close(fd)
    log.write(record(2))
    log.flush()
    log.close()

    assert (clients(renamed.read_bytes()), clients(file.read_bytes())) == ([1], [2])
    assert log.lost == 0


def test_what_a_slow_reader_did_not_take_goes_to_the_new_file_whole(pipe: Pipe, tmp_path: Path) -> None:
    for number in range(1000):
        pipe.log.write(record(number))
    pipe.log.flush()
    fd = open_file(tmp_path / "access.log")
    pipe.log.reopen(fd)
    os.close(fd)
    pipe.log.flush()

    assert clients(pipe.drain()) + clients((tmp_path / "access.log").read_bytes()) == [*range(1000)]
    assert pipe.log.lost == 0


@pytest.mark.parametrize("is_tried_again", [False, True])
def test_half_a_line_on_a_full_disk_does_not_go_on_in_the_new_file(
    tmp_path: Path,
    is_tried_again: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    log = open_access_log(tmp_path / "access.log")
    assert log is not None
    for number in (1, 2, 3):
        log.write(record(number))
    with files_of_at_most(90):
        log.flush() if is_tried_again else None
        fd = os.memfd_create("new")
        log.reopen(fd)
    log.write(record(4))
    log.flush()
    log.close()

    there = clients(os.pread(fd, 1 << 16, 0))
    os.close(fd)
    assert there == ([4] if is_tried_again else [2, 3, 4])
    assert log.lost == (3 if is_tried_again else 1)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """The master may be root, and the folder another's."""
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(StartError, match=r"cannot write .*/link: it is a symbolic link; name the file"):
        open_access_log(tmp_path / "link")

    assert not (tmp_path / "victim").exists()


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file or directory"):
        open_access_log(tmp_path / "none" / "access.log")
    with pytest.raises(StartError, match="Is a directory"):
        open_access_log(tmp_path)


def test_a_fifo_without_a_reader_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StartError, match="No such device or address"):
        open_access_log(tmp_path / "fifo")


def test_a_hard_link_to_another_file_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.link(tmp_path / "victim", tmp_path / "access.log")
    with pytest.raises(StartError, match=r"log\.access: .*it is a hard link"):
        open_access_log(tmp_path / "access.log")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_user_s_file_is_written_only_when_that_user_is_known(tmp_path: Path) -> None:
    """To `user`, whose file log rotation may have made, or the owner of the folder."""
    file = tmp_path / "access.log"
    file.touch()
    os.chown(file, 65534, 65534)
    with pytest.raises(StartError, match="it is another user's; remove it, or give it to `user`"):
        open_access_log(file)
    for owners, folder in ([65534], 0), ([], 65534):
        os.chown(tmp_path, folder, -1)
        log = open_access_log(file, owners=owners)
        assert log is not None
        log.close()


def test_a_refused_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    os.link(tmp_path / "victim", tmp_path / "access.log")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StartError):
        open_access_log(tmp_path / "access.log")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_that_takes_characters_is_a_log() -> None:
    log = open_access_log(Path("/dev/null"))
    assert log is not None
    log.close()


def test_off_is_no_log() -> None:
    assert open_access_log("off") is None


# Standard output.

WRITE_ONE = """
import os, sys
from termproxy.observability.access_log import open_access_log
from termproxy.observability.record import ConnectionRecord
log = open_access_log("-")
for number in range(int(sys.argv[1])):
    log.write(ConnectionRecord(1767225600, f"a:{number}", "w"))
    log.flush()
print(len(log._lines), os.get_blocking(1), file=sys.stderr)
log.close()
os.write(1, b"")
"""


def run(count: int, stdout: object) -> str:
    command = [sys.executable, "-c", WRITE_ONE, str(count)]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=True)  # type: ignore[call-overload]
    return str(done.stderr).strip()


def test_standard_output_may_be_a_pipe_and_stays_blocking_for_others() -> None:
    """The shell that started us shares it."""
    read_fd, write_fd = os.pipe()
    waiting, blocking = run(1000, write_fd).split()
    os.close(write_fd)
    with open(read_fd, "rb") as reader:  # noqa: PTH123 - a descriptor
        received = clients(reader.read())

    assert int(waiting) > 0, "nobody read: the rest waits, and nobody hangs"
    assert blocking == "True"
    assert received == list(range(1000 - int(waiting)))


def test_standard_output_may_be_a_file_that_others_write_to(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        out.write(b'{"client": "x:77"}\n')
        out.flush()
        assert run(2, out) == "0 True"
        out.write(b'{"client": "x:78"}\n')

    assert clients((tmp_path / "out").read_bytes()) == [77, 0, 1, 78]


def test_standard_output_may_be_a_socket() -> None:
    """The journal's is; it cannot be opened anew, and others use it blocking."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waiting, blocking = run(3000, theirs).split()
        theirs.close()
        received = b""
        while piece := ours.recv(1 << 16):
            received += piece

    assert int(waiting) > 0
    assert blocking == "True"
    assert clients(received) == list(range(3000 - int(waiting)))


def test_a_closed_standard_output_is_told() -> None:
    """As some init scripts start their daemons."""
    code = (
        "import os\n"
        "from termproxy.errors import StartError\n"
        "from termproxy.observability.access_log import open_access_log\n"
        "os.close(1)\n"
        "try:\n    open_access_log('-')\n"
        "except StartError:\n    os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.PIPE)

    assert done.returncode == 7
