"""Memory that outlives a fork, and is seen on both sides of it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from termproxy.shm import SharedWords, memory_file, shared_memory


def test_all_words_are_zero_at_first_and_hold_what_is_written() -> None:
    memory = SharedWords("test", 4)
    assert list(memory.words) == [0, 0, 0, 0]
    memory.words[1] = 2**63 - 1
    memory.words[2] = -(2**63)

    assert list(memory.words) == [0, 2**63 - 1, -(2**63), 0]
    memory.close()


def test_whoever_has_the_descriptor_sees_the_same_words() -> None:
    memory = SharedWords("test", 2)
    with mmap.mmap(memory.fd, 16) as other:
        memory.words[1] = 7
        assert other[8] == 7
        other[0] = 9
        assert memory.words[0] == 9
    memory.close()


def test_a_child_s_words_are_ours() -> None:
    """As a worker's counters are the master's."""
    code = "import mmap, sys; mmap.mmap(int(sys.argv[1]), 8)[0] = 42"
    memory = SharedWords("test", 1)
    subprocess.run([sys.executable, "-c", code, str(memory.fd)], pass_fds=[memory.fd], check=True)

    assert memory.words[0] == 42
    memory.close()


def test_the_descriptor_goes_to_no_program_by_itself() -> None:
    memory = SharedWords("test", 1)
    assert not os.get_inheritable(memory.fd)
    memory.close()


def test_where_there_is_no_room_nothing_is_left() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match=r"large|memory"):
        SharedWords("test", 1 << 59)

    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_after_close_nothing_is_left() -> None:
    memory = SharedWords("test", 1)
    memory.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory.fd)
    with pytest.raises(ValueError, match="released"):
        memory.words[0]


def test_words_that_are_cleared_are_zero() -> None:
    page = mmap.PAGESIZE // 8
    memory = SharedWords("test", 4 * page)
    memory.words[:] = memoryview(bytes([1]) * 4 * mmap.PAGESIZE).cast("q")
    memory.clear(page, 2 * page)

    assert not any(memory.words[page : 3 * page])
    assert all(memory.words[:page])
    assert all(memory.words[3 * page :])
    memory.words[page] = 1
    assert memory.words[page] == 1
    with pytest.raises(ValueError, match="word 1 does not begin a page"):
        memory.clear(1, page)
    memory.close()


def test_a_file_of_memory_can_be_mapped_by_whoever_has_it() -> None:
    fd = memory_file("test", 4096)
    one, other = shared_memory(4096, fd), shared_memory(4096, os.dup(fd))
    one[7] = 42
    assert other[7] == 42
    assert not os.get_inheritable(fd)
    os.close(fd)
