"""What an operation says when it has no count to give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from termproxy.outcome import Outcome

BINDING = Path(__file__).parent.parent / "termproxy" / "tls" / "_openssl.pyx"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_outcome_is_taken_for_a_count(outcome: Outcome) -> None:
    assert outcome <= 0


def test_outcomes_are_told_apart() -> None:
    assert len({int(outcome) for outcome in Outcome}) == len(Outcome.__members__) == 8


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_binding_has_the_same_numbers(outcome: Outcome) -> None:
    """C has its own copy; a difference would send bytes astray."""
    found = re.search(rf"^    _{outcome.name} = (-?\d+)$", BINDING.read_text(), re.MULTILINE)

    assert found is not None
    assert int(found[1]) == outcome
