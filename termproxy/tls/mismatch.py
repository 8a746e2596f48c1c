"""Find the one thing that a client's offer and what we accept do not have in common.

OpenSSL tells a reason, but the same one ("no shared cipher") for several causes.  The order here is that
of the handshake: version, cipher suite, the key that our certificate has, group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from termproxy.tls.client_hello import Offer
from termproxy.tls.registry import (
    GROUPS,
    NO_CLIENT_S_CIPHERS,
    OLD_HASHES,
    SIGNALS,
    SIGNATURE_ALGORITHMS,
    TLS_1_2,
    TLS_1_3,
    TLS_1_3_SUITES,
    VERSIONS,
    named,
)


@dataclass(frozen=True, slots=True)
class Accepts:
    """What is accepted for a name, by IANA's numbers with their names."""

    min_version: int
    max_version: int
    ciphers: Mapping[int, str]  # of TLS 1.2
    ciphersuites: Mapping[int, str]  # of TLS 1.3
    groups: Mapping[int, str]
    protocols: tuple[str, ...]
    key_types: tuple[str, ...]  # of the certificates: "rsa", "ecdsa" …
    curves: Mapping[int, str]  # of the certificates' ECDSA keys, as groups
    signature_algorithms: tuple[str, ...]  # as they are set; empty: OpenSSL's own
    known_ciphers: Mapping[int, str]  # all that OpenSSL has a name for


@dataclass(frozen=True, slots=True)
class Mismatch:
    reason: str  # of observability.metrics.FAILURES
    differs: str
    cure: str


def find_mismatch(reason: str, offer: Offer, ours: Accepts) -> Mismatch | None:
    """What differs when OpenSSL gives this `reason`; None when that cannot be told from the offer."""
    if reason == "no_shared_protocol":
        return _of_protocols(offer, ours)
    found = _first_mismatch(offer, ours)
    if found is None and reason in ("no_shared_cipher", "no_shared_signature_algorithm"):
        return _of_signature_algorithms(offer, ours)
    return found


def _first_mismatch(offer: Offer, ours: Accepts) -> Mismatch | None:
    shared = [v for v in offer.versions if ours.min_version <= v <= ours.max_version]
    if not shared:
        return _of_versions(offer, ours)
    if TLS_1_3 in shared:
        return _of_tls_1_3(offer, ours)
    return _of_tls_1_2(offer, ours)


def _of_versions(offer: Offer, ours: Accepts) -> Mismatch:
    offered = named(sorted(offer.versions, reverse=True), VERSIONS)
    accepted = named(dict.fromkeys((ours.min_version, ours.max_version)), VERSIONS)
    differs = f"the client offers {offered}; accepted here: {accepted}"
    if offer.versions and max(offer.versions) < TLS_1_2:
        return Mismatch(
            "old_client", differs, "update the client: TLS 1.0 and 1.1 are broken (RFC 8996), and off"
        )
    return Mismatch(
        "no_shared_version", differs, "update the client, or widen min_version and max_version"
    )


def _of_tls_1_3(offer: Offer, ours: Accepts) -> Mismatch | None:
    if not ours.ciphersuites.keys() & set(offer.ciphers):
        return _of_ciphers(offer, ours, ours.ciphersuites, "ciphersuites")
    return _of_groups(offer, ours)


def _of_tls_1_2(offer: Offer, ours: Accepts) -> Mismatch | None:
    shared = {number: name for number, name in ours.ciphers.items() if number in offer.ciphers}
    if not shared:
        return _of_ciphers(offer, ours, ours.ciphers, "ciphers")
    usable = [name for name in shared.values() if _has_key_for(name, ours.key_types)]
    if not usable:
        return Mismatch(
            "no_shared_cipher",
            f"of our ciphers the client offers only {named(shared, shared)}; "
            f"here the key is {_keys(ours)}",
            "add a certificate with the type of key that these ciphers are for",
        )
    found = _of_groups(offer, ours) if all(name.startswith("ECDHE") for name in usable) else None
    if found is None and all("ECDSA" in name for name in usable):
        return _of_curves(offer, ours)
    return found


