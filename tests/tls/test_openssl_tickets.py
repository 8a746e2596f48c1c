"""Tickets, as the binding makes and opens them with the ring in shared memory."""

from __future__ import annotations

import dataclasses
import gc
import mmap
import multiprocessing
import os
import ssl
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from termproxy import clock
from termproxy.outcome import Miss
from termproxy.shm import shared_memory
from termproxy.tls import tickets
from termproxy.tls._openssl import RING_SIZE, RING_TALLY, Context, TicketKeys, TicketRing
from termproxy.tls.tickets import Ring
from tests.support import sessions
from tests.support.pki import Authority, self_signed_client
from tests.support.raw_client import TLS_1_2, TLS_1_3, meet
from tests.support.sessions import (
    CIPHER,
    GROUP,
    LIFETIME_HINT,
    MAX_EARLY_DATA,
    NAME,
    PEER,
    SSL_VERSION,
    TICKET,
    TIME,
    TIMEOUT,
    GroupKey,
    fields,
    number,
    ring_memory,
    write,
)
from tests.support.tls import Pair, client_context, server_context
from tests.support.waiting import wait_until

VERSIONS = [TLS_1_2, TLS_1_3]
OTHER_VERSION = {TLS_1_2: TLS_1_3, TLS_1_3: TLS_1_2}
LIFETIME, ROTATE = 3600, 600
GROUP_ID, OTHER_GROUP_ID = b"g" * 32, b"h" * 32
SEED = bytes(range(32))

CLOCK_REALTIME_COARSE = 5  # clock_gettime(2)

in_both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS 1.2", "TLS 1.3"])


def now() -> int:
    """As C's time() tells it, which may be behind by a tick of the kernel's."""
    return int(time.clock_gettime(CLOCK_REALTIME_COARSE))


def context(memory: TicketRing, group: bytes = GROUP_ID, **policy: Any) -> Context:
    policy = {"lifetime": LIFETIME} | policy
    return server_context(ticket_keys=TicketKeys(memory, group), session_id_context=group, **policy)


def group_key(ring: Ring, at: int = 0, group: bytes = GROUP_ID) -> GroupKey:
    return GroupKey.of(ring.keys[at].id, ring.keys[at].secret, group)


def ticket_of(session: bytes) -> bytes:
    return fields(session)[TICKET]


@pytest.fixture
def ring() -> Ring:
    return tickets.new_ring(SEED, now() - 10, LIFETIME, ROTATE)


@pytest.fixture
def memory(ring: Ring) -> TicketRing:
    return ring_memory(ring)


@pytest.fixture
def server(memory: TicketRing) -> Context:
    return context(memory)


# What a ticket is.


@in_both_versions
def test_a_ticket_is_sealed_as_it_is_written_down(ring: Ring, server: Context, version: int) -> None:
    """AES-256-CBC and HMAC-SHA-256, under keys that anybody with the ring can derive (RFC 5869)."""
    begun = now()
    session = group_key(ring).open(ticket_of(meet(server, version=version).session))
    assert number(session, SSL_VERSION) == version
    assert number(session, TIMEOUT) == LIFETIME
    assert begun <= number(session, TIME) <= now()
    assert fields(session)[GROUP] == GROUP_ID


@in_both_versions
def test_the_lifetime_that_is_told_is_the_one_that_holds(server: Context, version: int) -> None:
    assert number(meet(server, version=version).session, LIFETIME_HINT) == LIFETIME


def test_no_early_data_is_offered(ring: Ring, server: Context) -> None:
    session = meet(server, version=TLS_1_3).session
    assert number(session, MAX_EARLY_DATA) == 0
    assert number(group_key(ring).open(ticket_of(session)), MAX_EARLY_DATA) == 0


@in_both_versions
def test_no_two_tickets_are_alike(server: Context, version: int) -> None:
    made = [ticket_of(meet(server, version=version).session) for _ in range(20)]
    ivs = {ticket[NAME : NAME + sessions.IV] for ticket in made}
    assert len(ivs) == len(made)
    assert len({ticket[:NAME] for ticket in made}) == 1


