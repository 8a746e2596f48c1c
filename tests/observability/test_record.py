"""What is known of a connection when it is over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from termproxy.errors import Fault
from termproxy.observability.record import ConnectionRecord, ExchangeRecord, Facts, printable

WHEN = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC).timestamp()


def record(**known: object) -> ConnectionRecord:
    made = ConnectionRecord(WHEN, "192.0.2.1:1", "web")
    for name, value in known.items():
        setattr(made, name, value)
    return made


def test_what_is_not_known_is_left_out() -> None:
    assert record().as_line() == {
        "time": "2026-11-23T08:00:00.123456Z",
        "client": "192.0.2.1:1",
        "frontend": "web",
        "bytes_from_client": 0,
        "bytes_from_backend": 0,
        "seconds": 0.0,
        "ended": "done",
        "fault": "none",
    }


def test_what_is_known_to_be_false_or_nothing_is_not_left_out() -> None:
    line = record(resumed=False, sni="").as_line()

    assert line["resumed"] is False
    assert line["sni"] == ""


def test_the_fault_is_a_word() -> None:
    assert record(fault=Fault.BACKEND).as_line()["fault"] == "backend"


def test_durations_end_at_the_microsecond() -> None:
    assert record(seconds=1.23456789).as_line()["seconds"] == 1.234568


def test_a_line_is_json() -> None:
    line = orjson.dumps(record(detail='a "quote"\n').as_line())

    assert orjson.loads(line)["time"] == "2026-11-23T08:00:00.123456Z"
    assert b"\n" not in line


def test_a_plain_name_stays_as_it_is() -> None:
    assert printable(b"www.example.com") == "www.example.com"


def test_anything_else_is_shown_by_its_number() -> None:
    assert printable(b"a\n\x1b[31m\xc3\xa9\x7f\0") == "a\\x0a\\x1b[31m\\xc3\\xa9\\x7f\\x00"


@settings(deadline=None)
@given(raw=st.binary())
def test_nothing_that_a_terminal_obeys_gets_through(raw: bytes) -> None:
    assert all(0x20 <= ord(mark) < 0x7F for mark in printable(raw))


def test_which_certificates_were_shown_is_in_the_line() -> None:
    line = record(certificate="site.pem", client_certificate="ab" * 32).as_line()

    assert (line["certificate"], line["client_certificate"]) == ("site.pem", "ab" * 32)


# Exchanges.

texts = st.none() | st.text(max_size=8)
seconds = st.floats(0, 1e5)


@settings(deadline=None)
@given(
    facts=st.dictionaries(
        st.sampled_from(["client", "frontend", "sni", "cipher"]), st.text(max_size=8), min_size=1
    ),
    time=st.floats(1e9, 1e10),
    known=st.fixed_dictionaries(
        {
            "method": texts,
            "host": texts,
            "path": texts,
            "request_id": texts,
            "backend": texts,
            "status": st.none() | st.integers(100, 599),
            "retries": st.integers(0, 3),
            "bytes_from_client": st.integers(0, 2**60),
            "bytes_to_client": st.integers(0, 2**60),
            "first_byte_seconds": st.none() | seconds,
            "seconds": seconds,
            "ended": st.sampled_from(["done", "idle_timeout"]),
            "fault": st.sampled_from(Fault),
            "detail": texts,
            "alert": texts,
            "alert_from": texts,
        }
    ),
)
def test_the_short_way_to_a_line_says_the_same(
    facts: dict[str, Any], time: float, known: dict[str, Any]
) -> None:
    made = ExchangeRecord(Facts(facts), time, 0.0)
    for name, value in known.items():
        setattr(made, name, value)

    written = made.as_json()

    assert written.endswith(b"}\n")
    assert list(orjson.loads(written).items()) == list(made.as_line().items())


def test_facts_are_what_a_connection_has_settled() -> None:
    facts = Facts(record(sni="a.example", version="TLSv1.3", seconds=1.0, backend="b").as_line())

    assert facts.values == {
        "client": "192.0.2.1:1",
        "frontend": "web",
        "sni": "a.example",
        "version": "TLSv1.3",
    }
    assert orjson.loads(f"{{{facts.json}}}") == facts.values
