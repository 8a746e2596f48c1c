"""The binding survives its callers: what is wrong raises, and nothing crashes or is freed twice.

Under `scripts/sanitize` these tests also say whether memory was touched that is not ours.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from termproxy.errors import TlsError
from termproxy.outcome import MORE, WANT_READ
from termproxy.tls._openssl import Connection, Context, Scratch
from tests.support.tls import GROUPS, Backend, Pair, server_context, site

CHAIN, KEY = site().chain, site().key
ENCRYPTED_KEY = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)
GOOD: dict[str, Any] = {"identities": [(CHAIN, KEY)], "groups": GROUPS}

BEGIN, END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
CRL = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"

# Typed so that a test may be wrong on purpose.
AnyContext: Any = Context
AnyConnection: Any = Connection
AnyScratch: Any = Scratch


# What a Context refuses.


@pytest.mark.parametrize(
    "wrong",
    [
        {"identities": None},
        {"identities": 5},
        {"identities": [None]},
        {"identities": [(None, KEY)]},
        {"identities": [(CHAIN.decode(), KEY)]},
        {"identities": [(bytearray(CHAIN), KEY)]},
        {"identities": [(CHAIN, None)]},
        {"identities": [(CHAIN, KEY.decode())]},
        {"client_auth": None},
        {"client_auth": "required", "client_ca": "text"},
        {"client_auth": "required", "client_ca": CHAIN, "client_crl": "text"},
        {"client_depth": "4"},
        {"groups": None},
        {"groups": GROUPS.encode()},
        {"ciphers": b"HIGH"},
        {"ciphersuites": 1},
        {"signature_algorithms": []},
        {"min_version": "1.2"},
        {"max_version": None},
        {"tickets": "2"},
        {"tickets": None},
        {"alpn": 5},
        {"session_id_context": None},
        {"session_id_context": "a"},
        {"on_client_hello": "not callable"},
        {"no_such_field": 1},
    ],
)
def test_an_argument_of_a_wrong_type_is_a_type_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        AnyContext(**GOOD | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ""},
        {"groups": "X25519:no-such-group"},
        {"groups": "X25519\0P-256"},
        {"groups": "\ud800"},
        {"ciphers": ""},
        {"ciphers": "no-such-cipher"},
        {"ciphers": "HIGH\0"},
        {"ciphersuites": "no-such-suite"},
        {"ciphersuites": "TLS_AES_128_GCM_SHA256\0"},
        {"signature_algorithms": ""},
        {"signature_algorithms": "no-such-algorithm"},
        {"signature_algorithms": "ECDSA+SHA256\0"},
        {"min_version": 1},
        {"min_version": -1},
        {"max_version": 0x7FFF},
        {"min_version": 0x0304, "max_version": 0x0303},
        {"tickets": -1},
        {"alpn": [b""]},
        {"alpn": [b"x" * 256]},
        {"alpn": ["h2"]},
        {"alpn": [None]},
        {"alpn": "h2"},
        {"alpn": b"h2"},
        {"session_id_context": b"x" * 33},
        {"identities": [(CHAIN,)]},
        {"identities": [(CHAIN, KEY, KEY)]},
        {"client_auth": "Required"},
        {"client_auth": ""},
    ],
)
def test_a_value_that_openssl_does_not_know_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        AnyContext(**GOOD | wrong)


@pytest.mark.parametrize("number", ["min_version", "max_version", "tickets"])
def test_a_number_beyond_c_is_an_overflow(number: str) -> None:
    with pytest.raises(OverflowError):
        AnyContext(**GOOD | {number: 2**40})


def test_the_positional_and_the_missing_are_refused() -> None:
    with pytest.raises(TypeError):
        AnyContext(CHAIN, KEY)
    with pytest.raises(TypeError):
        AnyContext()


@pytest.mark.parametrize(
    "chain",
    [
        b"",
        b"\0" * 1000,
        b"no PEM",
        KEY,
        CRL,
        BEGIN,
        BEGIN + END,
        BEGIN + b"AAAA\n" + END,
        BEGIN + b"!!!!\n" + END,
        CHAIN[:-40],
        CHAIN[: len(CHAIN) // 2],
    ],
)
def test_a_chain_that_holds_no_whole_certificate_is_refused(chain: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        server_context(chain=chain)


@pytest.mark.parametrize("damage", [BEGIN + b"AAAA\n" + END, BEGIN, CHAIN[:-40]])
def test_a_chain_is_not_cut_at_its_first_damaged_certificate(damage: bytes) -> None:
    """Served without its intermediate, only the clients would have noticed."""
    with pytest.raises(ValueError, match="certificate 2"):
        server_context(chain=CHAIN + damage)


def test_a_key_among_the_certificates_is_passed_over() -> None:
    with Pair(server_context(chain=KEY + CHAIN, key=CHAIN + KEY)) as pair:
        pair.handshake()


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"no PEM",
        CHAIN,
        ENCRYPTED_KEY,
        KEY[:-40],
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        site("b.test").key,
        site("b.test", trustme.KeyType.RSA).key,
    ],
)
def test_a_key_that_cannot_serve_is_refused_and_not_shown(key: bytes) -> None:
    """Nor does OpenSSL ask the terminal for the password of an encrypted one."""
    with pytest.raises(ValueError, match=r"private key|certificate and key") as refusal:
        server_context(key=key)
    lines = [line for line in key.decode().splitlines() if len(line) > 3]
    assert not any(line in str(refusal.value) for line in lines)


def test_damaged_pem_of_any_kind_is_refused_or_served_but_never_crashes() -> None:
    dice = random.Random(7)
    for _ in range(300):
        pem = bytearray(dice.choice([CHAIN, KEY]))
        for _ in range(dice.randrange(1, 4)):
            pem[dice.randrange(len(pem))] = dice.randrange(256)
        for identity in ((bytes(pem), KEY), (CHAIN, bytes(pem))):
            with contextlib.suppress(ValueError):
                AnyContext(**GOOD | {"identities": [identity]})


def test_a_context_is_made_once() -> None:
    context = server_context()
    with pytest.raises(RuntimeError, match="once"):
        context.__init__(**GOOD)  # type: ignore[misc]


def test_a_context_that_was_refused_can_be_tried_again_anew() -> None:
    for _ in range(20):
        with pytest.raises(ValueError, match="cipher"):
            server_context(ciphers="none")
        server_context()


# What a Connection and a Scratch refuse.


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (None, 1),
        ("context", 1),
        (server_context(),),
        (server_context(), None),
        (server_context(), "1"),
    ],
)
def test_a_connection_is_made_of_a_context_and_a_number(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        AnyConnection(*arguments)


def test_a_negative_descriptor_is_refused() -> None:
    with pytest.raises(ValueError, match="descriptor"):
        Connection(server_context(), -1)
    with pytest.raises(OverflowError):
        Connection(server_context(), 2**40)


def test_a_descriptor_that_is_closed_fails_the_handshake() -> None:
    closed = os.dup(0)
    os.close(closed)
    with pytest.raises(TlsError):
        Connection(server_context(), closed).handshake()


def test_a_descriptor_that_is_no_socket_fails_the_handshake() -> None:
    with open(os.devnull, "rb") as device, pytest.raises(TlsError):  # noqa: PTH123 - its descriptor
        Connection(server_context(), device.fileno()).handshake()


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize(
    "wrong", [None, "text", 5, b"read only", memoryview(bytearray(8))[::2], object()]
)
def test_a_read_needs_a_writable_buffer(wrong: Any, *, greeted: bool) -> None:
    with Pair(server_context()) as pair:
        if greeted:
            pair.handshake()
        with pytest.raises((TypeError, BufferError)):
            pair.server.read_into(wrong)


def test_a_read_into_nothing_is_refused() -> None:
    with Pair(server_context()) as pair, pytest.raises(ValueError, match="empty"):
        pair.server.read_into(bytearray())


@pytest.mark.parametrize("wrong", [None, "text", 5, memoryview(b"12345678")[::2], object()])
def test_a_write_needs_a_buffer(wrong: Any) -> None:
    with Pair(server_context()) as pair:
        pair.handshake()
        with pytest.raises((TypeError, BufferError)):
            pair.server.write(wrong)


@pytest.mark.parametrize("move", ["decrypt_to", "encrypt_from"])
def test_the_moves_need_a_descriptor_and_a_scratch(move: str) -> None:
    with Pair(server_context()) as pair, Backend() as backend:
        moving = getattr(pair.handshake().server, move)
        for arguments in ((), (backend.fd,), (backend.fd, None), (backend.fd, bytearray(1 << 18))):
            with pytest.raises(TypeError):
                moving(*arguments)
        with pytest.raises(TypeError):
            moving(backend.far_end, Scratch(1 << 18))
        with pytest.raises(OverflowError):
            moving(2**40, Scratch(1 << 18))


@pytest.mark.parametrize("number", [None, "0", -1, 2**40])
def test_an_extensions_number_is_a_small_number(number: Any) -> None:
    with Pair(server_context()) as pair, pytest.raises((TypeError, OverflowError)):
        pair.server.client_hello_extension(number)


def test_a_scratch_holds_at_least_a_record() -> None:
    for size in (-1, 0, 16383):
        with pytest.raises(ValueError, match="16384"):
            Scratch(size)
    for no_size in (None, "1"):
        with pytest.raises(TypeError):
            AnyScratch(no_size)
    with pytest.raises(OverflowError):
        Scratch(2**40)
    assert Scratch(16384).take_rest() == b""


@pytest.mark.parametrize("made", [server_context(), Scratch(16384)])
def test_nothing_is_copied_or_pickled(made: object) -> None:
    """A copy would free what the other still uses."""
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(made)
    with Pair(server_context()) as pair:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(pair.server)


def test_what_is_agreed_cannot_be_set() -> None:
    with Pair(server_context()) as pair:
        server: Any = pair.server
        for name in (
            "context",
            "plaintext_read",
            "version",
            "cipher",
            "group",
            "sni",
            "alpn",
            "resumed",
        ):
            with pytest.raises(AttributeError):
                setattr(server, name, None)


# Out of turn.


def test_before_the_handshake_a_read_or_a_move_takes_it_on() -> None:
    with Pair(server_context()) as pair, Backend() as backend:
        assert pair.server.read_into(bytearray(1)) == WANT_READ
        assert pair.server.write(b"early") == WANT_READ
        assert pair.server.decrypt_to(backend.fd, Scratch(1 << 14)) == WANT_READ
        pair.greet()
        assert pair.server.decrypt_to(backend.fd, Scratch(1 << 14)) == WANT_READ
        assert pair.server.version == "TLSv1.3"
        pair.handshake()


def test_a_group_can_be_asked_for_at_any_time() -> None:
    """OpenSSL 3.0 looks for it in a session that is not there yet."""
    with Pair(server_context()) as pair:
        assert pair.server.group is None
        pair.greet()
        pair.server.handshake()
        assert pair.server.group in (None, "x25519")
    with Pair(server_context()) as pair:
        pair.client.wire.send(bytes(100))
        with pytest.raises(TlsError):
            pair.server.handshake()
        assert pair.server.group is None


def test_after_a_failure_everything_may_be_asked_again() -> None:
    with Pair(server_context()) as pair, Backend() as backend:
        pair.client.wire.send(bytes(100))
        for operation in USES.values():
            with contextlib.suppress(TlsError):
                operation(pair.server, backend)
        pair.server.close()


# After close().

USES: dict[str, Callable[[Connection, Backend], Any]] = {
    "handshake": lambda connection, _: connection.handshake(),
    "read_into": lambda connection, _: connection.read_into(bytearray(10)),
    "write": lambda connection, _: connection.write(b"x"),
    "write nothing": lambda connection, _: connection.write(b""),
    "decrypt_to": lambda connection, backend: connection.decrypt_to(backend.fd, Scratch(1 << 14)),
    "encrypt_from": lambda connection, backend: connection.encrypt_from(backend.fd, Scratch(1 << 14)),
    "shutdown": lambda connection, _: connection.shutdown(),
    "pending": lambda connection, _: connection.pending(),
    "version": lambda connection, _: connection.version,
    "cipher": lambda connection, _: connection.cipher,
    "group": lambda connection, _: connection.group,
    "sni": lambda connection, _: connection.sni,
    "alpn": lambda connection, _: connection.alpn,
    "resumed": lambda connection, _: connection.resumed,
}


@pytest.mark.parametrize("handshaken", [False, True])
@pytest.mark.parametrize("use", USES)
def test_after_close_every_use_is_refused(use: str, *, handshaken: bool) -> None:
    with Pair(server_context()) as pair, Backend() as backend:
        if handshaken:
            pair.handshake()
        pair.server.close()
        with pytest.raises(ValueError, match="closed"):
            USES[use](pair.server, backend)


def test_after_close_the_extensions_are_refused() -> None:
    with Pair(server_context()) as pair:
        pair.server.close()
        with pytest.raises(RuntimeError):
            pair.server.client_hello_extension(0)


def test_a_second_close_does_nothing() -> None:
    with Pair(server_context()) as pair:
        pair.handshake()
        pair.server.close()
        pair.server.close()
        assert pair.server.plaintext_written == 0


def test_a_close_sends_nothing_and_leaves_the_socket_open() -> None:
    with Pair(server_context()) as pair:
        pair.handshake()
        pair.client.receive()
        pair.server.close()
        assert pair.client.receive() == b""
        assert not pair.client.was_told_the_end
        pair.wire.send(b"ours still")


# Garbage, in any order.


def test_a_connection_keeps_its_context() -> None:
    context = server_context()
    with Pair(context) as pair:
        del context
        gc.collect()
        pair.handshake()


class Witness:
    """Stands in a cycle; a weak reference to it tells when the cycle has gone."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def __call__(self, _: Connection) -> None: ...


