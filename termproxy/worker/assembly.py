"""From a frontend's settings to what its workers show: certificates, policies, contexts.

Every problem is told with its place in the configuration; a frontend with one is not served.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from termproxy.backends.cluster import Cluster
from termproxy.config import policy as settings
from termproxy.config.load import Path_
from termproxy.config.schema import Frontend as FrontendConfig
from termproxy.config.schema import Host, Limits, TlsPolicy
from termproxy.http.forwarding import Settings as Forwarding
from termproxy.http.head import request_reader, response_reader
from termproxy.http.routing import Route, Routes
from termproxy.tls._openssl import Context, knows, openssl_version
from termproxy.tls.certificates import Certificate, CertificateError
from termproxy.tls.context import ClientAuth, Policy, Resumption, build_context
from termproxy.tls.selection import (
    Identity,
    NameTable,
    certificates_by_name,
    default_identity,
    why_not,
)
from termproxy.worker.frontend import Frontend, Served
from termproxy.worker.gateway import Gateway
from termproxy.worker.redirection import Redirection

Finding = tuple[Path_, str, str]  # where below the frontend, what, cure

# Of a backend's answer, whose cookies and policies can be long.
RESPONSE_HEAD_MAX = 65_536  # bytes

DEFAULT_LIMITS = Limits()

# What of a policy OpenSSL has names for: it would skip those that it does not know in silence.
_NAMED = ("ciphers", "ciphersuites", "groups", "signature_algorithms")


def warnings_of(
    config: FrontendConfig, certificates: Sequence[Certificate], now: datetime
) -> Iterator[str]:
    """What the operator should know at every start."""
    for certificate in certificates:
        warning = certificate.validity_warning(now)
        if warning is not None:
            yield warning
    by_name = certificates_by_name(certificates, now)
    for host in config.hosts:
        for name in host.names:
            if by_name.find(name) is None:
                what = f"no certificate has the name {name}; the first one serves it"
                yield f"frontend {config.name}: {what}"


def findings_of(certificates: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """What `termproxy check --deep` tells besides: findings, and names that another one serves."""
    by_name = certificates_by_name(certificates, now)
    for certificate in certificates:
        for finding in certificate.findings:
            yield f"{certificate.chain_file}: {finding}"
        for name in certificate.names:
            reason = why_not(certificate, name, by_name.find(name) or (), now)
            if reason is not None:
                yield f"{certificate.chain_file}: {reason}"


def gateway_of(
    config: FrontendConfig, limits: Limits, clusters: Mapping[str, Cluster], *, logs_query: bool
) -> Gateway:
    """What mode "http" needs, from the settings."""
    http = config.http
    forwarding = Forwarding(
        x_forwarded=http.x_forwarded,
        forwarded=http.forwarded,
        request_id=http.request_id,
        via=http.via,
        fact_fields=http.facts.pairs,
    )
    head, fields = limits.request_head, limits.request_fields
    return Gateway(
        requests=request_reader(head, limits.request_target, fields, forwarding.configured_names()),
        responses=response_reader(RESPONSE_HEAD_MAX, fields),
        forwarding=forwarding,
        routes=Routes(
            [
                Route(route.host, route.path_prefix.encode(), clusters[route.cluster])
                for route in config.routes
            ]
        ),
        underscores=http.underscores,
        hsts=http.strict_transport_security.encode(),
        head_max=head,
        body_max=limits.request_body,
        body_rate=limits.body_rate,
        trusted=config.trust_forwarded_from,
        logs_query=logs_query,
    )


def policy_files(config: FrontendConfig, name: str) -> dict[Path, Path_]:
    """The files that the setting `name` (client_ca, client_crl) gives, and where it stands."""
    blocks: list[tuple[Path_, TlsPolicy]] = [(("tls",), config.tls)]
    blocks += [(("host", number), host) for number, host in enumerate(config.hosts)]
    places: dict[Path, Path_] = {}
    for path, block in blocks:
        file = getattr(block, name)
        if file is not None:
            places.setdefault(file, (*path, name))
    return places


@dataclass(frozen=True, slots=True)
class Rule:
    """A host block's policy and cluster, or the frontend's own; `names` is empty for that."""

    names: tuple[str, ...]

    policy: Policy
    cluster: Cluster


class Assembly:
    """What a frontend shows, put together from its settings; `problems` stand against it.

    Reads no file.  Contexts are kept from one time to the next: a certificate that changes costs one.
    """

    def __init__(  # noqa: PLR0913 - what it is put together from
        self,
        config: FrontendConfig,
        clusters: Mapping[str, Cluster],
        pem: Mapping[Path, bytes],
        resumption: Resumption,
        limits: Limits = DEFAULT_LIMITS,
        *,
        logs_query: bool = False,
    ) -> None:
        self.config = config
        self._resumption = resumption
        self._staples = resumption.stores.staples if config.tls.stapling else None
        self.clusters = clusters
        self.frontend = Frontend(config.name, reject_unknown=config.tls.unknown_name == "reject")
        if config.mode == "http":
            self.frontend.gateway = gateway_of(config, limits, clusters, logs_query=logs_query)
        self.redirection: Redirection | None = None
        if self.frontend.gateway is not None and config.redirect_from:
            port = config.redirect_port or config.listen[0].port
            requests = self.frontend.gateway.requests
            self.redirection = Redirection(config.name, requests, limits.request_head, port)
        self.frontend.proxies = config.accept_proxy_from
        self.certificates: tuple[Certificate, ...] = ()
        """What is shown now; `first` to clients without a known name, and `by_name`."""
        self.first: Identity = ()
        self.by_name: NameTable[Identity] = NameTable()
        self._contexts: dict[Any, Context] = {}
        self.problems = list(self._names_that_openssl_lacks())
        self.default, self.hosts = self._rules(pem)

    def change(
        self,
        config: FrontendConfig,
        clusters: Mapping[str, Cluster],
        limits: Limits,
        *,
        logs_query: bool,
    ) -> None:
        """Follow other settings, of those that running workers can (master/changes.py).  Which clusters
        names lead to is settled by the next serve().
        """
        self.config, self.clusters = config, clusters
        self.frontend.proxies = config.accept_proxy_from
        if config.mode == "http":
            gateway = gateway_of(config, limits, clusters, logs_query=logs_query)
            self.frontend.gateway = gateway
            if self.redirection is not None:
                self.redirection.requests = gateway.requests
                self.redirection.head_max = limits.request_head

    def serve(
        self, certificates: Sequence[Certificate], pem: Mapping[Path, bytes], now: datetime
    ) -> None:
        """Show these from now on.  CertificateError when OpenSSL refuses; then all stays as it was."""
        if not certificates:
            raise CertificateError("no certificate is left to show", "put one back")
        rule, hosts = self._rules(pem)
        by_name = certificates_by_name(certificates, now)
        first = default_identity(certificates, by_name)
        choices = {
            pattern: (hosts.find(pattern) or rule, by_name.find(pattern) or first)
            for pattern in {*by_name.patterns(), *hosts.patterns()}
        }
        entry = rule, _key(first)
        contexts: dict[Any, Context] = {}
        default = self._served(rule, first, contexts, asks=True)
        table: NameTable[Served] = NameTable()
        for pattern, (other, identity) in choices.items():
            is_entry = (other, _key(identity)) == entry
            served = default if is_entry else self._served(other, identity, contexts, asks=False)
            table.add(pattern, served)
        # Nothing has been refused: from here on it holds.
        self._contexts = contexts
        self.default, self.hosts = rule, hosts
        self.certificates, self.first, self.by_name = tuple(certificates), first, by_name
        self.frontend.serve(default, table)

    def _served(
        self, rule: Rule, identity: Identity, contexts: dict[Any, Context], *, asks: bool
    ) -> Served:
        key = rule.policy, _key(identity), asks
        context = contexts.get(key) or self._contexts.get(key)
        if context is None:
            callback = self.frontend.on_client_hello if asks else None
            context = build_context(identity, rule.policy, self._resumption, callback, self._staples)
        contexts[key] = context
        return Served.of(context, rule.cluster, rule.policy, identity)

    def _names_that_openssl_lacks(self) -> Iterator[Finding]:
        blocks: list[tuple[Path_, Host | None]] = [(("tls",), None)]
        blocks += [(("host", number), host) for number, host in enumerate(self.config.hosts)]
        for path, host in blocks:
            wanted = settings.effective_policy(self.config, host)
            for kind in _NAMED:
                for name in getattr(wanted, kind):
                    if not knows(kind, name):
                        what = f"{openssl_version()} cannot do {name!r}"
                        yield (*path, kind), what, "remove it, or install one that can"

    def _rules(self, pem: Mapping[Path, bytes]) -> tuple[Rule, NameTable[Rule]]:
        hosts: NameTable[Rule] = NameTable()
        for host in self.config.hosts:
            rule = self._rule(host, pem)
            for name in host.names:
                hosts.add(name, rule)
        return self._rule(None, pem), hosts

    def _rule(self, host: Host | None, pem: Mapping[Path, bytes]) -> Rule:
        wanted = settings.effective_policy(self.config, host)
        auth = ClientAuth()
        if wanted.client_auth != "off":
            # A file that could not be read is told elsewhere, and without a CA nothing is built.
            auth = ClientAuth(
                wanted.client_auth,
                pem.get(wanted.client_ca) if wanted.client_ca else None,
                pem[wanted.client_crl] if wanted.client_crl else None,
                wanted.client_depth,
            )
        cluster = (host and host.cluster) or self.config.cluster
        return Rule(
            () if host is None else host.names,
            Policy(
                scope=self.config.name,
                min_version=wanted.min_version,
                max_version=wanted.max_version,
                ciphers=wanted.ciphers,
                ciphersuites=wanted.ciphersuites,
                groups=wanted.groups,
                signature_algorithms=wanted.signature_algorithms,
                alpn=wanted.alpn,
                client_auth=auth,
            ),
            self.clusters[cluster],
        )


def _key(identity: Identity) -> tuple[str, ...]:
    return tuple(certificate.chain_sha256 for certificate in identity)
