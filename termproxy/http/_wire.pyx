# cython: language_level=3
"""HTTP/1.1 as it is on the wire (RFC 9112): heads, and bodies in chunks, read in one pass.

What is not in the grammar is refused, and named; nothing is mended, guessed or skipped.  This file knows
which bytes may stand where; what fields mean for a message is told in head.py.  Only whether a head is plain,
as nearly all are, is told here, too: then there is nothing in it that head.py would have to look at.

Offsets are checked once, at the entry of each call; inside, no byte before `start` or at or behind `end`
is looked at.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove


class MalformedError(ValueError):
    """A message that is not HTTP/1.1; `reason` is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ------------------------------------------------------------------------------ kinds of bytes

cdef enum:
    TOKEN = 1     # tchar, RFC 9110 §5.6.2
    VALUE = 2     # field-vchar, space and tab, RFC 9110 §5.5
    TARGET = 4    # what URLs are made of, as browsers write them: not " # < > and no control character
    HEX = 8

cdef unsigned char KIND[256]
cdef unsigned char LOWER[256]  # lower case, and "-" for all marks: some CGIs make "_" of any of them


cdef void _fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        KIND[byte] = 0
        LOWER[byte] = byte
        if 0x21 <= byte <= 0x7E or byte >= 0x80 or byte == 0x20 or byte == 0x09:
            KIND[byte] |= VALUE
        if 0x21 <= byte <= 0x7E and byte not in b'"#<>':
            KIND[byte] |= TARGET
        if chr(byte) in "!#$%&'*+-.^_`|~" or 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122:
            KIND[byte] |= TOKEN
        if 48 <= byte <= 57 or 65 <= byte <= 70 or 97 <= byte <= 102:
            KIND[byte] |= HEX
        if 65 <= byte <= 90:
            LOWER[byte] = byte + 32
        elif KIND[byte] & TOKEN and not (48 <= byte <= 57 or 97 <= byte <= 122):
            LOWER[byte] = 45


_fill_tables()


# ------------------------------------------------------------------------------ fields we know

cdef enum:
    TABLE = 256           # a power of two, several times NAMES_MAX
    NAMES_MAX = 60
    _DISGUISED = 61
    _UNDERSCORED = 62
    LENGTH_DIGITS_MAX = 18  # what fits into 63 bits, whoever reads it
    METHOD_MAX = 32       # bytes; IANA's longest has 17
    NUMBER_SIZE = 18      # bytes: 16 digits and CRLF

cdef const char* HEX_DIGITS = b"0123456789abcdef"

DISGUISED = _DISGUISED
"""The number of a field whose name is a known one, but for another mark where that has a dash."""
UNDERSCORED = _UNDERSCORED
"""The number of any other field with an underscore in its name."""


cdef class FieldNames:
    """Names of fields, each with a number below 60; `mask(numbers)` is what Head.seen speaks in."""

    cdef int slots[TABLE]
    cdef list names
    cdef readonly dict numbers

    def __cinit__(self, numbers: dict[bytes, int]) -> None:
        cdef unsigned int at
        cdef Py_ssize_t place
        self.numbers = dict(numbers)
        self.names = [None] * NAMES_MAX
        for at in range(TABLE):
            self.slots[at] = -1
        for name, number in numbers.items():
            if not 0 <= number < NAMES_MAX or self.names[number] is not None:
                raise ValueError(f"{number} is not a number of its own below {NAMES_MAX}")
            if not name or any(LOWER[letter] != letter for letter in name):
                raise ValueError(f"{name!r} is not in lower case, or has other marks than dashes")
            self.names[number] = name
            at = 0
            for place in range(len(name)):
                at = _mix(at, (<const unsigned char*>PyBytes_AS_STRING(name))[place])
            while self.slots[at % TABLE] >= 0:
                at += 1
            self.slots[at % TABLE] = number

    cdef int find(self, const unsigned char* name, Py_ssize_t length, unsigned int digest) noexcept:
        """The number of a name; `digest` is its letters mixed.  −1: it is none of ours."""
        cdef int number
        cdef Py_ssize_t at
        cdef const unsigned char* known
        while True:
            number = self.slots[digest % TABLE]
            if number < 0:
                return -1
            ours = <bytes>self.names[number]
            if len(ours) == length:
                known = <const unsigned char*>PyBytes_AS_STRING(ours)
                for at in range(length):
                    if LOWER[name[at]] != known[at]:
                        break
                else:
                    return number
            digest += 1