@pytest.mark.parametrize("holds", ["connection", "context", "context and connection"])
@pytest.mark.parametrize("stage", ["made", "greeted", "handshaken", "closed"])
def test_a_cycle_through_the_callback_is_collected(stage: str, holds: str) -> None:
    """Context → callback → connection → context: whichever the collector clears first."""
    witness = Witness()
    gone = weakref.ref(witness)
    pair = Pair(server_context(alpn=[b"h2"], on_client_hello=witness))
    with pair.wire, pair.client.wire:
        if stage == "greeted":
            pair.greet()
            assert pair.server.handshake() == WANT_READ
        if stage == "handshaken":
            pair.handshake()
        if stage == "closed":
            pair.server.close()
        if "context" in holds:
            witness.kept.append(pair.server.context)
        if "connection" in holds:
            witness.kept.append(pair.server)
        del pair.server, witness
        gc.collect()
        assert gone() is None


def with_a_callback_that_keeps_its_connections() -> tuple[Pair, weakref.ref[Witness]]:
    witness = Witness()
    kept: list[object] = [witness]
    return Pair(server_context(on_client_hello=kept.append)), weakref.ref(witness)


def test_a_callback_that_keeps_its_connections_is_collected() -> None:
    pair, gone = with_a_callback_that_keeps_its_connections()
    with pair.wire, pair.client.wire:
        pair.handshake()
        del pair.server
        gc.collect()
        assert gone() is None


