# cython: language_level=3
"""Count in words of 64 bits that another process reads.

It is done several times for each handshake and each request, and an addition to a memoryview takes
longer than all that is done here.  Every index is checked: a wrong one raises, and writes nothing.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)

cdef enum:
    BOUNDS_MAX = 32
    VALUE_MAX = 1000000000  # whose sums still fit into a word

cdef class Histogram:
    """Where one is counted: its buckets begin at `first`, one for each upper bound and one for what is
    above all; the sum, in parts of 1/`per_second`, stands at `total`.
    """

    cdef double bounds[BOUNDS_MAX]
    cdef Py_ssize_t count, first, total
    cdef double per_second

    def __cinit__(self, Py_ssize_t first, bounds: tuple[float, ...], Py_ssize_t total, double per_second) -> None:
        cdef Py_ssize_t at
        if len(bounds) > BOUNDS_MAX:
            raise ValueError(f"at most {BOUNDS_MAX} bounds")
        self.count = len(bounds)
        for at in range(self.count):
            self.bounds[at] = bounds[at]
        self.first, self.total, self.per_second = first, total, per_second


cdef class Tally:
    """Counts in `words`, which is memory of signed 64-bit words."""

    cdef Py_buffer view
    cdef long long* words
    cdef Py_ssize_t size

    def __cinit__(self, words) -> None:
        PyObject_GetBuffer(words, &self.view, PyBUF_WRITABLE | PyBUF_ND | PyBUF_FORMAT)
        if self.view.itemsize != 8 or self.view.format[0] != b"q":
            PyBuffer_Release(&self.view)
            raise ValueError("expected signed words of 64 bits")
        self.words = <long long*>self.view.buf
        self.size = self.view.len // 8

    def __dealloc__(self):
        if self.words != NULL:
            PyBuffer_Release(&self.view)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, Py_ssize_t index) -> int:
        self._check(index)
        return self.words[index]

    def add(self, Py_ssize_t index, long long count=1) -> None:
        self._check(index)
        self.words[index] += count

    def observe(self, Histogram histogram not None, double value) -> None:
        """Count a value in its bucket, and add it to the sum; less than nothing counts as nothing."""
        cdef Py_ssize_t at = 0
        self._check(histogram.first)
        self._check(histogram.first + histogram.count)
        self._check(histogram.total)
        if not value > 0:  # NaN, too
            value = 0
        elif value > VALUE_MAX:
            value = VALUE_MAX
        while at < histogram.count and value > histogram.bounds[at]:
            at += 1
        self.words[histogram.first + at] += 1
        self.words[histogram.total] += <long long>(value * histogram.per_second)

    cdef inline int _check(self, Py_ssize_t index) except -1:
        if index < 0 or index >= self.size:
            raise IndexError(f"word {index} of {self.size}")
        return 0
