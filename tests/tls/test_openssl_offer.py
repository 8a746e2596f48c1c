"""The binding keeps what a client offers, for as long as its handshake may fail, and bounded."""

from __future__ import annotations

from typing import Any

import pytest
import trustme

from termproxy.errors import TlsError
from termproxy.outcome import WANT_READ
from termproxy.tls._openssl import Connection, Context
from termproxy.tls.client_hello import Offer, parse_offer
from tests.support.hello import hand_made, numbers
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, server_context, site

OFFER_MAX = 512  # bytes of a list, as the binding has it

GROUPS, SIGNATURE_ALGORITHMS, ALPN, VERSIONS = 10, 13, 16, 43


def asking(**policy: Any) -> Context:
    """A context that asks what to do with a ClientHello, as a frontend's does."""
    return server_context(on_client_hello=lambda _: None, **policy)


def offer_of(pair: Pair) -> Offer:
    assert pair.server.offer is not None
    return parse_offer(pair.server.offer)


def offer_made_of(hello: bytes) -> tuple[Any, ...]:
    """What is kept of a ClientHello, whatever comes of it."""
    with Pair(asking()) as pair:
        pair.client.wire.sendall(hello)
        try:
            pair.server.handshake()
        except TlsError:
            pass
        assert pair.server.offer is not None
        return pair.server.offer


def test_there_is_none_before_the_client_hello() -> None:
    with Pair(asking()) as pair:
        assert pair.server.offer is None
        assert pair.server.handshake() == WANT_READ
        assert pair.server.offer is None


def test_half_a_client_hello_is_none() -> None:
    with Pair(asking()) as pair:
        hello = pair.client.hello()
        pair.client.wire.sendall(hello[:-1])
        assert pair.server.handshake() == WANT_READ
        assert pair.server.offer is None
        pair.client.wire.sendall(hello[-1:])
        pair.server.handshake()
        assert pair.server.offer is not None


