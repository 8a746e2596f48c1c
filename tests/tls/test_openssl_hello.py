"""A handshake that stops at the ClientHello: before any crypto, with what the client hopes for known."""

from __future__ import annotations

import ssl

import pytest

from termproxy.errors import TlsError
from termproxy.outcome import HELLO, WANT_READ
from termproxy.tls._openssl import Connection, nanoseconds_in_handshakes
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, server_context


def seen(_: Connection) -> None:
    """As on_client_hello: any will do."""


def stop(pair: Pair) -> None:
    pair.server.stops_at_hello = True
    pair.client.advance()
    assert pair.server.handshake() == HELLO


def session_of(client: ssl.SSLContext) -> ssl.SSLSession | None:
    with Pair(server_context(on_client_hello=seen), client) as pair:
        return pair.handshake().client.session()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_it_stops_once_and_tells_whether_a_session_is_offered(version: int) -> None:
    server, client = server_context(on_client_hello=seen), client_context(version=version)
    for session in (None, session_of(client)):
        with Pair(server, client, session=session) as pair:
            stop(pair)
            assert pair.server.offers_session is (session is not None)
            assert pair.server.offer is None, "our callback has not been asked"
            pair.client.listen()
            assert pair.client.heard == b"", "nothing has been answered"
            pair.handshake()
            assert pair.server.resumed is (session is not None)


def test_a_session_id_of_tls_1_2_is_an_offer_too() -> None:
    client = client_context(version=TLS_1_2, tickets=False)
    with Pair(server_context(on_client_hello=seen), client) as pair:
        stop(pair)
        assert not pair.server.offers_session


def test_one_that_is_not_asked_to_stop_goes_through() -> None:
    with Pair(server_context(on_client_hello=seen)) as pair:
        pair.handshake()
        assert not pair.server.offers_session
        assert not pair.server.stops_at_hello


def test_a_hello_in_pieces_stops_when_it_is_whole() -> None:
    with Pair(server_context(on_client_hello=seen)) as pair:
        pair.server.stops_at_hello = True
        hello = pair.client.hello()
        pair.client.wire.sendall(hello[:50])
        assert pair.server.handshake() == WANT_READ
        pair.client.wire.sendall(hello[50:])
        assert pair.server.handshake() == HELLO
        pair.handshake()


def test_a_retry_request_does_not_stop_it_again() -> None:
    """RFC 8446 §4.1.4: the client has to send another ClientHello, and all has been decided."""
    server = server_context(on_client_hello=seen, groups="P-384")
    with Pair(server, client_context(version=TLS_1_3)) as pair:
        stop(pair)
        pair.server.stops_at_hello = True
        pair.handshake()


def test_it_can_be_closed_where_it_stopped() -> None:
    with Pair(server_context(on_client_hello=seen)) as pair:
        stop(pair)
        pair.server.close()


def test_what_the_callback_refuses_is_refused_when_it_goes_on() -> None:
    with Pair(server_context(on_client_hello=lambda _: 112)) as pair:
        stop(pair)
        with pytest.raises(TlsError):
            pair.server.handshake()
        assert pair.client.alert() == 112


def test_the_time_that_handshakes_take_is_added_up() -> None:
    before = nanoseconds_in_handshakes()
    with Pair(server_context()) as one, Pair(server_context()) as other:
        one.handshake()
        other.handshake()
        spent = one.server.handshake_nanoseconds + other.server.handshake_nanoseconds
        assert nanoseconds_in_handshakes() - before == spent > 0
