"""Heads as bytes: what is in the grammar is read to its last offset; all else is refused by a word."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termproxy.http._wire import (
    DISGUISED,
    UNDERSCORED,
    FieldNames,
    Head,
    HeadReader,
    MalformedError,
)
from tests.http.readers import UnreadableError, h11_requests, llhttp_requests

HOST, LENGTH, ODD, LAST = 0, 1, 31, 59
NAMES = FieldNames({b"host": HOST, b"content-length": LENGTH, b"x-odd": ODD, b"x-last": LAST})

READER = HeadReader(NAMES, 1000, 20, 100)

Reading = Callable[[bytes, int, int], Head | None]

GET = b"GET /a?b HTTP/1.1\r\nHost: site.test\r\nX-A: 1\r\nX-Odd:2\r\nX-B: \t \r\nx-oDD: \t3 4\t \r\n\r\n"
OK = b"HTTP/1.1 200 All right\r\nX-Odd: 1\r\nX-A: 1\r\n\r\n"


def read(data: bytes, reader: HeadReader = READER) -> Head:
    head = reader.request(data, 0, len(data))
    assert head is not None
    return head


def read_answer(data: bytes, reader: HeadReader = READER) -> Head:
    head = reader.response(data, 0, len(data))
    assert head is not None
    return head


def why_not(data: bytes, reader: HeadReader = READER) -> str:
    with pytest.raises(MalformedError) as caught:
        reader.request(data, 0, len(data))
    return caught.value.reason


def why_no_answer(data: bytes, reader: HeadReader = READER) -> str:
    with pytest.raises(MalformedError) as caught:
        reader.response(data, 0, len(data))
    return caught.value.reason


def content(head: Head) -> tuple[object, ...]:
    """All that a head tells."""
    return (
        head.length,
        head.seen,
        head.method,
        head.target,
        head.minor,
        head.status,
        head.reason,
        head.lines(),
        [head.values(number) for number in (HOST, LENGTH, ODD, LAST, DISGUISED, UNDERSCORED)],
    )


# What is read.


def test_a_request_is_read() -> None:
    head = read(GET)
    assert (head.method, head.target, head.minor, head.status) == (b"GET", b"/a?b", 1, 0)
    assert head.length == len(GET)
    assert head.seen == 1 << HOST | 1 << ODD
    assert head.value(HOST) == b"site.test"
    assert head.values(ODD) == [b"2", b"3 4"]
    assert head.value(ODD) == b"2"
    assert head.count(ODD) == 2
    assert (head.value(LENGTH), head.values(LENGTH), head.count(LENGTH)) == (None, [], 0)
    assert head.lines() == GET[:-4].split(b"\r\n")


def test_a_response_is_read() -> None:
    head = read_answer(OK)
    assert (head.status, head.reason, head.minor) == (200, b"All right", 1)
    assert (head.length, head.seen) == (len(OK), 1 << ODD)
    assert head.lines() == [b"HTTP/1.1 200 All right", b"X-Odd: 1", b"X-A: 1"]


def test_a_head_may_have_no_fields() -> None:
    head = read(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.minor, head.seen, head.lines()) == (0, 0, [b"GET / HTTP/1.0"])


@pytest.mark.parametrize("line", [b"HTTP/1.1 200 ", b"HTTP/1.1 200"])
def test_a_reason_may_be_empty_and_the_space_before_it_missing(line: bytes) -> None:
    head = read_answer(line + b"\r\n\r\n")
    assert (head.status, head.reason) == (200, b"")


def test_an_empty_line_before_a_request_counts_as_its_own() -> None:
    head = read(b"\r\n" + GET)
    assert head.length == len(GET) + 2
    assert content(head)[1:] == content(read(GET))[1:]
    assert head.with_fields(b"", 0, b"") == GET.partition(b"\r\n")[2]


def test_a_head_is_read_from_where_it_begins_to_where_it_ends() -> None:
    behind = b"GET /other HTTP/1.1\r\n\r\n"
    for before in (b"", b"x", b"\r\n\r\n", behind):
        data = before + GET + behind
        head = READER.request(data, len(before), len(data))
        assert head is not None
        assert content(head) == content(read(GET))


@pytest.mark.parametrize("data", [GET, b"\r\n" + GET])
def test_a_request_is_not_there_before_its_last_byte(data: bytes) -> None:
    for end in range(len(data)):
        assert READER.request(data, 0, end) is None
    assert content(read(data + b"more")) == content(read(data))


def test_a_response_is_not_there_before_its_last_byte() -> None:
    for end in range(len(OK)):
        assert READER.response(OK, 0, end) is None
    assert content(read_answer(OK + b"more")) == content(read_answer(OK))


def test_bytes_behind_the_end_are_not_looked_at() -> None:
    """What is there is left over from another connection."""
    for end in range(len(GET)):
        assert READER.request(GET[:end] + b"\x00" * 20, 0, end) is None


@pytest.mark.parametrize(
    "buffer", [bytes(GET), bytearray(GET), memoryview(GET), memoryview(bytearray(GET)), array("B", GET)]
)
def test_any_buffer_will_do(buffer: bytes) -> None:
    head = READER.request(buffer, 0, len(GET))
    assert head is not None
    assert content(head) == content(read(GET))


def test_a_head_keeps_its_bytes_when_the_buffer_is_used_again() -> None:
    buffer = bytearray(GET)
    head = READER.request(buffer, 0, len(buffer))
    assert head is not None
    buffer[:] = b"x" * len(buffer)
    assert content(head) == content(read(GET))


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 5), (0, len(GET) + 1), (5, 4), (len(GET) + 1, len(GET) + 1), (0, -1)]
)
def test_what_is_outside_the_buffer_is_never_read(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="is not in a buffer"):
        READER.request(GET, start, end)
    with pytest.raises(ValueError, match="is not in a buffer"):
        READER.response(GET, start, end)


def test_only_a_buffer_in_one_piece_is_read() -> None:
    with pytest.raises(BufferError):
        READER.request(memoryview(GET)[::2], 0, 5)
    with pytest.raises(TypeError):
        READER.request("GET", 0, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        READER.request(None, 0, 0)  # type: ignore[arg-type]


def test_an_empty_buffer_holds_no_head() -> None:
    for buffer in (b"", bytearray(), array("B")):
        assert READER.request(buffer, 0, 0) is None
        assert READER.response(buffer, 0, 0) is None


# What is refused, and the word for it.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b" ", "bad_request_line"),
        (b"\r\n\r\n", "bad_request_line"),
        (b"\n", "bad_request_line"),
        (b"GE(T / HTTP/1.1", "bad_request_line"),
        (b"GET\t", "bad_request_line"),
        (b"GET\r\n", "bad_request_line"),
        (b"GET  ", "bad_request_line"),
        (b"GET /\r", "bad_request_line"),
        (b"GET /\n", "bad_request_line"),
        (b"M" * 33, "bad_method"),
        (b"GET /\t", "bad_target"),
        (b"GET /#", "bad_target"),
        (b'GET /"', "bad_target"),
        (b"GET /<", "bad_target"),
        (b"GET /\x7f", "bad_target"),
        (b"GET /\x80", "bad_target"),
        (b"GET /\x00", "bad_target"),
        (b"GET /\\", "bad_target"),
        (b"GET /%00", "bad_target"),
        (b"GET /a%0a", "bad_target"),
        (b"GET /a%0Ab", "bad_target"),
        (b"GET /a%0db", "bad_target"),
        (b"GET /a%0D", "bad_target"),
        (b"GET /  ", "bad_version"),
        (b"GET / HTTX", "bad_version"),
        (b"GET / http/1.1", "bad_version"),
        (b"GET / HTTP/1\n", "bad_version"),
        (b"GET / HTTP/11.", "bad_version"),
        (b"GET / HTTP/1.x", "bad_version"),
        (b"GET / HTTP/x.1", "bad_version"),
        (b"GET / HTTP/1\r\n", "bad_version"),
        (b"GET / HTTP/1.2", "unsupported_version"),
        (b"GET / HTTP/0.9", "unsupported_version"),
        (b"PRI * HTTP/2.0", "unsupported_version"),
        (b"GET / HTTP/1.1 ", "bad_line_end"),
        (b"GET / HTTP/1.10", "bad_line_end"),
        (b"GET / HTTP/1.1\n", "bad_line_end"),
        (b"GET / HTTP/1.1\rX", "bad_line_end"),
        (b"\rG", "bad_line_end"),
        (b"\r\n\n", "bad_request_line"),
        (b"GET / HTTP/1.1\r\n ", "folded_field"),
        (b"GET / HTTP/1.1\r\nA: 1\r\n\t", "folded_field"),
        (b"GET / HTTP/1.1\r\n\n", "bad_field_name"),
        (b"GET / HTTP/1.1\r\n:", "bad_field_name"),
        (b"GET / HTTP/1.1\r\nA ", "bad_field_name"),
        (b"GET / HTTP/1.1\r\nA\r", "bad_field_name"),
        (b"GET / HTTP/1.1\r\nA\x80", "bad_field_name"),
        (b"GET / HTTP/1.1\r\nA: 1\n", "bad_line_end"),
        (b"GET / HTTP/1.1\r\nA: 1\r1", "bad_line_end"),
        (b"GET / HTTP/1.1\r\nA: \x00", "bad_field_value"),
        (b"GET / HTTP/1.1\r\nA: 1\x7f", "bad_field_value"),
        (b"GET / HTTP/1.1\r\nA: 1\x0b", "bad_field_value"),
        (b"GET / HTTP/1.1\r\nA: 1\r\n\r\r", "bad_line_end"),
    ],
)
def test_a_request_is_refused_at_once_for_its_first_fault(data: bytes, reason: str) -> None:
    """However much of it has come, nobody waits for more."""
    assert why_not(data) == reason
    assert why_not(data + GET) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/2\r\n", "bad_status_line"),
        (b"HTTP/2 200 OK", "bad_version"),
        (b"hello", "bad_status_line"),
        (b"\r\n", "bad_status_line"),
        (b"HTTP/1.1\r\n", "bad_status_line"),
        (b"HTTP/1.1\t200 ", "bad_status_line"),
        (b"HTTP/1.1  200 ", "bad_status_line"),
        (b"HTTP/1.1 20x OK", "bad_status_line"),
        (b"HTTP/1.1 20\r\n\r\n", "bad_status_line"),
        (b"HTTP/1.1 099 OK", "bad_status_line"),
        (b"HTTP/1.1 600 OK", "bad_status_line"),
        (b"HTTP/1.1 000 OK", "bad_status_line"),
        (b"HTTP/1.x 200 OK", "bad_version"),
        (b"HTTP/1.2 200 OK", "unsupported_version"),
        (b"HTTP/1.1 200OK", "bad_line_end"),
        (b"HTTP/1.1 2000 OK", "bad_line_end"),
        (b"HTTP/1.1 200\tOK", "bad_line_end"),
        (b"HTTP/1.1 200 O\x00K", "bad_line_end"),
        (b"HTTP/1.1 200 OK\n", "bad_line_end"),
        (b"HTTP/1.1 200 OK\r\n X: 1", "folded_field"),
        (b"HTTP/1.1 200 OK\r\nA : 1", "bad_field_name"),
        (b"HTTP/1.1 200 OK\r\nA: \x01", "bad_field_value"),
    ],
)
def test_a_response_is_refused_at_once_for_its_first_fault(data: bytes, reason: str) -> None:
    assert why_no_answer(data) == reason
    assert why_no_answer(data + OK) == reason


def test_in_a_query_what_is_dangerous_in_a_path_is_data() -> None:
    target = b"/a?b=%0a%0D\\"
    assert read(b"GET %b HTTP/1.1\r\n\r\n" % target).target == target
    assert why_not(b"GET /a?b=%00 HTTP/1.1\r\n\r\n") == "bad_target"  # nobody's data


@pytest.mark.parametrize("target", [b"/%0", b"/%", b"/%0g", b"/%0 ".strip(), b"/%1a", b"/%2500"])
def test_a_percent_sign_alone_is_no_danger(target: bytes) -> None:
    assert read(b"GET %b HTTP/1.1\r\n\r\n" % target).target == target


def test_every_byte_stands_only_where_the_grammar_has_it() -> None:
    """RFC 9110 §5.6.2 and §5.5; a target as browsers write it."""
    token = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    target = set(range(0x21, 0x7F)) - set(b'"#<>\\')
    value = {0x09, *range(0x20, 0x7F), *range(0x80, 0x100)}
    assert token == set(filter(lambda byte: passes(b"G%cT / HTTP/1.1\r\n\r\n", byte), range(256)))
    assert target == set(filter(lambda byte: passes(b"GET /%c HTTP/1.1\r\n\r\n", byte), range(256)))
    assert token == set(
        filter(lambda b: passes(b"GET / HTTP/1.1\r\nX%cA: 1\r\n\r\n", b), range(256))
    ) - set(b":")
    assert value == set(filter(lambda b: passes(b"GET / HTTP/1.1\r\nX: a%cb\r\n\r\n", b), range(256)))


def passes(pattern: bytes, byte: int) -> bool:
    data = pattern % byte
    try:
        head = READER.request(data, 0, len(data))
    except MalformedError:
        return False
    return head is not None and head.length == len(data)


# Limits.


def test_a_head_of_just_so_many_bytes_is_read() -> None:
    for data in (GET, b"\r\n" + GET):
        size = len(data)
        assert read(data + b"x", HeadReader(NAMES, size, 5, 100)).length == size
        short = HeadReader(NAMES, size - 1, 5, 100)
        assert why_not(data, short) == "head_too_large"
        assert short.request(data, 0, size - 2) is None
        assert why_not(data[: size - 1], short) == "head_too_large"


def test_an_answers_head_of_just_so_many_bytes_is_read() -> None:
    size = len(OK)
    assert read_answer(OK + b"x", HeadReader(NAMES, size, 5)).length == size
    for most in range(1, size):
        short = HeadReader(NAMES, most, 5)
        assert why_no_answer(OK, short) == "head_too_large"
        assert short.response(OK, 0, most - 1) is None


def test_a_target_of_just_so_many_bytes_is_read() -> None:
    reader = HeadReader(NAMES, 1000, 5, 10)
    assert read(b"GET /aaaaaaaaa HTTP/1.1\r\n\r\n", reader).target == b"/aaaaaaaaa"
    assert why_not(b"GET /aaaaaaaaaa", reader) == "target_too_long"
    assert why_not(b"GET /aaaaa?aaaa", reader) == "target_too_long"


def test_just_so_many_fields_are_read() -> None:
    reader = HeadReader(NAMES, 1000, 3, 10)
    for name in (b"Host", b"X-A"):
        line = name + b": 1\r\n"
        assert len(read(b"GET / HTTP/1.1\r\n" + line * 3 + b"\r\n", reader).lines()) == 4
        assert why_not(b"GET / HTTP/1.1\r\n" + line * 4, reader) == "too_many_fields"
        # ... and the one before has left nothing behind.
        assert len(read(b"GET / HTTP/1.1\r\n" + line * 3 + b"\r\n", reader).lines()) == 4


def test_a_thousand_known_fields_can_be_read() -> None:
    reader = HeadReader(NAMES, 100_000, 1000, 10)
    head = read(b"GET / HTTP/1.1\r\n" + b"X-Last: 1\r\n" * 1000 + b"\r\n", reader)
    assert head.count(LAST) == 1000
    assert head.with_fields(b"", 1 << LAST, b"") == b"\r\n"


def test_a_method_has_at_most_32_bytes() -> None:
    assert read(b"M" * 32 + b" / HTTP/1.1\r\n\r\n").method == b"M" * 32


@pytest.mark.parametrize(("head_max", "fields_max"), [(0, 5), (-1, 5), (5, 0), (5, -1), (5, 1001)])
def test_a_reader_without_sense_cannot_be_made(head_max: int, fields_max: int) -> None:
    with pytest.raises(ValueError, match="_max"):
        HeadReader(NAMES, head_max, fields_max, 10)


# Fields that are known.


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"x-odd", ODD),
        (b"X-ODD", ODD),
        (b"X_Odd", DISGUISED),
        (b"X.Odd", DISGUISED),
        (b"x~odd", DISGUISED),
        (b"Content_Length", DISGUISED),
        (b"X_Other", UNDERSCORED),
        (b"_", UNDERSCORED),
        (b"_x-odd", UNDERSCORED),
        (b"X-Last", LAST),
    ],
)
def test_a_name_is_known_in_any_case_and_with_an_underscore(name: bytes, number: int) -> None:
    head = read(b"GET / HTTP/1.1\r\n%b: 1\r\n\r\n" % name)
    assert head.seen == 1 << number
    assert head.values(number) == [b"1"]


@pytest.mark.parametrize("name", [b"x-od", b"x-oddd", b"xxodd", b"-", b"hostt", b"hos", b"x.other"])
def test_another_name_is_not(name: bytes) -> None:
    assert read(b"GET / HTTP/1.1\r\n%b: 1\r\n\r\n" % name).seen == 0


def test_sixty_names_are_all_found() -> None:
    """Some of them share a slot of the table."""
    names = {b"x-%d" % (number * 7): number for number in range(60)}
    reader = HeadReader(FieldNames(names), 10_000, 100, 10)
    for name, number in names.items():
        assert read(b"GET / HTTP/1.1\r\n%b: 1\r\n\r\n" % name.upper(), reader).seen == 1 << number
    assert reader.names.numbers == names


@pytest.mark.parametrize(
    "numbers",
    [
        {b"a": -1},
        {b"a": 60},
        {b"a": 61},
        {b"a": 1, b"b": 1},
        {b"A": 1},
        {b"a_b": 1},
        {b"a.b": 1},
        {b"": 1},
        {b"x-%d" % number: number for number in range(61)},
    ],
)
def test_names_that_could_not_be_told_apart_are_refused(numbers: dict[bytes, int]) -> None:
    with pytest.raises(ValueError, match="is not"):
        FieldNames(numbers)


@pytest.mark.parametrize("made", [FieldNames, HeadReader])
def test_nothing_is_ever_half_made(made: Any) -> None:
    for make in (made, lambda: made.__new__(made)):
        with pytest.raises(TypeError):
            make()


@pytest.mark.parametrize(
    ("value", "is_padded"),
    [
        (b"", False),
        (b" ", False),
        (b"1", False),
        (b" 1", False),
        (b" 1 2", False),
        (b"  1", True),
        (b"\t1", True),
        (b" \t1", True),
        (b"1 ", True),
        (b" 1\t", True),
        (b"  ", True),
        (b"\t", True),
        (b" : 1", False),
    ],
)
def test_it_can_be_told_whether_a_value_is_padded(value: bytes, *, is_padded: bool) -> None:
    head = read(b"GET / HTTP/1.1\r\nX-A:\t1\r\nX-Odd:%b\r\n\r\n" % value)
    assert head.is_padded(ODD) is is_padded
    assert head.is_padded(LAST) is False


# A new head.


def test_a_new_head_has_all_fields_but_those_of_the_mask() -> None:
    head = read(GET)
    line = b"GET /new HTTP/1.1\r\n"
    assert head.with_fields(line, 0, b"") == line + GET.partition(b"\r\n")[2]
    assert head.with_fields(line, 1 << HOST, b"Z: 1\r\n") == (
        line + b"X-A: 1\r\nX-Odd:2\r\nX-B: \t \r\nx-oDD: \t3 4\t \r\nZ: 1\r\n\r\n"
    )
    assert head.with_fields(line, 1 << ODD, b"") == (
        line + b"Host: site.test\r\nX-A: 1\r\nX-B: \t \r\n\r\n"
    )
    assert head.with_fields(b"", (1 << 63) - 1, b"") == b"X-A: 1\r\nX-B: \t \r\n\r\n"


def test_a_mask_has_64_bits() -> None:
    for bits in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            read(GET).with_fields(b"", bits, b"")
    with pytest.raises(TypeError):
        read(GET).with_fields(None, 0, b"")  # type: ignore[arg-type]


def test_a_head_that_nobody_read_has_nothing() -> None:
    head = Head()
    assert (head.value(0), head.values(0), head.count(0)) == (None, [], 0)
    assert (head.lines(), head.with_fields(b"", 0, b"")) == ([b""], b"\r\n")
    assert (head.forward(0, b""), head.forward_before(bytearray(9), 9, 0, b"")) == (b"\r\n", 7)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"Host", b"X-Odd", b"x-last", b"X_Odd", b"Y_Z", b"Other", b"A"]),
            st.sampled_from([b"", b"1", b" 1", b" \t 1 2 \t"]),
        ),
        max_size=12,
    ),
    st.sets(st.sampled_from([HOST, ODD, LAST, DISGUISED, UNDERSCORED])),
)
def test_a_new_head_is_as_if_written_by_hand(
    fields: list[tuple[bytes, bytes]], without: set[int]
) -> None:
    numbers = {
        b"Host": HOST,
        b"X-Odd": ODD,
        b"x-last": LAST,
        b"X_Odd": DISGUISED,
        b"Y_Z": UNDERSCORED,
    }
    lines = [b"%b:%b\r\n" % field for field in fields]
    head = read(b"GET / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")
    kept = [
        line for line, (name, _) in zip(lines, fields, strict=True) if numbers.get(name) not in without
    ]
    mask = sum(1 << number for number in without)
    assert head.with_fields(b"L\r\n", mask, b"M\r\n") == b"L\r\n" + b"".join(kept) + b"M\r\n\r\n"


# Whatever comes.

PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"GET ", b"/", b"/%0a", b"?", b" HTTP/1.1", b"HTTP/1.1 200 OK\r\n"),
        *(b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\x00", b"\x7f", b"\x80", b"\\", b"\r\n\r\n"),
        *(b"Host: a\r\n", b"X-Odd", b"X_Odd: 1\r\n", b"Content-Length: 0\r\n", b"X: 1\r\n", b"a"),
    ]
)
STREAMS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=20).map(b"".join))


@given(STREAMS, st.integers(1, 60), st.integers(1, 4), st.integers(0, 12))
@example(b"GET /aaa HTTP/1.1\r\nA: 1\r\n\r\n", 27, 1, 4)
def test_a_reader_says_no_by_a_word_or_waits_or_reads(
    data: bytes, head_max: int, fields_max: int, target_max: int
) -> None:
    reader = HeadReader(NAMES, head_max, fields_max, target_max)
    for read_it in (reader.request, reader.response):
        try:
            head = read_it(data, 0, len(data))
        except MalformedError:
            continue
        if head is None:
            assert len(data) < head_max
        else:
            assert 0 < head.length <= min(head_max, len(data))
            assert b"\r\n".join([*head.lines(), b"", b""]) == data[: head.length].removeprefix(b"\r\n")


@given(STREAMS)
def test_more_bytes_change_no_verdict(data: bytes) -> None:
    """What is refused stays so, and what is read stays the same; so pieces do not matter."""
    for read_it in (READER.request, READER.response):
        verdicts = [verdict(read_it, data, end) for end in range(len(data) + 1)]
        settled = [each for each in verdicts if each is not None]
        assert settled == [settled[-1]] * len(settled) if settled else True
        assert verdicts[len(verdicts) - len(settled) :] == settled


def verdict(read_it: Reading, data: bytes, end: int) -> object:
    try:
        head = read_it(data, 0, end)
    except MalformedError as error:
        return error.reason
    return None if head is None else content(head)


GOOD = b"POST /a/b?c=d HTTP/1.1\r\nHost: site.test\r\nX-A: 1\r\nX-Odd:2\r\n\r\n"


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 3), st.binary(max_size=3))
@settings(max_examples=1000)
def test_what_we_read_others_read_alike(at: int, fewer: int, instead: bytes) -> None:
    """A good request with a few bytes changed.  Others may refuse more, but not read otherwise."""
    data = GOOD[:at] + instead + GOOD[at + fewer :]
    try:
        head = READER.request(data, 0, len(data))
    except MalformedError:
        return
    if head is None or head.length != len(data) or (head.seen & 1 << LENGTH):
        return
    data = data.removeprefix(b"\r\n")
    for read_by_other in (h11_requests, llhttp_requests):
        try:
            requests = read_by_other(data)
        except UnreadableError:
            continue
        [request] = requests
        assert (request.method, request.target) == (head.method, head.target)
        names = [line.partition(b":")[0].lower() for line in head.lines()[1:]]
        assert [name.lower() for name, _ in request.fields] == names


PLAIN = HeadReader(
    FieldNames({b"host": 0, b"content-length": 1, b"connection": 2, b"te": 3}), 4096, 20, 99, 8
)
A_HOST = b"Host: a\r\n"


@pytest.mark.parametrize(
    ("head", "is_plain", "closes", "length"),
    [
        (b"GET / HTTP/1.1\r\n" + A_HOST, True, False, -1),
        (b"GET / HTTP/1.1\r\n" + A_HOST + b"Connection: Keep-Alive\r\n", True, False, -1),
        (b"GET / HTTP/1.1\r\n" + A_HOST + b"Connection: close\r\n", True, True, -1),
        (b"GET / HTTP/1.1\r\n" + A_HOST + b"Connection: close, te\r\n", False, False, -1),
        (b"POST / HTTP/1.1\r\n" + A_HOST + b"Content-Length: 12\r\n", True, False, 12),
        (
            b"POST / HTTP/1.1\r\n" + A_HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n",
            False,
            False,
            1,
        ),
        (b"POST / HTTP/1.1\r\n" + A_HOST + b"Content-Length: +1\r\n", False, False, None),
        (b"POST / HTTP/1.1\r\n" + A_HOST + b"Content-Length:\r\n", False, False, -1),
        (b"GET / HTTP/1.1\r\n" + A_HOST + b"TE: trailers\r\n", False, False, -1),
        (b"GET / HTTP/1.1\r\n" + A_HOST + A_HOST, False, False, -1),
        (b"GET / HTTP/1.1\r\n", False, False, -1),
        (b"GET / HTTP/1.0\r\n" + A_HOST, False, False, -1),
        (b"GET http://a/ HTTP/1.1\r\n" + A_HOST, False, False, -1),
    ],
)
def test_a_plain_request_has_nothing_rare(
    *, head: bytes, is_plain: bool, closes: bool, length: int | None
) -> None:
    found = read(head + b"\r\n", PLAIN)
    assert (found.is_plain, found.closes) == (is_plain, closes)
    if length is not None:
        assert found.content_length == length


@pytest.mark.parametrize(
    ("head", "is_plain"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", True),
        (b"HTTP/1.1 500 \r\nContent-Length: 5\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.1 103 Early Hints\r\n", False),
    ],
)
def test_a_plain_answer_has_a_body_and_stays_on_its_connection(*, head: bytes, is_plain: bool) -> None:
    assert read_answer(head + b"\r\n", PLAIN).is_plain == is_plain


PLAIN_GET = b"GET /a HTTP/1.1\r\nHost: a\r\nTE2: x\r\n\r\n"


def forwarded(head: bytes, host: bytes = b"a", number: int = -1, *, end: int | None = None) -> object:
    found = read(head, PLAIN)
    return found.forward_plain(len(head) if end is None else end, host, 1 << 2, b"Z: 3\r\nN: ", number)


def test_a_plain_get_is_forwarded_with_a_number() -> None:
    kept = b"GET /a HTTP/1.1\r\nHost: a\r\nTE2: x\r\nZ: 3\r\nN: "
    with_connection = PLAIN_GET[:-2] + b"Connection: keep-alive\r\n\r\n"

    assert forwarded(with_connection, number=0x1F) == kept + b"000000000000001f\r\n\r\n"
    assert forwarded(PLAIN_GET, number=2**63 - 1) == kept + b"7fffffffffffffff\r\n\r\n"
    assert forwarded(PLAIN_GET) == kept + b"\r\n"


@pytest.mark.parametrize(
    "other",
    [
        PLAIN_GET.replace(b"GET", b"HEAD"),
        PLAIN_GET.replace(b"TE2: x", b"Content-Length: 1"),
        PLAIN_GET.replace(b"TE2: x", b"TE: x"),
        PLAIN_GET.replace(b"Host: a", b"Host: b"),
        PLAIN_GET.replace(b"Host: a", b"Host: aa"),
        PLAIN_GET.replace(b"Host: a", b"Host:"),
        PLAIN_GET.replace(b"Host: a", b"Host: a\r\nHost: a"),
        PLAIN_GET.replace(b"Host: a", b"Ghost: a"),
        PLAIN_GET.replace(b"1.1", b"1.0"),
    ],
)
def test_no_other_request_is_forwarded_as_plain(other: bytes) -> None:
    assert forwarded(PLAIN_GET) is not None
    assert forwarded(other) is None


def test_a_request_with_more_behind_it_is_not_forwarded_as_plain() -> None:
    assert forwarded(PLAIN_GET, end=len(PLAIN_GET) + 1) is None


ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nTE: x\r\n\r\nab"


def test_a_plain_answer_is_rewritten_where_it_is() -> None:
    room = bytearray(b"-" * 20 + ANSWER + b"rest")
    end = 20 + len(ANSWER)
    begin, status = PLAIN.pass_plain_answer(room, 20, end, 1 << 3, b"Z: 3\r\n")
    # The one field that is rare here is the one that goes: so it is not plain.
    assert (begin, status) == (-1, 0)
    plain = ANSWER.replace(b"TE: x\r\n", b"Connection: keep-alive\r\n")
    room = bytearray(b"-" * 20 + plain + b"rest")
    end = 20 + len(plain)
    begin, status = PLAIN.pass_plain_answer(room, 20, end, 1 << 2, b"Z: 3\r\n")

    assert status == 404
    assert room[begin:] == plain.replace(b"Connection: keep-alive", b"Z: 3") + b"rest"


@pytest.mark.parametrize(
    "other",
    [
        ANSWER[:-1],
        ANSWER[:-10],
        ANSWER + b"c",
        ANSWER.replace(b"TE: x\r\n", b"Connection: close\r\n"),
        ANSWER.replace(b"TE: x\r\n", b"no field\r\n"),
        ANSWER.replace(b"Content-Length", b"Content-Size"),
        ANSWER,
    ],
)
def test_any_other_answer_is_left_as_it_was(other: bytes) -> None:
    room = bytearray(b"-" * 20 + other)

    assert PLAIN.pass_plain_answer(room, 20, len(room), 0, b"") == (-1, 0)
    assert room == b"-" * 20 + other


def test_an_answer_that_grows_more_than_there_is_room_is_left_as_it_was() -> None:
    plain = ANSWER.replace(b"TE: x\r\n", b"")
    room = bytearray(plain)

    assert PLAIN.pass_plain_answer(room, 0, len(room), 0, b"Z: 3\r\n")[0] == -1
    assert room == plain


def test_a_head_is_forwarded_with_less_and_with_more() -> None:
    head = read(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nTE: x\r\nY: 2\r\n\r\n", PLAIN)
    less = b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\nZ: 3\r\n\r\n"
    assert head.forward(1 << 3, b"Z: 3\r\n") == less
    room = bytearray(b"-" * 100)
    begin = head.forward_before(room, 90, 1 << 3, b"Z: 3\r\n")
    assert room == b"-" * begin + less + b"-" * 10
    assert head.forward_before(room, 10, 0, b"") == -1
    for end in (-1, 101):
        with pytest.raises(ValueError, match="is not in a buffer"):
            head.forward_before(room, end, 0, b"")
    with pytest.raises((BufferError, TypeError)):
        head.forward_before(b"-" * 100, 90, 0, b"")
