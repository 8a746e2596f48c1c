"""The binding: several keys for one name, what is known of what was shown, and a caller's note."""

from __future__ import annotations

import ssl

import pytest

from termproxy.errors import TlsError
from termproxy.tls._openssl import Connection, Context, knows
from tests.support.tls import NAME, TLS_1_2, TLS_1_3, Pair, client_context, server_context
from tests.tls.pki import Issued, issue

ECDSA, RSA, ED25519 = (issue(kind, NAME, key=kind) for kind in ("ecdsa", "rsa", "ed25519"))
BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])

AES_128 = {"ecdsa": "ECDHE-ECDSA-AES128-GCM-SHA256", "rsa": "ECDHE-RSA-AES128-GCM-SHA256"}


def of(*issued: Issued) -> Context:
    return server_context(identities=[(each.chain, each.key_pem) for each in issued])


def client(version: int | None = None, ciphers: str | None = None) -> ssl.SSLContext:
    context = client_context(version=version, ciphers=ciphers)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown(context: Context, client: ssl.SSLContext) -> bytes | None:
    with Pair(context, client) as pair:
        pair.handshake()
        assert pair.server.own_certificate == pair.client.tls.getpeercert(binary_form=True)
        return pair.server.own_certificate


# Which key.


@pytest.mark.parametrize("order", [(ECDSA, RSA), (RSA, ECDSA)])
def test_the_client_s_ciphers_choose_the_key_in_tls_1_2(order: tuple[Issued, Issued]) -> None:
    assert shown(of(*order), client(TLS_1_2, AES_128["ecdsa"])) == ECDSA.der
    assert shown(of(*order), client(TLS_1_2, AES_128["rsa"])) == RSA.der


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("ECDSA+SHA256", ECDSA), ("RSA-PSS+SHA256", RSA), ("ed25519", ED25519)],
)
def test_the_client_s_signature_algorithms_choose_the_key(
    version: int, accepted: str, expected: Issued
) -> None:
    """The chosen one is known by its DER to the log, on either side of a switch."""
    at = of(RSA, ED25519, ECDSA)
    for context in (at, server_context(on_client_hello=lambda _: at)):
        with Pair(context, client(version)) as pair:
            # The hello that the client remembers is another: all that matters is our answer.
            pair.client.wire.sendall(with_signature_algorithm(pair.client.hello(), accepted))
            pair.server.handshake()
            assert pair.server.own_certificate == expected.der


SCHEMES = {"ECDSA+SHA256": 0x0403, "RSA-PSS+SHA256": 0x0804, "ed25519": 0x0807}


def with_signature_algorithm(hello: bytes, name: str) -> bytes:
    """`hello` with every signature algorithm replaced by this one (extension 13)."""
    start = hello.index(b"\x00\x0d", hello.index(b"\x00\x0a"))
    while True:
        length = int.from_bytes(hello[start + 2 : start + 4])
        inner = int.from_bytes(hello[start + 4 : start + 6])
        if inner == length - 2 and length > 2 and inner % 2 == 0:
            break
        start = hello.index(b"\x00\x0d", start + 1)
    schemes = SCHEMES[name].to_bytes(2) * (inner // 2)
    return hello[: start + 6] + schemes + hello[start + 6 + inner :]


@BOTH_VERSIONS
def test_a_client_for_none_of_our_keys_is_refused(version: int) -> None:
    with Pair(of(ECDSA), client(version)) as pair:
        pair.client.wire.sendall(with_signature_algorithm(pair.client.hello(), "RSA-PSS+SHA256"))
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
    assert failure.value.alert == 40


def test_a_context_without_identities_refuses_everyone() -> None:
    with Pair(of(), client()) as pair, pytest.raises(TlsError):
        pair.handshake()


def test_one_of_two_identities_with_a_wrong_key_is_refused() -> None:
    with pytest.raises(ValueError, match="certificate and key"):
        server_context(identities=[(ECDSA.pem, ECDSA.key_pem), (RSA.pem, ED25519.key_pem)])


# What was shown.


def test_before_the_handshake_nothing_was_shown_to_anyone() -> None:
    with Pair(of(RSA, ECDSA), client()) as pair:
        assert pair.server.peer_certificate is None


@BOTH_VERSIONS
def test_after_a_switch_the_chosen_certificate_is_told(version: int) -> None:
    chosen = of(RSA)
    first = server_context(on_client_hello=lambda _: chosen)
    assert shown(first, client(version)) == RSA.der


# Resumption between groups, when both ask for nothing.


def again(version: int, one: bytes, other: bytes) -> bool:
    choices = [server_context(session_id_context=group) for group in (one, other)]
    first = server_context(on_client_hello=lambda _: choices.pop(0))
    theirs = client(version)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair:
        pair.handshake()
        pair.client.send(b"alive")
        assert pair.read()[0] == b"alive"
        return pair.server.resumed


@BOTH_VERSIONS
def test_a_session_stays_in_its_group(version: int) -> None:
    one, other = b"1" * 32, b"2" * 32
    assert not again(version, one, other)
    assert not again(version, other, one)


@BOTH_VERSIONS
def test_inside_its_group_a_session_is_resumed(version: int) -> None:
    """Nginx 1.27.4 closed the hole between groups, and until 1.29.2 broke this."""
    assert again(version, b"1" * 32, b"1" * 32)


@BOTH_VERSIONS
def test_a_session_of_the_first_context_does_not_enter_another_group(version: int) -> None:
    answers: list[Context | None] = [None, server_context(session_id_context=b"guarded")]
    first = server_context(session_id_context=b"open", on_client_hello=lambda _: answers.pop(0))
    theirs = client(version)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair:
        assert not pair.handshake().server.resumed


@BOTH_VERSIONS
def test_a_session_of_another_group_does_not_enter_the_first_context(version: int) -> None:
    answers: list[Context | None] = [server_context(session_id_context=b"open"), None]
    first = server_context(session_id_context=b"guarded", on_client_hello=lambda _: answers.pop(0))
    theirs = client(version)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair:
        assert not pair.handshake().server.resumed


# What this OpenSSL knows.


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [
        ("ciphers", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("ciphers", "no-such", False),
        ("ciphers", "", False),
        ("ciphersuites", "TLS_AES_128_GCM_SHA256", True),
        ("ciphersuites", "TLS_NO_SUCH", False),
        ("groups", "X25519", True),
        ("groups", "P-256", True),
        ("groups", "no-such", False),
        ("signature_algorithms", "ECDSA+SHA256", True),
        ("signature_algorithms", "ed25519", True),
        ("signature_algorithms", "no-such", False),
    ],
)
def test_it_is_known_what_openssl_can_do(kind: str, name: str, *, known: bool) -> None:
    assert knows(kind, name) == known


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="kind"):
        knows("versions", "1.3")


@pytest.mark.parametrize("expression", ["ALL", "HIGH", "ECDHE", "ALL:!aNULL", "@SECLEVEL=0"])
def test_an_expression_is_no_cipher_s_name(expression: str) -> None:
    """It would let in more than its reader thinks."""
    assert not knows("ciphers", expression)


def test_asking_leaves_no_error_behind() -> None:
    assert not knows("groups", "no-such")
    with Pair(of(ECDSA), client()) as pair:
        pair.handshake()


# The note.


def test_what_the_callback_notes_is_there_after_the_handshake() -> None:
    def note(connection: Connection) -> None:
        connection.note = {"name": "a.test"}

    with Pair(server_context(on_client_hello=note), client()) as pair:
        assert pair.server.note is None
        server = pair.handshake().server
        server.close()
        assert server.note == {"name": "a.test"}
