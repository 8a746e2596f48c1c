"""The binding: the ClientHello callback chooses the context, and all of the chosen policy holds.

SSL_set_SSL_CTX carries certificates and ciphers and little else; the rest the binding sets itself, and
each field has its test here: `first` is the context that the connection was made with, the other one is
chosen.
"""

from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from termproxy.errors import TlsError
from termproxy.outcome import WANT_READ
from termproxy.tls._openssl import Connection, Context
from tests.support.tls import (
    DATA_RECORD,
    TLS_1_2,
    TLS_1_3,
    Pair,
    client_context,
    records,
    server_context,
    signature_scheme,
    site,
)

AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
ECDSA_SHA256, ECDSA_SHA384 = 0x0403, 0x0503
SERVER_NAME, KEY_SHARE = 0, 51  # extensions (RFC 6066 §3, RFC 8446 §4.2.8)

BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


def choosing(choice: Any, **policy: Any) -> Context:
    """A first context whose callback answers `choice` to everyone."""
    return server_context(**policy, on_client_hello=lambda _: choice)


def switched(
    first: dict[str, Any],
    chosen: dict[str, Any],
    client: ssl.SSLContext | None = None,
) -> Pair:
    """A connection made under one policy that has shaken hands under another."""
    return Pair(choosing(server_context(**chosen), **first), client).handshake()


# A test per field.


@BOTH_VERSIONS
def test_the_chosen_certificate_is_shown(version: int) -> None:
    """The client verifies: it would refuse the first one's."""
    chosen = server_context(site("b.test"))
    with Pair(choosing(chosen), client_context(version=version), name="b.test") as pair:
        assert pair.handshake().server.context is chosen


@BOTH_VERSIONS
def test_the_chosen_key_may_be_of_another_type(version: int) -> None:
    chosen = server_context(site("b.test", trustme.KeyType.RSA))
    with Pair(choosing(chosen), client_context(version=version), name="b.test") as pair:
        pair.handshake()


def test_the_chosen_minimum_version_holds() -> None:
    first, client = choosing(server_context(min_version=TLS_1_3)), client_context(version=TLS_1_2)
    with Pair(first, client) as pair:
        with pytest.raises(TlsError):
            pair.handshake()
        assert pair.client.alert() == 70


def test_the_first_minimum_version_is_forgotten() -> None:
    client = client_context(version=TLS_1_2)
    with switched({"min_version": TLS_1_3}, {"min_version": TLS_1_2}, client) as pair:
        assert pair.server.version == "TLSv1.2"


def test_the_chosen_maximum_version_holds() -> None:
    with switched({}, {"max_version": TLS_1_2}) as pair:
        assert pair.server.version == "TLSv1.2"


def test_the_first_maximum_version_is_forgotten() -> None:
    with switched({"max_version": TLS_1_2}, {}) as pair:
        assert pair.server.version == "TLSv1.3"


def test_the_chosen_ciphers_hold() -> None:
    client = client_context(version=TLS_1_2)
    with switched({"ciphers": AES_128}, {"ciphers": AES_256}, client) as pair:
        assert pair.server.cipher == AES_256


def test_the_chosen_ciphersuites_hold() -> None:
    first, chosen = "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"
    with switched({"ciphersuites": first}, {"ciphersuites": chosen}) as pair:
        assert pair.server.cipher == chosen


@BOTH_VERSIONS
def test_the_chosen_groups_hold(version: int) -> None:
    client = client_context(version=version)
    with switched({"groups": "X25519"}, {"groups": "P-384"}, client) as pair:
        assert pair.server.group == "secp384r1"


@pytest.mark.parametrize(
    ("first", "chosen", "scheme"),
    [
        ({}, {"signature_algorithms": "ECDSA+SHA384"}, ECDSA_SHA384),
        ({"signature_algorithms": "ECDSA+SHA384"}, {}, ECDSA_SHA256),
        (
            {"signature_algorithms": "ECDSA+SHA256"},
            {"signature_algorithms": "ECDSA+SHA384"},
            ECDSA_SHA384,
        ),
    ],
)
def test_the_chosen_signature_algorithms_hold(
    first: dict[str, str], chosen: dict[str, str], scheme: int
) -> None:
    with switched(first, chosen, client_context(version=TLS_1_2)) as pair:
        assert signature_scheme(pair.client.heard) == scheme


