"""What the master and a worker say to each other, as bytes in any pieces."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.messages import REPORT_MAX, MessageReader, message
from termproxy.observability.failure_book import FailureBook, Kind
from termproxy.worker.main import REPORT_KINDS

BODIES = [{"n": number, "text": "\u00fc" * 25} for number in range(5)]


def read(*pieces: bytes, size_max: int = 1000) -> list[dict[str, Any]]:
    reader = MessageReader(size_max)
    return [each for piece in pieces for each in reader.feed(piece)]


@given(cuts=st.lists(st.integers(0, 400), max_size=10).map(sorted))
def test_messages_may_come_in_any_pieces(cuts: list[int]) -> None:
    said = b"".join(map(message, BODIES))
    places = [0, *cuts, len(said)]
    assert read(*(said[start:end] for start, end in itertools.pairwise(places))) == BODIES


def test_messages_may_come_byte_by_byte() -> None:
    said = b"".join(map(message, BODIES))
    assert read(*(bytes([byte]) for byte in said)) == BODIES


@pytest.mark.parametrize("length", [1001, 0xFFFFFFFF])
def test_a_message_that_is_too_long_is_refused_before_it_has_come(length: int) -> None:
    with pytest.raises(ValueError, match=f"a message of {length} bytes"):
        read(length.to_bytes(4))


def test_a_message_may_be_as_long_as_is_allowed() -> None:
    said = message({"text": "x" * 100})
    assert read(said, size_max=len(said) - 4)
    with pytest.raises(ValueError, match="a message of"):
        read(said, size_max=len(said) - 5)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected|unexpected|invalid"):
        read((4).to_bytes(4) + b"nope")


@given(noise=st.binary(max_size=60))
def test_noise_is_a_message_too_few_bytes_or_a_value_error(noise: bytes) -> None:
    try:
        read(noise)
    except ValueError:
        pass


def test_nothing_is_kept_of_what_was_read() -> None:
    reader = MessageReader(1000)
    assert list(reader.feed(message(BODIES[0]) + message(BODIES[1])[:3])) == BODIES[:1]
    assert len(reader._received) == 3


def test_the_longest_report_is_not_too_long() -> None:
    """A client chooses its protocols and its name, and each byte may take five in JSON."""
    book = FailureBook(REPORT_KINDS)
    for number in range(REPORT_KINDS):
        byte = r"\xff"
        detail = f"{number} the client speaks {byte * 512}; spoken here: {'x' * 300}"
        book.add(
            Kind(
                frontend="f" * 64,
                reason="no_shared_signature_algorithm",
                detail=detail,
                cure="c" * 200,
                count=1,
                last="2026-11-23T08:00:00+00:00",
                client="2001:db8::1",
                name=byte * 255,
            )
        )
    (report,) = read(message({"failures": book.take(REPORT_KINDS)}), size_max=REPORT_MAX)

    assert len(report["failures"]) == REPORT_KINDS
