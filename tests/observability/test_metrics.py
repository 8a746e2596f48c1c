"""The table of what is counted: every word has its place, and nobody else's."""

from __future__ import annotations

from termproxy.observability.metrics import (
    FAILED,
    FAILURES,
    FAMILIES,
    FRONTEND,
    FRONTEND_WORDS,
    MEASURED,
    METRICS,
    TOTALS,
    as_plain,
)
from termproxy.observability.scoreboard import COUNTERS


def test_every_label_has_a_word_of_its_own() -> None:
    places = [index for labels in FAMILIES.values() for index in labels.values()]

    assert sorted(places) == list(range(FRONTEND_WORDS))


def test_no_word_stands_twice() -> None:
    assert len(set(FAILURES)) == len(FAILURES)
    assert tuple(FAILED) == FAILURES


def test_words_are_stable() -> None:
    """They stand in logs and in people's alerts: a change here is an incident there."""
    assert {
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
    } <= set(FAILURES)


def test_every_counter_of_a_worker_is_told() -> None:
    """Its handshakes are, by frontend."""
    by_frontend = {"handshakes", "handshakes_resumed", "handshakes_failed"}

    assert {column.name.lower() for column in COUNTERS} == set(TOTALS) | by_frontend


def test_no_two_metrics_have_one_name() -> None:
    families = {family.metric for family in FRONTEND.values() if family.metric is not None}
    totals = {metric for metric, _ in TOTALS.values()}

    assert len(METRICS) == len(families) + len(totals) + len(MEASURED)


def test_counters_at_zero_are_left_out() -> None:
    words = [0] * FRONTEND_WORDS
    words[FAILED["scanner"]] = 3
    words[FAILED["drain_timeout"]] = 1

    assert as_plain(words)["handshakes_failed"] == {"scanner": 3, "drain_timeout": 1}


def test_what_has_not_been_counted_is_an_empty_family() -> None:
    assert as_plain([0] * FRONTEND_WORDS) == {family: {} for family in FAMILIES}