cdef inline unsigned int _mix(unsigned int digest, unsigned char letter) noexcept:
    return digest * 31 + letter


# ------------------------------------------------------------------------------------ heads

cdef struct Field:
    int number
    int line       # where its line begins
    int value      # where its value begins, and
    int value_end  # ends, without the white space around it
    int line_end   # behind its CRLF


cdef enum:
    FIELDS_MAX = 1000

cdef tuple NOT_PASSED = (-1, 0)


cdef class Head:
    """The head of a message, as it came, with the places of the fields that are known."""

    cdef bytes data
    cdef Field* fields
    cdef int count_, first_line_end, host
    cdef readonly int length
    """Bytes in all, with the empty line and one before, if there was one."""
    cdef readonly unsigned long long seen
    """Which known fields there are: bit n stands for the field with the number n."""
    cdef readonly bytes method
    cdef readonly bytes target
    cdef readonly int minor
    """Of the version: 1 for HTTP/1.1."""
    cdef readonly int status
    cdef readonly bytes reason
    cdef readonly bint is_plain
    """Nothing in it is rare: of HTTP/1.1, one Host and a target in origin-form (or a status that has a body),
    no field of HeadReader's `rare`, no Connection but keep-alive (or, of a request, close), and at most one
    Content-Length."""
    cdef readonly bint closes
    """Whether it is a request whose Connection is close."""
    cdef readonly long long content_length
    """What that says; −1: there is none."""

    def __cinit__(self) -> None:
        self.data = b"\r\n"  # the shortest there can be: who makes a Head by hand reads nothing else
        self.is_plain = True
        self.content_length = -1
        self.host = -1

    def __dealloc__(self):
        free(self.fields)

    def count(self, int number) -> int:
        """How many fields there are with that number."""
        cdef int at, found = 0
        for at in range(self.count_):
            found += self.fields[at].number == number
        return found

    def value(self, int number) -> bytes | None:
        """The value of the first field with that number."""
        cdef int at
        for at in range(self.count_):
            if self.fields[at].number == number:
                return self._value(at)
        return None

    def is_padded(self, int number) -> bool:
        """Whether the first field with that number has more around its value than a space before it."""
        cdef int at
        cdef const unsigned char* data
        cdef Field* field
        for at in range(self.count_):
            field = &self.fields[at]
            if field.number == number:
                data = <const unsigned char*>PyBytes_AS_STRING(self.data)
                if field.value_end + 2 != field.line_end:
                    return True
                return data[field.value - 1] != 58 and (
                    data[field.value - 1] != 32 or data[field.value - 2] != 58)
        return False

    def values(self, int number) -> list[bytes]:
        cdef int at
        return [self._value(at) for at in range(self.count_) if self.fields[at].number == number]

    cdef bytes _value(self, int at):
        cdef Field* field = &self.fields[at]
        return PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.data) + field.value, field.value_end - field.value)

    def lines(self) -> list[bytes]:
        """The first line, and every field's, as they came; without CRLF."""
        return self.data[:-4].split(b"\r\n")

    def forward(self, unsigned long long without, bytes added not None) -> bytes:
        """The same head without the fields of the mask `without`, and with `added` (lines with CRLF)."""
        result = PyBytes_FromStringAndSize(NULL, self._size(without) + len(added))
        self._put(PyBytes_AS_STRING(result), without, added)
        return result

    def forward_before(self, buffer not None, Py_ssize_t end, unsigned long long without,
                       bytes added not None) -> int:
        """The same, put into a writable buffer so that it ends at `end`: where it begins; −1: no room."""
        cdef Py_buffer view
        cdef Py_ssize_t begin = end - self._size(without) - len(added)
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= end <= view.len:
                raise ValueError(f"{end} is not in a buffer of {view.len} bytes")
            if begin < 0:
                return -1
            self._put(<char*>view.buf + begin, without, added)
            return begin
        finally:
            PyBuffer_Release(&view)

    def forward_plain(self, Py_ssize_t end, bytes host not None, unsigned long long without,
                      bytes added not None, long long number) -> bytes | None:
        """The same of a plain GET for `host` that ends at `end`, with its head; of any other None.

        Behind what is added come `number`, in 16 hexadecimal digits, and CRLF; unless it is negative."""
        cdef int at
        cdef Field* field
        cdef char* to
        cdef Py_ssize_t size
        if not self.is_plain or self.length != end or self.content_length > 0 or self.method != b"GET":
            return None
        for at in range(self.count_):
            field = &self.fields[at]
            if field.number == self.host:
                if field.value_end - field.value != len(host) or memcmp(
                        PyBytes_AS_STRING(self.data) + field.value, PyBytes_AS_STRING(host), len(host)):
                    return None
                break
        else:
            return None
        size = self._size(without) + len(added)
        if number < 0:
            result = PyBytes_FromStringAndSize(NULL, size)
            self._put(PyBytes_AS_STRING(result), without, added)
            return result
        result = PyBytes_FromStringAndSize(NULL, size + NUMBER_SIZE)
        to = PyBytes_AS_STRING(result)
        self._put(to, without, added)
        to += size - 2  # where the empty line is
        for at in range(15, -1, -1):
            to[at] = HEX_DIGITS[number & 15]
            number >>= 4
        memcpy(to + 16, b"\r\n\r\n", 4)
        return result

    cdef Py_ssize_t _size(self, unsigned long long without) noexcept:
        """Bytes that are left of the head without some fields."""
        cdef int at
        cdef Py_ssize_t size = len(self.data)
        for at in range(self.count_):
            if without >> self.fields[at].number & 1:
                size -= self.fields[at].line_end - self.fields[at].line
        return size

    cdef void _put(self, char* to, unsigned long long without, bytes added) noexcept:
        cdef const char* data = PyBytes_AS_STRING(self.data)
        cdef int at, copied = 0, end = <int>len(self.data) - 2
        cdef Field* field
        for at in range(self.count_):
            field = &self.fields[at]
            if without >> field.number & 1:
                memcpy(to, data + copied, field.line - copied)
                to += field.line - copied
                copied = field.line_end
        memcpy(to, data + copied, end - copied)
        to += end - copied
        memcpy(to, PyBytes_AS_STRING(added), len(added))
        to += len(added)
        memcpy(to, b"\r\n", 2)

    def with_fields(self, bytes first_line not None, unsigned long long without, bytes added not None) -> bytes:
        """A new head: `first_line` (with its CRLF), our fields without those of the mask `without`,
        `added` (lines with CRLF), and the empty line."""
        return first_line + self.forward(without, added)[self.first_line_end:]


