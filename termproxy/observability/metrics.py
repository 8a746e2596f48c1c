"""THE table of what a worker counts for each frontend: the words, and where in its memory they stand.

Every family of counters is a dictionary from a label's value to the index of a 64-bit word.  Words in
here are stable: they stand in logs, in `status` and in metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
)

FAILED: Mapping[str, int] = {word: index for index, word in enumerate(FAILURES)}

FAMILIES: Mapping[str, Mapping[str, int]] = {"handshakes_failed": FAILED}

FRONTEND_WORDS = sum(map(len, FAMILIES.values()))


def as_plain(words: Sequence[int]) -> dict[str, dict[str, int]]:
    """A frontend's counters by family and label; those at zero are left out."""
    return {
        family: {label: words[index] for label, index in labels.items() if words[index]}
        for family, labels in FAMILIES.items()
    }
