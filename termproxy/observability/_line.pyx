# cython: language_level=3, boundscheck=False, wraparound=False
"""The access log's line of an exchange that went well, which nearly all do: JSON, written in C.

Every request has one, and a dict to fill and to turn into JSON takes longer than all else that is done for
a small request.  What does not fit the form is for orjson (record.py).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object)
    char* PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

cdef enum:
    LINE_MAX = 4096  # bytes; a longer one is for orjson, too
    FIXED_MAX = 768  # names, numbers and signs

cdef inline char* _put(char* at, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    memcpy(at, text, size)
    return at + size

cdef char* _put_number(char* at, unsigned long long number) noexcept nogil:
    cdef char digits[20]
    cdef int count = 0
    while True:
        digits[count] = <char>(48 + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    while count:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at

cdef char* _put_digits(char* at, unsigned long long number, int count) noexcept nogil:
    """So many, with zeros in front."""
    cdef int left = count
    while left:
        left -= 1
        at[left] = <char>(48 + number % 10)
        number //= 10
    return at + count

cdef char* _put_seconds(char* at, double seconds) noexcept nogil:
    cdef unsigned long long microseconds = <unsigned long long>(seconds * 1e6 + 0.5)
    at = _put_number(at, microseconds // 1000000)
    at[0] = 46
    return _put_digits(at + 1, microseconds % 1000000, 6)

cdef char* _put_time(char* at, double time) noexcept nogil:
    """As RFC 3339 has it, to the microsecond; `time` is of a year of four digits."""
    cdef unsigned long long microseconds = <unsigned long long>(time * 1e6 + 0.5)
    cdef time_t second = <time_t>(microseconds // 1000000)
    cdef tm parts
    gmtime_r(&second, &parts)
    at = _put_digits(at, parts.tm_year + 1900, 4)
    at[0] = 45
    at = _put_digits(at + 1, parts.tm_mon + 1, 2)
    at[0] = 45
    at = _put_digits(at + 1, parts.tm_mday, 2)
    at[0] = 84
    at = _put_digits(at + 1, parts.tm_hour, 2)
    at[0] = 58
    at = _put_digits(at + 1, parts.tm_min, 2)
    at[0] = 58
    at = _put_digits(at + 1, parts.tm_sec, 2)
    at[0] = 46
    at = _put_digits(at + 1, microseconds % 1000000, 6)
    at[0] = 90
    return at + 1

cdef char* _put_word(char* at, str word) noexcept:
    """With what JSON wants before a quote and a backslash; NULL when there is a control character."""
    cdef const unsigned char* text = <const unsigned char*>PyUnicode_DATA(word)
    cdef Py_ssize_t index
    for index in range(PyUnicode_GET_LENGTH(word)):
        if text[index] < 0x20:
            return NULL
        if text[index] == 34 or text[index] == 92:
            at[0] = 92
            at += 1
        at[0] = <char>text[index]
        at += 1
    return at


def plain_exchange(
    double time,
    str facts not None,
    str method not None,
    str host not None,
    str path not None,
    int status,
    str request_id not None,
    str backend not None,
    int retries,
    unsigned long long bytes_from_client,
    unsigned long long bytes_to_client,
    double first_byte_seconds,
    double seconds,
) -> bytes | None:
    """The line with its end; None when a word is not plain ASCII, or the line too long or a time absurd.

    `time` in seconds since 1970, `facts` in JSON without its braces, all else as the record has it.
    """
    cdef char line[LINE_MAX]
    cdef char* at = line
    cdef Py_ssize_t room = LINE_MAX - FIXED_MAX
    if not (
        PyUnicode_IS_COMPACT_ASCII(facts)
        and PyUnicode_IS_COMPACT_ASCII(method)
        and PyUnicode_IS_COMPACT_ASCII(host)
        and PyUnicode_IS_COMPACT_ASCII(path)
        and PyUnicode_IS_COMPACT_ASCII(request_id)
        and PyUnicode_IS_COMPACT_ASCII(backend)
        and 0 <= time < 250000000000 and 0 <= first_byte_seconds < 1e9 and 0 <= seconds < 1e9
        and status >= 0 and retries >= 0
    ):
        return None
    # A word takes twice its length at most; the facts are JSON already.
    room -= PyUnicode_GET_LENGTH(facts) + 2 * (PyUnicode_GET_LENGTH(method) + PyUnicode_GET_LENGTH(host))
    room -= 2 * (
        PyUnicode_GET_LENGTH(path) + PyUnicode_GET_LENGTH(request_id) + PyUnicode_GET_LENGTH(backend)
    )
    if room < 0:
        return None
    at = _put_time(_put(at, b'{"time":"'), time)
    at = _put(at, b'",')
    memcpy(at, PyUnicode_DATA(facts), PyUnicode_GET_LENGTH(facts))
    at += PyUnicode_GET_LENGTH(facts)
    at = _put_word(_put(at, b',"method":"'), method)
    if at == NULL:
        return None
    at = _put_word(_put(at, b'","host":"'), host)
    if at == NULL:
        return None
    at = _put_word(_put(at, b'","path":"'), path)
    if at == NULL:
        return None
    at = _put_number(_put(at, b'","status":'), status)
    at = _put_word(_put(at, b',"request_id":"'), request_id)
    if at == NULL:
        return None
    at = _put_word(_put(at, b'","backend":"'), backend)
    if at == NULL:
        return None
    at = _put_number(_put(at, b'","retries":'), retries)
    at = _put_number(_put(at, b',"bytes_from_client":'), bytes_from_client)
    at = _put_number(_put(at, b',"bytes_to_client":'), bytes_to_client)
    at = _put_seconds(_put(at, b',"first_byte_seconds":'), first_byte_seconds)
    at = _put_seconds(_put(at, b',"seconds":'), seconds)
    at = _put(at, b',"ended":"done","fault":"none"}\n')
    return PyBytes_FromStringAndSize(line, at - line)
