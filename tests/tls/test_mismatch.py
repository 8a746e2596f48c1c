"""What differs between an offer and what we accept: the one thing, and its cure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.observability.metrics import FAILURES
from termproxy.tls._openssl import known_ciphers
from termproxy.tls.client_hello import Offer
from termproxy.tls.mismatch import Accepts, Mismatch, find_mismatch
from termproxy.tls.registry import SIGNATURE_ALGORITHMS, TLS_1_2, TLS_1_3

TLS_1_0, TLS_1_1 = 0x0301, 0x0302
P256, P384, P521, X25519 = 0x17, 0x18, 0x19, 0x1D
ECDSA_SUITE, RSA_SUITE = 0xC02B, 0xC02F
CBC, DHE = 0xC009, 0x009E

OURS = Accepts(
    min_version=TLS_1_2,
    max_version=TLS_1_3,
    ciphers={ECDSA_SUITE: "ECDHE-ECDSA-AES128-GCM-SHA256", RSA_SUITE: "ECDHE-RSA-AES128-GCM-SHA256"},
    ciphersuites={0x1301: "TLS_AES_128_GCM_SHA256"},
    groups={X25519: "X25519", P256: "P-256"},
    protocols=("h2", "http/1.1"),
    key_types=("ecdsa",),
    curves={P256: "secp256r1"},
    signature_algorithms=(),
    known_ciphers=known_ciphers(),
)
OURS_RSA = replace(OURS, key_types=("rsa",), curves={})

OFFER = Offer(
    versions=(TLS_1_2,),
    ciphers=(ECDSA_SUITE, RSA_SUITE),
    groups=(X25519, P256),
    signature_algorithms=(0x0403, 0x0804),
    protocols=("h2",),
)
OFFER_1_3 = replace(OFFER, versions=(TLS_1_3, TLS_1_2), ciphers=(0x1301,))

NO_CIPHER = "no_shared_cipher"


def found(reason: str, offer: Offer, ours: Accepts = OURS) -> Mismatch:
    mismatch = find_mismatch(reason, offer, ours)
    assert mismatch is not None
    return mismatch


# Versions.


@pytest.mark.parametrize(
    ("versions", "reason", "told"),
    [
        ((TLS_1_0,), "old_client", "TLS 1.0"),
        ((TLS_1_0, TLS_1_1), "old_client", "TLS 1.1, TLS 1.0"),
        ((0x0300,), "old_client", "SSL 3.0"),
        ((0x0002,), "old_client", "SSL 2.0"),
        ((0x7F1C,), "no_shared_version", "0x7f1c"),
        ((), "no_shared_version", "none"),
    ],
)
def test_versions_that_are_not_accepted(versions: tuple[int, ...], reason: str, told: str) -> None:
    mismatch = found("no_shared_version", replace(OFFER, versions=versions))

    assert mismatch.reason == reason
    assert mismatch.differs == f"the client offers {told}; accepted here: TLS 1.2, TLS 1.3"


@pytest.mark.parametrize(
    ("version", "only"), [(TLS_1_2, {"min_version": TLS_1_3}), (TLS_1_3, {"max_version": TLS_1_2})]
)
def test_a_version_that_this_name_does_not_accept(version: int, only: dict[str, int]) -> None:
    ours = replace(OURS, **only)  # type: ignore[arg-type]
    mismatch = found("no_shared_version", replace(OFFER, versions=(version,)), ours)

    assert mismatch.reason == "no_shared_version"
    assert "min_version" in mismatch.cure


# Cipher suites.


def test_ciphers_that_are_not_accepted_are_told_by_name() -> None:
    mismatch = found(NO_CIPHER, replace(OFFER, ciphers=(CBC, DHE, 0xFFFE)))

    assert mismatch == Mismatch(
        NO_CIPHER,
        "the client offers ECDHE-ECDSA-AES128-SHA, DHE-RSA-AES128-GCM-SHA256, 0xfffe; accepted here: "
        "ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256",
        "update the client, or add one of its ciphers to `ciphers`",
    )


def test_in_tls_1_3_only_its_own_suites_count() -> None:
    mismatch = found(NO_CIPHER, replace(OFFER_1_3, ciphers=(0x1304, ECDSA_SUITE)))

    assert mismatch.reason == NO_CIPHER
    assert mismatch.differs.startswith("the client offers TLS_AES_128_CCM_SHA256; accepted")
    assert "`ciphersuites`" in mismatch.cure


def test_where_tls_1_3_is_off_its_suites_do_not_count() -> None:
    offer = replace(OFFER_1_3, ciphers=(0x1301, CBC))
    mismatch = found(NO_CIPHER, offer, replace(OURS, max_version=TLS_1_2))

    assert mismatch.differs.startswith("the client offers ECDHE-ECDSA-AES128-SHA; accepted")


@pytest.mark.parametrize("ciphers", [(0x0003,), (0x003B, 0xC006), (0x0018, 0x00FF), (0x0018, 0x5600)])
def test_who_offers_only_what_no_client_uses_is_a_scanner(ciphers: tuple[int, ...]) -> None:
    assert found(NO_CIPHER, replace(OFFER, ciphers=ciphers)).reason == "scanner"


@pytest.mark.parametrize("ciphers", [(), (0x00FF,), (0x0018, 0x002F), (0x000A,)])
def test_who_offers_anything_else_or_nothing_is_none(ciphers: tuple[int, ...]) -> None:
    assert found(NO_CIPHER, replace(OFFER, ciphers=ciphers)).reason == NO_CIPHER


@pytest.mark.parametrize(
    ("ours", "suite", "key"), [(OURS, RSA_SUITE, "ecdsa (P-256)"), (OURS_RSA, ECDSA_SUITE, "rsa")]
)
def test_ciphers_for_a_key_that_we_do_not_have(ours: Accepts, suite: int, key: str) -> None:
    mismatch = found(NO_CIPHER, replace(OFFER, ciphers=(suite,)), ours)

    assert mismatch.reason == NO_CIPHER
    assert mismatch.differs == (
        f"of our ciphers the client offers only {OURS.ciphers[suite]}; here the key is {key}"
    )
    assert mismatch.cure.startswith("add a certificate with the type of key")


@pytest.mark.parametrize("key_type", ["ed25519", "ed448"])
def test_an_edwards_key_goes_with_ciphers_for_ecdsa(key_type: str) -> None:
    ours = replace(OURS, key_types=(key_type,), curves={})
    assert find_mismatch(NO_CIPHER, replace(OFFER, ciphers=(ECDSA_SUITE,), groups=(P521,)), ours) == (
        found("no_shared_group", replace(OFFER, groups=(P521,)))
    )


def test_with_both_keys_both_are_told() -> None:
    both = replace(OURS, key_types=("ecdsa", "rsa"))
    mismatch = found(
        "no_shared_signature_algorithm", replace(OFFER, signature_algorithms=(0x807,)), both
    )

    assert "here the key is ecdsa (P-256) and rsa" in mismatch.differs


# Groups.


@pytest.mark.parametrize("offer", [OFFER, OFFER_1_3])
@pytest.mark.parametrize("reason", ["no_shared_group", NO_CIPHER])
def test_groups_that_are_not_accepted(offer: Offer, reason: str) -> None:
    """For TLS 1.2 OpenSSL calls it "no shared cipher"."""
    assert found(reason, replace(offer, groups=(P521, 0x1E))) == Mismatch(
        "no_shared_group",
        "the client offers P-521, X448; accepted here: X25519, P-256",
        "update the client, or add one of its groups to `groups`",
    )


@pytest.mark.parametrize("groups", [None, ()])
def test_without_a_list_of_groups_there_is_none_in_common(groups: tuple[int, ...] | None) -> None:
    """So OpenSSL sees it, though RFC 8422 §4 leaves the choice to the server."""
    mismatch = found(NO_CIPHER, replace(OFFER, groups=groups))

    assert mismatch.reason == "no_shared_group"
    assert mismatch.differs.startswith("the client offers none;")


def test_where_not_every_cipher_needs_a_group_it_is_not_the_group() -> None:
    ours = replace(OURS_RSA, ciphers={DHE: "DHE-RSA-AES128-GCM-SHA256"})
    mismatch = find_mismatch("no_shared_group", replace(OFFER, ciphers=(DHE,), groups=(P521,)), ours)

    assert mismatch is None


def test_in_tls_1_2_the_key_s_curve_must_be_among_the_groups() -> None:
    mismatch = found(NO_CIPHER, replace(OFFER, groups=(X25519, P384)))

    assert mismatch.reason == "no_shared_group"
    assert mismatch.differs == "the client offers X25519, P-384; here the key is ecdsa (P-256)"
    assert "certificate" in mismatch.cure


def test_in_tls_1_3_it_need_not_be() -> None:
    assert find_mismatch("no_shared_group", replace(OFFER_1_3, groups=(X25519,)), OURS) is None


def test_an_rsa_key_has_no_curve() -> None:
    offer = replace(OFFER, groups=(X25519,), signature_algorithms=(0x0807,))
    mismatch = found("no_shared_signature_algorithm", offer, OURS_RSA)

    assert mismatch.reason == "no_shared_signature_algorithm"


# Signature algorithms.


@pytest.mark.parametrize("reason", ["no_shared_signature_algorithm", NO_CIPHER])
def test_signatures_that_our_key_cannot_make(reason: str) -> None:
    mismatch = found(reason, replace(OFFER, signature_algorithms=(0x0804, 0x0401)))

    assert mismatch == Mismatch(
        "no_shared_signature_algorithm",
        "the client accepts signatures of rsa_pss_rsae_sha256, rsa_pkcs1_sha256; "
        "here the key is ecdsa (P-256)",
        "add a certificate with another type of key for the name, or update the client",
    )


@pytest.mark.parametrize("algorithms", [None, (), (0x0201, 0x0203), (0x0101,)])
def test_sha_1_is_not_made_any_more(algorithms: tuple[int, ...] | None) -> None:
    """No list means SHA-1 in TLS 1.2 (RFC 5246 §7.4.1.4.1)."""
    mismatch = found(NO_CIPHER, replace(OFFER, signature_algorithms=algorithms))

    assert mismatch.reason == "no_shared_signature_algorithm"
    assert "SHA-1" in mismatch.differs
    assert mismatch.cure.startswith("update the client")


def test_where_the_setting_allows_few_it_is_named() -> None:
    ours = replace(OURS, signature_algorithms=("ECDSA+SHA384",))
    mismatch = found("no_shared_signature_algorithm", OFFER, ours)

    assert mismatch.differs.endswith("and allowed are ECDSA+SHA384")
    assert "`signature_algorithms`" in mismatch.cure


# ALPN.


def test_protocols() -> None:
    mismatch = found("no_shared_protocol", replace(OFFER, protocols=("h3", "ftp")))

    assert mismatch.reason == "no_shared_protocol"
    assert mismatch.differs == "the client speaks h3, ftp; spoken here: h2, http/1.1"
    assert "`alpn`" in mismatch.cure


def test_no_protocol_at_all_is_told_so() -> None:
    assert "speaks none;" in found("no_shared_protocol", replace(OFFER, protocols=())).differs


# Whatever comes.


NUMBERS = st.lists(
    st.sampled_from([0x17, 0x19, 0x301, 0x303, 0x304, 0x1301, 0xC02B, 0x403, 0])
    | st.integers(0, 0xFFFF),
    max_size=6,
).map(tuple)
OFFERS = st.builds(
    Offer,
    versions=NUMBERS,
    ciphers=NUMBERS,
    groups=st.none() | NUMBERS,
    signature_algorithms=st.none() | NUMBERS,
    protocols=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
REASONS = [
    "no_shared_version",
    NO_CIPHER,
    "no_shared_group",
    "no_shared_signature_algorithm",
    "no_shared_protocol",
]


@given(offer=OFFERS, reason=st.sampled_from(REASONS), ours=st.sampled_from([OURS, OURS_RSA]))
def test_any_offer_is_told_in_words_of_the_table_or_not_at_all(
    offer: Offer, reason: str, ours: Accepts
) -> None:
    mismatch = find_mismatch(reason, offer, ours)
    if mismatch is not None:
        assert mismatch.reason in FAILURES
        assert mismatch.differs
        assert mismatch.cure


@given(offer=OFFERS)
def test_the_versions_are_told_first(offer: Offer) -> None:
    mismatch = find_mismatch(NO_CIPHER, offer, OURS)
    if not set(offer.versions) & {TLS_1_2, TLS_1_3}:
        assert mismatch is not None
        assert mismatch.reason in ("old_client", "no_shared_version")


def test_names_of_signature_algorithms_are_iana_s() -> None:
    assert SIGNATURE_ALGORITHMS[0x0403] == "ecdsa_secp256r1_sha256"
