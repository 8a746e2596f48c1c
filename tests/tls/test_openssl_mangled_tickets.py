"""Whatever a client shows for a ticket: a full handshake, never an error, and never a session."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termproxy.outcome import Miss
from termproxy.tls import tickets
from termproxy.tls._openssl import Context
from tests.support.raw_client import TLS_1_2, TLS_1_3, meet
from tests.support.sessions import (
    CIPHER,
    GROUP,
    IV,
    MAC,
    NAME,
    PEER,
    SESSION_ID,
    SSL_VERSION,
    TICKET,
    TIME,
    TIMEOUT,
    GroupKey,
    fields,
    ring_memory,
    with_fields,
)
from tests.tls.test_openssl_tickets import GROUP_ID, LIFETIME, SEED, context, now

VERSIONS = [TLS_1_2, TLS_1_3]
IDS = ["TLS 1.2", "TLS 1.3"]

EACH = 120  # of each kind and version, chosen at random but the same each time

DAY = 86400  # seconds; made when tests are collected, the first key still issues when these run
RING = tickets.new_ring(SEED, now() - 10, LIFETIME, DAY)
KEY = GroupKey.of(RING.keys[0].id, RING.keys[0].secret, GROUP_ID)

Mangle = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def server() -> Context:
    return context(ring_memory(RING))


@pytest.fixture(scope="module")
def kept(server: Context) -> dict[int, bytes]:
    """A good session of each version; every test begins with it."""
    return {version: meet(server, version=version).session for version in VERSIONS}


def bits_flipped(ticket: bytes, chance: random.Random) -> bytes:
    mangled = bytearray(ticket)
    for _ in range(chance.choice([1, 1, 1, 2, 50])):
        mangled[chance.randrange(len(mangled))] ^= 1 << chance.randrange(8)
    return bytes(mangled)


def cut_off(ticket: bytes, chance: random.Random) -> bytes:
    return ticket[: chance.randrange(1, len(ticket))]


def beginning_lost(ticket: bytes, chance: random.Random) -> bytes:
    return ticket[chance.randrange(1, len(ticket)) :]


def something_after_it(ticket: bytes, chance: random.Random) -> bytes:
    return ticket + os.urandom(chance.choice([1, 16, 32, 1000, 60_000 - len(ticket)]))


def piece_missing(ticket: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(1, len(ticket) - 32)
    return ticket[:at] + ticket[at + chance.choice([1, 16, 32]) :]


def rubbish(ticket: bytes, chance: random.Random) -> bytes:
    return os.urandom(chance.randrange(1, 2000))


def rubbish_behind_our_name(ticket: bytes, chance: random.Random) -> bytes:
    """A known key, and nothing of what it made."""
    return ticket[:NAME] + os.urandom(chance.randrange(1, 500))


def another_name(ticket: bytes, chance: random.Random) -> bytes:
    at = chance.choice([0, 8])
    return ticket[:at] + os.urandom(8) + ticket[at + 8 :]


def two_spliced(ticket: bytes, chance: random.Random) -> bytes:
    other = KEY.close(KEY.open(ticket))
    at = chance.randrange(NAME + IV, len(ticket) - MAC + 1)
    return ticket[:at] + other[at:]


def blocks_swapped(ticket: bytes, chance: random.Random) -> bytes:
    blocks = [ticket[at : at + 16] for at in range(NAME + IV, len(ticket) - MAC, 16)]
    before = list(blocks)
    while blocks == before:
        chance.shuffle(blocks)
    return ticket[: NAME + IV] + b"".join(blocks) + ticket[-MAC:]


ALL_KINDS = [
    bits_flipped,
    cut_off,
    beginning_lost,
    something_after_it,
    piece_missing,
    rubbish,
    rubbish_behind_our_name,
    another_name,
    two_spliced,
    blocks_swapped,
]


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@pytest.mark.parametrize("mangle", ALL_KINDS)
def test_a_mangled_ticket_is_a_full_handshake(
    server: Context, kept: dict[int, bytes], mangle: Mangle, version: int
) -> None:
    chance = random.Random(f"{mangle.__name__} {version}")
    good = fields(kept[version])[TICKET]
    for _ in range(EACH):
        bad = mangle(good, chance)
        met = meet(server, with_fields(kept[version], {TICKET: bad}), version=version)
        assert not met.resumed
        assert met.miss in {Miss.UNKNOWN_KEY, Miss.OTHER_GROUP, Miss.DAMAGED, Miss.NONE_OFFERED}
        # In TLS 1.2 what is too short to have a name is not looked at; else there is a reason.
        assert met.miss != Miss.NONE_OFFERED or len(bad) < NAME + IV + MAC


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
def test_every_single_byte_counts(server: Context, kept: dict[int, bytes], version: int) -> None:
    ticket = fields(kept[version])[TICKET]
    for at in range(len(ticket)):
        bad = ticket[:at] + bytes([ticket[at] ^ 0x10]) + ticket[at + 1 :]
        met = meet(server, with_fields(kept[version], {TICKET: bad}), version=version)
        assert not met.resumed
        expected = Miss.UNKNOWN_KEY if at < 8 else Miss.OTHER_GROUP if at < NAME else Miss.DAMAGED
        assert met.miss == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from(VERSIONS), ticket=st.binary(min_size=1, max_size=400))
def test_bytes_that_were_never_a_ticket_are_a_full_handshake(
    server: Context, kept: dict[int, bytes], version: int, ticket: bytes
) -> None:
    met = meet(server, with_fields(kept[version], {TICKET: ticket}), version=version)
    assert not met.resumed


# Sealed with the right key: what an older version of OpenSSL, or of us, might have put in.


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
def test_what_opens_and_is_no_session_is_a_full_handshake(
    server: Context, kept: dict[int, bytes], version: int
) -> None:
    session = KEY.open(fields(kept[version])[TICKET])
    rubbish = [b"", b"\x30\x00", session + b"\0", session[1:], b"\x30\x82\xff\xff" + session]
    rubbish += [session[:length] for length in range(1, len(session))]
    rubbish += [b"\x30" + os.urandom(100) for _ in range(100)]
    for content in rubbish:
        shown = with_fields(kept[version], {TICKET: KEY.close(content)})
        met = meet(server, shown, version=version)
        assert (met.resumed, met.miss) == (False, Miss.DAMAGED)


UNFIT = [
    ({TIME: 1}, Miss.EXPIRED),
    ({TIME: -(2**40)}, Miss.EXPIRED),
    ({TIME: 2**40}, Miss.EXPIRED),
    ({TIME: 2**62}, Miss.EXPIRED),
    ({TIMEOUT: -1}, Miss.EXPIRED),
    ({TIMEOUT: -(2**62), TIME: -(2**62)}, Miss.EXPIRED),
    ({GROUP: b""}, Miss.OTHER_GROUP),
    ({GROUP: b"other"}, Miss.OTHER_GROUP),
    ({GROUP: GROUP_ID[:-1] + b"h"}, Miss.OTHER_GROUP),
    ({SSL_VERSION: 0x0301}, Miss.OTHER_VERSION),
    ({SSL_VERSION: 0x0302}, Miss.OTHER_VERSION),
    ({CIPHER: b"\x00\x05"}, None),
    ({CIPHER: b"\xff\xff"}, None),
    ({CIPHER: b""}, None),
    ({SESSION_ID: b"x" * 33}, None),
    ({PEER: b"\x30\x00"}, None),
    ({PEER: b"no certificate"}, None),
]


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@pytest.mark.parametrize(("changes", "miss"), UNFIT)
def test_a_session_that_does_not_fit_is_a_full_handshake(
    server: Context,
    kept: dict[int, bytes],
    version: int,
    changes: dict[int, bytes | int],
    miss: Miss | None,
) -> None:
    met = meet(server, KEY.forge(kept[version], changes), version=version)
    assert not met.resumed
    assert miss in {None, met.miss}


def test_a_ticket_of_the_one_version_shown_in_the_other_is_a_full_handshake(
    server: Context, kept: dict[int, bytes]
) -> None:
    for version, other in (VERSIONS, VERSIONS[::-1]):
        crossed = with_fields(kept[other], {TICKET: fields(kept[version])[TICKET]})
        met = meet(server, crossed, version=other)
        assert (met.resumed, met.miss) == (False, Miss.OTHER_VERSION)


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
def test_after_all_that_a_good_ticket_is_still_resumed(
    server: Context, kept: dict[int, bytes], version: int
) -> None:
    assert meet(server, kept[version], version=version).resumed
