"""Bodies in chunks: what passes, where it lands in its buffer, and what is refused by which word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.http._wire import ChunkedBody, MalformedError
from tests.http.cases.kinds import chunked_request
from tests.http.readers import UnreadableError, h11_requests, llhttp_requests

END = b"0\r\n\r\n"
BODY = b'5;a="b;\\"c";d\r\nhello\r\n00A;e\r\n, my world\r\n0;f\r\nX-A: 1\r\nX-B:\r\n\r\n'
PASSES = b"5\r\nhello\r\n00A\r\n, my world\r\n0\r\n\r\n"
DATA = b"hello, my world"


def feed_in(pieces: list[bytes], *, decode: bool = False) -> tuple[bytes, ChunkedBody]:
    """What passes of all the pieces."""
    chunks, passed = ChunkedBody(decode=decode), b""
    for piece in pieces:
        buffer = bytearray(piece)
        count = chunks.feed(buffer, 0, len(buffer))
        passed += buffer[:count]
    return passed, chunks


def why_not(body: bytes) -> str:
    """The same word however the body comes."""
    whys = set()
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        with pytest.raises(MalformedError) as caught:
            feed_in(pieces)
        whys.add(caught.value.reason)
    [why] = whys
    return why


# What passes.


def test_chunks_pass_without_their_extensions_and_trailers() -> None:
    passed, chunks = feed_in([BODY])
    assert passed == PASSES
    assert chunks.is_done
    assert (chunks.data_bytes, chunks.used) == (len(DATA), len(BODY))


def test_decoded_only_data_passes() -> None:
    passed, chunks = feed_in([BODY], decode=True)
    assert passed == DATA
    assert chunks.is_done
    assert (chunks.data_bytes, chunks.used) == (len(DATA), len(BODY))


@pytest.mark.parametrize(("decode", "passes"), [(False, PASSES), (True, DATA)])
def test_it_does_not_matter_in_which_pieces_a_body_comes(passes: bytes, *, decode: bool) -> None:
    for first in range(len(BODY) + 1):
        for second in range(first, len(BODY) + 1):
            pieces = [BODY[:first], BODY[first:second], BODY[second:]]
            passed, chunks = feed_in(pieces, decode=decode)
            assert (passed, chunks.is_done, chunks.data_bytes) == (passes, True, len(DATA))


def test_a_body_is_not_done_before_its_last_byte() -> None:
    for end in range(len(BODY)):
        _, chunks = feed_in([BODY[:end]])
        assert not chunks.is_done
        assert chunks.used == end


def test_what_is_behind_the_end_is_left_alone() -> None:
    behind = b"GET / HTTP/1.1\r\n"
    for start in range(len(BODY)):
        chunks = ChunkedBody()
        chunks.feed(bytearray(BODY[:start]), 0, start)
        buffer = bytearray(BODY[start:] + behind)
        chunks.feed(buffer, 0, len(buffer))
        assert chunks.is_done
        assert chunks.used == len(BODY) - start
        assert buffer[chunks.used :] == behind


def test_a_body_that_is_done_takes_nothing_more() -> None:
    _, chunks = feed_in([END])
    buffer = bytearray(b"more")
    assert chunks.feed(buffer, 0, 4) == 0
    assert chunks.used == 0
    assert buffer == b"more"


def test_only_what_is_between_start_and_end_is_read_and_written() -> None:
    """What passes is moved to the front, never behind what was read."""
    for start, behind in ((0, 0), (1, 0), (7, 9)):
        buffer = bytearray(b"<" * start + BODY + b">" * behind)
        count = ChunkedBody().feed(buffer, start, start + len(BODY))
        assert buffer[start : start + count] == PASSES
        assert buffer[:start] == b"<" * start
        assert buffer[start + len(BODY) :] == b">" * behind


def test_nothing_is_moved_that_can_stay() -> None:
    body = b"5\r\nhello\r\n" + END
    assert feed_in([body])[0] == body


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (0, 6), (4, 3), (6, 6), (0, -1)])
def test_what_is_outside_the_buffer_is_never_touched(start: int, end: int) -> None:
    chunks = ChunkedBody()
    with pytest.raises(ValueError, match="is not in a buffer"):
        chunks.feed(bytearray(END), start, end)


def test_only_a_buffer_that_may_be_written_will_do() -> None:
    for buffer in (END, memoryview(END), memoryview(bytearray(10))[::2]):
        with pytest.raises(BufferError):
            ChunkedBody().feed(buffer, 0, 5)
    with pytest.raises(TypeError):
        ChunkedBody().feed(None, 0, 0)  # type: ignore[arg-type]
    assert ChunkedBody().feed(memoryview(bytearray(END)), 0, 5) == 5
    assert ChunkedBody().feed(bytearray(), 0, 0) == 0


# Sizes.


@pytest.mark.parametrize("size", [b"5", b"05", b"0" * 15 + b"5"])
def test_a_size_may_have_zeros_in_front_and_passes_as_it_came(size: bytes) -> None:
    body = size + b"\r\nhello\r\n" + END
    assert feed_in([body])[0] == body


@pytest.mark.parametrize("size", [b"7fffffffffffffff", b"7FFFFFFFFFFFFFFF", b"fffffffffffffff"])
def test_a_size_below_two_to_63_is_one_though_it_never_ends(size: bytes) -> None:
    _, chunks = feed_in([size, b"\r\n", b"x" * 1000])
    assert not chunks.is_done
    assert chunks.data_bytes == 1000


@pytest.mark.parametrize(
    "size",
    [
        *(b"8000000000000000", b"ffffffffffffffff", b"0" * 17, b"0" * 16 + b"5", b"10000000000000000"),
        *(b"0x5", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"5_0", b"g", b"", b";a", b"5g", b"\xb2", b"\n"),
    ],
)
def test_another_size_is_bad(size: bytes) -> None:
    assert why_not(size + b"\r\nhello\r\n" + END) == "bad_chunk_size"


# Faults.


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"5\nhello\r\n", "bad_chunk_size"),
        (b"5\rhello\r\n", "bad_chunk_size"),
        (b"5;a\rhello\r\n", "bad_chunk_size"),
        (b"5;a\nhello", "bad_chunk_extension"),
        (b"5;\x00", "bad_chunk_extension"),
        (b"5;\x7f", "bad_chunk_extension"),
        (b'5;a="\n', "bad_chunk_extension"),
        (b'5;a="\r\n', "bad_chunk_extension"),
        (b'5;a="\\\r\n', "bad_chunk_extension"),
        (b'5;a="\\\x00', "bad_chunk_extension"),
        (b"5\r\nhello5", "bad_chunk_end"),
        (b"5\r\nhello\n", "bad_chunk_end"),
        (b"5\r\nhello\r\r", "bad_chunk_end"),
        (b"5\r\nhello\rX", "bad_chunk_end"),
        (b"0\r\n\n", "bad_trailer"),
        (b"0\r\n\rX", "bad_trailer"),
        (b"0\r\n X: 1", "bad_trailer"),
        (b"0\r\n:", "bad_trailer"),
        (b"0\r\nX\r\n", "bad_trailer"),
        (b"0\r\nX :", "bad_trailer"),
        (b"0\r\nX: 1\n", "bad_trailer"),
        (b"0\r\nX: 1\r1", "bad_trailer"),
        (b"0\r\nX: \x00", "bad_trailer"),
        (b"0\r\nX: 1\r\n 2", "bad_trailer"),
        (b"0\r\nX: 1\r\n\rX", "bad_trailer"),
        (b"0\r\n" + b"X" * 65, "bad_trailer"),
        (b"0\r\nContent-Length:", "forbidden_trailer"),
        (b"0\r\nX: 1\r\ntransfer_encoding:", "forbidden_trailer"),
        (b"0\r\nHOST:", "forbidden_trailer"),
        (b"0\r\nX-Forwarded-For:", "forbidden_trailer"),
    ],
)
def test_a_fault_in_the_framing_has_its_word(body: bytes, reason: str) -> None:
    assert why_not(body) == reason


def test_trailers_may_have_8_kib_in_all() -> None:
    """With the empty line that ends them."""
    value = b"a" * (8192 - len(b"X: \r\n\r\n"))
    assert feed_in([b"0\r\nX: %b\r\n\r\n" % value])[1].is_done
    assert why_not(b"0\r\nX: %ba\r\n\r\n" % value) == "trailer_too_large"
    many = b"X: 1\r\n" * 1365
    assert feed_in([b"0\r\n%b\r\n" % many])[1].is_done
    assert why_not(b"0\r\n%bX: 1\r\n\r\n" % many) == "trailer_too_large"


def test_a_trailers_name_may_have_64_bytes() -> None:
    assert feed_in([b"0\r\n%b: 1\r\n\r\n" % (b"X" * 64)])[1].is_done


def test_an_extension_may_have_256_bytes_and_all_of_them_4_kib() -> None:
    """Semicolons are counted, too."""
    assert feed_in([b"5;%b\r\n" % (b"a" * 255)])[0] == b"5\r\n"
    assert why_not(b"5;%b" % (b"a" * 256)) == "bad_chunk_extension"
    assert why_not(b'5;"%b' % (b"a" * 255)) == "bad_chunk_extension"
    full = b"1;%b\r\nx\r\n" % (b"a" * 255)
    assert feed_in([full * 16, END])[1].is_done
    assert why_not(full * 16 + b"1;") == "bad_chunk_extension"


# Whatever comes.

PIECES = st.sampled_from(
    [
        *(b"5\r\nhello\r\n", b"5", b"a", b"0", b"00", b"\r\n", b"\r", b"\n", b";", b";a=b", b'"', b"\\"),
        *(
            b"0\r\n",
            END,
            b"X: 1\r\n",
            b"X",
            b":",
            b" ",
            b"\t",
            b"\x00",
            b"\x80",
            b"hello",
            b"Host: a\r\n",
        ),
        *(b"7fffffffffffffff", b"5;a\r\nhello\r\n", b"1\r\n"),
    ]
)
STREAMS = st.one_of(st.binary(max_size=100), st.lists(PIECES, max_size=15).map(b"".join))


@given(data=STREAMS, sizes=st.lists(st.integers(1, 30), max_size=20), decode=st.booleans())
@settings(max_examples=500)
def test_pieces_of_any_size_give_the_same_as_the_whole(
    data: bytes, sizes: list[int], *, decode: bool
) -> None:
    pieces = []
    rest = data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces.append(rest)
    assert outcome(pieces, decode=decode) == outcome([data], decode=decode)


def outcome(pieces: list[bytes], *, decode: bool) -> object:
    try:
        passed, chunks = feed_in(pieces, decode=decode)
    except MalformedError as error:
        return error.reason
    return passed, chunks.is_done, chunks.data_bytes


@given(STREAMS, st.integers(0, 5), st.integers(0, 5))
def test_not_a_byte_is_written_outside_and_not_more_than_was_read(
    data: bytes, before: int, behind: int
) -> None:
    buffer = bytearray(b"<" * before + data + b">" * behind)
    chunks = ChunkedBody()
    try:
        count = chunks.feed(buffer, before, before + len(data))
    except MalformedError:
        count = 0
    else:
        assert 0 <= count <= chunks.used <= len(data)
        assert chunks.is_done or chunks.used == len(data)
        assert buffer[before + chunks.used : before + len(data)] == data[chunks.used :]
    assert buffer[:before] == b"<" * before
    assert buffer[before + len(data) :] == b">" * behind


@given(STREAMS, st.integers(0, len(BODY)), st.binary(max_size=2))
@settings(max_examples=1000)
def test_what_passes_others_read_alike(noise: bytes, at: int, instead: bytes) -> None:
    """Both noise and a good body with two bytes changed: as it came, and as it passes."""
    for body in (noise, BODY[:at] + instead + BODY[at + 2 :]):
        try:
            data, chunks = feed_in([body], decode=True)
        except MalformedError:
            continue
        if not chunks.is_done:
            continue
        [passed] = h11_requests(chunked_request(feed_in([body])[0]))
        assert passed.body == data
        [passed] = llhttp_requests(chunked_request(feed_in([body])[0]))
        assert passed.body == data
        for read_by_other in (h11_requests, llhttp_requests):
            try:
                [request] = read_by_other(chunked_request(body[: chunks.used]))
            except UnreadableError:
                continue
            assert request.body == data
