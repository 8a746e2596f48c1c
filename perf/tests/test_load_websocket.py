"""Frames and handshakes of RFC 6455, with its own examples."""

from collections.abc import Iterable

import pytest

from loading.websocket import PAYLOAD_MAX, Decoder, Frame, FrameError, Opcode, accept_for, encode

MASK = bytes.fromhex("37fa213d")
MASKED_HELLO = bytes.fromhex("818537fa213d7f9f4d5158")


def decoded(pieces: Iterable[bytes], *, masked: bool) -> list[Frame]:
    decoder = Decoder(masked=masked)
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def test_the_answer_to_a_key_is_that_of_the_rfc() -> None:
    """RFC 6455 §1.3."""
    assert accept_for(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_rfc_s_example_is_written_as_it_stands_there() -> None:
    """RFC 6455 §5.7."""
    assert encode(Opcode.TEXT, b"Hello", MASK) == MASKED_HELLO
    assert encode(Opcode.TEXT, b"Hello") == b"\x81\x05Hello"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, PAYLOAD_MAX])
@pytest.mark.parametrize("mask", [b"", MASK])
def test_every_notation_of_a_length_is_read_back(size: int, mask: bytes) -> None:
    payload = bytes(each % 251 for each in range(size))
    [frame] = decoded([encode(Opcode.BINARY, payload, mask)], masked=bool(mask))
    assert frame == Frame(Opcode.BINARY, payload)


def test_frames_come_whole_however_they_are_cut() -> None:
    stream = encode(Opcode.PING, b"", MASK) + encode(Opcode.BINARY, b"x" * 200, MASK) + MASKED_HELLO
    expected = [(Opcode.PING, b""), (Opcode.BINARY, b"x" * 200), (Opcode.TEXT, b"Hello")]
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        frames = decoded(pieces, masked=True)
        assert [(frame.opcode, frame.payload) for frame in frames] == expected


@pytest.mark.parametrize(
    ("frame", "masked", "why"),
    [
        (MASKED_HELLO, False, "masked"),
        (b"\x81\x05Hello", True, "not masked"),
        (b"\x01\x03Hel", False, "fragment"),
        (b"\xc1\x05Hello", False, "extension"),
        (b"\x83\x00", False, "3 is not"),
        (b"\x82\x7f" + (PAYLOAD_MAX + 1).to_bytes(8), False, "bytes"),
    ],
)
def test_what_this_side_may_not_get_is_refused(frame: bytes, masked: bool, why: str) -> None:  # noqa: FBT001
    with pytest.raises(FrameError, match=why):
        decoded([frame], masked=masked)