cdef class HeadReader:
    """Reads heads, within limits: bytes of a head, bytes of a target, fields.

    MalformedError's reasons: head_too_large, target_too_long, too_many_fields, bad_request_line,
    bad_status_line, bad_method, bad_target, bad_version, unsupported_version, bad_line_end, folded_field,
    bad_field_name, bad_field_value.
    """

    cdef readonly FieldNames names
    cdef int head_max, target_max, fields_max, fields_seen, hosts
    cdef int host, content_length, connection  # their numbers, or −1
    cdef bint is_request
    cdef unsigned long long rare
    cdef Field fields[FIELDS_MAX]
    cdef const unsigned char* data
    cdef Py_ssize_t at, end

    def __cinit__(self, FieldNames names not None, int head_max, int fields_max, int target_max=0,
                  unsigned long long rare=0) -> None:
        if not 0 < fields_max <= FIELDS_MAX:
            raise ValueError(f"fields_max: {fields_max} is not from 1 to {FIELDS_MAX}")
        if head_max <= 0:
            raise ValueError(f"head_max: {head_max} is no number of bytes")
        self.names = names
        self.head_max, self.fields_max, self.target_max = head_max, fields_max, target_max
        self.host = names.numbers.get(b"host", -1)
        self.content_length = names.numbers.get(b"content-length", -1)
        self.connection = names.numbers.get(b"connection", -1)
        self.rare = rare

    def request(self, buffer not None, Py_ssize_t start, Py_ssize_t end) -> Head | None:
        """The head of the request that begins at `start`; None: it has not all come yet."""
        return self._read(buffer, start, end, True)

    def response(self, buffer not None, Py_ssize_t start, Py_ssize_t end) -> Head | None:
        """The head of the response that begins at `start`; None: it has not all come yet."""
        return self._read(buffer, start, end, False)

    def pass_plain_answer(self, buffer not None, Py_ssize_t start, Py_ssize_t end,
                          unsigned long long without, bytes added not None) -> tuple[int, int]:
        """Rewrite a plain answer that is whole, from `start` to `end`, where it is, as Head.forward_before()
        does: where it begins then, and its status.  (−1, 0) leaves any other answer as it was."""
        cdef Head head
        cdef int begin
        try:
            head = self._read(buffer, start, end, False)
        except MalformedError:
            return NOT_PASSED
        if head is None or not head.is_plain or head.content_length != end - start - head.length:
            return NOT_PASSED
        begin = head.forward_before(buffer, start + head.length, without, added)
        return begin, head.status

    cdef Head _read(self, buffer, Py_ssize_t start, Py_ssize_t end, bint is_request):
        cdef Py_buffer view
        cdef Head head = Head()
        cdef bint complete
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= end <= view.len:
                raise ValueError(f"{start} to {end} is not in a buffer of {view.len} bytes")
            self.data = <const unsigned char*>view.buf
            self.at, self.fields_seen, self.hosts, self.is_request = start, 0, 0, is_request
            self.end = min(end, start + self.head_max)
            complete = self._head(head, is_request)
            if not complete:
                if end - start >= self.head_max:
                    raise MalformedError("head_too_large")
                return None
            head.length = <int>(self.at - start)
            head.host = self.host
            return head
        finally:
            self.data = NULL
            PyBuffer_Release(&view)

    cdef bint _head(self, Head head, bint is_request) except -1:
        """Whether all of it is there."""
        cdef Py_ssize_t begin
        cdef int place
        # One empty line before a request is what some clients send after a body (RFC 9112 §2.2).
        if is_request and self.at < self.end and self.data[self.at] == 13:
            if not self._line_end():
                return False
        begin = self.at
        if not (self._request_line(head) if is_request else self._status_line(head)):
            return False
        head.first_line_end = <int>(self.at - begin)
        while True:
            if self.at >= self.end:
                return False
            if self.data[self.at] == 13:
                if not self._line_end():
                    return False
                break
            if not self._field(head, begin):
                return False
        head.data = PyBytes_FromStringAndSize(<const char*>self.data + begin, self.at - begin)
        if head.count_:
            head.fields = <Field*>malloc(head.count_ * sizeof(Field))
            if head.fields == NULL:
                raise MemoryError
            memcpy(head.fields, self.fields, head.count_ * sizeof(Field))
            for place in range(head.count_):
                head.seen |= 1ULL << head.fields[place].number
        if head.minor != 1 or (is_request and (self.hosts != 1 or head.target[0] != 47)):
            head.is_plain = False
        elif not is_request and (head.status < 200 or head.status == 204 or head.status == 304):
            head.is_plain = False
        return True

    cdef int _judge(self, Head head, int number, const unsigned char* value, Py_ssize_t length) except -1:
        """See Head.is_plain."""
        cdef Py_ssize_t place
        if number == self.host:
            self.hosts += 1
        elif number == self.content_length:
            if head.content_length >= 0 or not 0 < length <= LENGTH_DIGITS_MAX:
                head.is_plain = False
                return 0
            head.content_length = 0
            for place in range(length):
                if not 48 <= value[place] <= 57:
                    head.is_plain = False
                head.content_length = head.content_length * 10 + value[place] - 48
        elif number == self.connection:
            if length == 5 and self.is_request and _is(value, b"close", 5):
                head.closes = True
            elif length != 10 or not _is(value, b"keep-alive", 10):
                head.is_plain = False
        elif self.rare >> number & 1:
            head.is_plain = False
        return 0

    cdef bint _request_line(self, Head head) except -1:
        cdef const unsigned char* data = self.data
        cdef Py_ssize_t at = self.at, end = self.end, begin = at
        cdef bint in_path = True
        cdef unsigned char byte
        while at < end and KIND[data[at]] & TOKEN:
            at += 1
        if at - begin > METHOD_MAX:
            raise MalformedError("bad_method")
        if at >= end:
            return False
        if data[at] != 32 or at == begin:
            raise MalformedError("bad_request_line")
        head.method = _method(<const char*>data + begin, at - begin)
        at += 1
        begin = at
        while at < end and KIND[data[at]] & TARGET:
            byte = data[at]
            if byte == 63:  # ?
                in_path = False
            elif byte == 92 and in_path:  # a backslash, which some take for a slash
                raise MalformedError("bad_target")
            elif byte == 37 and at + 2 < end and _is_dangerous(data + at + 1, in_path):
                raise MalformedError("bad_target")
            at += 1
            if at - begin > self.target_max:
                raise MalformedError("target_too_long")
        if at >= end:
            return False
        if at == begin:
            raise MalformedError("bad_request_line")
        if data[at] != 32:
            # Without a version it is HTTP/0.9's, which has neither fields nor framing.
            raise MalformedError("bad_request_line" if data[at] == 13 or data[at] == 10 else "bad_target")
        head.target = PyBytes_FromStringAndSize(<const char*>data + begin, at - begin)
        self.at = at + 1
        if self.end - self.at < 8:
            # What there is must be how it begins.
            if memcmp(data + self.at, b"HTTP/1.1", min(self.end - self.at, 5)) != 0:
                raise MalformedError("bad_version")
            if memchr(data + self.at, 10, self.end - self.at) != NULL:
                raise MalformedError("bad_version")
            return False
        head.minor = self._version()
        return self._line_end()

    cdef int _version(self) except -1:
        """The version's minor number; moves behind it.  There are eight bytes at least."""
        cdef const unsigned char* text = self.data + self.at
        if memcmp(text, b"HTTP/", 5) != 0 or text[6] != 46:
            raise MalformedError("bad_version")
        if not (48 <= text[5] <= 57 and 48 <= text[7] <= 57):
            raise MalformedError("bad_version")
        if text[5] != 49 or text[7] > 49:
            raise MalformedError("unsupported_version")
        self.at += 8
        return text[7] - 48

    cdef bint _status_line(self, Head head) except -1:
        cdef const unsigned char* data = self.data
        cdef Py_ssize_t begin, there = min(self.end - self.at, 12)
        # The reason must not depend on how much has come.
        if memcmp(data + self.at, b"HTTP/", min(there, 5)) != 0 or memchr(data + self.at, 10, there) != NULL:
            raise MalformedError("bad_status_line")
        if there < 12:
            return False
        head.minor = self._version()
        if data[self.at] != 32:
            raise MalformedError("bad_status_line")
        self.at += 1
        for begin in range(self.at, self.at + 3):
            if not 48 <= data[begin] <= 57:
                raise MalformedError("bad_status_line")
            head.status = head.status * 10 + data[begin] - 48
        if not 100 <= head.status <= 599:
            raise MalformedError("bad_status_line")
        self.at += 3
        if self.at >= self.end:
            return False
        begin = self.at
        if data[self.at] == 32:
            self.at += 1
            begin = self.at
            while self.at < self.end and KIND[data[self.at]] & VALUE:
                self.at += 1
        else:
            head.is_plain = False  # we put the space there that is missing
        head.reason = PyBytes_FromStringAndSize(<const char*>data + begin, self.at - begin)
        return self._line_end()

    cdef bint _field(self, Head head, Py_ssize_t base) except -1:
        """One field line; `base` is where the head begins."""
        cdef const unsigned char* data = self.data
        cdef Py_ssize_t at = self.at, end = self.end, begin = at, value, value_end
        cdef unsigned int digest = 0
        cdef bint underscored = False
        cdef int number
        cdef Field* field
        if data[at] == 32 or data[at] == 9:
            raise MalformedError("folded_field")
        while at < end and KIND[data[at]] & TOKEN:
            underscored |= data[at] == 95
            digest = _mix(digest, LOWER[data[at]])
            at += 1
        if at >= end:
            return False
        if data[at] != 58 or at == begin:
            raise MalformedError("bad_field_name")
        number = self.names.find(data + begin, at - begin, digest)
        if number >= 0:
            if _is_disguised(data + begin, at - begin):
                number = _DISGUISED
        elif underscored:
            number = _UNDERSCORED
        at += 1
        while at < end and (data[at] == 32 or data[at] == 9):
            at += 1
        value = at
        while at < end and KIND[data[at]] & VALUE:
            at += 1
        value_end = at
        while value_end > value and (data[value_end - 1] == 32 or data[value_end - 1] == 9):
            value_end -= 1
        if at >= end:
            return False
        if data[at] != 13:
            raise MalformedError("bad_line_end" if data[at] == 10 else "bad_field_value")
        self.at = at
        if not self._line_end():
            return False
        self.fields_seen += 1
        if self.fields_seen > self.fields_max:
            raise MalformedError("too_many_fields")
        if number >= 0:
            field = &self.fields[head.count_]
            head.count_ += 1
            field.number = number
            field.line, field.line_end = <int>(begin - base), <int>(self.at - base)
            field.value, field.value_end = <int>(value - base), <int>(value_end - base)
            self._judge(head, number, data + value, value_end - value)
        return True

    cdef bint _line_end(self) except -1:
        """Move behind the CRLF that must stand here; False: its second half has not come yet."""
        if self.at >= self.end:
            return False
        if self.data[self.at] != 13:
            raise MalformedError("bad_line_end")
        if self.at + 1 >= self.end:
            return False
        if self.data[self.at + 1] != 10:
            raise MalformedError("bad_line_end")
        self.at += 2
        return True


