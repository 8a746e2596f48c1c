"""What clients have open, in words that workers share; here several rows of one process."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.worker._client_table import (
    AMOUNT_MAX,
    PLACES,
    Clients,
    ClientTable,
    network_of,
    new_secret,
    siphash,
)
from termproxy.worker.admission import FULL, RESUMED

NOW = 1000.25
SECRET = bytes(16)


@pytest.fixture
def table() -> Iterator[ClientTable]:
    table = ClientTable(3, 1000)
    yield table
    table.close()


def sharing_a_bucket(count: int) -> list[int]:
    """Keys of so many clients that meet in one bucket."""
    return [(number + 1) << 40 | 5 for number in range(count)]


# Who is one client.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth1"),
    ],
)
def test_these_are_one_client(one: str, other: str) -> None:
    assert network_of(one) == network_of(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("::1", "::ffff:0.0.0.1"),
    ],
)
def test_these_are_two(one: str, other: str) -> None:
    assert network_of(one) != network_of(other)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "unix",
        "999.0.0.1",
        "192.0.2.1%lo",
        "192.0.2.1\0",
        "2001:db8::zz",
        "::1\0",
        "%",
        "1" * 46,
        "\u0661",
    ],
)
def test_what_is_no_address_is_no_client(host: str) -> None:
    assert network_of(host) is None


def test_keys_are_the_master_s_secret() -> None:
    """Nobody can choose addresses that share a bucket."""
    table = ClientTable(1, 10)
    mine, other = (Clients(table, 0, (), new_secret()) for _ in range(2))
    assert mine.key_of("192.0.2.1") == mine.key_of("192.0.2.1")
    assert mine.key_of("192.0.2.1") != other.key_of("192.0.2.1")
    assert mine.key_of("") is None
    table.close()


@pytest.mark.parametrize(
    ("size", "hash_"),
    [(0, 0x726FDB47DD0E0E31), (8, 0x93F5F5799A932462), (15, 0xA129CA6149BE45E5)],
)
def test_the_hash_is_siphash_2_4(size: int, hash_: int) -> None:
    """By the vectors of its authors' own program."""
    assert siphash(bytes(range(16)), bytes(range(size))) == hash_


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_secret_of_another_size_is_refused(table: ClientTable, size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Clients(table, 0, (), bytes(size))


# Connections.


def test_connections_add_up_over_all_workers(table: ClientTable) -> None:
    one, other = Clients(table, 0, (), SECRET), Clients(table, 2, (), SECRET)
    key = one.key_of("192.0.2.1")
    assert key is not None
    first, count = one.enter(key)
    assert count == 1
    assert other.enter(key)[1] == 2
    assert one.enter(key)[1] == 3
    assert first is not None
    one.leave(first)
    assert other.enter(key)[1] == 3


def test_older_generations_count_too() -> None:
    old, new = ClientTable(1, 10), ClientTable(2, 2000)
    before, after = Clients(old, 0, (), SECRET), Clients(new, 0, [old], SECRET)
    key = before.key_of("2001:db8::1")
    assert key is not None
    before.enter(key)
    assert after.enter(key)[1] == 2
    old.close()
    new.close()


def test_a_worker_that_has_gone_has_nothing_open(table: ClientTable) -> None:
    for row in range(3):
        table.enter(row, 77)
        table.charge(row, 77, FULL, NOW)
    table.clear_row(1)

    assert table.connections_of(77) == 2
    assert table.handshakes_of(77, NOW) == 2 * FULL


def test_the_last_one_that_leaves_makes_room_for_another_client(table: ClientTable) -> None:
    keys = sharing_a_bucket(PLACES + 1)
    places = [table.enter(0, key) for key in keys[:PLACES]]
    assert None not in places
    assert table.enter(0, keys[-1]) is None, "it is not counted, and let in"
    assert table.connections_of(keys[-1]) == 0
    assert places[3] is not None
    table.leave(places[3])
    assert table.enter(0, keys[-1]) == places[3]
    assert [table.connections_of(key) for key in keys] == [1, 1, 1, 0, 1, 1, 1, 1, 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.booleans()), max_size=150))
def test_counts_are_those_of_a_simple_account(steps: list[tuple[int, int, bool]]) -> None:
    table = ClientTable(3, 1000)
    clients = [Clients(table, row, (), SECRET) for row in range(3)]
    open_: dict[tuple[int, int], list[int]] = {}
    account: Counter[int] = Counter()
    for row, number, leaves in steps:
        key = clients[row].key_of(f"192.0.2.{number}")
        assert key is not None
        mine = open_.setdefault((row, number), [])
        if leaves and mine:
            clients[row].leave(mine.pop())
            account[number] -= 1
        elif not leaves:
            place, count = clients[row].enter(key)
            assert place is not None
            mine.append(place)
            account[number] += 1
            assert count == account[number]
    for places in open_.values():
        for place in places:
            table.leave(place)
    assert not any(table.words.tolist()), "nothing stays behind"
    table.close()