def test_it_is_what_a_real_client_offers() -> None:
    client = client_context(alpn=["h2", "http/1.1"], ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ecdh_curve("secp384r1")
    with Pair(asking(), client) as pair:
        pair.greet()
        pair.server.handshake()
        offer = offer_of(pair)
    assert set(offer.versions) == {TLS_1_2, TLS_1_3}
    assert [cipher for cipher in offer.ciphers if cipher >> 8 not in (0x13, 0)] == [0xC02B]
    assert {0x1301, 0x1302, 0x1303} <= set(offer.ciphers)
    assert offer.groups == (0x18,)
    assert offer.signature_algorithms is not None
    assert 0x0403 in offer.signature_algorithms
    assert offer.protocols == ("h2", "http/1.1")


def test_a_client_of_tls_1_2_says_so_in_the_old_field() -> None:
    with Pair(asking(), client_context(version=TLS_1_2)) as pair:
        pair.greet()
        pair.server.handshake()
        assert pair.server.offer is not None
        assert pair.server.offer[2] is None
        assert offer_of(pair).versions == (TLS_1_2,)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_it_is_gone_once_the_handshake_is_done(version: int) -> None:
    with Pair(asking(), client_context(version=version)) as pair:
        pair.greet()
        pair.server.handshake()
        assert pair.server.offer is not None
        pair.handshake()
        assert pair.server.offer is None


def test_it_is_kept_after_a_failure() -> None:
    stranger = client_context(version=TLS_1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    with Pair(asking(), stranger) as pair:
        with pytest.raises(TlsError):
            pair.handshake()
        assert 0xC02F in offer_of(pair).ciphers
        pair.server.close()
        assert 0xC02F in offer_of(pair).ciphers


def test_it_is_kept_when_the_client_refuses() -> None:
    with Pair(asking(), client_context(trusts=trustme.CA())) as pair:
        with pytest.raises(TlsError):
            pair.handshake()
        assert pair.server.offer is not None


def test_it_is_kept_when_we_refuse_the_name() -> None:
    with Pair(server_context(on_client_hello=lambda _: 112)) as pair:
        with pytest.raises(TlsError):
            pair.handshake()
        assert pair.server.offer is not None


def test_the_callback_can_see_it() -> None:
    seen: list[Any] = []

    def look(connection: Connection) -> None:
        seen.append(connection.offer)

    with Pair(server_context(on_client_hello=look)) as pair:
        pair.handshake()
    assert len(seen) == 1
    assert TLS_1_3 in parse_offer(seen[0]).versions


def test_without_a_callback_nothing_is_kept() -> None:
    with Pair(server_context()) as pair:
        pair.greet()
        pair.server.handshake()
        assert pair.server.offer is None


def test_a_second_client_hello_does_not_change_it() -> None:
    """After a HelloRetryRequest: the client sends all of it again, with another key share."""
    rsa = site(key_type=trustme.KeyType.RSA)
    client = client_context(version=TLS_1_3)
    with Pair(asking(of=rsa, groups="P-384"), client) as pair:
        pair.greet()
        assert pair.server.handshake() == WANT_READ
        first = pair.server.offer
        assert first is not None
        pair.client.advance()  # its second ClientHello
        pair.server.handshake()
        assert pair.server.offer in (first, None)  # None: that was all
        pair.handshake()
        assert pair.server.version == "TLSv1.3"
        assert pair.server.group == "secp384r1"


def test_a_resumed_handshake_has_one_too() -> None:
    context = asking()
    client = client_context(version=TLS_1_3)
    with Pair(context, client) as pair:
        session = pair.handshake().client.session()
    with Pair(context, client, session=session) as pair:
        pair.greet()
        pair.server.handshake()
        assert pair.server.offer is not None
        pair.handshake()
        assert pair.server.resumed
        assert pair.server.offer is None


def test_extensions_that_were_not_sent_are_none() -> None:
    assert offer_made_of(hand_made()) == (0x0303, b"\xc0\x2b\xc0\x2f", None, None, None, None)


def test_bodies_are_kept_as_they_came() -> None:
    extensions = [
        (GROUPS, b"\0\1\0"),
        (SIGNATURE_ALGORITHMS, b""),
        (ALPN, b"\xff"),
        (VERSIONS, b"\1"),
    ]
    offer = offer_made_of(hand_made(extensions=extensions))
    assert offer[2:] == (b"\1", b"\0\1\0", b"", b"\xff")


def test_huge_lists_are_cut() -> None:
    many = range(0x4000, 0x4000 + 3000)
    extensions = [(GROUPS, numbers(*many)), (SIGNATURE_ALGORITHMS, numbers(*many))]
    extensions += [(ALPN, b"\x40\0" + b"\x3fx" * 2000), (VERSIONS, b"\xfe" + bytes(254))]
    hello = hand_made(ciphers=many, extensions=extensions[:1])
    offer = offer_made_of(hello)
    assert len(offer[1]) == OFFER_MAX
    assert offer[1] == b"".join(number.to_bytes(2) for number in many)[:OFFER_MAX]
    assert len(offer[3]) == OFFER_MAX
    for extension, at in zip(extensions[1:], (4, 5, 2), strict=True):
        kept = offer_made_of(hand_made(extensions=[extension]))[at]
        assert kept == extension[1][:OFFER_MAX]


def test_a_client_hello_that_openssl_cannot_read_leaves_none() -> None:
    with Pair(asking()) as pair:
        hello = bytearray(pair.client.hello())
        hello[43] = 0xFF  # the session id is longer than all that follows
        pair.client.wire.send(hello)
        with pytest.raises(TlsError):
            pair.server.handshake()
        assert pair.server.offer is None


# What a context accepts.


def test_a_context_tells_its_ciphers_by_number() -> None:
    context = server_context(
        ciphers="ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256",
        ciphersuites="TLS_AES_256_GCM_SHA384",
    )
    assert context.ciphers == {
        0x1302: "TLS_AES_256_GCM_SHA384",
        0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
        0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    }
    assert list(context.ciphers)[-2:] == [0xCCA9, 0xC02B]  # best first


def test_what_a_real_handshake_agrees_on_is_among_them() -> None:
    context = asking()
    for version in (TLS_1_2, TLS_1_3):
        with Pair(context, client_context(version=version)) as pair:
            assert pair.handshake().server.cipher in context.ciphers.values()