cdef inline bint _is(const unsigned char* value, const char* word, int length) noexcept:
    """Whether a value is this word, which is in lower case."""
    cdef int at
    for at in range(length):
        if LOWER[value[at]] != <unsigned char>word[at]:
            return False
    return True


cdef inline bint _is_disguised(const unsigned char* name, Py_ssize_t length) noexcept:
    """Whether a known name has another mark where there should be a dash."""
    cdef Py_ssize_t at
    for at in range(length):
        if LOWER[name[at]] == 45 and name[at] != 45:
            return True
    return False


cdef bytes _method(const char* name, Py_ssize_t length):
    if length == 3 and memcmp(name, b"GET", 3) == 0:
        return b"GET"
    return PyBytes_FromStringAndSize(name, length)


cdef inline bint _is_dangerous(const unsigned char* digits, bint in_path) noexcept:
    """Whether it is %00, or in a path %0a or %0d: what ends a string, or a line, once it is decoded.

    In a query browsers write the ends of a form's lines so.
    """
    if digits[0] != 48:
        return False
    return digits[1] == 48 or (in_path and (digits[1] | 32 == 97 or digits[1] | 32 == 100))


# ------------------------------------------------------------------------------ bodies in chunks

cdef enum Expecting:
    SIZE             # its first digit
    SIZE_DIGITS      # another one, an extension or the end of the line
    EXTENSION
    QUOTED           # in an extension's quoted string
    ESCAPED          # ... behind a backslash
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER          # the next one's name, or the empty line
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    LAST_LF
    DONE

