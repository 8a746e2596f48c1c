"""IANA's numbers, and how they are told."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.tls._openssl import known_ciphers, knows, openssl_version_number
from termproxy.tls.context import CIPHERS, CIPHERSUITES, default_groups
from termproxy.tls.registry import (
    GROUPS,
    NAMED_MAX,
    NO_CLIENT_S_CIPHERS,
    SIGNALS,
    SIGNATURE_ALGORITHMS,
    TLS_1_3_SUITES,
    VERSIONS,
    group_number,
    named,
)


@pytest.mark.parametrize("table", [GROUPS, SIGNATURE_ALGORITHMS, VERSIONS])
def test_no_name_stands_for_two_numbers(table: dict[int, str]) -> None:
    assert len(set(table.values())) == len(table)
    assert all(0 <= number <= 0xFFFF for number in table)


@pytest.mark.parametrize("openssl", [(3, 0), (3, 5)])
def test_every_group_of_ours_has_a_number(openssl: tuple[int, int]) -> None:
    for name in default_groups(openssl).split(":"):
        number = group_number(name)
        assert number is not None
        assert GROUPS[number] == name


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("P-256", 0x17),
        ("prime256v1", 0x17),
        ("secp256r1", 0x17),
        ("SECP384R1", 0x18),
        ("secp521r1", 0x19),
        ("x25519", 0x1D),
        ("X25519", 0x1D),
        ("x25519mlkem768", 0x11EC),
        ("ffdhe2048", 0x100),
        ("brainpoolP256r1", 0x1A),
        ("no-such-group", None),
        ("", None),
    ],
)
def test_a_group_is_found_by_any_of_its_names(name: str, number: int | None) -> None:
    assert group_number(name) == number


@pytest.mark.parametrize("name", ["P-256", "prime256v1", "secp256r1", "secp384r1", "X25519", "X448"])
def test_openssl_takes_the_names_that_are_found(name: str) -> None:
    assert knows("groups", name)
    assert group_number(name) is not None


# Which ciphers no client uses.


def test_nothing_of_ours_counts_as_a_scanner_s() -> None:
    ours = {*CIPHERS.split(":"), *CIPHERSUITES.split(":")}
    numbers = {number for number, name in known_ciphers().items() if name in ours}

    assert len(numbers) == len(ours)
    assert numbers.isdisjoint(NO_CLIENT_S_CIPHERS | SIGNALS)


def test_those_without_encryption_or_authentication_are_what_openssl_calls_so() -> None:
    """`openssl ciphers -V` writes 0xC0,0x06 - ECDHE-ECDSA-NULL-SHA TLSv1 Kx=ECDH Au=ECDSA Enc=None …"""
    said = subprocess.run(
        ["openssl", "ciphers", "-V", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    weak: set[int] = set()
    strong: set[int] = set()
    for high, low, rest in re.findall(r"0x(\w\w),0x(\w\w) - (.*)", said):
        is_weak = re.search(r"Enc=None|Au=None", rest) and "SRP" not in rest and "PSK" not in rest
        (weak if is_weak else strong).add(int(high + low, 16))

    assert weak
    assert weak <= NO_CLIENT_S_CIPHERS
    # A pre-shared key without encryption is left to be what it is.
    told = {number for number in strong & NO_CLIENT_S_CIPHERS if "NULL" not in known_ciphers()[number]}
    assert told == set()


def test_old_clients_ciphers_are_no_scanner_s() -> None:
    """RC4, 3DES and CBC were once all that a client had."""
    old = {0x0004, 0x0005, 0x000A, 0x002F, 0x0035, 0x009C, 0xC007, 0xC011, 0xC013}
    assert old.isdisjoint(NO_CLIENT_S_CIPHERS)


# Known ciphers.


def test_every_cipher_that_openssl_knows_has_a_name() -> None:
    ciphers = known_ciphers()

    assert ciphers[0xC02B] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert ciphers[0x009E] == "DHE-RSA-AES128-GCM-SHA256"
    assert ciphers[0x002F] == "AES128-SHA"
    of_1_3 = {number: name for number, name in ciphers.items() if number >> 8 == TLS_1_3_SUITES}
    assert sorted(of_1_3) == [0x1301, 0x1302, 0x1303, 0x1304, 0x1305]
    assert all(name.startswith("TLS_") for name in of_1_3.values())
    assert openssl_version_number() >= (3, 0)


# Sentences.


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ([], "none"),
        ([0x17], "P-256"),
        ([0x1D, 0x17], "X25519, P-256"),
        ([0x1234], "0x1234"),
        ([0x1], "0x0001"),
        (range(1, 7), "0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006"),
        (range(1, 8), "0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006 and 1 more"),
    ],
)
def test_the_first_few_are_told_by_name(numbers: list[int], sentence: str) -> None:
    assert named(numbers, GROUPS) == sentence


@given(st.lists(st.integers(0, 0xFFFF), max_size=300))
def test_a_sentence_is_short_whatever_a_client_offers(numbers: list[int]) -> None:
    assert len(named(numbers, GROUPS)) < 25 * (NAMED_MAX + 1)
