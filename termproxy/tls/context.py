"""From certificates and a policy to the Contexts that handshakes use.

The presets are Mozilla's, version 5.7 of its guideline ("Server Side TLS"); `intermediate`, the default,
without its finite-field Diffie-Hellman.  So by default there is no CBC (Lucky 13, SWEET32) and no RSA
key exchange (Bleichenbacher) to defend, and every connection has forward secrecy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from termproxy.shm import memory_file, shared_memory
from termproxy.tls import _openssl
from termproxy.tls._openssl import (
    RING_SIZE,
    SessionCache,
    TicketKeys,
    TicketRing,
    session_cache_size,
)
from termproxy.tls.certificates import Certificate, CertificateError
from termproxy.tls.mismatch import Accepts
from termproxy.tls.registry import TLS_1_2, TLS_1_3, TLS_1_3_SUITES, group_number

# CAs and CRLs can be long lists; beyond this it is another kind of file.
FILE_MAX = 16 << 20  # bytes

# To be raised when tp_slot, or where a session is kept, changes in tls/_openssl.pyx: at an upgrade the
# memory goes to an executable that may be another version's.
SESSION_CACHE_LAYOUT = 1

VERSIONS = {"1.2": TLS_1_2, "1.3": TLS_1_3}

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
_POST_QUANTUM_GROUP = "X25519MLKEM768"
_POST_QUANTUM_SINCE = (3, 5)


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """Whether clients must show a certificate, and whose."""

    demand: str = "off"  # "optional", "required"
    ca: bytes | None = field(default=None, repr=False)  # PEM
    crl: bytes | None = field(default=None, repr=False)  # PEM
    depth: int = 4


@dataclass(frozen=True, slots=True)
class Policy:
    """What is demanded of a client, for a frontend or for some of its names.  Empty: the default."""

    scope: str = ""  # whose policy it is: the same rules elsewhere are another group
    min_version: str = "1.2"
    max_version: str = ""
    ciphers: tuple[str, ...] = ()
    ciphersuites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    signature_algorithms: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    client_auth: ClientAuth = ClientAuth()

    def group_id(self) -> bytes:
        """The policy group, 32 bytes: sessions of one are never resumed in another (CVE-2025-23419).

        Two names are of one group when the same clients are let in to both: the same frontend, and the
        same rule for client certificates.
        """
        digest = hashlib.sha256()
        auth = self.client_auth
        rule = (auth.demand.encode(), auth.ca or b"", auth.crl or b"")
        for part in (self.scope.encode(), *rule):
            digest.update(len(part).to_bytes(8) + part)
        digest.update(auth.depth.to_bytes(8))
        return digest.digest()


Staples = dict[bytes, tuple[bytes, float]]
"""By the SHA-256 of a certificate its OCSP response, and when that expires (seconds since 1970)."""


@dataclass(slots=True)
class Stores:
    """What every context of a process looks into while it serves; it changes, the contexts stay."""

    staples: Staples = field(default_factory=dict)
    tickets: TicketRing = field(default_factory=lambda: TicketRing(shared_memory(RING_SIZE)))
    # As long as a context uses them: a new CRL makes a new group.
    _keys: WeakValueDictionary[bytes, TicketKeys] = field(default_factory=WeakValueDictionary)
    _sessions: dict[int, SessionCache] = field(default_factory=dict)
    _session_files: dict[int, int] = field(default_factory=dict)  # their memory's descriptors

    def ticket_keys(self, group: bytes) -> TicketKeys:
        """The ring as the policy group `group` (32 bytes) uses it."""
        keys = self._keys.get(group)
        if keys is None:
            keys = self._keys[group] = TicketKeys(self.tickets, group)
        return keys

    def session_cache(self, entries: int) -> SessionCache | None:
        """The cache of this size, which is shared with whoever is forked from now on; None for none."""
        if entries and entries not in self._sessions:
            size = session_cache_size(entries)
            self._open_cache(entries, memory_file("termproxy-sessions", size))
        return self._sessions.get(entries)

    def _open_cache(self, entries: int, fd: int) -> None:
        try:
            memory = shared_memory(session_cache_size(entries), fd)
        except (OSError, ValueError):
            os.close(fd)
            raise
        self._sessions[entries] = SessionCache(memory, entries)
        self._session_files[entries] = fd

    def caches(self) -> list[tuple[int, int, int]]:
        """Of each cache its entries, its layout, and its memory's descriptor: for another executable."""
        return [(entries, SESSION_CACHE_LAYOUT, fd) for entries, fd in self._session_files.items()]

    def take_over_cache(self, entries: int, layout: int, fd: int) -> None:
        """Go on with another executable's cache.  OSError or ValueError when that cannot be; the
        descriptor is closed then.
        """
        if layout != SESSION_CACHE_LAYOUT:
            os.close(fd)
            raise ValueError(f"a session cache of layout {layout}, not {SESSION_CACHE_LAYOUT}")
        self._open_cache(entries, fd)

    def sweep(self) -> int:
        """Wipe the sessions that have expired; how many are kept."""
        return sum(cache.sweep() for cache in self._sessions.values())

    def forget_sessions(self) -> None:
        """Wipe every session: none is resumed by its id any more."""
        for sessions in self._sessions.values():
            sessions.clear()

    def keep_only(self, entries: int) -> None:
        """Let go of caches of other sizes: no configuration has them any more."""
        self._sessions = {size: cache for size, cache in self._sessions.items() if size == entries}
        for size in self._session_files.keys() - {entries}:
            os.close(self._session_files.pop(size))


