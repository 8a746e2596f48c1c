"""Does anything that passes through mode "http" read otherwise behind it?  Run by scripts/fuzz.

Bytes are taken for requests, or for answers.  Whatever they are, they are refused by a word or passed
on, the same in one piece as in many; and what is passed on, h11 and llhttp read as we do: as many
messages, with the same method, target and body, and the fields that are ours to fill filled by us alone.

With atheris installed (pip install atheris) it looks for bytes that take new ways through the Python
code; without, messages from the tests' vectors are cut, crossed and changed at random.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from termproxy import clock
from termproxy.http._wire import ChunkedBody, MalformedError
from termproxy.http.head import BadResponseError, RefusedRequestError, Request, read_request
from tests.http.cases.kinds import request
from tests.http.passing import UnfinishedError, head_of, pass_answer, pass_requests
from tests.http.readers import (
    h11_requests,
    h11_response,
    llhttp_requests,
    llhttp_response,
)
from tests.http.vectors import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
)

SECONDS = 60
SEED_MAX = 4000  # bytes: longer vectors are about limits, which the tests look at
REPORT = 20_000  # inputs

ASKED = [read_request(head_of(request(method=method))) for method in (b"GET", b"HEAD")]
OURS = {
    b"x-forwarded-for": b"192.0.2.7",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-port": b"8443",
}


KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"}  # to llhttp, too

# What must hold.


def check(data: bytes) -> None:
    """The first byte says what the others are."""
    if not data:
        return
    if data[0] & 1:
        check_requests(data[1:])
    else:
        check_answer(data[1:], ASKED[data[0] >> 1 & 1], ends=bool(data[0] & 4))
    check_chunks(data.partition(b"\r\n\r\n")[2], data[0])


def check_requests(data: bytes) -> None:
    """What passes before the first fault is looked at, too."""
    ends = [len(data), *(at + 4 for at in range(len(data)) if data.startswith(b"\r\n\r\n", at))]
    for end in ends[:5]:
        with suppress(RefusedRequestError, UnfinishedError):
            passed = pass_requests(data[:end])
            for asked, forwarded in zip(passed.requests, passed.forwarded, strict=True):
                check_forwarded(asked, forwarded)


def check_forwarded(asked: Request, data: bytes) -> None:
    [first] = h11_requests(data)
    assert (first.method, first.target) == (asked.method, asked.target), data
    names = [name for name, _ in first.fields]
    assert names.count(b"host") == 1, data
    for name, value in OURS.items():
        assert [told for each, told in first.fields if each == name] == [value], data
    for name in (b"forwarded", b"x-request-id"):
        assert names.count(name) == 1, data
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, data
    if asked.method in KNOWN_METHODS:
        [second] = llhttp_requests(data)
        assert (second.method, second.target) == (first.method, first.target), data
        assert second.body == first.body, data


def check_answer(data: bytes, asked: Request, *, ends: bool) -> None:
    try:
        passed = pass_answer(data, asked, ends=ends)
    except (BadResponseError, UnfinishedError):
        return
    told = b"".join(passed.interim) + passed.data
    first = h11_response(told, asked.method, ends=ends)
    assert first.status == passed.response.status, told
    assert first.rest == b"", told
    assert len(first.interim) == len(passed.interim), told
    if asked.method != b"HEAD":
        second = llhttp_response(told, ends=ends)
        assert (second.status, second.body) == (first.status, first.body), told


def check_chunks(data: bytes, size: int) -> None:
    """In pieces it is the same as in one, and nothing is written outside."""
    whole = fed([data])
    assert fed([data[at : at + size + 1] for at in range(0, len(data), size + 1)]) == whole, data


def fed(pieces: list[bytes]) -> object:
    chunks, passed = ChunkedBody(), b""
    for piece in pieces:
        buffer = bytearray(b"<<" + piece + b">>")
        try:
            passes = chunks.feed(buffer, 2, 2 + len(piece))
        except MalformedError as error:
            return error.reason
        assert buffer[:2] == b"<<"
        assert buffer[-2:] == b">>"
        passed += buffer[2 : 2 + passes]
        if chunks.is_done:
            break
    return passed, chunks.is_done, chunks.data_bytes


# What is tried.


def seeds() -> list[bytes]:
    """Good ones are there several times: what is bad twice is refused for one of the two."""
    requests = [vector.data for vector in (*ACCEPTED_REQUESTS * 8, *REFUSED_REQUESTS)]
    answers = [vector.data for vector in (*ACCEPTED_RESPONSES * 4, *REFUSED_RESPONSES)]
    kinds = [(b"\x01", requests), (b"\x00", answers), (b"\x02", answers), (b"\x04", answers)]
    return [kind + data for kind, group in kinds for data in group if len(data) <= SEED_MAX]


ODDITIES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b":", b";", b",", b"0", b"_"),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: ",
        b"close",
        b"Host: a",
    ),
    *(
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"Upgrade: a\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"GET /x HTTP/1.1\r\n",
    ),
    *(b"X-Forwarded-For: evil\r\n", b"https://site.test/", b"\xff", b"\\", b"%0a", b"-", b"\x7f", b"{"),
    *(b"Connection: connection, host\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.1 103 X\r\n\r\n"),
]


def mutations(rng: random.Random) -> Iterator[bytes]:
    corpus = seeds()
    while True:
        yield mutated(rng, rng.choice(corpus), corpus)


def mutated(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    kind, data = data[:1], data[1:]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = _change(rng, data, rng.choice(corpus)[1:])
    return kind + data


def _change(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    until = min(len(data), at + rng.choice((0, 1, 1, 2, 4, 20)))
    match rng.randrange(6):
        case 0:
            return data[:at] + rng.choice(ODDITIES) + data[at:]
        case 1:
            return data[:at] + rng.choice(ODDITIES) + data[until:]
        case 2:
            return data[:at] + data[until:]
        case 3:
            return data[:at] + bytes((rng.randrange(256),)) + data[until:]
        case 4:  # one with lines of another
            lines, others = data.split(b"\r\n"), other.split(b"\r\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(others))
            return b"\r\n".join(lines)
        case _:
            return data[:at] + data[at:until] * 2 + data[until:]


def fuzz_at_random(seconds: float, seed: int) -> None:
    print(f"at random, with seed {seed}, for {seconds:g} s")
    until = clock.monotonic() + seconds
    for number, data in zip(count(1), mutations(random.Random(seed)), strict=False):
        try:
            check(data)
        except BaseException:
            print(f"input {number}: {data!r}")
            raise
        if number % REPORT == 0:
            print(f"{number} inputs")
            if clock.monotonic() > until:
                break


def main() -> None:
    arguments = sys.argv[1:]
    seconds = int(arguments[0]) if arguments else SECONDS
    for data in seeds():
        check(data)
    try:
        import atheris  # noqa: PLC0415 - if there is one
    except ImportError:
        seed = int(arguments[1]) if arguments[1:] else int.from_bytes(os.urandom(4))
        fuzz_at_random(seconds, seed)
        return
    corpus = seeds()

    def mutator(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return mutated(rng, data if len(data) > 1 else rng.choice(corpus), corpus)[:size]

    atheris.instrument_all()
    options = [f"-max_total_time={seconds}", f"-max_len={SEED_MAX}", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options], check, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
