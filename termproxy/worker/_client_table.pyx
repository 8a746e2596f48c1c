# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How many connections and handshakes each client has, over all workers, in memory that they share.

A generation has one table, made by the master before its workers; each worker writes to a row of its
own, and reads all of them, and those of older generations whose connections are still open.  So a word
has one writer and needs no lock; what a worker that has gone had counted the master clears.

    a row       two areas of buckets: connections, handshakes; as many buckets as a worker may have
                connections, so that they are nearly empty even when every connection is another client's
    a bucket    PLACES words, one for each of as many clients
    a word      connections   40 bits of the client's key, 24 of how many
                handshakes    28 bits of the key, 12 of the second, 12 of how much in the second before,
                              12 of how much in that second

A client's key is a hash with a secret of the master's: nobody can choose addresses that share a bucket.
Workers do not wait for each other: those that look within the same microseconds may let in one client
too many each.

It is asked for every client that comes, in a flood too, and so it is in C.
"""

import os

from cpython.buffer cimport PyBUF_ND, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from termproxy.shm import SharedWords

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    int inet_pton(int, const char*, void*)

PLACES = 8  # a cache line
AMOUNT_MAX = (1 << 12) - 1

cdef enum:
    _PLACES = 8
    _COUNT_BITS = 24
    _COUNT = (1 << 24) - 1
    # Of a word that counts handshakes.
    _AMOUNT_BITS = 12
    _AMOUNT_MAX = (1 << 12) - 1
    _SECONDS = 1 << 12  # the clock's, and round again
    _SECOND_AT = 24
    _TAG_AT = 36

    _BUCKETS_MIN = 512  # a row's areas begin on pages of their own
    _SECRET_SIZE = 16  # bytes
    _HOST_MAX = 46  # an address in words, with its end


def new_secret() -> bytes:
    return os.urandom(_SECRET_SIZE)


cdef int _network(str host, unsigned char* network) except -1:
    """What counts as one client, into at most 8 bytes: how many they are; 0: `host` is no address."""
    cdef Py_ssize_t size
    cdef const char* text = PyUnicode_AsUTF8AndSize(host, &size)
    cdef char address[_HOST_MAX]
    cdef unsigned char packed[16]
    cdef const void* zone = memchr(text, 37, size)  # %
    if zone != NULL:
        size = <const char*>zone - text
    if size >= _HOST_MAX or memchr(text, 0, size) != NULL:
        return 0
    memcpy(address, text, size)
    address[size] = 0
    if memchr(text, 58, size) == NULL:  # :
        return 4 if zone == NULL and inet_pton(AF_INET, address, network) == 1 else 0
    if inet_pton(AF_INET6, address, packed) != 1:
        return 0
    if memcmp(packed, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        memcpy(network, packed + 12, 4)
        return 4
    memcpy(network, packed, 8)
    return 8


def network_of(str host not None) -> bytes | None:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits; None: it is neither.

    One customer has the whole of such a network (RFC 6177); ::ffff:192.0.2.1 is 192.0.2.1.
    """
    cdef unsigned char network[8]
    cdef int size = _network(host, network)
    return PyBytes_FromStringAndSize(<char*>network, size) if size else None


# SipHash-2-4 (Aumasson and Bernstein, 2012): what a hash table needs whose keys strangers choose.

cdef inline uint64_t _rotated(uint64_t word, int bits) noexcept nogil:
    return word << bits | word >> (64 - bits)

cdef inline void _sip_rounds(uint64_t* v, int count) noexcept nogil:
    cdef int each
    for each in range(count):
        v[0] += v[1]
        v[1] = _rotated(v[1], 13) ^ v[0]
        v[0] = _rotated(v[0], 32)
        v[2] += v[3]
        v[3] = _rotated(v[3], 16) ^ v[2]
        v[0] += v[3]
        v[3] = _rotated(v[3], 21) ^ v[0]
        v[2] += v[1]
        v[1] = _rotated(v[1], 17) ^ v[2]
        v[2] = _rotated(v[2], 32)