@in_both_versions
def test_a_ticket_is_resumed(server: Context, version: int) -> None:
    first = meet(server, version=version)
    assert (first.resumed, first.miss) == (False, Miss.NONE_OFFERED)
    second = meet(server, first.session, version=version)
    assert second.resumed
    assert not second.from_cache
    assert 0 <= second.ticket_age <= 2


@in_both_versions
def test_whoever_has_the_same_ring_resumes_it(ring: Ring, server: Context, version: int) -> None:
    """Another worker, another machine, or what comes after a restart."""
    session = meet(server, version=version).session
    assert meet(context(ring_memory(ring)), session, version=version).resumed


@in_both_versions
def test_the_age_is_told(ring: Ring, server: Context, version: int) -> None:
    session = meet(server, version=version).session
    forged = group_key(ring).forge(session, {TIME: now() - 1000})
    assert 1000 <= meet(server, forged, version=version).ticket_age <= 1002


@pytest.mark.parametrize("tickets_sent", [1, 2, 8])
def test_as_many_tickets_are_sent_as_was_set(memory: TicketRing, tickets_sent: int) -> None:
    """And after a resumption one, in TLS 1.3; TLS 1.2 has but one."""
    tally = memoryview(bytearray(RING_TALLY * 8)).cast("q")
    memory.count_into(tally)
    server = context(memory, tickets=tickets_sent)
    session = meet(server, version=TLS_1_3).session
    assert (tally[2], tally[3]) == (1, tickets_sent)
    assert meet(server, session, version=TLS_1_3).resumed
    assert tally[3] == tickets_sent + 1
    session = meet(server, version=TLS_1_2).session
    assert tally[3] == tickets_sent + 2
    assert meet(server, session, version=TLS_1_2).resumed
    assert tally[3] == tickets_sent + 2, "with the issuing key there is nothing to renew"


@in_both_versions
def test_without_keys_no_tickets_are_made_and_clients_are_served(version: int) -> None:
    """The master writes them before it forks; but a client should not pay for a mistake of ours."""
    met = meet(context(ring_memory()), version=version)
    assert not met.resumed
    assert TICKET not in fields(met.session)


# Keys that change.


def test_a_ticket_of_an_old_key_is_renewed_in_tls_1_2(ring: Ring, memory: TicketRing) -> None:
    server = context(memory)
    first = meet(server, version=TLS_1_2)
    turned = tickets.rotate(ring, now())
    write(memory, turned)
    second = meet(server, first.session, version=TLS_1_2)
    assert second.resumed
    assert ticket_of(second.session) != ticket_of(first.session)
    renewed = group_key(turned, -2).open(ticket_of(second.session))
    original = group_key(ring).open(ticket_of(first.session))
    assert number(renewed, TIME) == number(original, TIME), "a session does not get younger"
    third = meet(server, second.session, version=TLS_1_2)
    assert third.resumed
    assert ticket_of(third.session) == ticket_of(second.session)


def test_every_resumption_in_tls_1_3_gives_a_new_ticket(ring: Ring, memory: TicketRing) -> None:
    """RFC 8446 §C.4: a ticket that is used twice tells an eavesdropper that it is the same client."""
    server = context(memory)
    session, seen = meet(server, version=TLS_1_3).session, set()
    for _ in range(5):
        seen.add(ticket_of(session))
        met = meet(server, session, version=TLS_1_3)
        assert met.resumed
        session = met.session
    assert ticket_of(session) not in seen
    assert len(seen) == 5


@in_both_versions
def test_what_is_written_into_the_ring_holds_for_the_next_client(
    ring: Ring, memory: TicketRing, version: int
) -> None:
    server = context(memory)
    session = meet(server, version=version).session
    revoked = tickets.revoke(ring, bytes(32), now())
    write(memory, revoked)
    met = meet(server, session, version=version)
    assert (met.resumed, met.miss) == (False, Miss.RETIRED_KEY)
    group_key(revoked, -2).open(ticket_of(met.session))