@BOTH_VERSIONS
def test_the_chosen_protocols_hold(version: int) -> None:
    client = client_context(version=version, alpn=["h2", "http/1.1"])
    with switched({"alpn": [b"h2"]}, {"alpn": [b"http/1.1"]}, client) as pair:
        assert pair.server.alpn == b"http/1.1"


def test_the_chosen_protocols_refuse_what_the_first_would_not() -> None:
    first = choosing(server_context(alpn=[b"http/1.1"]), alpn=[b"h2"])
    with Pair(first, client_context(alpn=["h2"])) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.alert == 120


def test_chosen_without_protocols_alpn_is_ignored() -> None:
    with switched({"alpn": [b"h2"]}, {}, client_context(alpn=["h2"])) as pair:
        assert pair.server.alpn is None


@pytest.mark.parametrize(("first", "chosen"), [(0, 3), (3, 0), (2, 1)])
def test_the_chosen_number_of_tickets_is_sent(first: int, chosen: int) -> None:
    with switched({"tickets": first}, {"tickets": chosen}) as pair:
        before = len(pair.client.heard)
        pair.client.receive()
        sent = [kind for kind, _ in records(pair.client.heard[before:])]
    assert sent == [DATA_RECORD] * chosen


@pytest.mark.parametrize("order", [f"{AES_128}:{AES_256}", f"{AES_256}:{AES_128}"])
def test_the_options_are_kept(order: str) -> None:
    """Of which the order of ciphers can be seen: without its option it would be the client's."""
    client = client_context(version=TLS_1_2, ciphers=f"{AES_256}:{AES_128}")
    with switched({}, {"ciphers": order}, client) as pair:
        assert pair.server.cipher == order.split(":", maxsplit=1)[0]


# Resumption and the chosen context.


def resumes(first: Context, then: Context, client: ssl.SSLContext) -> bool:
    with Pair(first, client) as pair:
        session = pair.handshake().client.session()
    with Pair(then, client, session=session) as pair:
        return pair.handshake().server.resumed


@BOTH_VERSIONS
def test_a_session_resumes_under_the_same_choice(version: int) -> None:
    first = choosing(server_context())
    assert resumes(first, first, client_context(version=version))


@BOTH_VERSIONS
def test_a_session_does_not_cross_to_a_choice_with_another_session_id_context(version: int) -> None:
    """CVE-2025-23419: what one name's policy demanded of a client is not proven for another's."""
    choices = [server_context(session_id_context=b"a"), server_context(session_id_context=b"b")]
    first = server_context(on_client_hello=lambda _: choices[0])
    client = client_context(version=version)
    with Pair(first, client) as pair:
        session = pair.handshake().client.session()
    choices.reverse()
    with Pair(first, client, session=session) as pair:
        assert not pair.handshake().server.resumed


# What the callback sees and may answer.


def answered(callback: Callable[[Connection], Any]) -> Pair:
    """A server with this callback that has a ClientHello to read."""
    pair = Pair(server_context(on_client_hello=callback))
    pair.greet()
    return pair


def test_the_answer_none_keeps_the_context() -> None:
    first = choosing(None)
    with Pair(first) as pair:
        assert pair.handshake().server.context is first


def test_the_extensions_can_be_read_before_anything_is_decided() -> None:
    seen: list[bytes | None] = []

    def look(connection: Connection) -> None:
        seen.append(connection.client_hello_extension(SERVER_NAME))
        seen.append(connection.client_hello_extension(0xFFFF))

    with answered(look) as pair:
        pair.handshake()
    assert seen == [b"\x00\x09\x00\x00\x06a.test", None]


def test_the_extensions_cannot_be_read_at_any_other_time() -> None:
    with Pair(server_context(on_client_hello=lambda _: None)) as pair:
        with pytest.raises(RuntimeError, match="outside"):
            pair.server.client_hello_extension(0)
        pair.handshake()
        with pytest.raises(RuntimeError, match="outside"):
            pair.server.client_hello_extension(0)