cdef uint64_t _little_endian(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word = 0
    cdef Py_ssize_t each
    for each in range(size):
        word |= <uint64_t>text[each] << (8 * each)
    return word

cdef uint64_t _siphash(const unsigned char* secret, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef uint64_t low = _little_endian(secret, 8), high = _little_endian(secret + 8, 8)
    cdef Py_ssize_t at = 0
    v[0] = low ^ 0x736f6d6570736575ULL
    v[1] = high ^ 0x646f72616e646f6dULL
    v[2] = low ^ 0x6c7967656e657261ULL
    v[3] = high ^ 0x7465646279746573ULL
    while True:
        if size - at >= 8:
            word = _little_endian(text + at, 8)
        else:
            word = _little_endian(text + at, size - at) | <uint64_t>(size & 0xff) << 56
        v[3] ^= word
        _sip_rounds(v, 2)
        v[0] ^= word
        if size - at < 8:
            break
        at += 8
    v[2] ^= 0xff
    _sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def siphash(bytes secret not None, bytes text not None) -> int:
    """64 bits.  ValueError when the secret has not 16 bytes."""
    _check_secret(secret)
    return _siphash(<unsigned char*>PyBytes_AS_STRING(secret), <unsigned char*>PyBytes_AS_STRING(text), len(text))


cdef int _check_secret(bytes secret) except -1:
    if PyBytes_GET_SIZE(secret) != _SECRET_SIZE:
        raise ValueError(f"the secret has not {_SECRET_SIZE} bytes")
    return 0


cdef inline uint64_t _tag(uint64_t key) noexcept nogil:
    cdef uint64_t tag = key >> _COUNT_BITS
    return tag if tag else 1


cdef class ClientTable:
    """For so many workers, each with so many connections at the most.  ValueError once it is closed."""

    cdef readonly Py_ssize_t rows
    cdef Py_ssize_t buckets, area
    cdef object memory
    cdef Py_buffer view
    cdef uint64_t* first  # NULL: closed

    def __cinit__(self, Py_ssize_t rows, Py_ssize_t connections) -> None:
        self.rows = rows
        self.buckets = max(_BUCKETS_MIN, 1 << (connections - 1).bit_length())
        self.area = self.buckets * _PLACES
        self.memory = SharedWords("termproxy-clients", 2 * rows * self.area)
        PyObject_GetBuffer(self.memory.words, &self.view, PyBUF_WRITABLE | PyBUF_ND)
        self.first = <uint64_t*>self.view.buf

    def __dealloc__(self):
        if self.first != NULL:
            PyBuffer_Release(&self.view)

    @property
    def words(self) -> memoryview:
        """All of it, for tests."""
        return self.memory.words

    cdef uint64_t* bucket(self, Py_ssize_t row, uint64_t key) except NULL:
        """In the row's area of connections; that of handshakes is one area further on."""
        if self.first == NULL or not 0 <= row < self.rows:
            raise ValueError("the table is closed" if self.first == NULL else f"there is no row {row}")
        return self.first + 2 * row * self.area + <Py_ssize_t>(key % <uint64_t>self.buckets) * _PLACES

    cpdef Py_ssize_t connections_of(self, uint64_t key) except -1:
        """Over all rows."""
        cdef uint64_t tag = _tag(key)
        cdef uint64_t* bucket = self.bucket(0, key)
        cdef Py_ssize_t row, place, count = 0
        for row in range(self.rows):
            for place in range(_PLACES):
                if bucket[place] >> _COUNT_BITS == tag:
                    count += bucket[place] & _COUNT
            bucket += 2 * self.area
        return count

    cpdef object enter(self, Py_ssize_t row, uint64_t key):
        """Count a connection more: the place to leave(); None when the bucket is full of others, which
        is so rare that the connection may go uncounted.
        """
        cdef uint64_t tag = _tag(key)
        cdef uint64_t* bucket = self.bucket(row, key)
        cdef uint64_t* free = NULL
        cdef Py_ssize_t place
        for place in range(_PLACES):
            if bucket[place] >> _COUNT_BITS == tag:
                bucket[place] += 1
                return bucket + place - self.first
            if bucket[place] == 0 and free == NULL:
                free = bucket + place
        if free == NULL:
            return None
        free[0] = tag << _COUNT_BITS | 1
        return free - self.first

    cpdef object leave(self, Py_ssize_t place):
        cdef uint64_t word
        if self.first == NULL or not 0 <= place < 2 * self.rows * self.area:
            raise ValueError("the table is closed" if self.first == NULL else f"there is no place {place}")
        word = self.first[place]
        if word & _COUNT:
            self.first[place] = word - 1 if word & _COUNT > 1 else 0

    cpdef double handshakes_of(self, uint64_t key, double now) except -1.0:
        """What was charged over all rows in the last second, in admission.py's unit."""
        cdef uint64_t tag = key >> _TAG_AT, second = <uint64_t>now, word, when
        cdef uint64_t this = second % _SECONDS, last = (second - 1) % _SECONDS
        cdef double left = 1.0 - (now - <double>second), amount = 0.0
        cdef uint64_t* bucket = self.bucket(0, key) + self.area
        cdef Py_ssize_t row, place
        for row in range(self.rows):
            for place in range(_PLACES):
                word = bucket[place]
                if word == 0 or word >> _TAG_AT != tag:
                    continue
                when = word >> _SECOND_AT & (_SECONDS - 1)
                if when == this:
                    amount += <double>(word & _AMOUNT_MAX)
                    amount += <double>(word >> _AMOUNT_BITS & _AMOUNT_MAX) * left
                elif when == last:
                    amount += <double>(word & _AMOUNT_MAX) * left
            bucket += 2 * self.area
        return amount

    cpdef object charge(self, Py_ssize_t row, uint64_t key, uint64_t amount, double now):
        """For a handshake, in this second.  In a full bucket the client with least is forgotten."""
        cdef uint64_t tag = key >> _TAG_AT, second = <uint64_t>now, word, when, total, before = 0
        cdef uint64_t this = second % _SECONDS, last = (second - 1) % _SECONDS
        cdef uint64_t* bucket = self.bucket(row, key) + self.area
        cdef long long weight, least = _AMOUNT_MAX + 1
        cdef Py_ssize_t each, place = 0
        for each in range(_PLACES):
            word = bucket[each]
            when, total = word >> _SECOND_AT & (_SECONDS - 1), word & _AMOUNT_MAX
            if word != 0 and word >> _TAG_AT == tag:
                if when == this:
                    before = word >> _AMOUNT_BITS & _AMOUNT_MAX
                    amount += total
                else:
                    before = total if when == last else 0
                place = each
                break
            weight = <long long>total if when == this or when == last else -1
            if weight < least:
                place, least = each, weight
        amount = min(amount, <uint64_t>_AMOUNT_MAX)
        bucket[place] = tag << _TAG_AT | this << _SECOND_AT | before << _AMOUNT_BITS | amount

    def clear_row(self, Py_ssize_t row) -> None:
        """By the master, when the row's worker has gone."""
        self.bucket(row, 0)
        self.memory.clear(2 * row * self.area, 2 * self.area)

    def close(self) -> None:
        if self.first != NULL:
            self.first = NULL
            PyBuffer_Release(&self.view)
            self.memory.close()


cdef class Clients:
    """The table as one worker uses it."""

    cdef ClientTable table
    cdef Py_ssize_t row
    cdef tuple before  # older generations' tables
    cdef bytes secret

    def __cinit__(self, ClientTable table not None, Py_ssize_t row, before, bytes secret not None) -> None:
        """ValueError when the secret is not new_secret()'s."""
        _check_secret(secret)
        self.table = table
        self.row = row
        self.before = tuple(before)
        self.secret = secret

    def key_of(self, str host not None) -> int | None:
        """None for who has no IP address, as on a Unix socket: there is no limit for them."""
        cdef unsigned char network[8]
        cdef int size = _network(host, network)
        if size == 0:
            return None
        return _siphash(<unsigned char*>PyBytes_AS_STRING(self.secret), network, size)

    def enter(self, uint64_t key) -> tuple[int | None, int]:
        """Count one connection more: its place, and how many the client has with it."""
        cdef ClientTable table
        place = self.table.enter(self.row, key)
        cdef Py_ssize_t count = self.table.connections_of(key)
        for table in self.before:
            count += table.connections_of(key)
        return place, count

    def leave(self, Py_ssize_t place) -> None:
        self.table.leave(place)

    def handshakes_of(self, uint64_t key, double now) -> float:
        """In the last second, as ClientTable.handshakes_of."""
        return self.table.handshakes_of(key, now)

    def charge(self, uint64_t key, uint64_t amount, double now) -> None:
        self.table.charge(self.row, key, amount, now)
