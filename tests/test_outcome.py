"""What an operation says when it has no count to give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from termproxy import outcome as outcomes

BINDING = Path(__file__).parent.parent / "termproxy" / "tls" / "_openssl.pyx"


OUTCOMES: dict[str, int] = {word: number for word, number in vars(outcomes).items() if word.isupper()}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_outcome_is_taken_for_a_count(outcome: str) -> None:
    assert OUTCOMES[outcome] <= 0


def test_outcomes_are_told_apart() -> None:
    assert len(set(OUTCOMES.values())) == len(OUTCOMES) == 8


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_binding_has_the_same_numbers(outcome: str) -> None:
    """C has its own copy; a difference would send bytes astray."""
    found = re.search(rf"^    _{outcome} = (-?\d+)$", BINDING.read_text(), re.MULTILINE)

    assert found is not None
    assert int(found[1]) == OUTCOMES[outcome]
