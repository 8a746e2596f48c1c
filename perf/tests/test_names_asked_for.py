"""Which names clients ask for, and that they were served for them."""

import pytest

from comparison.metering import MeasurementError
from comparison.wrk import asked, check_names
from many_names.rows import MANY, ONE, SERVERS

NAMES = ("a.example", "b.example", "c.example")


def test_a_client_may_ask_for_no_name_or_one_or_every_one() -> None:
    assert list(asked("none", NAMES)) == [""]
    assert list(asked("first", NAMES)) == ["a.example"]
    assert list(asked("last", NAMES)) == ["c.example"]
    assert sorted(asked("every", NAMES)) == list(NAMES)


def test_a_name_for_each_request_is_right_but_for_the_last_connections() -> None:
    check_names("names: 4831 wrong: 0\n", requests=4819, connections=32)


def test_one_certificate_for_another_name_makes_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="1 of 4819 certificates were for another name"):
        check_names("names: 4819 wrong: 1\n", requests=4819, connections=32)


def test_requests_that_asked_for_nothing_make_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="32 names for 4819 requests"):
        check_names("names: 32 wrong: 0\n", requests=4819, connections=32)


def test_names_that_nobody_counted_make_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="did not tell"):
        check_names("handshakes: 4819 resumed: 0\n", requests=4819, connections=32)


def test_the_two_differ_in_their_certificates_only() -> None:
    places = {"port": "1", "backend_port": "2", "directory": "/site", "pem": "/site/many/first.pem"}
    places |= {"workers": "1", "connections": "4096"}
    many, one = (server.config_for(places).splitlines() for server in (MANY, ONE))
    [(ours, theirs)] = [pair for pair in zip(many, one, strict=True) if len({*pair}) > 1]
    assert ours == 'certificates = ["/site/many/certificates"]'
    assert theirs == 'certificates = ["/site/many/first.pem"]'
    assert [len(server.names) for server in SERVERS] == [10_000, 1]
