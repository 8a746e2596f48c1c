"""A generation: one configuration, with the contexts, clusters and log that its workers inherit.

Everything that can be refused is refused here, before a worker is forked: keys are read while the
master still is whoever started it, and a running generation is not touched.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from termproxy.address import Address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.load import Source, read
from termproxy.config.schema import Config
from termproxy.config.schema import Frontend as FrontendConfig
from termproxy.errors import ConfigError, Problem
from termproxy.observability.access_log import AccessLog, open_access_log
from termproxy.tls._openssl import Context
from termproxy.tls.certificates import CertificateError, load_certificate
from termproxy.tls.context import Policy, build_context
from termproxy.worker.shared import Frontend


@dataclass(frozen=True, slots=True)
class User:
    """Whom workers run as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Generation:
    number: int
    config: Config
    frontends: tuple[Frontend, ...]
    user: User | None
    access_log: AccessLog | None
    warnings: tuple[str, ...]

    def addresses(self) -> Iterator[tuple[Frontend, Address]]:
        """Every address to listen on, with the frontend of its clients."""
        for frontend, config in zip(self.frontends, self.config.frontends, strict=True):
            for address in config.listen:
                yield frontend, address

    def close(self) -> None:
        if self.access_log is not None:
            self.access_log.close()


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that could serve."""

    config: Config
    frontends: tuple[Frontend, ...]
    user: User | None
    warnings: tuple[str, ...]


def check(source: Source, *, uid: int, now: datetime) -> Checked:
    """Read `source` and all that it names.  ConfigError with every problem; changes nothing.

    `uid` is who we run as: only root can become someone else.
    """
    reading = read(source)
    problems = list(reading.problems)
    warnings: list[str] = []
    contexts: dict[int, Context] = {}
    for index, frontend in reading.frontends.items():
        try:
            contexts[index] = _context(frontend, warnings, now)
        except CertificateError as error:
            where = source.where(("frontend", index, "certificates"))
            problems.append(Problem(where, str(error), error.cure))
    config = reading.config
    user = _user(config, source, uid, problems, warnings) if config is not None else None
    if config is None or problems:
        raise ConfigError(problems)
    clusters = {
        name: Cluster(name, [Server(address) for address in cluster.servers])
        for name, cluster in config.clusters.items()
    }
    frontends = tuple(
        Frontend(frontend.name, contexts[index], clusters[frontend.cluster])
        for index, frontend in enumerate(config.frontends)
    )
    return Checked(config, frontends, user, tuple(warnings))


def build(checked: Checked, number: int) -> Generation:
    """The generation of a checked configuration.  StartError when its log cannot be opened."""
    access_log = open_access_log(checked.config.log.access)
    return Generation(
        number, checked.config, checked.frontends, checked.user, access_log, checked.warnings
    )


def _context(config: FrontendConfig, warnings: list[str], now: datetime) -> Context:
    files = config.certificates[0]
    certificate = load_certificate(files.chain, files.key)
    warning = certificate.validity_warning(now)
    if warning is not None:
        warnings.append(warning)
    try:
        return build_context(certificate, Policy(min_version=config.tls.min_version))
    except ValueError as error:
        raise CertificateError(
            f"OpenSSL does not accept {files.chain}: {error}", "use a key of 2048 bit RSA or P-256"
        ) from None


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
