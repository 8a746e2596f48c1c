"""What one master leaves to the next: as bytes, and back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.master.handover import FORM, Handover, PassedCache, PassedListener, decode, encode

WHOLE = Handover(
    pid=1,
    version="1.2",
    talk=9,
    started="2026-11-23T00:00:00+00:00",
    generation=7,
    pidfile="/run/pid",
    control="/run/control",
    listeners=[PassedListener("127.0.0.1:1", [10, 11]), PassedListener("unix:/a", [12], [5, 6])],
    activated={"web": [13]},
    caches=[PassedCache(20_000, 1, 14)],
    ring={"seed": "5ec4e7"},
    servers=[{"cluster": "a", "server": "b"}],
)


def test_what_is_left_comes_back() -> None:
    assert decode(encode(WHOLE)) == WHOLE


def test_every_descriptor_is_named_once() -> None:
    assert sorted(WHOLE.descriptors()) == [9, 10, 11, 12, 13, 14]


def test_what_only_another_version_knows_does_not_matter() -> None:
    plain = orjson.loads(encode(WHOLE))
    plain["moon"] = "full"
    plain["listeners"][0]["colour"] = "red"
    del plain["servers"]
    decoded = decode(orjson.dumps(plain))

    assert decoded.servers == []
    assert decoded.listeners == WHOLE.listeners


def test_another_form_is_refused_and_says_so() -> None:
    plain = orjson.loads(encode(WHOLE)) | {"form": FORM + 1}
    with pytest.raises(ValueError, match=f"leaves form {FORM + 1}, and this one reads form {FORM}"):
        decode(orjson.dumps(plain))


@pytest.mark.parametrize(
    "change",
    [
        {"talk": None},
        {"talk": 2},
        {"talk": 10},
        {"listeners": [{"address": "a"}]},
        {"listeners": [None]},
        {"activated": {"web": 3}},
        {"caches": [{"entries": 1, "layout": 1, "fd": "x"}]},
    ],
)
def test_what_is_not_whole_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="what the old master leaves"):
        decode(orjson.dumps(orjson.loads(encode(WHOLE)) | change))


@pytest.mark.parametrize("left_out", ["pid", "version", "talk", "started", "generation"])
def test_so_is_what_lacks_something(left_out: str) -> None:
    plain = orjson.loads(encode(WHOLE))
    del plain[left_out]
    with pytest.raises(ValueError, match="not whole"):
        decode(orjson.dumps(plain))


@given(st.binary(max_size=200))
def test_nonsense_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="what the old master leaves"):
        decode(encoded)


def test_a_refusal_and_what_is_printed_hold_no_secret() -> None:
    broken = orjson.loads(encode(WHOLE))
    del broken["pid"]
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is what is looked at
        decode(orjson.dumps(broken))

    assert "5ec4e7" not in str(refused.value)
    assert "5ec4e7" not in repr(WHOLE)
