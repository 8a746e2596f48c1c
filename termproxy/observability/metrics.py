"""THE table of what a worker counts for each frontend: the words, and where in its memory they stand.

Every family of counters is a dictionary from a label's value to the index of a 64-bit word.  Words in
here are stable: they stand in logs, in `status` and in metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from termproxy.outcome import Miss

# Why a handshake failed; tls/failures.py finds out which, and says what it means.
FAILURES = (
    "scanner",
    "not_tls",
    "plain_http",
    "old_client",
    "no_shared_version",
    "no_shared_cipher",
    "no_shared_group",
    "no_shared_signature_algorithm",
    "no_shared_protocol",
    "unknown_name",
    "malformed_name",
    "no_client_certificate",
    "client_certificate_refused",
    "certificate_rejected",
    "client_alert",
    "client_closed",
    "client_reset",
    "handshake_timeout",
    "inappropriate_fallback",
    "protocol_error",
    "socket_error",
    "internal_error",
    "drain_timeout",
    "no_proxy_header",
    "bad_proxy_header",
)

# Limits that refuse a client before any crypto, or (the first, in mode "http") with a 429.
DROPS = (
    "connections_per_client",
    "handshakes_per_client",
    "handshakes_per_second",
    "handshake_queue",
)

# How a handshake that was finished went.
HANDSHAKES = ("full", "ticket", "session_id")

# Why it was full, in the order of outcome.Miss.
MISSES = tuple(miss.name.lower() for miss in Miss)

# Upper bounds of histograms.  A bucket counts what is at most its bound, and above the one before.
TICKET_AGE_BOUNDS = (1, 10, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)  # seconds
HANDSHAKE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds


def _numbered() -> Iterator[tuple[str, dict[str, int]]]:
    """Every family, with the index of each label's word."""
    families = {
        "handshakes_failed": FAILURES,
        "handshakes": HANDSHAKES,
        "resumption_misses": MISSES,
        # Time inside OpenSSL, and so CPU; microseconds.
        "handshake_cpu_microseconds": HANDSHAKES,
        # From accept to a finished handshake, with the network's and the client's share.
        "handshake_seconds_full": _buckets(HANDSHAKE_BOUNDS),
        "handshake_seconds_resumed": _buckets(HANDSHAKE_BOUNDS),
        "ticket_age_seconds": _buckets(TICKET_AGE_BOUNDS),
        # Mode "http": answers by the class of their status.
        "responses": ("1xx", "2xx", "3xx", "4xx", "5xx"),
        # Clients that a limit has turned away, by its name.
        "dropped": DROPS,
    }
    index = 0
    for family, labels in families.items():
        yield family, {label: index + at for at, label in enumerate(labels)}
        index += len(labels)


def _buckets(bounds: Sequence[float]) -> tuple[str, ...]:
    return (*map(str, bounds), "+Inf")


FAMILIES: Mapping[str, Mapping[str, int]] = dict(_numbered())

FAILED = FAMILIES["handshakes_failed"]

DROPPED = FAMILIES["dropped"]

RESPONSES = (0, *FAMILIES["responses"].values())
"""By the first digit of the status."""

FRONTEND_WORDS = sum(map(len, FAMILIES.values()))


def as_plain(words: Sequence[int]) -> dict[str, dict[str, int]]:
    """A frontend's counters by family and label; those at zero are left out."""
    return {
        family: {label: words[index] for label, index in labels.items() if words[index]}
        for family, labels in FAMILIES.items()
    }


_HANDSHAKES = tuple(FAMILIES["handshakes"].values())
_CPU = tuple(FAMILIES["handshake_cpu_microseconds"].values())
_MISSES = tuple(FAMILIES["resumption_misses"].values())
_SECONDS_FULL = FAMILIES["handshake_seconds_full"][str(HANDSHAKE_BOUNDS[0])]
_SECONDS_RESUMED = FAMILIES["handshake_seconds_resumed"][str(HANDSHAKE_BOUNDS[0])]
_AGE = FAMILIES["ticket_age_seconds"][str(TICKET_AGE_BOUNDS[0])]


def count_full(tally: memoryview, seconds: float, cpu_nanoseconds: int, miss: int) -> None:
    """A full handshake that is done; `miss` is an outcome.Miss."""
    tally[_HANDSHAKES[0]] += 1
    tally[_CPU[0]] += cpu_nanoseconds // 1000
    tally[_SECONDS_FULL + bisect_left(HANDSHAKE_BOUNDS, seconds)] += 1
    tally[_MISSES[miss]] += 1


def count_resumed(
    tally: memoryview, seconds: float, cpu_nanoseconds: int, age: int, *, from_cache: bool
) -> None:
    """One that resumed a session of `age` seconds, from a ticket or else from the cache."""
    how = 2 if from_cache else 1
    tally[_HANDSHAKES[how]] += 1
    tally[_CPU[how]] += cpu_nanoseconds // 1000
    tally[_SECONDS_RESUMED + bisect_left(HANDSHAKE_BOUNDS, seconds)] += 1
    tally[_AGE + bisect_left(TICKET_AGE_BOUNDS, age)] += 1