@dataclass(frozen=True, slots=True)
class Resumption:
    """How sessions are resumed."""

    stores: Stores
    lifetime: int = 43200  # seconds
    with_tickets: bool = True
    tickets: int = 1  # sent after a full TLS 1.3 handshake
    session_cache: int = 0  # sessions


def _session_id(policy: Policy) -> bytes:
    """What a session is bound to: in TLS 1.2 it brings its cipher along, which nobody looks at again."""
    digest = hashlib.sha256(policy.group_id())
    digest.update(repr((policy.ciphers, policy.groups, policy.min_version, policy.max_version)).encode())
    return digest.digest()


def default_groups(openssl: tuple[int, int]) -> str:
    """The key exchange groups, best first; post-quantum ones where this OpenSSL has them."""
    has_post_quantum = openssl >= _POST_QUANTUM_SINCE
    return f"{_POST_QUANTUM_GROUP}:{_CLASSIC_GROUPS}" if has_post_quantum else _CLASSIC_GROUPS


def build_context(
    certificates: Sequence[Certificate],
    policy: Policy,
    resumption: Resumption | None = None,
    on_client_hello: Callable[[_openssl.Connection], _openssl.Context | int | None] | None = None,
    staples: Staples | None = None,
) -> _openssl.Context:
    """The Context for `certificates` under `policy`.  CertificateError for what OpenSSL refuses."""
    openssl = _openssl.openssl_version_number()
    group = _session_id(policy)
    try:
        return _openssl.Context(
            identities=[(certificate.chain, certificate.key) for certificate in certificates],
            min_version=VERSIONS[policy.min_version],
            max_version=VERSIONS[policy.max_version] if policy.max_version else 0,
            ciphers=":".join(policy.ciphers) or CIPHERS,
            ciphersuites=":".join(policy.ciphersuites) or CIPHERSUITES,
            groups=":".join(policy.groups) or default_groups(openssl),
            signature_algorithms=":".join(policy.signature_algorithms) or None,
            alpn=[protocol.encode() for protocol in policy.alpn],
            session_id_context=group,
            client_auth=policy.client_auth.demand,
            client_ca=policy.client_auth.ca,
            client_crl=policy.client_auth.crl,
            client_depth=policy.client_auth.depth,
            on_client_hello=on_client_hello,
            staples=staples,
            **({} if resumption is None else _resuming(resumption, group)),
        )
    except ValueError as error:
        files = ", ".join(str(certificate.chain_file) for certificate in certificates)
        raise CertificateError(
            f"{_openssl.openssl_version()} does not accept this for {files}: {error}",
            "choose what this OpenSSL can do, and a key of 2048 bit RSA or P-256",
        ) from None


def _resuming(resumption: Resumption, group: bytes) -> dict[str, Any]:
    """What the binding is told of it; told nothing, it resumes no session."""
    stores = resumption.stores
    return {
        "tickets": resumption.tickets,
        "ticket_keys": stores.ticket_keys(group) if resumption.with_tickets else None,
        "session_cache": stores.session_cache(resumption.session_cache),
        "lifetime": resumption.lifetime,
    }


def accepted(
    policy: Policy, key_types: Sequence[str], curves: Sequence[str], context: _openssl.Context
) -> Accepts:
    """What a client must have in common with `policy`, of which `context` was built."""
    ciphers = context.ciphers
    groups = policy.groups or tuple(default_groups(_openssl.openssl_version_number()).split(":"))
    return Accepts(
        min_version=VERSIONS[policy.min_version],
        max_version=VERSIONS[policy.max_version or "1.3"],
        ciphers={number: name for number, name in ciphers.items() if number >> 8 != TLS_1_3_SUITES},
        ciphersuites={number: name for number, name in ciphers.items() if number >> 8 == TLS_1_3_SUITES},
        groups=_numbered(groups),
        protocols=policy.alpn,
        key_types=tuple(key_types),
        curves=_numbered(curves),
        signature_algorithms=policy.signature_algorithms,
        known_ciphers=_known_ciphers(),
    )


def _numbered(groups: Sequence[str]) -> dict[int, str]:
    numbers = ((group_number(name), name) for name in groups)
    return {number: name for number, name in numbers if number is not None}


@cache
def _known_ciphers() -> dict[int, str]:
    return _openssl.known_ciphers()


def read_authorities(file: Path) -> bytes:
    """The PEM text of CAs.  CertificateError when it is not that, and whole."""
    return _read_pem(file, _openssl.check_authorities)


def read_crls(file: Path) -> bytes:
    """The PEM text of CRLs.  CertificateError when it is not that, and whole."""
    return _read_pem(file, _openssl.check_crls)


def _read_pem(file: Path, check: Callable[[bytes], None]) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_MAX + 1)
    except OSError as error:
        raise CertificateError(
            f"cannot read {file}: {error.strerror}", "name a PEM file that the starting user may read"
        ) from None
    if len(content) > FILE_MAX:
        raise CertificateError(f"{file} is larger than {FILE_MAX} bytes", "name a PEM file")
    try:
        check(content)
    except ValueError as error:
        raise CertificateError(f"{file}: {error}", "name a file of whole PEM texts") from None
    return content