@in_both_versions
def test_the_next_key_issues_at_its_second_without_a_word_from_the_master(
    version: int, ring: Ring
) -> None:
    memory = ring_memory()
    server = context(memory)
    change = now() + 2
    first, second = ring.keys
    write(
        memory,
        dataclasses.replace(
            ring,
            keys=(
                dataclasses.replace(first, issue_until=change),
                dataclasses.replace(second, issue_from=change),
            ),
        ),
    )
    while (before := now()) < change:
        name = ticket_of(meet(server, version=version).session)[:NAME]
        if now() == before:
            assert name == group_key(ring, 0).name
    assert ticket_of(meet(server, version=version).session)[:NAME] == group_key(ring, 1).name


@in_both_versions
@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_a_key_retires_at_its_very_second(ring: Ring, version: int, seconds: int) -> None:
    session = meet(context(ring_memory(ring)), version=version).session
    first, second = ring.keys
    # Aimed at the middle of no second: a try in which the clock turned is not counted.
    while True:
        moment = now()
        over = dataclasses.replace(first, issue_until=moment - 9, redeem_until=moment + seconds)
        met = meet(
            context(ring_memory(dataclasses.replace(ring, keys=(over, second)))),
            session,
            version=version,
        )
        if now() == moment:
            break
    assert met.resumed == (seconds > 0)
    if not met.resumed:
        assert met.miss == Miss.RETIRED_KEY


@in_both_versions
def test_a_key_that_nobody_knows_is_told(server: Context, version: int) -> None:
    other = tickets.new_ring(bytes(32), now(), LIFETIME, ROTATE)
    session = meet(context(ring_memory(other)), version=version).session
    met = meet(server, session, version=version)
    assert (met.resumed, met.miss) == (False, Miss.UNKNOWN_KEY)


def test_a_ticket_is_resumed_after_a_hello_retry_request(ring: Ring) -> None:
    """The client's second ClientHello shows it again."""
    server = context(ring_memory(ring), groups="P-384")
    session = meet(server).session
    assert meet(server, session).resumed
    refused = meet(context(ring_memory(ring), OTHER_GROUP_ID, groups="P-384"), session)
    assert (refused.resumed, refused.miss) == (False, Miss.OTHER_GROUP)


# Policy groups.


@in_both_versions
def test_a_ticket_of_another_group_is_not_opened(
    memory: TicketRing, server: Context, version: int
) -> None:
    session = meet(server, version=version).session
    met = meet(context(memory, OTHER_GROUP_ID), session, version=version)
    assert (met.resumed, met.miss) == (False, Miss.OTHER_GROUP)


@in_both_versions
def test_a_ticket_that_names_its_group_falsely_is_damaged(
    ring: Ring, memory: TicketRing, server: Context, version: int
) -> None:
    session = meet(server, version=version).session
    name = group_key(ring, group=OTHER_GROUP_ID).name
    renamed = sessions.with_fields(session, {TICKET: name + ticket_of(session)[NAME:]})
    met = meet(context(memory, OTHER_GROUP_ID), renamed, version=version)
    assert (met.resumed, met.miss) == (False, Miss.DAMAGED)


@in_both_versions
def test_a_session_of_another_group_is_refused_though_its_ticket_opens(
    ring: Ring, server: Context, version: int
) -> None:
    """The second wall: the group stands in the session, too."""
    session = meet(server, version=version).session
    for group in (OTHER_GROUP_ID, b"", GROUP_ID[:-1]):
        met = meet(server, group_key(ring).forge(session, {GROUP: group}), version=version)
        assert (met.resumed, met.miss) == (False, Miss.OTHER_GROUP)