def test_another_process_sees_what_we_count() -> None:
    code = (
        "import os\n"
        "from termproxy.worker._client_table import ClientTable\n"
        "table = ClientTable(2, 10)\n"
        "if os.fork() == 0:\n"
        "    table.enter(1, 99)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(table.connections_of(99))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_nothing_is_touched_outside_of_the_table(table: ClientTable) -> None:
    for row in (-1, 3):
        for call in (table.enter, lambda row, key: table.charge(row, key, FULL, NOW)):
            with pytest.raises(ValueError, match="there is no row"):
                call(row, 77)
        with pytest.raises(ValueError, match="there is no row"):
            table.clear_row(row)
    for place in (-1, len(table.words)):
        with pytest.raises(ValueError, match="there is no place"):
            table.leave(place)
    assert not any(table.words.tolist())


def test_a_place_that_was_left_is_not_left_twice(table: ClientTable) -> None:
    place = table.enter(0, 77)
    assert place is not None
    table.leave(place)
    table.leave(place)
    assert table.connections_of(77) == 0


def test_a_closed_table_has_no_memory_to_touch() -> None:
    table = ClientTable(1, 10)
    clients = Clients(table, 0, (), SECRET)
    table.close()
    table.close()
    for use in (
        lambda: clients.enter(1),
        lambda: clients.leave(0),
        lambda: clients.handshakes_of(1, NOW),
        lambda: clients.charge(1, FULL, NOW),
        lambda: table.clear_row(0),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


# Handshakes.


def test_handshakes_add_up_over_all_workers_and_fade_within_two_seconds(table: ClientTable) -> None:
    table.charge(0, 77, FULL, NOW)
    table.charge(1, 77, RESUMED, NOW)
    table.charge(0, 77, FULL, NOW + 0.5)

    assert table.handshakes_of(77, NOW + 0.5) == 2 * FULL + RESUMED
    assert table.handshakes_of(77, 1001.0) == 2 * FULL + RESUMED
    assert table.handshakes_of(77, 1001.5) == pytest.approx((2 * FULL + RESUMED) / 2)
    assert table.handshakes_of(77, 1002.0) == 0


def test_a_second_s_charges_go_on_top_of_what_is_left_of_the_last(table: ClientTable) -> None:
    table.charge(0, 77, FULL, 1000.9)
    table.charge(0, 77, FULL, 1001.1)
    table.charge(0, 77, FULL, 1001.2)

    assert table.handshakes_of(77, 1001.2) == pytest.approx(2 * FULL + 0.8 * FULL)
    assert table.handshakes_of(77, 1002.5) == pytest.approx(FULL)


def test_what_was_long_ago_is_no_last_second(table: ClientTable) -> None:
    """The word has 12 bits of the clock's second: the same ones come again after an hour."""
    table.charge(0, 77, FULL, 1000.0)
    table.charge(0, 77, FULL, 1010.0)

    assert table.handshakes_of(77, 1010.0) == FULL


def test_clients_do_not_pay_for_each_other(table: ClientTable) -> None:
    keys = sharing_a_bucket(PLACES)
    for number, key in enumerate(keys, 1):
        table.charge(0, key, number, NOW)

    assert [table.handshakes_of(key, NOW) for key in keys] == list(range(1, PLACES + 1))


def test_in_a_full_bucket_the_client_with_least_is_forgotten(table: ClientTable) -> None:
    keys = sharing_a_bucket(PLACES + 1)
    for number, key in enumerate(keys[:PLACES], 1):
        table.charge(0, key, number, NOW)
    table.charge(0, keys[-1], FULL, NOW)

    assert table.handshakes_of(keys[0], NOW) == 0
    assert table.handshakes_of(keys[-1], NOW) == FULL
    assert table.handshakes_of(keys[1], NOW) == 2


def test_who_was_not_seen_lately_is_forgotten_first(table: ClientTable) -> None:
    keys = sharing_a_bucket(PLACES + 1)
    for key in keys[:PLACES]:
        table.charge(0, key, 100, NOW - 5.0)
    table.charge(0, keys[0], 1, NOW)
    table.charge(0, keys[-1], FULL, NOW)

    assert table.handshakes_of(keys[0], NOW) == 1
    assert table.handshakes_of(keys[-1], NOW) == FULL


def test_a_word_that_is_full_stays_full(table: ClientTable) -> None:
    for _ in range(3):
        table.charge(0, 77, AMOUNT_MAX - 1, NOW)

    assert table.handshakes_of(77, NOW) == AMOUNT_MAX
    assert table.handshakes_of(78, NOW) == 0
