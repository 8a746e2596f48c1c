"""What is said to differ is what differs.  OpenSSL is the judge: once mended, it is another thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termproxy.errors import TlsError
from termproxy.observability.metrics import FAILURES
from termproxy.outcome import WANT_READ
from termproxy.tls._openssl import Context
from termproxy.tls.certificates import Certificate
from termproxy.tls.context import Policy, accepted, build_context
from termproxy.tls.failures import Failure, explain_handshake
from termproxy.tls.mismatch import Accepts
from tests.support.hello import hand_made, numbers
from tests.support.tls import Pair
from tests.tls.pki import issue, loaded

Numbers = tuple[int, ...]

P256, P384, P521, X25519, FFDHE = 0x17, 0x18, 0x19, 0x1D, 0x100

# What mends a dimension: all that anybody accepts.
VERSIONS: Numbers = (0x0304, 0x0303)
CIPHERS: Numbers = (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA9, 0xCCA8, 0x009E)
GROUPS: Numbers = (X25519, P256, P384)
SIGNATURES: Numbers = (0x0403, 0x0503, 0x0804, 0x0805, 0x0401, 0x0501, 0x0807)


@dataclass(frozen=True)
class Hello:
    legacy: int = 0x0303
    versions: Numbers | None = VERSIONS
    ciphers: Numbers = CIPHERS
    groups: Numbers | None = GROUPS
    signatures: Numbers | None = SIGNATURES

    def made(self) -> bytes:
        extensions = []
        if self.versions is not None:
            extensions.append((43, numbers(*self.versions, length_bytes=1)))
        if self.groups is not None:
            extensions.append((10, numbers(*self.groups)))
        if self.signatures is not None:
            extensions.append((13, numbers(*self.signatures)))
        extensions.append((51, b"\0\0"))  # no key share: TLS 1.3 may ask for one
        return hand_made(version=self.legacy, ciphers=self.ciphers, extensions=extensions)


class Side:
    """A server as a name may have it."""

    def __init__(self, policy: Policy, *certificates: Certificate) -> None:
        self._policy = policy
        self._certificates: Sequence[Certificate] = certificates
        self._context: Context = build_context(certificates, policy, on_client_hello=lambda _: None)

    def accepts(self) -> Accepts:
        types = [certificate.key_type for certificate in self._certificates]
        curves = [each.curve for each in self._certificates if each.curve is not None]
        return accepted(self._policy, types, curves, self._context)

    def failure_on(self, said: bytes) -> Failure | None:
        """None: the handshake goes on."""
        with Pair(self._context) as pair:
            pair.client.wire.sendall(said)
            try:
                assert pair.server.handshake() == WANT_READ
            except TlsError as error:
                return explain_handshake(error, pair.server.offer, self.accepts)
            return None


EC = loaded(issue("a", "a.test"))
EC_384 = loaded(issue("a", "a.test", key=ec.generate_private_key(ec.SECP384R1())))
RSA = loaded(issue("a", "a.test", key="rsa"))
EDWARDS = loaded(issue("a", "a.test", key="ed25519"))

SIDES = {
    "ecdsa": Side(Policy(), EC),
    "p-384": Side(Policy(), EC_384),
    "rsa": Side(Policy(), RSA),
    "ecdsa and rsa": Side(Policy(), EC, RSA),
    "ed25519": Side(Policy(), EDWARDS),
    "1.2 only": Side(Policy(max_version="1.2"), EC, RSA),
    "1.3 only": Side(Policy(min_version="1.3"), EC, RSA),
    "one group": Side(Policy(groups=("P-384",)), EC, RSA),
    "one cipher": Side(
        Policy(ciphers=("ECDHE-RSA-AES256-GCM-SHA384",), ciphersuites=("TLS_AES_256_GCM_SHA384",)),
        EC,
        RSA,
    ),
    "dhe too": Side(Policy(ciphers=("DHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")), RSA),
    "few signatures": Side(Policy(signature_algorithms=("ECDSA+SHA256",)), EC),
}

MENDED = {
    "old_client": {"versions": VERSIONS},
    "no_shared_version": {"versions": VERSIONS},
    "scanner": {"ciphers": CIPHERS},
    "no_shared_cipher": {"ciphers": CIPHERS},
    "no_shared_group": {"groups": GROUPS},
    "no_shared_signature_algorithm": {"signatures": SIGNATURES},
}


def some(*pool: int) -> st.SearchStrategy[Numbers]:
    return st.lists(st.sampled_from(pool), unique=True, max_size=4).map(tuple)


HELLOS = st.builds(
    Hello,
    legacy=st.sampled_from([0x0301, 0x0303, 0x0304]),
    versions=st.none() | some(0x0304, 0x0303, 0x0302, 0x0301, 0x7F1C, 0x2A2A),
    ciphers=some(*CIPHERS, 0x1304, 0x002F, 0xC009, 0xC013, 0x0003, 0x00FF, 0x0A0A),
    groups=st.none() | some(*GROUPS, P521, FFDHE, 0x3A3A).filter(bool),
    signatures=st.none() | some(*SIGNATURES, 0x0201, 0x0203, 0x0808, 0x4A4A).filter(bool),
)


@pytest.mark.parametrize("side", SIDES)
def test_who_offers_all_is_accepted(side: str) -> None:
    assert SIDES[side].failure_on(Hello().made()) is None


@given(side=st.sampled_from(list(SIDES)), hello=HELLOS)
@settings(max_examples=600, deadline=None)
@example(side="ecdsa", hello=Hello(versions=None, groups=None))
@example(side="p-384", hello=Hello(versions=None, groups=(X25519, P256)))
@example(side="ecdsa", hello=Hello(versions=None, signatures=None))
@example(side="ecdsa", hello=Hello(versions=(0x2A2A,), ciphers=(0x1301,)))
@example(side="ecdsa", hello=Hello(versions=None, legacy=0x0304, ciphers=(0x1301,)))
@example(side="dhe too", hello=Hello(versions=None, groups=(P521,), ciphers=(0xC02B,)))
def test_what_is_said_to_differ_is_what_differs(side: str, hello: Hello) -> None:
    failure = SIDES[side].failure_on(hello.made())
    if failure is None:
        return
    assert failure.reason in FAILURES
    assert failure.detail
    assert failure.cure
    if failure.reason == "protocol_error":
        return
    mended = replace(hello, **MENDED[failure.reason])  # type: ignore[arg-type]
    again = SIDES[side].failure_on(mended.made())

    assert again is None or again.reason not in (failure.reason, *_alike(failure.reason)), again


def _alike(reason: str) -> tuple[str, ...]:
    return {
        "old_client": ("no_shared_version",),
        "no_shared_version": ("old_client",),
        "scanner": ("no_shared_cipher",),
        "no_shared_cipher": ("scanner",),
    }.get(reason, ())


@given(
    hello=HELLOS.map(Hello.made),
    at=st.integers(0, 200),
    byte=st.integers(0, 255),
    cut=st.integers(0, 200) | st.none(),
)
@settings(max_examples=400, deadline=None)
def test_a_damaged_hello_is_explained_in_words_of_the_table(
    hello: bytes, at: int, byte: int, cut: int | None
) -> None:
    damaged = bytearray(hello)
    damaged[at % len(damaged)] = byte
    said = bytes(damaged[:cut]) or b"\x16"
    with Pair(SIDES["ecdsa and rsa"]._context) as pair:
        pair.client.wire.sendall(said)
        pair.client.wire.close()
        try:
            pair.server.handshake()
        except TlsError as error:
            failure = explain_handshake(error, pair.server.offer, SIDES["ecdsa and rsa"].accepts)
            assert failure.reason in FAILURES
            assert failure.reason != "internal_error"
            assert failure.detail.isprintable()
            assert failure.cure


@pytest.mark.parametrize(
    ("side", "hello", "reason"),
    [
        ("ecdsa", Hello(ciphers=(0xC02F,), versions=None), "no_shared_cipher"),
        ("rsa", Hello(ciphers=(0xC02B,), versions=None), "no_shared_cipher"),
        ("ed25519", Hello(ciphers=(0xC02F,), versions=None), "no_shared_cipher"),
        ("ecdsa", Hello(groups=(P521,), versions=None), "no_shared_group"),
        ("ecdsa", Hello(groups=(P521,)), "no_shared_group"),
        ("p-384", Hello(groups=(P256,), versions=None, ciphers=(0xC02B,)), "no_shared_group"),
        ("p-384", Hello(signatures=(0x0403,)), "no_shared_signature_algorithm"),
        ("rsa", Hello(signatures=(0x0403,)), "no_shared_signature_algorithm"),
        ("few signatures", Hello(signatures=(0x0503,)), "no_shared_signature_algorithm"),
        ("1.3 only", Hello(versions=None), "no_shared_version"),
        ("1.2 only", Hello(versions=(0x0304,)), "no_shared_version"),
    ],
)
def test_one_difference_has_its_word(side: str, hello: Hello, reason: str) -> None:
    failure = SIDES[side].failure_on(hello.made())
    assert failure is not None
    assert failure.reason == reason