def test_groups_share_no_key(ring: Ring) -> None:
    one, other = group_key(ring), group_key(ring, group=OTHER_GROUP_ID)
    assert len({one.cipher, one.mac, other.cipher, other.mac, ring.keys[0].secret}) == 5
    assert one.name[:8] == other.name[:8] == ring.keys[0].id
    assert one.name[8:] != other.name[8:]


@pytest.mark.parametrize("group", [b"", b"g" * 31, b"g" * 33])
def test_a_group_has_32_bytes(memory: TicketRing, group: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        TicketKeys(memory, group)


# Sessions that are no longer good.


@in_both_versions
@pytest.mark.parametrize(("age", "is_good"), [(LIFETIME - 1, True), (LIFETIME, False), (10**9, False)])
def test_a_session_expires_at_its_very_second(
    ring: Ring, server: Context, version: int, age: int, *, is_good: bool
) -> None:
    session = meet(server, version=version).session
    while True:  # a try in which the clock turned is not counted
        moment = now()
        met = meet(server, group_key(ring).forge(session, {TIME: moment - age}), version=version)
        if now() == moment:
            break
    assert met.resumed == is_good
    if not is_good:
        assert met.miss == Miss.EXPIRED


@in_both_versions
def test_a_session_from_the_future_is_refused(ring: Ring, server: Context, version: int) -> None:
    """The clock has been set back; machines' clocks may differ by a little."""
    session = meet(server, version=version).session
    for ahead in (60, LIFETIME, 10**8):
        met = meet(server, group_key(ring).forge(session, {TIME: now() + ahead}), version=version)
        assert (met.resumed, met.miss) == (False, Miss.EXPIRED)
    met = meet(server, group_key(ring).forge(session, {TIME: now() + 3}), version=version)
    assert met.resumed
    assert met.ticket_age == 0


@in_both_versions
def test_the_shorter_lifetime_holds_of_then_and_now(ring: Ring, version: int) -> None:
    memory = ring_memory(ring)
    long, short = context(memory), context(memory, lifetime=60)
    session = meet(long, version=version).session
    aged = group_key(ring).forge(session, {TIME: now() - 100})
    assert meet(long, aged, version=version).resumed
    assert meet(short, aged, version=version).miss == Miss.EXPIRED
    session = meet(short, version=version).session
    aged = group_key(ring).forge(session, {TIME: now() - 100})
    assert meet(long, aged, version=version).miss == Miss.EXPIRED


def test_a_new_ticket_has_the_lifetime_of_now(ring: Ring) -> None:
    """A reload has made it shorter, or longer: what a client is told is what will hold."""
    memory = ring_memory(ring)
    session = meet(context(memory)).session
    for lifetime in (60, LIFETIME):
        met = meet(context(memory, lifetime=lifetime), session)
        assert met.resumed
        session = met.session
        assert number(session, LIFETIME_HINT) == lifetime
        assert number(group_key(ring).open(ticket_of(session)), TIMEOUT) == lifetime


@in_both_versions
def test_a_session_of_another_version_is_refused(ring: Ring, server: Context, version: int) -> None:
    session = meet(server, version=version).session
    forged = group_key(ring).forge(session, {SSL_VERSION: OTHER_VERSION[version]})
    met = meet(server, forged, version=version)
    assert (met.resumed, met.miss) == (False, Miss.OTHER_VERSION)


@pytest.mark.parametrize(
    ("version", "cipher"),
    [(TLS_1_2, b"ECDHE-ECDSA-CHACHA20-POLY1305"), (TLS_1_3, b"TLS_AES_128_GCM_SHA256")],
)
def test_a_client_that_no_longer_offers_the_sessions_cipher_gets_a_full_handshake(
    server: Context, version: int, cipher: bytes
) -> None:
    """OpenSSL alone would break off with illegal_parameter."""
    session = meet(server, version=version).session
    assert fields(session)[CIPHER] in {b"\xc0\x2c", b"\x13\x02"}
    met = meet(server, session, version=version, ciphers=cipher)
    assert (met.resumed, met.miss) == (False, Miss.NOT_ACCEPTED)


@in_both_versions
def test_a_session_does_not_outlive_the_clients_certificate(
    ring: Ring, server: Context, version: int
) -> None:
    session = meet(server, version=version).session
    clients = Authority("clients")
    good, over = clients.client("good"), clients.client("over", not_after=clock.utc_now())
    for certificate, miss in ((good, None), (over, Miss.CLIENT_CERTIFICATE_EXPIRED)):
        forged = group_key(ring).forge(session, {PEER: der(certificate.leaf)})
        met = meet(server, forged, version=version)
        assert met.resumed == (miss is None)
        assert miss in {None, met.miss}


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_still_has_the_clients_certificate(
    memory: TicketRing, version: int, tmp_path: Any
) -> None:
    clients = Authority("clients")
    own = clients.client("alice")
    server = context(memory, client_auth="required", client_ca=clients.pem)
    client = client_context(version=version)
    client.load_cert_chain(own.write(tmp_path / "own.pem"))
    with Pair(server, client) as pair:
        session = pair.handshake().client.session()
    with Pair(server, client, session=session) as pair:
        pair.handshake()
        assert pair.server.resumed
        assert pair.server.peer_certificate == der(own.leaf)


# The ring in memory.


def test_a_ring_has_its_size() -> None:
    with pytest.raises(ValueError, match="a ring needs"):
        TicketRing(shared_memory(RING_SIZE - 1))
    with pytest.raises((BufferError, ValueError)):
        TicketRing(bytes(RING_SIZE))


GOOD_KEY = (1, b"i" * 8, b"s" * 32, 0, 2**40, 2**41)


@pytest.mark.parametrize(
    "keys",
    [
        [GOOD_KEY] * 33,
        [(1, b"i" * 7, b"s" * 32, 0, 1, 2)],
        [(1, b"i" * 8, b"s" * 31, 0, 1, 2)],
        [GOOD_KEY, (1, b"i" * 8, b"", 0, 1, 2**63)],
        [GOOD_KEY, (2**64, b"i" * 8, b"", 0, 1, 2)],
        [GOOD_KEY, (1, b"i" * 8)],
        [GOOD_KEY, (1, None, b"", 0, 1, 2)],
        [GOOD_KEY, ("one", b"i" * 8, b"", 0, 1, 2)],
        None,
    ],
)
def test_what_cannot_be_written_leaves_the_ring_as_it_was(memory: TicketRing, keys: Any) -> None:
    server = context(memory)
    session = meet(server).session
    with pytest.raises((ValueError, OverflowError, TypeError)):
        memory.write(keys)
    fresh = context(memory)
    assert meet(fresh, session).resumed, "also for who looks at it for the first time"


def test_a_master_that_stops_while_it_writes_leaves_workers_with_what_they_knew(ring: Ring) -> None:
    shared = shared_memory(RING_SIZE)
    memory = TicketRing(shared)
    write(memory, ring)
    server = context(memory)
    session = meet(server).session
    [generation] = struct.unpack("Q", shared[:8])
    assert generation % 2 == 0
    shared[:8] = struct.pack("Q", generation + 1)
    shared[8:] = bytes(RING_SIZE - 8)
    assert meet(server, session).resumed
    newcomer = meet(context(memory), session)
    assert (newcomer.resumed, newcomer.miss) == (False, Miss.UNKNOWN_KEY)


def test_a_ring_is_read_whole_while_it_is_written() -> None:
    """A ticket made with half of a key, or with none, could be opened by others, or by nobody."""
    shared = shared_memory(RING_SIZE)
    moment = now()
    rings = [tickets.new_ring(bytes([n]) * 32, moment, LIFETIME, ROTATE) for n in range(2)]
    # All thirty-two places full, so that a write takes its time.
    full = [[_place(ring, at) for at in range(32)] for ring in rings]
    names = {GroupKey.of(key[1], key[2], GROUP_ID).name for keys in full for key in keys}
    with _writing(shared, full):
        server = context(TicketRing(shared))
        wait_until(lambda: TICKET in fields(meet(server).session), "it was read once")
        for _ in range(1500):
            assert ticket_of(meet(server).session)[:NAME] in names


def _place(ring: Ring, at: int) -> tuple[int, bytes, bytes, int, int, int]:
    key = ring.keys[0]
    return at + 1, key.id, key.secret, key.issue_from, key.issue_until, key.redeem_until


@contextmanager
def _writing(shared: mmap.mmap, rings: list[Any]) -> Iterator[None]:
    """Another process that writes these in turn, all the time."""
    forking = multiprocessing.get_context("fork")
    begun = forking.Event()

    def keep_writing() -> None:
        memory = TicketRing(shared)
        while True:
            for keys in rings:
                memory.write(keys)
            begun.set()

    process = forking.Process(target=keep_writing, daemon=True)
    process.start()
    try:
        assert begun.wait(20)
        yield
    finally:
        process.kill()
        process.join()


def test_a_tally_has_its_size(memory: TicketRing) -> None:
    with pytest.raises(ValueError, match=f"{RING_TALLY} words"):
        memory.count_into(bytearray(RING_TALLY * 8 - 1))


def test_a_tally_counts_by_the_keys_number(ring: Ring) -> None:
    memory = ring_memory()
    tally = memoryview(bytearray(RING_TALLY * 8)).cast("q")
    memory.count_into(tally)
    server = context(memory, tickets=1)
    for key_number in (40, 72):  # the same place: the newer one takes it
        first = dataclasses.replace(ring.keys[0], number=key_number)
        write(memory, dataclasses.replace(ring, keys=(first, ring.keys[1])))
        for _ in range(3):
            meet(server)
        at = 2 * (key_number % 32)
        assert (tally[at], tally[at + 1]) == (key_number, 3)
    assert sum(1 for word in tally if word) == 2


# Who owns what.


def test_a_group_key_goes_with_the_last_context_that_uses_it(memory: TicketRing) -> None:
    keys = TicketKeys(memory, GROUP_ID)
    gone = weakref.ref(keys)
    server = server_context(ticket_keys=keys, session_id_context=GROUP_ID)
    del keys
    gc.collect()
    assert gone() is not None
    del server
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="under a sanitizer what is freed stays for a while",
)
def test_memory_stays_what_it_was_however_many_come_and_why_ever_they_fail(ring: Ring) -> None:
    memory = ring_memory(ring)
    server, other = context(memory), context(memory, OTHER_GROUP_ID)
    kept = {version: meet(server, version=version).session for version in VERSIONS}
    stranger = der(self_signed_client("stranger").leaf)

    def everything() -> None:
        for version, session in kept.items():
            key = group_key(ring)
            assert meet(server, session, version=version).resumed
            assert not meet(other, session, version=version).resumed
            assert not meet(server, key.forge(session, {TIME: 1}), version=version).resumed
            assert not meet(server, key.forge(session, {GROUP: b"x"}), version=version).resumed
            assert meet(server, key.forge(session, {PEER: stranger}), version=version).resumed
            write(memory, ring)

    process = psutil.Process()
    for _ in range(100):
        everything()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(300):
        everything()
    gc.collect()
    # Were one session lost each time in one of the ways, it would be more.
    assert process.memory_info().rss - before < 300 * 2 * 700


def test_a_connection_that_ends_in_the_middle_holds_nothing(server: Context) -> None:
    client = client_context(version=TLS_1_2)
    with Pair(server, client) as pair:
        session = pair.handshake().client.session()
    for _ in range(100):
        with Pair(server, client, session=session) as pair:
            pair.greet()
            pair.server.handshake()
    wait_until(lambda: gc.collect() >= 0, "the collector has been here")
    with Pair(server, client, session=session) as pair:
        assert pair.handshake().server.resumed
