# cython: language_level=3, boundscheck=False, wraparound=False
"""The few calls on sockets that every connection makes, for a fifth of what socket objects cost.

Nothing here ever waits: sockets are made non-blocking, and what cannot be done at once is a
BlockingIOError, as in the module `socket`, whose names these are.  A client's socket is a descriptor
that its connection closes; a backend's is a `Socket`, which closes itself when it is forgotten.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EISCONN, errno

cdef extern from "<arpa/inet.h>" nogil:
    enum: INET6_ADDRSTRLEN
    const char *inet_ntop(int family, const void *address, char *text, unsigned int size)
    unsigned short ntohs(unsigned short number)
    unsigned int ntohl(unsigned int number)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    enum: MSG_PEEK, MSG_NOSIGNAL, SHUT_WR, SOL_SOCKET, SO_LINGER
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    struct linger:
        int l_onoff
        int l_linger
    int c_socket "socket" (int family, int kind, int protocol)
    int accept4(int fd, sockaddr *address, unsigned int *size, int flags)
    int c_connect "connect" (int fd, const sockaddr *address, unsigned int size)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    int c_shutdown "shutdown" (int fd, int how)
    ssize_t c_recv "recv" (int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void *buffer, size_t size, int flags)

cdef extern from "<unistd.h>" nogil:
    int c_close "close" (int fd)


def accept(int listener):
    """The next client of a listening socket, which must not block: its descriptor, the caller's to close,
    and its address, as socket.accept() gives it (None for a Unix socket's).

    None: nobody is waiting.  OSError: see accept(2).
    """
    cdef sockaddr_storage storage
    cdef unsigned int size = sizeof(storage)
    cdef int fd = accept4(listener, <sockaddr *>&storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        if errno == EAGAIN:
            return None
        PyErr_SetFromErrno(OSError)
    return fd, _address(&storage)


cdef object _address(sockaddr_storage *storage):
    cdef char text[INET6_ADDRSTRLEN]
    cdef int family = (<sockaddr *>storage).sa_family
    cdef sockaddr_in *v4 = <sockaddr_in *>storage
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>storage
    if family == AF_INET:
        inet_ntop(family, &v4.sin_addr, text, sizeof(text))
        return text.decode("ascii"), ntohs(v4.sin_port)
    if family == AF_INET6:
        inet_ntop(family, &v6.sin6_addr, text, sizeof(text))
        return text.decode("ascii"), ntohs(v6.sin6_port), ntohl(v6.sin6_flowinfo), v6.sin6_scope_id
    return None


def peek(int fd, int count):
    """Up to `count` bytes that are there, and stay there; none when the other side has ended."""
    piece = PyBytes_FromStringAndSize(NULL, count)
    cdef ssize_t seen = c_recv(fd, PyBytes_AS_STRING(piece), count, MSG_PEEK)
    if seen < 0:
        PyErr_SetFromErrno(OSError)
    return piece[:seen]


def shut_down_writing(int fd):
    """Let the other side know that it has all."""
    if c_shutdown(fd, SHUT_WR) < 0:
        PyErr_SetFromErrno(OSError)


def reset_on_close(int fd):
    """Have close() send a reset instead of an end (SO_LINGER in socket(7)); never fails."""
    cdef linger at_once
    at_once.l_onoff, at_once.l_linger = 1, 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))


cdef class Socket:
    """A socket to a backend."""

    cdef int _fd

    def __cinit__(self):
        self._fd = -1

    def __init__(self, int family):
        """OSError: see socket(2)."""
        cdef int on = 1
        self._fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self._fd < 0:
            PyErr_SetFromErrno(OSError)
        if family != AF_UNIX:  # small messages are not held back; it does not fail for what is TCP
            setsockopt(self._fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))

    def __dealloc__(self):
        if self._fd >= 0:
            c_close(self._fd)

    def fileno(self):
        """-1 once it is closed."""
        return self._fd

    def connect(self, bytes address):
        """Begin to connect to an Address.packed, or tell how that went: 0 when it is connected, else an
        errno, which is EINPROGRESS or EALREADY while it is under way.
        """
        cdef const sockaddr *there = <const sockaddr *>PyBytes_AS_STRING(address)
        if c_connect(self._fd, there, <unsigned int>PyBytes_GET_SIZE(address)) == 0 or errno == EISCONN:
            return 0
        return errno

    def send(self, data):
        """How many bytes the kernel took."""
        cdef Py_buffer view
        cdef ssize_t sent
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        sent = c_send(self._fd, view.buf, view.len, MSG_NOSIGNAL)
        PyBuffer_Release(&view)
        if sent < 0:
            PyErr_SetFromErrno(OSError)
        return sent

    def recv_into(self, buffer):
        """How many bytes have come; 0 is the end."""
        cdef Py_buffer view
        cdef ssize_t count
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        count = c_recv(self._fd, view.buf, view.len, 0)
        PyBuffer_Release(&view)
        if count < 0:
            PyErr_SetFromErrno(OSError)
        return count

    def shutdown(self, int how):
        if c_shutdown(self._fd, how) < 0:
            PyErr_SetFromErrno(OSError)

    def close(self):
        """The end of it; does nothing the second time."""
        cdef int fd = self._fd
        self._fd = -1
        if fd >= 0:
            c_close(fd)
