"""What the names of backends stand for: which addresses are used, and where each has its place.

No I/O: resolver.py asks, prober.py writes down.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

PLACES = 16  # addresses of a name that are used at a time

TTL_LEAST, TTL_MOST = 1.0, 3600.0  # seconds
RETRY = 5.0  # seconds, after a question without an answer

HOSTS_TTL = 5.0  # seconds: files have none


class Found(NamedTuple):
    """What is known of a name: its addresses of each family.  None: that could not be told."""

    v4: Sequence[str] | None
    v6: Sequence[str] | None
    ttl: float = RETRY
    problem: str = ""


def wanted(found: Found, held: Sequence[str]) -> list[str]:
    """The addresses to use.  What was not answered stays as it was, and so does all when nothing was."""
    if not found.v4 and not found.v6:
        return list(held)
    v4 = found.v4 if found.v4 is not None else [ip for ip in held if ":" not in ip]
    v6 = found.v6 if found.v6 is not None else [ip for ip in held if ":" in ip]
    return sorted({*v4, *v6}, key=_number)


def placed(
    held: Sequence[str | None], free: Sequence[bool], addresses: Sequence[str]
) -> list[str | None]:
    """Who has which place: those that stay keep theirs, others get one that is `free`.

    When there are more addresses than places, some get none.
    """
    places = [ip if ip in addresses else None for ip in held]
    others = (ip for ip in addresses if ip not in places)
    for number, is_free in enumerate(free):
        if places[number] is None and is_free:
            places[number] = next(others, None)
    return places


def next_look(found: Found) -> float:
    """In how many seconds to ask again."""
    if not found.v4 and not found.v6:
        return RETRY
    return min(max(found.ttl, TTL_LEAST), TTL_MOST)


def in_hosts_file(text: str, host: str) -> Found | None:
    """What hosts(5) says of a name; None when it says nothing."""
    addresses = [ip for ip, names in _lines(text) if host in names]
    if not addresses:
        return None
    v4, v6 = ([ip for ip in addresses if (":" in ip) is is_v6] for is_v6 in (False, True))
    return Found(v4, v6, HOSTS_TTL)


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and is_ip(words[0]):
            yield words[0], [word.lower() for word in words[1:]]


def is_ip(text: str) -> bool:
    """Whether it is an address that can be connected to from any network card."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not ip.is_multicast and not ip.is_unspecified


# On the board an address is three words: its version and its two halves; 0 is no address.

Words = tuple[int, int, int]

VACANT: Words = (0, 0, 0)


def as_words(address: str | None) -> Words:
    if address is None:
        return VACANT
    ip = ipaddress.ip_address(address)
    high, low = divmod(int(ip), 1 << 64)
    return ip.version, _signed(high), _signed(low)


def from_words(words: Iterable[int]) -> str | None:
    version, high, low = words
    if not version:
        return None
    number = (high % (1 << 64) << 64) + low % (1 << 64)
    return str(ipaddress.IPv6Address(number) if version == 6 else ipaddress.IPv4Address(number))


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _number(ip: str) -> tuple[int, int]:
    address = ipaddress.ip_address(ip)
    return address.version, int(address)
