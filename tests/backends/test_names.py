"""What names stand for, and where each address has its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.backends.names import (
    RETRY,
    TTL_MOST,
    VACANT,
    Found,
    as_words,
    from_words,
    in_hosts_file,
    is_ip,
    next_look,
    placed,
    wanted,
)

A, B, C, D = (f"192.0.2.{n}" for n in range(1, 5))
V6 = "2001:db8::1"


# What is used.


@pytest.mark.parametrize(
    ("found", "held", "expected"),
    [
        (Found([B, A], []), [], [A, B]),
        (Found([A], [V6]), [], [A, V6]),
        (Found([B], []), [A], [B]),
        (Found([A, A], []), [], [A]),
        (Found(["192.0.2.10", "192.0.2.9"], []), [], ["192.0.2.9", "192.0.2.10"]),
        # What was not answered stays as it was.
        (Found([B], None), [A, V6], [B, V6]),
        (Found(None, [V6]), [A], [A, V6]),
        (Found(None, None), [A, V6], [A, V6]),
        # There is no such name: a mistake more often than the end of a service.
        (Found([], []), [A], [A]),
        (Found([], []), [], []),
    ],
)
def test_what_is_found_is_used_and_what_is_not_found_stays(
    found: Found, held: list[str], expected: list[str]
) -> None:
    assert wanted(found, held) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Found([A], [], 60), 60),
        (Found([A], [], 0), 1),
        (Found([A], [], 1e9), TTL_MOST),
        (Found([A], [], float("inf")), TTL_MOST),
        (Found([], [], 60), RETRY),
        (Found(None, None, 60), RETRY),
    ],
)
def test_a_name_is_looked_up_again_when_the_answer_has_expired(found: Found, expected: float) -> None:
    assert next_look(found) == expected


# Places.

ADDRESSES = st.lists(st.sampled_from([A, B, C, D, V6, "192.0.2.9"]), unique=True, max_size=6)


def test_who_stays_keeps_its_place_and_who_is_new_gets_a_free_one() -> None:
    assert placed([A, B, None], [True] * 3, [B, C, D]) == [C, B, D]
    assert placed([A, B, None], [False, False, True], [C]) == [None, None, C]


def test_with_too_few_places_some_get_none() -> None:
    assert placed([None, None], [True, True], [A, B, C]) == [A, B]
    assert placed([A, None], [True, False], [A, B]) == [A, None]


@given(
    before=ADDRESSES,
    addresses=ADDRESSES,
    free=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_nobody_has_two_places_and_nobody_gets_one_that_is_in_use(
    before: list[str], addresses: list[str], free: list[bool]
) -> None:
    held = [*before, *[None] * (8 - len(before))]
    places = placed(held, free, addresses)
    taken = [ip for ip in places if ip is not None]

    assert len(taken) == len(set(taken))
    assert set(taken) <= set(addresses)
    for old, new, is_free in zip(held, places, free, strict=True):
        if old in addresses:
            assert new == old
        elif new is not None:
            assert is_free
    if all(free):
        assert set(taken) == set(addresses)


# hosts(5).

HOSTS = """\
127.0.0.1       localhost
192.0.2.1  app.internal App   # two names
# 192.0.2.2 app.internal
192.0.2.3\tapp.internal
::1 localhost ip6-localhost
2001:db8::1 app.internal
nonsense app.internal
fe80::1%eth0 app.internal
192.0.2.4
"""


@pytest.mark.parametrize(
    ("host", "v4", "v6"),
    [
        ("localhost", ["127.0.0.1"], ["::1"]),
        ("app.internal", [A, C], [V6]),
        ("app", [A], []),
    ],
)
def test_a_hosts_file_is_read(host: str, v4: list[str], v6: list[str]) -> None:
    found = in_hosts_file(HOSTS, host)
    assert found is not None

    assert (found.v4, found.v6, found.problem) == (v4, v6, "")


@pytest.mark.parametrize("text", [HOSTS, "", "\0\n#", "192.0.2.1"])
def test_what_does_not_stand_in_it_is_not_known(text: str) -> None:
    assert in_hosts_file(text, "other.internal") is None


@pytest.mark.parametrize("text", ["224.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "a", "", "1.2.3"])
def test_nobody_can_be_connected_to_at_these(text: str) -> None:
    assert not is_ip(text)


# On the board.


@given(st.ip_addresses())
def test_an_address_fits_into_three_signed_words(ip: object) -> None:
    words = as_words(str(ip))

    assert from_words(words) == str(ip)
    assert all(-(1 << 63) <= word < 1 << 63 for word in words)
    assert words != VACANT


def test_no_address_is_three_zeros() -> None:
    assert as_words(None) == VACANT
    assert from_words(VACANT) is None