def _has_key_for(cipher: str, key_types: tuple[str, ...]) -> bool:
    """Whether OpenSSL's name of a TLS 1.2 cipher goes with one of the keys."""
    if "ECDSA" in cipher:
        return not {"ecdsa", "ed25519", "ed448"}.isdisjoint(key_types)
    return "rsa" in key_types or not {"dsa", "other"}.isdisjoint(key_types)


def _keys(ours: Accepts) -> str:
    curves = named(ours.curves, GROUPS)
    return " and ".join(f"ecdsa ({curves})" if kind == "ecdsa" else kind for kind in ours.key_types)


def _of_ciphers(offer: Offer, ours: Accepts, accepted: Mapping[int, str], setting: str) -> Mismatch:
    offered = [number for number in offer.ciphers if number not in SIGNALS]
    if offered and NO_CLIENT_S_CIPHERS.issuperset(offered):
        return Mismatch(
            "scanner",
            "offers only ciphers that no client uses: unencrypted, anonymous or export ones",
            "nothing: somebody looks for weaknesses",
        )
    # Suites of the other version cannot be the cause.
    is_1_3 = setting == "ciphersuites"
    of_version = [number for number in offered if (number >> 8 == TLS_1_3_SUITES) == is_1_3]
    told = named(of_version, ours.known_ciphers)
    return Mismatch(
        "no_shared_cipher",
        f"the client offers {told}; accepted here: {named(accepted, accepted)}",
        f"update the client, or add one of its ciphers to `{setting}`",
    )


def _of_groups(offer: Offer, ours: Accepts) -> Mismatch | None:
    offered = offer.groups or ()  # OpenSSL takes no list for an empty one
    if ours.groups.keys() & set(offered):
        return None
    return Mismatch(
        "no_shared_group",
        f"the client offers {named(offered, GROUPS)}; accepted here: {named(ours.groups, GROUPS)}",
        "update the client, or add one of its groups to `groups`",
    )


def _of_curves(offer: Offer, ours: Accepts) -> Mismatch | None:
    """In TLS 1.2 a client's groups are also the curves of keys that it takes (RFC 8422 §5.1)."""
    offered = offer.groups or ()
    if not ours.curves or ours.curves.keys() & set(offered):
        return None
    return Mismatch(
        "no_shared_group",
        f"the client offers {named(offered, GROUPS)}; here the key is {_keys(ours)}",
        "add a certificate with a key on one of the client's groups, or RSA, or update the client",
    )


def _of_signature_algorithms(offer: Offer, ours: Accepts) -> Mismatch:
    offered = offer.signature_algorithms or ()  # RFC 5246 §7.4.1.4.1: no list means SHA-1
    if all(number >> 8 in OLD_HASHES for number in offered):
        return Mismatch(
            "no_shared_signature_algorithm",
            "the client accepts signatures with SHA-1 or MD5 only",
            "update the client: SHA-1 and MD5 are broken (RFC 9155), and off",
        )
    told = named(offered, SIGNATURE_ALGORITHMS)
    allowed, cure = "", "add a certificate with another type of key for the name, or update the client"
    if ours.signature_algorithms:
        allowed = f", and allowed are {', '.join(ours.signature_algorithms)}"
        cure = f"add one of the client's to `signature_algorithms`; {cure}"
    return Mismatch(
        "no_shared_signature_algorithm",
        f"the client accepts signatures of {told}; here the key is {_keys(ours)}{allowed}",
        cure,
    )


def _of_protocols(offer: Offer, ours: Accepts) -> Mismatch:
    spoken = ", ".join(offer.protocols) or "none"
    return Mismatch(
        "no_shared_protocol",
        f"the client speaks {spoken}; spoken here: {', '.join(ours.protocols)}",
        "add one of the client's to `alpn`, if the backend speaks it",
    )
