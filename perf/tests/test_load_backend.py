"""What the backend answers, and the content that both sides know."""

import hashlib

import pytest

from loading.backend import answer
from loading.content import LARGEST, digest, piece
from tests.support.http_messages import MessageReader, Response


def read(head_and_body: tuple[bytes, bytes]) -> Response:
    pieces = iter([b"\r\n".join(head_and_body), b""])
    response = MessageReader(lambda: next(pieces)).response()
    assert response is not None
    return response


@pytest.mark.parametrize("how", ["bytes", "chunks"])
def test_a_piece_of_the_content_comes_whole_in_either_framing(how: str) -> None:
    response = read(answer("GET", f"/{how}/12345", "at=16384", b""))
    assert (response.status, response.body) == (200, piece(16384, 12345))


def test_an_upload_is_answered_with_its_digest_and_length() -> None:
    response = read(answer("PUT", "/digest", "", b"hello"))
    assert response.body.decode() == f"{hashlib.sha256(b'hello').hexdigest()} 5"


def test_anything_else_is_not_found() -> None:
    assert read(answer("GET", "/elsewhere", "", b"")).status == 404


def test_pieces_from_different_places_differ() -> None:
    assert digest(0, 64) != digest(16384, 64)


@pytest.mark.parametrize(("at", "size"), [(-1, 1), (0, LARGEST + 1), (LARGEST + 1, 0)])
def test_there_is_no_piece_beyond_the_content(at: int, size: int) -> None:
    with pytest.raises(ValueError, match="no piece"):
        piece(at, size)
