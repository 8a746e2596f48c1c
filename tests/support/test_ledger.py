"""A loss has a name, and is never counted as done."""

from __future__ import annotations

import ssl

import pytest

from termproxy import clock
from tests.support.ledger import Ledger, LostError, kind_of


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "reset"),
        (BrokenPipeError(), "reset"),
        (TimeoutError(), "timeout"),
        (ssl.SSLEOFError(), "short"),
        (LostError("wrong hash"), "wrong hash"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    ledger = Ledger()
    ledger.lose(error)

    assert kind_of(error) == kind
    assert (ledger.done, ledger.failed) == (0, {kind: 1})


def test_quantiles_are_of_what_began_in_a_span() -> None:
    ledger = Ledger(when=[(1.0, 0.5), (2.0, 0.1), (3.0, 0.2)])

    assert ledger.quantile(0.99) == 0.5
    assert ledger.quantile(0.99, [(1.5, 2.5), (2.5, 3.5)]) == 0.2
    assert ledger.quantile(0.5, [(9.0, 10.0)]) == 0.0
    ledger.record(clock.monotonic(), resumed=True)
    assert (ledger.done, ledger.resumed) == (1, 1)
