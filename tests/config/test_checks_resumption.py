"""[resumption]: what contradicts itself, and what a value may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from termproxy.config.checks import problems
from termproxy.config.schema import ROTATIONS_MAX, Config, Resumption
from termproxy.errors import ConfigError
from termproxy.tls.tickets import KEYS_MAX, RETIRED_MAX
from tests.config.test_load import GOOD
from tests.config.test_load import read as read_config


def findings(state_dir: Path | None = None, **settings: Any) -> list[tuple[str, str, str]]:
    """Of a configuration that has nothing else wrong with it but no frontend."""
    config = Config(state_dir=state_dir, resumption=Resumption(**settings))
    return [(str(path[-1]), what, cure) for path, what, cure in problems(config) if path]


def read(folder: Path, text: str) -> Resumption:
    return read_config(folder, f"{GOOD}\n[resumption]\n{text}").resumption


def told(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(folder, text)
    [problem] = refused.value.problems
    return str(problem)


def test_what_is_set_by_default_is_in_order(tmp_path: Path) -> None:
    assert findings() == []
    assert read(tmp_path, "") == Resumption()


def test_every_setting_is_read(tmp_path: Path) -> None:
    text = (
        "tickets = false\nlifetime = 60\nrotate = 10\nsession_cache = 0\ntickets_per_handshake = 2\n"
        'ticket_keys = ["a.key", "/b.key"]\n'
    )
    expected = Resumption(
        tickets=False,
        lifetime=60,
        rotate=10,
        session_cache=0,
        tickets_per_handshake=2,
        ticket_keys=(tmp_path / "a.key", Path("/b.key")),
    )
    assert read(tmp_path, text) == expected


def test_one_file_of_keys_needs_no_list(tmp_path: Path) -> None:
    assert read(tmp_path, 'ticket_keys = "a.key"\n').ticket_keys == (tmp_path / "a.key",)


@pytest.mark.parametrize("nothing", ["[]", '""'])
def test_no_file_of_keys_is_none(tmp_path: Path, nothing: str) -> None:
    assert read(tmp_path, f"ticket_keys = {nothing}\n").ticket_keys == ()


@pytest.mark.parametrize(
    "line",
    [
        "lifetime = 0",
        "lifetime = 604801",  # RFC 8446 §4.6.1
        "lifetime = 1.5",
        'lifetime = "1h"',
        "rotate = 0",
        "rotate = -5",
        "rotate = 604801",
        "session_cache = -1",
        "session_cache = true",
        "tickets_per_handshake = 0",
        "tickets_per_handshake = 9",
        "tickets = 1",
        'persist = "yes"',
        "ticket_keys = [1]",
        "rotation = 5",
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(tmp_path: Path, line: str) -> None:
    problem = told(tmp_path, f"{line}\n")
    assert f"resumption.{line.partition(' ')[0]}" in problem
    assert "t.toml:11" in problem


def test_more_keys_at_a_time_than_there_is_room_for_are_refused() -> None:
    assert findings(lifetime=ROTATIONS_MAX * 10, rotate=10) == []
    [(key, what, cure)] = findings(lifetime=ROTATIONS_MAX * 10 + 1, rotate=10)
    assert key == "rotate"
    assert what == f"rotate = 10 makes more than {ROTATIONS_MAX} keys in a session's lifetime"
    assert cure == "write rotate = 11 or more, or a shorter lifetime"
    assert findings(lifetime=ROTATIONS_MAX * 10 + 1, rotate=11) == []


def test_as_many_keys_as_are_allowed_have_room() -> None:
    issuing_and_next = 2
    assert ROTATIONS_MAX + RETIRED_MAX + issuing_and_next <= KEYS_MAX


def test_keys_of_others_rotate_as_others_please() -> None:
    assert findings(lifetime=604_800, rotate=1, ticket_keys=(Path("/a.key"),)) == []


def test_what_is_to_be_kept_needs_a_place(tmp_path: Path) -> None:
    [finding] = findings(persist=True)
    assert finding == ("persist", "there is no place to keep the ticket keys", "write state_dir")
    assert findings(state_dir=tmp_path, persist=True) == []


def test_keys_of_others_are_not_kept(tmp_path: Path) -> None:
    [(key, what, _)] = findings(state_dir=tmp_path, persist=True, ticket_keys=(Path("/a.key"),))
    assert key == "persist"
    assert "no effect" in what
