"""Memory that the master and every worker see, whichever of them was forked when.

It is one anonymous memfd: it has no name in the file system, goes when the last process does, and its
descriptor can be handed on to a new executable.
"""

from __future__ import annotations

import mmap
import os


def shared_memory(size: int, fd: int = -1) -> mmap.mmap:
    """`size` bytes, zero at first, which whoever is forked from now on shares; not in core files.

    `fd` is a memory_file(), which another executable can be handed.
    """
    memory = mmap.mmap(fd, size)
    memory.madvise(mmap.MADV_DONTDUMP)
    return memory


def memory_file(name: str, size: int) -> int:
    """A descriptor of `size` bytes of memory, all zero."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


class SharedWords:
    """`count` signed 64-bit words, all zero at first.

    A word is read and written whole on every machine CPython runs on (one aligned store), so one
    writer and any number of readers need no lock.
    """

    def __init__(self, name: str, count: int) -> None:
        self.fd = memory_file(name, count * 8)
        try:
            self._map = mmap.mmap(self.fd, count * 8)  # with a descriptor of its own
        except OSError:
            os.close(self.fd)
            raise
        self.words = memoryview(self._map).cast("q")

    def clear(self, start: int, count: int) -> None:
        """Make these words zero; those that never were anything else take no memory (MADV_REMOVE).

        ValueError when they do not begin with a page.
        """
        if start * 8 % mmap.PAGESIZE:
            raise ValueError(f"word {start} does not begin a page")
        self._map.madvise(mmap.MADV_REMOVE, start * 8, count * 8)

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self.fd)
