"""The binding staples what its dictionary holds for the certificate that it shows, while it is current.

The client is Python's own TLS, made to ask (tests/support/ocsp.py); the responses need not be any.
"""

from __future__ import annotations

import gc
import hashlib
import os
import ssl
import tracemalloc
import weakref
from typing import Any

import psutil
import pytest
import trustme

from termproxy import clock
from termproxy.errors import TlsError
from termproxy.tls._openssl import Connection, Context
from tests.scenarios.names.hellos import extended, message_of, record
from tests.support.hello import client_hello
from tests.support.ocsp import asking, staple_shown_to
from tests.support.tls import (
    GROUPS,
    HANDSHAKE_RECORD,
    TLS_1_2,
    TLS_1_3,
    Pair,
    Site,
    authority,
    client_context,
    records,
    server_context,
    site,
)

VERSIONS = [pytest.param(TLS_1_2, id="1.2"), pytest.param(TLS_1_3, id="1.3")]

RESPONSE, OTHER = b"\x30\x00a response\xff", b"another one"
FAR = 4e9  # seconds since 1970

STAPLE_MAX = 16380

RSA = site(key_type=trustme.KeyType.RSA)
OTHER_SITE = site("b.test")

Staples = dict[bytes, tuple[bytes, float]]


def digest(of: Site) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(of.chain.decode())).digest()


def staples(*responses: bytes, until: float = FAR) -> Staples:
    """The first is for site(), the second for RSA."""
    return {
        digest(of): (response, until) for of, response in zip((site(), RSA), responses, strict=False)
    }


def stapled(
    context: Context,
    version: int | None = None,
    *,
    asks: bool = True,
    **options: Any,
) -> bytes | None:
    """What a client is shown in a handshake that succeeds."""
    name = options.pop("name", "a.test")
    with Pair(context, client_context(version=version, **options), name=name) as pair:
        if asks:
            asking(pair.client.tls)
        pair.handshake()
        return staple_shown_to(pair.client.tls)


# What is shown.


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_asks_is_shown_the_very_bytes(version: int) -> None:
    assert stapled(server_context(staples=staples(RESPONSE)), version) == RESPONSE


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_does_not_ask_is_shown_none(version: int) -> None:
    """RFC 8446 §4.2: what was not asked for is not sent; clients abort."""
    assert stapled(server_context(staples=staples(RESPONSE)), version, asks=False) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_context_without_a_dictionary_staples_nothing(version: int) -> None:
    assert stapled(server_context(), version) is None
    assert stapled(server_context(staples=None), version) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_dictionary_staples_nothing(version: int) -> None:
    assert stapled(server_context(staples={}), version) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_response_of_another_certificate_is_not_shown(version: int) -> None:
    assert stapled(server_context(staples={digest(OTHER_SITE): (OTHER, FAR)}), version) is None