def test_an_exception_in_the_callback_leaves_no_cycle_that_stays() -> None:
    witness = Witness()
    gone = weakref.ref(witness)

    def fail(_: Connection, held: object = witness) -> None:
        raise LookupError(held)

    with Pair(server_context(on_client_hello=fail)) as pair:
        pair.greet()
        with pytest.raises(LookupError):
            pair.server.handshake()
    del pair, fail, witness
    gc.collect()
    assert gone() is None


def test_a_connection_may_vanish_in_the_middle_of_anything() -> None:
    context = server_context()
    with Backend(4096) as backend:
        for stage in range(5):
            pair = Pair(context)
            with pair.wire, pair.client.wire:
                if stage >= 1:
                    pair.greet()
                    pair.server.handshake()
                if stage >= 2:
                    pair.handshake()
                    pair.client.send(bytes(100_000))
                if stage == 3:
                    pair.server.read_into(bytearray(1))
                if stage == 4:
                    pair.server.decrypt_to(backend.fd, Scratch(1 << 18))
                del pair.server
                gc.collect()


def test_a_held_failure_goes_with_its_connection() -> None:
    with Pair(server_context()) as pair, Backend() as backend:
        pair.handshake()
        pair.client.wire.sendall(pair.client.sealed(b"good") + b"\x17\x03\x03\x00\x20" + bytes(32))
        scratch = Scratch(1 << 18)
        while pair.server.decrypt_to(backend.fd, scratch) != MORE:
            pass
        pair.server.close()
        with pytest.raises(ValueError, match="closed"):
            pair.server.decrypt_to(backend.fd, scratch)