def test_a_retried_client_hello_is_not_asked_about_again() -> None:
    """RFC 8446 §4.1.2: after a HelloRetryRequest all has been decided, and the hello is the same."""
    for choice in (None, server_context(groups="P-384")):
        asked: list[bytes | None] = []

        def choose(connection: Connection, choice: Any = choice, asked: Any = asked) -> Any:
            asked.append(connection.client_hello_extension(KEY_SHARE))
            return choice

        with Pair(server_context(groups="P-384", on_client_hello=choose)) as pair:
            assert pair.handshake().server.group == "secp384r1"
        assert len(asked) == 1


def test_an_alerts_number_refuses_with_it() -> None:
    with answered(lambda _: 112) as pair:  # unrecognized_name
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
        assert (failure.value.alert, failure.value.alert_from) == (112, "proxy")
        assert pair.client.alert() == 112


@pytest.mark.parametrize("rubbish", ["b.test", b"x", 0, 256, -1, 2**70, 1.5, object(), True, False, ()])
def test_a_rubbish_answer_is_our_own_error(rubbish: object) -> None:
    with answered(lambda _: rubbish) as pair:
        with pytest.raises(TypeError, match="on_client_hello returned"):
            pair.server.handshake()
        assert pair.client.alert() == 80


class Boom(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize("error", [LookupError("no such name"), KeyboardInterrupt(), Boom()])
def test_an_exception_comes_out_of_handshake(error: BaseException) -> None:
    def fail(_: Connection) -> None:
        raise error

    with answered(fail) as pair:
        with pytest.raises(type(error)) as raised:
            pair.server.handshake()
        assert raised.value is error
        assert pair.client.alert() == 80  # internal_error


@pytest.mark.parametrize(
    "operation",
    [
        lambda connection: connection.read_into(bytearray(1)),
        lambda connection: connection.write(b"x"),
    ],
)
def test_an_exception_comes_out_of_whatever_began_the_handshake(
    operation: Callable[[Connection], int],
) -> None:
    def fail(_: Connection) -> None:
        raise LookupError

    with answered(fail) as pair, pytest.raises(LookupError):
        operation(pair.server)


USES: list[Callable[[Connection], Any]] = [
    lambda connection: connection.close(),
    lambda connection: connection.handshake(),
    lambda connection: connection.read_into(bytearray(1)),
    lambda connection: connection.write(b"x"),
    lambda connection: connection.shutdown(),
    lambda connection: connection.version,
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("begin", USES[1:4])
def test_inside_the_callback_the_connection_refuses_every_use(
    begin: Callable[[Connection], Any], use: Callable[[Connection], Any]
) -> None:
    """Freed or driven there, it would be gone under OpenSSL's feet when the callback returns."""
    refused: list[type] = []

    def meddle(connection: Connection) -> None:
        try:
            use(connection)
        except RuntimeError as error:
            refused.append(type(error))

    with answered(meddle) as pair:
        begin(pair.server)
        assert refused == [RuntimeError]
        pair.handshake()


def test_a_collection_inside_the_callback_does_no_harm() -> None:
    def collect(_: Connection) -> Context:
        chosen = server_context(site("a.test", trustme.KeyType.RSA))
        gc.collect()
        return chosen

    with answered(collect) as pair:
        pair.handshake()
        gc.collect()
        pair.client.send(b"alive")
        assert pair.read() == (b"alive", WANT_READ)


def test_a_chosen_context_lives_as_long_as_its_connection() -> None:
    class Chooser:
        def __call__(self, _: Connection) -> None: ...

    chooser = Chooser()
    alive = weakref.ref(chooser)
    choices = [server_context(on_client_hello=chooser)]
    with answered(lambda _: choices.pop()) as pair:
        del chooser
        pair.handshake()
        gc.collect()
        assert alive() is not None
        pair.server = Connection(server_context(), pair.wire.fileno())
        gc.collect()
        assert alive() is None


def test_a_context_that_was_never_finished_is_an_error_and_no_crash() -> None:
    unfinished = Context.__new__(Context)
    with answered(lambda _: unfinished) as pair, pytest.raises(TypeError):
        pair.server.handshake()
