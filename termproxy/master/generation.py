"""A generation: one configuration, with the contexts, clusters and log that its workers inherit.

Everything that can be refused is refused here, before a worker is forked: keys are read while the
master still is whoever started it, and a running generation is not touched.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from termproxy.address import Address
from termproxy.backends.cluster import Cluster
from termproxy.config.load import Source, read
from termproxy.config.reach import backend_ports
from termproxy.config.schema import Config
from termproxy.errors import ConfigError, Problem
from termproxy.master import landlock
from termproxy.master.certificate_store import CertificateStore
from termproxy.observability.access_log import AccessLog, open_access_log
from termproxy.tls.certificates import Certificate, CertificateError
from termproxy.tls.context import Resumption, Stores
from termproxy.tls.ticket_key_files import TicketKeyError, read_ticket_keys
from termproxy.worker.assembly import Assembly, Finding, warnings_of
from termproxy.worker.frontend import Frontend
from termproxy.worker.redirection import Redirection


@dataclass(frozen=True, slots=True)
class User:
    """Whom workers run as."""

    name: str
    uid: int
    gid: int


@dataclass(slots=True)
class Site:
    """A frontend's files, and what is shown of them."""

    store: CertificateStore
    assembly: Assembly
    next_change: datetime | None = None  # when one comes into its time, or runs out
    _seen: Any = None  # what the store held when it was last looked at; refused things are told once

    def renew(self, now: datetime) -> tuple[list[Finding], bool]:
        """Look at the files again: what is newly wrong, and whether other things are shown now."""
        problems = self.store.refresh()
        is_same = (self.store.certificates, self.store.pem) == self._seen
        if is_same and (self.next_change is None or now < self.next_change):
            return problems, False
        refused = self.show(now)
        return problems + refused, not refused

    def show(self, now: datetime) -> list[Finding]:
        """Show what the store holds; what stands against it, and then all stays as it was."""
        self._seen = self.store.certificates, self.store.pem
        moments = (m for c in self.store.certificates for m in (c.not_before, c.not_after))
        self.next_change = min((moment for moment in moments if moment > now), default=None)
        try:
            self.assembly.serve(self.store.certificates, self.store.pem, now)
        except CertificateError as error:
            return [((), str(error), error.cure)]
        return []


@dataclass(frozen=True, slots=True)
class Generation:
    number: int
    config: Config
    sites: tuple[Site, ...]  # of each frontend
    user: User | None
    access_log: AccessLog | None
    warnings: tuple[str, ...]
    ports: frozenset[int] | None  # its workers can connect to no others; None: to any

    def addresses(self) -> Iterator[tuple[Frontend | Redirection, Address]]:
        """Every address to listen on, with what its clients come to."""
        for site in self.sites:
            assembly = site.assembly
            for address in assembly.config.listen:
                yield assembly.frontend, address
            if assembly.redirection is not None:
                for address in assembly.config.redirect_from:
                    yield assembly.redirection, address

    def certificates_to_staple(self) -> Iterator[Certificate]:
        for site in self.sites:
            if site.assembly.config.tls.stapling:
                yield from site.assembly.certificates

    def close(self) -> None:
        if self.access_log is not None:
            self.access_log.close()


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that could serve."""

    config: Config
    sites: tuple[Site, ...]  # of each frontend
    user: User | None
    warnings: tuple[str, ...]


def check(source: Source, *, uid: int, now: datetime, stores: Stores) -> Checked:
    """Read `source` and all that it names.  ConfigError with every problem; changes nothing.

    `uid` is who we run as: only root can become someone else.  `stores` are what contexts look into.
    """
    reading = read(source)
    problems = list(reading.problems)
    warnings: list[str] = []
    files: dict[int, CertificateStore] = {}
    for index, frontend in reading.frontends.items():
        files[index] = CertificateStore(frontend)
        problems += _placed(source, index, files[index].refresh())
        warnings += warnings_of(frontend, files[index].certificates, now)
    config = reading.config
    if config is not None and config.resumption.ticket_keys:
        try:
            read_ticket_keys(config.resumption.ticket_keys)
        except TicketKeyError as error:
            where = source.where(("resumption", "ticket_keys"))
            problems.append(Problem(where, str(error), error.cure))
    user = _user(config, source, uid, problems, warnings) if config is not None else None
    if config is not None and config.admin.listen is not None and not config.admin.listen.is_loopback:
        warnings.append(f"admin.listen: whoever reaches {config.admin.listen} may read the metrics")
    if config is None or problems:
        raise ConfigError(problems)
    clusters = {name: Cluster.of(name, cluster) for name, cluster in config.clusters.items()}
    resumption = _resumption(config, stores)
    sites = []
    for index, frontend in enumerate(config.frontends):
        pem, query = files[index].pem, config.log.query
        assembly = Assembly(frontend, clusters, pem, resumption, config.limits, logs_query=query)
        site = Site(files[index], assembly)
        problems += _placed(source, index, site.assembly.problems or site.show(now))
        sites.append(site)
    if problems:
        raise ConfigError(problems)
    return Checked(config, tuple(sites), user, tuple(warnings))


def _resumption(config: Config, stores: Stores) -> Resumption:
    settings = config.resumption
    return Resumption(
        stores,
        settings.lifetime,
        settings.tickets,
        settings.tickets_per_handshake,
        settings.session_cache,
    )


def _placed(source: Source, index: int, findings: Iterable[Finding]) -> list[Problem]:
    return [
        Problem(source.where(("frontend", index, *path)), what, cure) for path, what, cure in findings
    ]


def build(checked: Checked, number: int) -> Generation:
    """The generation of a checked configuration.  StartError when its log cannot be opened."""
    owners = () if checked.user is None else (checked.user.uid,)
    access_log = open_access_log(checked.config.log.access, checked.config.log.format, owners)
    return Generation(
        number,
        checked.config,
        checked.sites,
        checked.user,
        access_log,
        checked.warnings,
        backend_ports(checked.config) if landlock.restricts_ports() else None,
    )


def _user(
    config: Config, source: Source, uid: int, problems: list[Problem], warnings: list[str]
) -> User | None:
    if not config.user:
        if uid == 0:
            warnings.append("workers run as root: set `user` to a name without rights of its own")
        return None
    try:
        entry = pwd.getpwnam(config.user)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        cure = "name an existing user, or create it with `useradd --system`"
        problems.append(Problem(source.where(("user",)), f"there is no user {config.user!r}", cure))
        return None
    if uid != 0:
        if entry.pw_uid != uid:
            warnings.append(f"user = {config.user!r} has no effect: only root can become another user")
        return None
    if entry.pw_uid == 0:
        what = f"{config.user!r} is root again"
        problems.append(Problem(source.where(("user",)), what, "name a user without rights"))
        return None
    return User(config.user, entry.pw_uid, entry.pw_gid)
