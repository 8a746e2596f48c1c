"""Every error says whose fault it is."""

from __future__ import annotations

import pytest

from termproxy.errors import (
    BackendError,
    ConfigError,
    ControlError,
    Fault,
    Problem,
    StartError,
    TermproxyError,
    TlsError,
    TruncatedError,
)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TermproxyError("x"), Fault.PROXY),
        (ConfigError([Problem("a", "b", "c")]), Fault.OPERATOR),
        (StartError("x"), Fault.OPERATOR),
        (ControlError("x"), Fault.OPERATOR),
        (BackendError("backend_refused", "x"), Fault.BACKEND),
        (TlsError("x", 1, 0, None, None), Fault.CLIENT),
        (TruncatedError(), Fault.CLIENT),
    ],
)
def test_an_error_names_whose_fault_it_is(error: TermproxyError, fault: Fault) -> None:
    assert error.fault is fault
    assert isinstance(error, TermproxyError)


def test_a_problem_reads_where_what_and_cure() -> None:
    assert str(Problem("t.toml:3: workers", "0 is out of bounds", "write 1")) == (
        "t.toml:3: workers: 0 is out of bounds; write 1"
    )
    assert str(Problem("--listen", "no port", "")) == "--listen: no port"


def test_a_config_error_tells_every_problem_on_a_line_of_its_own() -> None:
    one, other = Problem("a", "b", "c"), Problem("d", "e", "f")
    error = ConfigError([one, other])

    assert str(error) == "a: b; c\nd: e; f"
    assert error.problems == (one, other)


def test_a_backend_error_has_a_word_for_counters() -> None:
    error = BackendError("backend_refused", "127.0.0.1:1: Connection refused")

    assert error.reason == "backend_refused"
    assert str(error) == "backend_refused: 127.0.0.1:1: Connection refused"


def test_a_truncation_is_told_as_openssl_tells_it() -> None:
    """So that one table explains both."""
    error = TruncatedError()

    assert (error.reason, error.code, error.errno, error.alert) == ("unexpected eof", 294, 0, None)
