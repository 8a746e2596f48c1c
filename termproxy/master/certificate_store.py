"""The certificates, keys, CAs and CRLs of one frontend, as its files were when they last were good.

A file is read again when its fingerprint has changed, not before.  What cannot be used then is told
once, and what was good before stays: a pair that is being replaced is mostly bad for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from termproxy.config.load import Path_
from termproxy.config.schema import CertificateFiles
from termproxy.config.schema import Frontend as FrontendConfig
from termproxy.tls.certificates import (
    Certificate,
    CertificateError,
    find_files,
    key_files_beside,
    load_certificate,
)
from termproxy.tls.context import Policy, build_context, read_authorities, read_crls
from termproxy.worker.assembly import Finding, policy_files

Fingerprint = tuple[tuple[int, int, int, int], ...]
T = TypeVar("T")


@dataclass(slots=True)
class _Remembered(Generic[T]):
    fingerprint: Fingerprint | None  # None: it has not been looked at
    value: T | None  # None: it never was good


class CertificateStore:
    """`certificates` and `pem` (CAs and CRLs by file) are what refresh() last found good."""

    def __init__(self, config: FrontendConfig) -> None:
        self._config = config
        self.certificates: tuple[Certificate, ...] = ()
        self.pem: dict[Path, bytes] = {}
        self._found: dict[CertificateFiles, _Remembered[Certificate]] = {}  # of one chain each
        self._policy_files: dict[Path, _Remembered[bytes]] = {}
        self._has_started = False
        self._missing: set[CertificateFiles] = set()
        self._chains: dict[CertificateFiles, list[Path]] = {}

    def refresh(self) -> list[Finding]:
        """Look at every file; read those that have changed.  Returns what is newly wrong."""
        problems: list[Finding] = []
        certificates: list[Certificate] = []
        for files in self._config.certificates:
            for chain in self._find(files, problems):
                certificate = self._certificate(replace(files, chain=chain), problems)
                if certificate is not None:
                    certificates.append(certificate)
        self.certificates = tuple(certificates)
        pem = {
            file: self._pem_of(file, read, place, problems)
            for name, read in (("client_ca", read_authorities), ("client_crl", read_crls))
            for file, place in policy_files(self._config, name).items()
        }
        self.pem = {file: content for file, content in pem.items() if content is not None}
        self._has_started = True
        return problems

    def directories(self) -> set[Path]:
        """Where a change can happen: the folders of the files, and of those they are links to."""
        files = {file for each in self._found for file in _files_of(each)}
        files |= {certificate.key_file for certificate in self.certificates}
        for name in ("client_ca", "client_crl"):
            files |= set(policy_files(self._config, name))
        folders = {files.chain for files in self._config.certificates if files.chain.is_dir()}
        folders |= {files.chain.parent for files in self._config.certificates}
        return folders | {file.parent for file in files} | {file.resolve().parent for file in files}

    def _find(self, files: CertificateFiles, problems: list[Finding]) -> list[Path]:
        try:
            found = _find_again(files, self._chains.get(files))
        except CertificateError as error:
            if files not in self._missing:
                problems.append((("certificates",), str(error), error.cure))
            self._missing.add(files)
            return self._chains.setdefault(files, [])
        self._missing.discard(files)
        self._chains[files] = found
        return found

    def _certificate(self, files: CertificateFiles, problems: list[Finding]) -> Certificate | None:
        remembered = self._found.setdefault(files, _Remembered(None, None))
        # All places: a key may move out of its chain's file.
        looked_at = (
            _files_of(files) if files.key else [*_files_of(files), *key_files_beside(files.chain)]
        )
        unique = tuple(dict.fromkeys(looked_at))
        return _look(remembered, unique, lambda: self._load(files), ("certificates",), problems)

    def _load(self, files: CertificateFiles) -> Certificate:
        certificate = load_certificate(files.chain, files.key, files.passphrase)
        if self._has_started:
            # What OpenSSL would refuse must not hold up the others that are renewed with it.  At the
            # start it refuses the start, and need not be tried twice.
            build_context([certificate], Policy())
        return certificate

    def _pem_of(
        self, file: Path, read: Callable[[Path], bytes], place: Path_, problems: list[Finding]
    ) -> bytes | None:
        remembered = self._policy_files.setdefault(file, _Remembered(None, None))
        return _look(remembered, (file,), lambda: read(file), place, problems)


def _files_of(files: CertificateFiles) -> list[Path]:
    return [file for file in (files.chain, files.key, files.passphrase) if file is not None]


def _find_again(files: CertificateFiles, before: list[Path] | None) -> list[Path]:
    found = find_files(files.chain)
    if found == [files.chain] and before not in (None, found):
        raise CertificateError(f"the folder {files.chain} has gone", "put it back")
    return found


def _look(
    remembered: _Remembered[T],
    files: tuple[Path, ...],
    read: Callable[[], T],
    path: Path_,
    problems: list[Finding],
) -> T | None:
    """The value, read anew when a file has changed.  A bad one leaves the old, and is told once."""
    now = tuple(_fingerprints(files))  # before reading: a change while we read is seen next time
    if now != remembered.fingerprint:
        remembered.fingerprint = now
        try:
            remembered.value = read()
        except CertificateError as error:
            problems.append((path, str(error), error.cure))
    return remembered.value


def _fingerprints(files: tuple[Path, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Of the files that exist: device, inode, size, and the change that nobody can set back."""
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116 - of ten thousand files, Path.stat() takes twice as long
        except OSError:
            continue
        else:
            yield status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