cdef enum:
    SIZE_DIGITS_MAX = 16         # and less than 2^63 bytes: what fits in any reader's integer
    EXTENSION_MAX = 256          # bytes, of one chunk
    EXTENSIONS_MAX = 4096        # ... and of a body
    TRAILER_MAX = 8192           # bytes, of all trailers
    TRAILER_NAME_MAX = 64

# What a trailer must not say, for it has been decided before (RFC 9110 §6.5.1).
cdef FieldNames FORBIDDEN_TRAILERS = FieldNames({name: number for number, name in enumerate((
    b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-encoding",
    b"content-type", b"content-range", b"trailer", b"connection", b"te", b"expect", b"upgrade",
    b"cookie", b"set-cookie", b"proxy-authorization", b"proxy-authenticate", b"www-authenticate",
    b"cache-control", b"max-forwards", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-forwarded-host", b"x-forwarded-port", b"range", b"if-match", b"if-none-match", b"location",
    b"date", b"age", b"expires", b"vary", b"retry-after",
))})


cdef class ChunkedBody:
    """The framing of a body in chunks (RFC 9112 §7.1), checked while it passes.

    Extensions and trailers are checked and left out: few read them, and not all alike.  With `decode` the
    framing is left out, too, and only data passes.  Sizes of chunks pass as they came.

    MalformedError's reasons: bad_chunk_size, bad_chunk_extension, bad_chunk_end, bad_trailer,
    forbidden_trailer, trailer_too_large.
    """

    cdef Expecting expecting
    cdef bint decode
    cdef unsigned long long left          # of this chunk's data
    cdef int digits, extension, extensions, trailer
    cdef unsigned char name[TRAILER_NAME_MAX]
    cdef int name_length
    cdef unsigned int digest
    cdef readonly unsigned long long data_bytes
    """Of data so far."""
    cdef readonly Py_ssize_t used
    """How many bytes the last feed() has read: fewer than it was given only when the body has ended."""

    def __init__(self, *, bint decode=False) -> None:
        self.decode = decode

    @property
    def is_done(self) -> bool:
        return self.expecting == DONE

    def feed(self, buffer not None, Py_ssize_t start, Py_ssize_t end) -> int:
        """Check what is between `start` and `end`, and put what passes to `start`: how many bytes of it."""
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= end <= view.len:
                raise ValueError(f"{start} to {end} is not in a buffer of {view.len} bytes")
            return self._feed(<unsigned char*>view.buf + start, end - start)
        finally:
            PyBuffer_Release(&view)

    cdef Py_ssize_t _feed(self, unsigned char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t at = 0, to = 0, some
        cdef unsigned char byte
        cdef bint passes
        while at < size and self.expecting != DONE:
            if self.expecting == DATA:
                some = <Py_ssize_t>min(<unsigned long long>(size - at), self.left)
                if to != at:
                    memmove(data + to, data + at, some)
                at += some
                to += some
                self.left -= some
                self.data_bytes += some
                if self.left == 0:
                    self.expecting = DATA_CR
                continue
            byte = data[at]
            at += 1
            passes = self._frame(byte)
            if passes and not self.decode:
                data[to] = byte
                to += 1
        self.used = at
        return to

    cdef bint _frame(self, unsigned char byte) except -1:
        """One byte of framing; whether it passes."""
        if self.expecting == SIZE or self.expecting == SIZE_DIGITS:
            if KIND[byte] & HEX:
                self.digits += 1
                if self.digits > SIZE_DIGITS_MAX or self.left >> 59:
                    raise MalformedError("bad_chunk_size")
                self.left = self.left << 4 | _digit(byte)
                self.expecting = SIZE_DIGITS
                return True
            if self.expecting == SIZE:
                raise MalformedError("bad_chunk_size")
            if byte == 13:
                self.expecting = SIZE_LF
                return True
            if byte == 59:  # ;
                self.expecting = EXTENSION
                self.extension = 0
                self._count_extension()
                return False
            raise MalformedError("bad_chunk_size")
        if self.expecting == EXTENSION:
            if byte == 13:
                self.expecting = SIZE_LF
                return True
            if not KIND[byte] & VALUE:
                raise MalformedError("bad_chunk_extension")
            if byte == 34:
                self.expecting = QUOTED
            self._count_extension()
            return False
        if self.expecting == QUOTED or self.expecting == ESCAPED:
            if not KIND[byte] & VALUE:
                raise MalformedError("bad_chunk_extension")
            if self.expecting == ESCAPED:
                self.expecting = QUOTED
            elif byte == 92:
                self.expecting = ESCAPED
            elif byte == 34:
                self.expecting = EXTENSION
            self._count_extension()
            return False
        if self.expecting == SIZE_LF:
            if byte != 10:
                raise MalformedError("bad_chunk_size")
            self.digits = 0
            self.expecting = DATA if self.left else TRAILER
            return True
        if self.expecting == DATA_CR:
            if byte != 13:
                raise MalformedError("bad_chunk_end")
            self.expecting = DATA_LF
            return True
        if self.expecting == DATA_LF:
            if byte != 10:
                raise MalformedError("bad_chunk_end")
            self.expecting = SIZE
            return True
        return self._trailer(byte)

    cdef bint _trailer(self, unsigned char byte) except -1:
        self.trailer += 1
        if self.trailer > TRAILER_MAX:
            raise MalformedError("trailer_too_large")
        if self.expecting == TRAILER and byte == 13:
            self.expecting = LAST_LF
            return True
        if self.expecting == TRAILER or self.expecting == TRAILER_NAME:
            if KIND[byte] & TOKEN:
                if self.expecting == TRAILER:
                    self.name_length, self.digest = 0, 0
                self.expecting = TRAILER_NAME
                if self.name_length == TRAILER_NAME_MAX:
                    raise MalformedError("bad_trailer")
                self.name[self.name_length] = byte
                self.name_length += 1
                self.digest = _mix(self.digest, LOWER[byte])
                return False
            if self.expecting == TRAILER_NAME and byte == 58:
                if FORBIDDEN_TRAILERS.find(self.name, self.name_length, self.digest) >= 0:
                    raise MalformedError("forbidden_trailer")
                self.expecting = TRAILER_VALUE
                return False
            raise MalformedError("bad_trailer")
        if self.expecting == TRAILER_VALUE:
            if byte == 13:
                self.expecting = TRAILER_LF
            elif not KIND[byte] & VALUE:
                raise MalformedError("bad_trailer")
            return False
        if byte != 10:
            raise MalformedError("bad_trailer")
        if self.expecting == TRAILER_LF:
            self.expecting = TRAILER
            return False
        self.expecting = DONE
        return True

    cdef int _count_extension(self) except -1:
        self.extension += 1
        self.extensions += 1
        if self.extension > EXTENSION_MAX or self.extensions > EXTENSIONS_MAX:
            raise MalformedError("bad_chunk_extension")
        return 0


cdef inline int _digit(unsigned char byte) noexcept:
    if byte <= 57:
        return byte - 48
    return (byte | 32) - 87
