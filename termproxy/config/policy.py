"""What holds for a name when its host block, its frontend and a preset each say something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from termproxy.config.schema import Frontend, Host, TlsPolicy

MIN_VERSION_OF_PRESET = {"intermediate": "1.2", "modern": "1.3"}

CLIENT_DEPTH = 4  # intermediates; more than any real hierarchy has


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings in force.  Empty lists and texts: what the preset has."""

    min_version: str
    max_version: str
    ciphers: tuple[str, ...]
    ciphersuites: tuple[str, ...]
    groups: tuple[str, ...]
    signature_algorithms: tuple[str, ...]
    alpn: tuple[str, ...]
    client_auth: str
    client_ca: Path | None
    client_crl: Path | None
    client_depth: int


def effective_policy(frontend: Frontend, host: Host | None) -> Policy:
    """The host block's word first, then the frontend's; in each, a preset's after its own settings."""
    blocks: list[TlsPolicy] = [frontend.tls] if host is None else [host, frontend.tls]

    def first(name: str, default: Any) -> Any:
        given = (getattr(block, name) for block in blocks)
        return next((value for value in given if value is not None), default)

    return Policy(
        min_version=next(filter(None, map(_min_version, blocks)), MIN_VERSION_OF_PRESET["intermediate"]),
        max_version=first("max_version", ""),
        ciphers=first("ciphers", ()),
        ciphersuites=first("ciphersuites", ()),
        groups=first("groups", ()),
        signature_algorithms=first("signature_algorithms", ()),
        alpn=first("alpn", ()),
        client_auth=first("client_auth", "off"),
        client_ca=first("client_ca", None),
        client_crl=first("client_crl", None),
        client_depth=first("client_depth", CLIENT_DEPTH),
    )


def _min_version(block: TlsPolicy) -> str | None:
    if block.min_version is None and block.preset is not None:
        return MIN_VERSION_OF_PRESET[block.preset]
    return block.min_version
