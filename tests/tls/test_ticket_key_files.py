"""Ticket keys in nginx's and HAProxy's files: which issues, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from termproxy.tls.ticket_key_files import (
    FILE_KEY_SIZE,
    FILE_MAX,
    KEYS_MAX,
    FileKeys,
    TicketKeyError,
    parse,
    read_ticket_keys,
)


def key(number: int) -> bytes:
    """Like random ones, but the same each time; none of it is text."""
    digest = b"".join(hashlib.sha256(bytes([number, part])).digest() for part in range(3))
    return b"\xff" + digest[: FILE_KEY_SIZE - 1]


def lines(*keys: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(base64.b64encode(each) + end for each in keys)


# nginx's form.


def test_one_file_of_80_bytes_is_the_key_that_issues() -> None:
    assert parse([key(1)]) == FileKeys((key(1),), 0)


def test_of_several_files_the_first_issues_and_the_others_redeem() -> None:
    keys = parse([key(3), key(2), key(1)])
    assert keys.secrets == (key(1), key(2), key(3)), "oldest first"
    assert keys.secrets[keys.issuing] == key(3)


@pytest.mark.parametrize("size", [1, 16, 48, 79, 81, 160])
def test_a_file_of_another_size_is_refused(size: int) -> None:
    content = (b"\xff" + key(1) * 3)[:size]
    with pytest.raises(TicketKeyError, match=f"^{size} bytes") as caught:
        parse([content])
    assert "openssl rand 80" in caught.value.cure


def test_a_file_of_another_size_among_good_ones_is_refused() -> None:
    with pytest.raises(TicketKeyError, match="79 bytes"):
        parse([key(1), key(2)[:79]])


def test_several_files_are_never_taken_for_text() -> None:
    with pytest.raises(TicketKeyError, match="bytes"):
        parse([lines(key(1), key(2), key(3)), key(4)])


def test_eighty_bytes_that_look_like_text_are_a_key_all_the_same() -> None:
    text = bytes(range(33, 113))
    assert parse([text]).secrets == (text,)


# HAProxy's form.


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_the_last_but_one_line_issues_and_the_last_is_next(end: bytes) -> None:
    keys = parse([lines(*map(key, range(4)), end=end)])
    assert keys == FileKeys(tuple(map(key, range(4))), 2)


def test_the_last_line_needs_no_end() -> None:
    assert parse([lines(key(1), key(2), key(3)).strip()]).issuing == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_lines_are_refused(count: int) -> None:
    with pytest.raises(TicketKeyError, match=rf"^{count} keys"):
        parse([lines(*map(key, range(count)))])


@pytest.mark.parametrize(
    "line", [b"AAAA", b"not base64!", base64.b64encode(bytes(48)), base64.b64encode(bytes(81))]
)
def test_a_line_that_is_no_key_is_named(line: bytes) -> None:
    with pytest.raises(TicketKeyError, match=r"^line 3 is not 80 bytes in base64"):
        parse([lines(key(1), key(2)) + line + b"\n" + lines(key(3))])


# In both.


def test_a_key_that_is_there_twice_is_refused() -> None:
    for contents in ([key(1), key(1)], [lines(key(1), key(2), key(1))]):
        with pytest.raises(TicketKeyError, match="twice"):
            parse(contents)


@pytest.mark.parametrize("secret", [bytes(80), b"\xff" * 80, b"\xff\0" * 40, b"password" * 10])
def test_a_key_that_is_not_random_is_refused(secret: bytes) -> None:
    with pytest.raises(TicketKeyError, match="not random"):
        parse([secret])


def test_more_keys_than_there_is_room_for_are_refused() -> None:
    assert len(parse([key(n) for n in range(KEYS_MAX)]).secrets) == KEYS_MAX
    with pytest.raises(TicketKeyError, match=f"{KEYS_MAX + 1} keys"):
        parse([key(n) for n in range(KEYS_MAX + 1)])


def test_no_error_and_no_repr_tells_a_key() -> None:
    assert repr(key(1))[2:-1] not in repr(parse([key(1)]))
    bad = base64.b64encode(key(1)[:79])
    with pytest.raises(TicketKeyError) as caught:
        parse([bad + b"\n"])
    assert bad.decode() not in f"{caught.value} {caught.value.cure}"


# On disk.


def test_the_files_are_read_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("now.key", "old.key")]
    for number, file in enumerate(files):
        file.write_bytes(key(number))
    assert read_ticket_keys(files) == FileKeys((key(1), key(0)), 1)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TicketKeyError, match=r"cannot read .*/absent: No such file") as caught:
        read_ticket_keys([tmp_path / "absent"])
    assert caught.value.cure


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(TicketKeyError, match="is no file"):
            read_ticket_keys([place])


def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "short.key"
    file.write_bytes(key(1)[:10])
    with pytest.raises(TicketKeyError, match=r"short\.key: 10 bytes"):
        read_ticket_keys([file])


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(2 * FILE_MAX))
    with pytest.raises(TicketKeyError, match=f"{FILE_MAX + 1} bytes|keys|base64"):
        read_ticket_keys([file])
