"""What a running master answers."""

from __future__ import annotations

import pytest

from tests.support.masters import Master, Start


@pytest.fixture
def master(start: Start) -> Master:
    return start()


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"verb": "tickets", "do": "export"}, "'key'"),
        ({"verb": "tickets", "do": "export", "key": 7, "salt": ""}, "fromhex() argument must be str"),
        ({"verb": "tickets", "do": "import", "sealed": "zz", "key": ""}, "non-hexadecimal number"),
        ({"verb": "explain", "client_ip": "a"}, "client_ip is an IP address, as in 192.0.2.1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_why(
    master: Master, question: dict[str, object], error: str
) -> None:
    assert error in master.ask(**question)["error"]


def test_status_knows_the_workers_and_what_is_listened_on(master: Master) -> None:
    status = master.status()

    assert (status["state"], status["generation"], status["last_reload"]) == ("serving", 1, None)
    assert status["pid"] == master.process.pid
    assert [worker["slot"] for worker in status["workers"]] == [0, 1]
    assert [each["listen"] for each in status["frontends"]] == [[f"127.0.0.1:{master.port}"]]


def test_certs_are_told_with_their_file_and_days(master: Master) -> None:
    (served,) = master.ask(verb="certs")["certificates"]

    assert served["file"] == master.values["frontend"][0]["certificates"][0]
    assert served["days_left"] > 0
