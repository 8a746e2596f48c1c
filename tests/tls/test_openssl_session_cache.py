"""Sessions kept by their ids in memory that all workers share: bounded, and never torn or locked."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import random
import signal
import ssl
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from termproxy.outcome import Miss
from termproxy.shm import shared_memory
from termproxy.tls import tickets
from termproxy.tls._openssl import Context, SessionCache, TicketKeys, session_cache_size
from tests.support.pki import Authority, Issued
from tests.support.raw_client import TLS_1_2, TLS_1_3, Meeting, meet
from tests.support.sessions import SESSION_ID, TICKET, fields, ring_memory, with_fields
from tests.support.tls import Pair, client_context, server_context
from tests.support.waiting import wait_until
from tests.tls.test_openssl_tickets import now

VERSIONS = [TLS_1_2, TLS_1_3]
GROUP_ID, OTHER_GROUP_ID = b"g" * 32, b"h" * 32

SMALL, LARGE = 400, 4000  # bytes of a session in DER

in_both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS 1.2", "TLS 1.3"])


SEQUENCE, CHECKSUM, CLAIMED, LENGTH, DATA = 0, 8, 16, 32, 72  # where they are in a slot
SLOT = DATA + SMALL


class Memory:
    """A cache, and the memory it is in."""

    def __init__(self, entries: int = 100) -> None:
        self.bytes: mmap.mmap = shared_memory(session_cache_size(entries))
        self.entries = entries
        self.cache = SessionCache(self.bytes, entries)

    def context(self, group: bytes = GROUP_ID, **policy: Any) -> Context:
        return server_context(session_cache=self.cache, session_id_context=group, **policy)

    def slots(self) -> Iterator[int]:
        """Where sessions of ordinary size begin, that are there."""
        count = ((self.entries * 3 // 2 + 7) // 8 + 1) * 8
        for slot in range(0, count * SLOT, SLOT):
            if self.word(slot, LENGTH) & 0xFFFFFFFF:
                yield slot

    def word(self, slot: int, offset: int) -> int:
        return int(struct.unpack_from("q", self.bytes, slot + offset)[0])

    def put_word(self, slot: int, offset: int, value: int) -> None:
        struct.pack_into("q", self.bytes, slot + offset, value)


def visit(server: Context, session: bytes | None = None, version: int = TLS_1_2) -> Meeting:
    return meet(server, session, version=version)


@pytest.fixture
def memory() -> Memory:
    return Memory()


# Resumed, and how it is told.


@in_both_versions
def test_a_session_is_resumed_by_its_id(memory: Memory, version: int) -> None:
    server = memory.context()
    first = visit(server, version=version)
    second = visit(server, first.session, version)
    assert second.resumed
    assert second.from_cache
    assert 0 <= second.ticket_age <= 2
    if version == TLS_1_2:
        assert TICKET not in fields(first.session)
    else:
        assert len(fields(first.session)[TICKET]) == 32, "a ticket that is only a name"


def test_clients_that_take_no_tickets_get_an_id_beside_those_that_do() -> None:
    memory = Memory()
    keys = TicketKeys(ring_memory(tickets.new_ring(bytes(32), now(), 3600, 600)), GROUP_ID)
    server = memory.context(ticket_keys=keys)
    plain = meet(server, version=TLS_1_2, takes_tickets=False)
    again = meet(server, plain.session, version=TLS_1_2, takes_tickets=False)
    assert (again.resumed, again.from_cache) == (True, True)
    modern = meet(server, version=TLS_1_2)
    again = meet(server, modern.session, version=TLS_1_2)
    assert (again.resumed, again.from_cache) == (True, False)
    again = meet(server, meet(server).session)
    assert (again.resumed, again.from_cache) == (True, False)
    assert memory.cache.sweep() == 1, "what is in a ticket is not kept here, too"


@in_both_versions
def test_every_process_that_shares_the_memory_knows_it(memory: Memory, version: int) -> None:
    session = visit(memory.context(), version=version).session
    elsewhere = server_context(
        session_cache=SessionCache(memory.bytes, memory.entries), session_id_context=GROUP_ID
    )
    assert visit(elsewhere, session, version).resumed


@in_both_versions
def test_no_session_is_found_by_another_group(memory: Memory, version: int) -> None:
    session = visit(memory.context(), version=version).session
    met = visit(memory.context(OTHER_GROUP_ID), session, version)
    assert (met.resumed, met.miss) == (False, Miss.EVICTED)
    assert visit(memory.context(), session, version).resumed


def test_an_id_that_nobody_knows_is_a_full_handshake(memory: Memory) -> None:
    server = memory.context()
    session = visit(server).session
    known = fields(session)[SESSION_ID]
    for unknown in (bytes(32), known[:-1], known[:1], known[::-1], known[:31] + b"\0"):
        met = visit(server, with_fields(session, {SESSION_ID: unknown}))
        assert (met.resumed, met.miss) == (False, Miss.EVICTED)


def test_without_a_cache_and_without_tickets_nothing_is_promised() -> None:
    server = server_context(ticket_keys=None)
    for version in VERSIONS:
        first = visit(server, version=version)
        held = fields(first.session)
        assert TICKET not in held
        assert version == TLS_1_3 or held[SESSION_ID] == b""
        assert not visit(server, first.session, version).resumed


@in_both_versions
def test_a_session_with_another_cipher_or_version_is_a_full_handshake(
    memory: Memory, version: int
) -> None:
    server = memory.context()
    session = visit(server, version=version).session
    other = b"ECDHE-ECDSA-CHACHA20-POLY1305" if version == TLS_1_2 else b"TLS_AES_128_GCM_SHA256"
    met = meet(server, session, version=version, ciphers=other)
    assert (met.resumed, met.miss) == (False, Miss.NOT_ACCEPTED)


# Bounds.


def test_a_session_expires_and_is_wiped(memory: Memory) -> None:
    server = memory.context(lifetime=1)
    session = visit(server).session
    made = now()
    assert memory.cache.sweep() == 1
    wait_until(lambda: now() > made + 1, "its second is over")
    met = visit(server, session)
    assert (met.resumed, met.miss) == (False, Miss.EVICTED)
    wait_until(lambda: memory.cache.sweep() == 0, "the new one, too, is swept")
    assert not any(
        memory.bytes[slot + DATA :][:SMALL].strip(b"\0") for slot in range(0, 80 * SLOT, SLOT)
    )


def test_clearing_wipes_every_session(memory: Memory, own: Issued, clients: Authority) -> None:
    server = memory.context()
    sessions = [visit(server).session for _ in range(20)]
    with_certificate = memory.context(client_auth="required", client_ca=clients.pem)
    show_certificate(with_certificate, own)
    assert memory.cache.sweep() == 21
    memory.cache.clear()
    assert memory.cache.sweep() == 0
    assert not any(visit(server, session).resumed for session in sessions)


@pytest.mark.parametrize("entries", [1, 8, 100])
def test_it_holds_what_it_promises_and_not_much_more(entries: int) -> None:
    found = 0
    for _ in range(5):  # chance says which share a place: together they say what can be relied on
        memory = Memory(entries)
        server = memory.context()
        sessions = [visit(server).session for _ in range(entries)]
        found += sum(visit(server, session).resumed for session in sessions)
    assert found >= 5 * entries * 0.9
    for _ in range(3 * entries + 20):
        visit(server)
    assert entries <= memory.cache.sweep() <= 2 * entries + 16


def test_the_oldest_gives_way() -> None:
    """A session may be in one of eight places: the newest eight are there, whatever came before."""
    memory = Memory(1)
    server = memory.context()
    sessions = [visit(server).session for _ in range(60)]
    assert memory.cache.sweep() == 16
    assert [visit(server, session).resumed for session in sessions[-8:]] == [True] * 8


@pytest.mark.parametrize("entries", [0, -1])
def test_a_cache_has_entries(entries: int) -> None:
    with pytest.raises(ValueError, match="has entries"):
        SessionCache(bytearray(1 << 20), entries)


def test_a_cache_has_its_memory() -> None:
    with pytest.raises(ValueError, match="need"):
        SessionCache(bytearray(session_cache_size(100) - 1), 100)
    with pytest.raises((BufferError, ValueError)):
        SessionCache(bytes(session_cache_size(100)), 100)


def test_the_kernel_gives_memory_for_what_is_kept_and_for_no_more() -> None:
    """The master sweeps, and clients ask for ids that never were: neither makes the cache larger."""
    before = psutil.Process().memory_info().shared
    memory = Memory(100_000)
    server = memory.context()
    session = visit(server).session
    for _ in range(50):
        visit(server, with_fields(session, {SESSION_ID: os.urandom(32)}))
    memory.cache.sweep()
    memory.cache.clear()
    assert psutil.Process().memory_info().shared - before < len(memory.bytes) / 20


# Clients' certificates.


@pytest.fixture(scope="module")
def clients() -> Authority:
    return Authority("clients")


@pytest.fixture(scope="module")
def own(clients: Authority) -> Issued:
    return clients.client("alice")


def show_certificate(
    server: Context,
    own: Issued,
    version: int = TLS_1_2,
    client: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLContext, ssl.SSLSession | None, bool, bytes | None]:
    if client is None:
        client = client_context(version=version)
        file = Path(f"/proc/self/fd/{os.memfd_create('own')}")
        file.write_bytes(own.pem)
        client.load_cert_chain(file)
    with Pair(server, client, session=session) as pair:
        pair.handshake()
        kept = pair.client.session()
        return client, kept, pair.server.resumed, pair.server.peer_certificate


@in_both_versions
def test_the_clients_certificate_is_kept_along(
    memory: Memory, clients: Authority, own: Issued, version: int
) -> None:
    server = memory.context(client_auth="required", client_ca=clients.pem)
    client, session, _, _ = show_certificate(server, own, version)
    _, _, resumed, shown = show_certificate(server, own, version, client, session)
    assert resumed
    assert shown == ssl.PEM_cert_to_DER_cert(own.leaf.decode())


def test_a_session_too_large_to_keep_is_a_full_handshake_next_time(
    memory: Memory, clients: Authority
) -> None:
    huge = clients.issue("huge", *(f"name-{n}.{'x' * 50}.test" for n in range(70)), usage=None)
    server = memory.context(client_auth="required", client_ca=clients.pem)
    client, session, _, _ = show_certificate(server, huge)
    assert memory.cache.sweep() == 0
    _, _, resumed, shown = show_certificate(server, huge, TLS_1_2, client, session)
    assert not resumed
    assert shown is not None
    assert len(shown) > LARGE


# Workers that die.


def test_a_slot_that_was_left_in_the_middle_is_not_read_and_used_again(memory: Memory) -> None:
    memory = Memory(1)
    server = memory.context()
    sessions = [visit(server).session for _ in range(8)]
    slots = list(memory.slots())
    assert len(slots) >= 4
    for slot in slots:  # as if a worker had begun to write long ago, and had been killed
        memory.put_word(slot, SEQUENCE, memory.word(slot, SEQUENCE) + 1)
        memory.put_word(slot, CLAIMED, 0)
        memory.bytes[slot + DATA : slot + DATA + 100] = os.urandom(100)
    assert not any(visit(server, session).resumed for session in sessions)
    fresh = [visit(server).session for _ in range(4)]
    assert all(visit(server, session).resumed for session in fresh)


def test_a_slot_that_is_being_written_is_left_alone() -> None:
    memory = Memory(1)
    server = memory.context()
    for _ in range(60):
        visit(server)
    slots = list(memory.slots())
    recently = memory.word(slots[-1], CLAIMED)
    for slot in slots:
        memory.put_word(slot, SEQUENCE, memory.word(slot, SEQUENCE) + 1)
        memory.put_word(slot, CLAIMED, recently + 3600 * 10**9)  # not over while this test runs
    before = memory.bytes[:]
    met = visit(server)
    assert not met.resumed
    assert not visit(server, met.session).resumed
    memory.cache.sweep()
    memory.cache.clear()
    assert all(memory.bytes[slot : slot + SLOT] == before[slot : slot + SLOT] for slot in slots)


def test_a_session_left_in_the_middle_is_wiped_by_a_sweep() -> None:
    memory = Memory(1)
    visit(memory.context())
    [slot] = memory.slots()
    memory.put_word(slot, SEQUENCE, memory.word(slot, SEQUENCE) + 1)
    memory.put_word(slot, CLAIMED, 0)
    assert memory.cache.sweep() == 0
    assert memory.bytes[slot + DATA : slot + DATA + SMALL] == bytes(SMALL)
    assert memory.word(slot, SEQUENCE) % 2 == 0


def test_a_session_is_never_taken_for_anothers() -> None:
    """One's key with another's data: a worker that stops while it writes, and wakes up too late."""
    memory = Memory(1)
    server = memory.context()
    sessions = [visit(server).session for _ in range(2)]
    one, other = memory.slots()
    data = memory.bytes[one + DATA : one + DATA + SMALL]
    checksum, length = memory.word(one, CHECKSUM), memory.word(one, LENGTH)
    memory.bytes[other + DATA : other + DATA + SMALL] = data
    memory.put_word(other, CHECKSUM, checksum)
    memory.put_word(other, LENGTH, length)
    found = [visit(server, session) for session in sessions]
    assert sorted(met.resumed for met in found) == [False, True]


def test_damaged_memory_never_breaks_a_handshake() -> None:
    chance = random.Random(11)
    memory = Memory(4)
    server = memory.context()
    for _ in range(300):
        sessions = [visit(server).session for _ in range(2)]
        for _ in range(chance.randrange(1, 40)):
            memory.bytes[chance.randrange(len(memory.bytes) - 200)] = chance.randrange(256)
        for session in sessions:
            visit(server, session)
    memory.cache.sweep()


def test_workers_that_are_killed_while_they_write_leave_a_cache_that_works() -> None:
    """Many writers on few slots, killed at any moment; the survivors never wait, and never misread."""
    memory = Memory(8)
    with ExitOfAll() as workers:
        chance = random.Random(5)
        alive = [workers.start(memory) for _ in range(3)]
        for _ in range(60):
            at = chance.randrange(len(alive))
            pipe, process = alive[at]
            for _ in range(chance.randrange(1, 4)):
                assert pipe.poll(20), "it waits for something"
                assert pipe.recv() == "good"
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL, "it had not died by itself"
            alive[at] = workers.start(memory)
        for pipe, _ in alive:
            for _ in range(5):
                assert pipe.poll(20), "it waits for something"
                assert pipe.recv() == "good"
    server = memory.context()
    # What they left is used again after a second at most.
    wait_until(lambda: all(visit(server, visit(server).session).resumed for _ in range(30)), "it works")
    assert memory.cache.sweep() <= 32


class ExitOfAll:
    """Processes, that are gone when the test is."""

    def __init__(self) -> None:
        self._forking = multiprocessing.get_context("fork")
        self._all: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()
            process.join()

    def start(self, memory: Memory) -> tuple[Pipe, Any]:
        here, there = self._forking.Pipe(duplex=False)
        process = self._forking.Process(target=_keep_visiting, args=(memory, there), daemon=True)
        process.start()
        there.close()
        self._all.append(process)
        return here, process


def _keep_visiting(memory: Memory, pipe: Pipe) -> None:
    """A worker and its clients: a session that is found is the one that was made."""
    server = memory.context()
    for _ in itertools.count():
        for _ in range(5):
            made = visit(server)
            met = visit(server, made.session)
            # meet() compares what both sides think; a wrong session would not finish.
            assert met.resumed or met.miss == Miss.EVICTED
        pipe.send("good")
