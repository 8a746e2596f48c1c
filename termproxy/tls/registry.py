"""IANA's numbers for what a ClientHello offers, and their names.

https://www.iana.org/assignments/tls-parameters
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304
TLS_1_3_SUITES = 0x13  # the first byte of its cipher suites

VERSIONS = {
    0x0002: "SSL 2.0",
    0x0300: "SSL 3.0",
    0x0301: "TLS 1.0",
    0x0302: "TLS 1.1",
    TLS_1_2: "TLS 1.2",
    TLS_1_3: "TLS 1.3",
}

GROUPS = {
    0x0017: "P-256",
    0x0018: "P-384",
    0x0019: "P-521",
    0x001A: "brainpoolP256r1",
    0x001B: "brainpoolP384r1",
    0x001C: "brainpoolP512r1",
    0x001D: "X25519",
    0x001E: "X448",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x0103: "ffdhe6144",
    0x0104: "ffdhe8192",
    0x0200: "MLKEM512",
    0x0201: "MLKEM768",
    0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
    0x6399: "X25519Kyber768Draft00",
}

# OpenSSL takes several names for the same curve.
_GROUP_ALIASES = {
    "prime256v1": "P-256",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}

SIGNATURE_ALGORITHMS = {
    0x0201: "rsa_pkcs1_sha1",
    0x0203: "ecdsa_sha1",
    0x0401: "rsa_pkcs1_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
    0x0808: "ed448",
    0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384",
    0x080B: "rsa_pss_pss_sha512",
}

# MD5 and SHA-1: the first byte of the signature algorithms of TLS 1.2 that are made with them.
OLD_HASHES = frozenset({0x01, 0x02})

# Signals in the list of cipher suites, which are none.
SIGNALS = frozenset({0x00FF, 0x5600})

# Suites without encryption or without authentication, and such as were weakened for export: clients
# do not offer these and nothing else, scanners do.
NO_CLIENT_S_CIPHERS = frozenset({
    *range(0x0001, 0x0004),
    0x0006, 0x0008, 0x000B, 0x000E, 0x0011, 0x0014,
    *range(0x0017, 0x001C),
    *range(0x0026, 0x002F),
    0x0034, 0x003A, 0x003B, 0x0046, 0x006C, 0x006D, 0x0089, 0x009B, 0x00A6, 0x00A7,
    0x00B0, 0x00B1, 0x00B4, 0x00B5, 0x00B8, 0x00B9, 0x00BF, 0x00C5,
    0xC001, 0xC006, 0xC00B, 0xC010, *range(0xC015, 0xC01A),
    0xC039, 0xC03A, 0xC03B,
})  # fmt: skip

NAMED_MAX = 6


def group_number(name: str) -> int | None:
    """The number of a group by any of OpenSSL's names for it; None for one that is not listed here."""
    wanted = _GROUP_ALIASES.get(name.lower(), name).lower()
    return next((number for number, known in GROUPS.items() if known.lower() == wanted), None)


def named(numbers: Iterable[int], names: Mapping[int, str]) -> str:
    """The first few by name, or in hexadecimal, for a sentence: "P-256, 0x1234 and 3 more"."""
    numbers = list(numbers)
    shown = ", ".join(names.get(number, f"0x{number:04x}") for number in numbers[:NAMED_MAX])
    more = len(numbers) - NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown or "none"
