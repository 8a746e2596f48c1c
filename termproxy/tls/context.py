"""From a certificate and a policy to the Context that handshakes use.

The default policy is Mozilla's "intermediate" without its finite-field Diffie-Hellman: TLS 1.2 and 1.3,
ECDHE with AEAD ciphers only.  So there is no CBC (Lucky 13, SWEET32) and no RSA key exchange
(Bleichenbacher) to defend, and every connection has forward secrecy.
"""

from __future__ import annotations

from dataclasses import dataclass

from termproxy.tls import _openssl
from termproxy.tls.certificates import Certificate

VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}

# The order is ours (the server's), except that a client which puts ChaCha20 first gets it: it has no
# AES in hardware.
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

# X448 and P-521 cost a server several times what P-256 does, for no one's benefit.
_CLASSIC_GROUPS = "X25519:P-256:P-384"
_POST_QUANTUM_SINCE = (3, 5)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a frontend demands of TLS."""

    min_version: str = "1.2"


def default_groups(openssl: tuple[int, int]) -> str:
    """The key exchange groups, best first; post-quantum ones where this OpenSSL has them."""
    return f"X25519MLKEM768:{_CLASSIC_GROUPS}" if openssl >= _POST_QUANTUM_SINCE else _CLASSIC_GROUPS


def build_context(certificate: Certificate, policy: Policy) -> _openssl.Context:
    """The Context for `certificate` under `policy`.  ValueError says what OpenSSL does not accept."""
    return _openssl.Context(
        chain=certificate.chain,
        key=certificate.key,
        min_version=VERSIONS[policy.min_version],
        ciphers=CIPHERS,
        ciphersuites=CIPHERSUITES,
        groups=default_groups(_openssl.openssl_version_number()),
    )