@pytest.mark.parametrize("length", [1, 255, 256, 4096, STAPLE_MAX])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_response_of_any_length_that_fits_is_shown(version: int, length: int) -> None:
    response = bytes(range(256)) * (length // 256) + bytes(length % 256)
    assert stapled(server_context(staples=staples(response)), version) == response


@pytest.mark.parametrize("length", [STAPLE_MAX + 1, 1 << 16, 1 << 24])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_response_that_would_end_the_handshake_is_not_shown(version: int, length: int) -> None:
    """TLS 1.3 has 16 bits for it; OpenSSL's clients refuse it in TLS 1.2."""
    assert stapled(server_context(staples=staples(bytes(length))), version) is None


# For which certificate.


@pytest.mark.parametrize(
    ("ciphers", "expected"),
    [("ECDHE-ECDSA-AES128-GCM-SHA256", RESPONSE), ("ECDHE-RSA-AES128-GCM-SHA256", OTHER)],
)
def test_of_two_identities_the_one_that_is_shown_decides(ciphers: str, expected: bytes) -> None:
    identities = [(site().chain, site().key), (RSA.chain, RSA.key)]
    context = Context(identities=identities, groups=GROUPS, staples=staples(RESPONSE, OTHER))
    assert stapled(context, TLS_1_2, ciphers=ciphers) == expected


@pytest.mark.parametrize("of", [site(), RSA], ids=["ecdsa", "rsa"])
def test_in_tls_1_3_too(of: Site) -> None:
    """Its clients choose by signature algorithms, which Python does not let us say."""
    expected = RESPONSE if of is site() else OTHER
    for order in ([site(), RSA], [RSA, site()]):
        algorithms = "ecdsa_secp256r1_sha256" if of is site() else "rsa_pss_rsae_sha256"
        context = Context(
            identities=[(each.chain, each.key) for each in order],
            groups=GROUPS,
            signature_algorithms=algorithms,
            staples=staples(RESPONSE, OTHER),
        )
        assert stapled(context, TLS_1_3) == expected


def test_one_identity_with_a_response_and_one_without() -> None:
    identities = [(site().chain, site().key), (RSA.chain, RSA.key)]
    context = Context(identities=identities, groups=GROUPS, staples=staples(RESPONSE))
    assert stapled(context, TLS_1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256") is None
    assert stapled(context, TLS_1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256") == RESPONSE


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["same", "none", "empty", "own"])
def test_the_context_that_the_client_hello_chose_decides(version: int, first: str) -> None:
    held = {digest(OTHER_SITE): (OTHER, FAR)} | staples(RESPONSE)
    chosen = server_context(OTHER_SITE, staples=held)
    of_first = {"same": held, "none": None, "empty": {}, "own": staples(RESPONSE)}[first]
    context = server_context(staples=of_first, on_client_hello=lambda _: chosen)
    assert stapled(context, version, name="b.test") == OTHER


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chosen_context_that_staples_nothing_staples_nothing(version: int) -> None:
    held = {digest(OTHER_SITE): (OTHER, FAR)} | staples(RESPONSE)
    chosen = server_context(OTHER_SITE)
    context = server_context(staples=held, on_client_hello=lambda _: chosen)
    assert stapled(context, version, name="b.test") is None


def test_a_retried_hello_is_answered_as_well() -> None:
    """HelloRetryRequest: the client offers a group first that we do not have."""
    context = server_context(groups="P-384", staples=staples(RESPONSE))
    assert stapled(context, TLS_1_3) == RESPONSE


def test_a_client_of_whom_a_certificate_is_asked_is_answered_as_well() -> None:
    context = server_context(
        staples=staples(RESPONSE),
        client_auth="optional",
        client_ca=authority().cert_pem.bytes(),
    )
    assert [stapled(context, version) for version in (TLS_1_2, TLS_1_3)] == [RESPONSE] * 2


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_shows_neither_certificate_nor_staple(version: int) -> None:
    context, client = server_context(staples=staples(RESPONSE)), client_context(version=version)
    with Pair(context, client) as pair:
        asking(pair.client.tls)
        pair.handshake()
        session = pair.client.session()
    with Pair(context, client, session=session) as pair:
        asking(pair.client.tls)
        pair.handshake()
        assert pair.server.resumed
        assert staple_shown_to(pair.client.tls) is None


# When.


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_not_shown_from_the_second_on_at_which_it_expires(version: int) -> None:
    def context_of(until: float) -> Context:
        return server_context(staples=staples(RESPONSE, until=until))

    now = int(clock.utc_now().timestamp())
    assert stapled(context_of(now - 0.5), version) is None
    assert stapled(context_of(now), version) is None
    assert stapled(context_of(0), version) is None
    assert stapled(context_of(now + 3600), version) == RESPONSE


@pytest.mark.parametrize("version", VERSIONS)
def test_a_change_is_seen_by_the_next_handshake(version: int) -> None:
    held: Staples = {}
    context = server_context(staples=held)
    assert stapled(context, version) is None
    held[digest(site())] = RESPONSE, FAR
    assert stapled(context, version) == RESPONSE
    held[digest(site())] = OTHER, FAR
    assert stapled(context, version) == OTHER
    held[digest(site())] = OTHER, 1.0
    assert stapled(context, version) is None
    held.clear()
    assert stapled(context, version) is None


def test_a_response_that_goes_while_a_client_is_served_is_no_trouble() -> None:
    """It is taken when the client has asked, and copied."""
    held = staples(RESPONSE)
    with Pair(server_context(staples=held), client_context(version=TLS_1_2)) as pair:
        asking(pair.client.tls)
        pair.client.advance()
        pair.server.handshake()
        held.clear()
        gc.collect()
        pair.handshake()
        assert staple_shown_to(pair.client.tls) == RESPONSE


# Nonsense.


class _Raises:
    def __getitem__(self, _: object) -> None:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return "raises"


NONSENSE: list[Any] = [
    None,
    5,
    "text",
    (),
    (RESPONSE,),
    (None, FAR),
    ("text", FAR),
    (5, FAR),
    ([1, 2], FAR),
    (RESPONSE, None),
    (RESPONSE, "tomorrow"),
    (b"", FAR),
    _Raises(),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
@pytest.mark.parametrize("version", VERSIONS)
def test_nonsense_in_the_dictionary_costs_the_staple_and_not_the_client(
    version: int, nonsense: Any
) -> None:
    assert stapled(server_context(staples={digest(site()): nonsense}), version) is None


@pytest.mark.parametrize("wrong", [[], "text", 5, b"", ()])
def test_what_is_no_dictionary_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        server_context(staples=wrong)


def asking_hello(body: bytes) -> bytes:
    """A ClientHello whose status request is these bytes."""
    message = message_of(client_hello("a.test", version=ssl.TLSVersion.TLSv1_2))
    return record(extended(message, 5, body))


@pytest.mark.parametrize(
    ("request_body", "is_answered"),
    [
        (bytes.fromhex("0100000000"), True),
        (bytes.fromhex("0200000000"), False),  # a kind that does not exist
        (bytes.fromhex("01000400020001") + b"\0\0", False),  # an id that is no id
        (bytes.fromhex("01"), False),
        (b"", False),
        (bytes.fromhex("01fffffffff0"), False),
    ],
)
def test_a_request_by_hand_is_answered_or_refused_and_nothing_breaks(
    request_body: bytes,
    is_answered: bool,  # noqa: FBT001
) -> None:
    with Pair(server_context(staples=staples(RESPONSE))) as pair:
        pair.client.wire.sendall(asking_hello(request_body))
        try:
            pair.server.handshake()
        except TlsError:
            assert not is_answered
        pair.client.listen()
        said = b"".join(body for kind, body in records(pair.client.heard) if kind == HANDSHAKE_RECORD)
        certificate_status = b"\x16" + (4 + len(RESPONSE)).to_bytes(3) + b"\x01"
        assert (certificate_status + len(RESPONSE).to_bytes(3) + RESPONSE in said) == is_answered


# Memory.


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="under a sanitizer what is freed stays for a while",
)
@pytest.mark.parametrize("version", VERSIONS)
def test_many_handshakes_do_not_keep_their_copies(version: int) -> None:
    """Caches have filled by the time it is measured."""
    held = staples(bytes(10_000))
    context, client = server_context(staples=held), client_context(version=version)

    def handshakes(count: int) -> None:
        for _ in range(count):
            with Pair(context, client) as pair:
                asking(pair.client.tls)
                pair.handshake()

    handshakes(300)
    before = resident()
    handshakes(1500)
    assert resident() - before < 5 << 20, "of 15 MB that were copied"


def test_a_context_keeps_its_dictionary_and_lets_it_go() -> None:
    held = {digest(site()): (bytes(STAPLE_MAX), FAR)}
    context = server_context(staples=held)
    del held
    gc.collect()
    shown = stapled(context, TLS_1_3)
    assert shown == bytes(STAPLE_MAX)
    tracemalloc.start()
    try:
        for _ in range(50):
            server_context(staples={bytes(32): (bytes(1 << 20), FAR)})
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 10 << 20, "of 50 MB"
    finally:
        tracemalloc.stop()


def test_a_dictionary_that_leads_back_to_the_context_is_collected() -> None:
    class Witness:
        pass

    witness = Witness()
    gone = weakref.ref(witness)
    held: dict[Any, Any] = {b"": witness}
    held[b"loop"] = server_context(staples=held)
    del held, witness
    gc.collect()
    assert gone() is None


def test_a_connection_outlives_everybodys_interest_in_its_dictionary() -> None:
    pair = Pair(server_context(staples=staples(RESPONSE)), client_context(version=TLS_1_3))
    with pair:
        gc.collect()
        asking(pair.client.tls)
        pair.handshake()
        assert isinstance(pair.server, Connection)
        assert staple_shown_to(pair.client.tls) == RESPONSE
