"""What no single setting can tell: that names meet and addresses don't."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields

from termproxy.config.policy import Policy, effective_policy
from termproxy.config.schema import ROTATIONS_MAX, Config, Frontend, Health, Host, Http, TlsPolicy

Finding = tuple[tuple[str | int, ...], str, str]  # where, what, cure


def problems(config: Config) -> Iterator[Finding]:
    """Everything in `config` that contradicts itself."""
    if not config.frontends:
        yield (), "no frontend", "write [[frontend]] with name, listen, cluster and certificates"
    yield from _resumption_that_cannot_be(config)
    yield from _clusters_that_are_missing(config)
    yield from _clusters_that_contradict_themselves(config)
    yield from _names_used_twice(config)
    yield from _addresses_used_twice(config)
    yield from _hosts_named_twice(config)
    yield from _policies_that_contradict_themselves(config)
    yield from _http_that_cannot_be(config)


def _http_that_cannot_be(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        here = ("frontend", index)
        if frontend.mode == "http":
            yield from _promises_of_http_2(frontend, index)
            if frontend.redirect_from and not (frontend.redirect_port or frontend.listen[0].port):
                what = f"nothing says which port {frontend.listen[0]} has for clients"
                yield (*here, "redirect_port"), what, "write redirect_port = 443"
            continue
        given = {
            "route": frontend.routes,
            "trust_forwarded_from": frontend.trust_forwarded_from,
            "redirect_from": frontend.redirect_from,
            "http": frontend.http != Http(),
        }
        for name, is_given in given.items():
            if is_given:
                what = f'{name} has no effect: mode is "{frontend.mode}"'
                yield (*here, name), what, 'write mode = "http", or remove it'


def _promises_of_http_2(frontend: Frontend, index: int) -> Iterator[Finding]:
    blocks: list[tuple[tuple[str | int, ...], TlsPolicy]] = [(("tls",), frontend.tls)]
    blocks += [(("host", number), host) for number, host in enumerate(frontend.hosts)]
    for path, block in blocks:
        if block.alpn is not None and "h2" in block.alpn:
            what = 'mode "http" speaks HTTP/1.1, and alpn promises h2'
            yield ("frontend", index, *path, "alpn"), what, 'write alpn = ["http/1.1"]'


def _resumption_that_cannot_be(config: Config) -> Iterator[Finding]:
    settings = config.resumption
    if settings.lifetime > ROTATIONS_MAX * settings.rotate and not settings.ticket_keys:
        least = -(-settings.lifetime // ROTATIONS_MAX)
        what = f"rotate = {settings.rotate} makes more than {ROTATIONS_MAX} keys in a session's lifetime"
        cure = f"write rotate = {least} or more, or a shorter lifetime"
        yield ("resumption", "rotate"), what, cure
    if settings.persist and config.state_dir is None:
        yield ("resumption", "persist"), "there is no place to keep the ticket keys", "write state_dir"
    if settings.persist and settings.ticket_keys:
        what = "persist has no effect: ticket_keys says where the keys come from"
        yield ("resumption", "persist"), what, "remove one of the two"


def _clusters_that_are_missing(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        wanted: list[tuple[tuple[str | int, ...], str]] = [(("frontend", index), frontend.cluster)]
        for number, host in enumerate(frontend.hosts):
            if host.cluster is not None:
                wanted.append((("frontend", index, "host", number), host.cluster))
        for number, route in enumerate(frontend.routes):
            wanted.append((("frontend", index, "route", number), route.cluster))
        for path, cluster in wanted:
            if cluster not in config.clusters:
                close = difflib.get_close_matches(cluster, config.clusters, n=1)
                cure = f"did you mean {close[0]!r}?" if close else f"write [cluster.{cluster}]"
                yield (*path, "cluster"), f"there is no cluster {cluster!r}", cure


def _clusters_that_contradict_themselves(config: Config) -> Iterator[Finding]:
    for name, cluster in config.clusters.items():
        here = ("cluster", name)
        seen: set[str] = set()
        for index, server in enumerate(map(str, cluster.servers)):
            if server in seen:
                what, cure = f"{server} is there twice", "name it once, with a weight"
                yield (*here, "servers", index), what, cure
            seen.add(server)
        if cluster.passive.eject_max < cluster.passive.eject:
            what = f"eject_max = {cluster.passive.eject_max:g} is less than eject"
            yield (*here, "passive", "eject_max"), what, f"write {cluster.passive.eject:g} or more"
        yield from _checks_that_are_not_made(cluster.health, (*here, "health"))


def _checks_that_are_not_made(health: Health, path: tuple[str, ...]) -> Iterator[Finding]:
    given = {spec.name for spec in fields(Health) if getattr(health, spec.name) != spec.default}
    if health.kind == "off" and given:
        what = f"{' and '.join(sorted(given))} without effect: nothing is checked"
        yield (*path, "kind"), what, 'write kind = "tcp" or "http"'
    if health.kind == "tcp":
        for name in sorted(given & {"path", "host", "expect"}):
            what = f'{name} has no effect: kind is "tcp"'
            yield (*path, name), what, 'remove it, or write kind = "http"'


def _names_used_twice(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, frontend in enumerate(config.frontends):
        if frontend.name in seen:
            path = ("frontend", index, "name")
            yield path, f"a second frontend named {frontend.name!r}", "give each its own name"
        seen.add(frontend.name)


def _addresses_used_twice(config: Config) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for index, frontend in enumerate(config.frontends):
        for name in ("listen", "redirect_from"):
            for address in map(str, getattr(frontend, name)):
                if address in seen:
                    what = f"{address} is already listened on by frontend {seen[address]!r}"
                    yield ("frontend", index, name), what, "give each address to one frontend"
                seen[address] = frontend.name
    admin = str(config.admin.listen)
    if admin in seen:
        what = f"{admin} is already listened on by frontend {seen[admin]!r}"
        yield ("admin", "listen"), what, "give it an address of its own"


def _hosts_named_twice(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        seen: set[str] = set()
        for number, host in enumerate(frontend.hosts):
            for name in host.names:
                if name in seen:
                    path = ("frontend", index, "host", number, "names")
                    yield path, f"{name} is in two host blocks", "give each name to one"
                seen.add(name)


def _policies_that_contradict_themselves(config: Config) -> Iterator[Finding]:
    for index, frontend in enumerate(config.frontends):
        policies: list[tuple[tuple[str | int, ...], Policy]] = [
            (("frontend", index, "tls"), effective_policy(frontend, None))
        ]
        policies += [
            (("frontend", index, "host", number), effective_policy(frontend, host))
            for number, host in enumerate(frontend.hosts)
        ]
        for path, policy in policies:
            if policy.max_version and policy.max_version < policy.min_version:
                what = f"no version is from {policy.min_version} to {policy.max_version}"
                yield (*path, "max_version"), what, "raise max_version, or lower min_version"
            if policy.client_auth != "off" and policy.client_ca is None:
                what = f'client_auth is "{policy.client_auth}", but nobody may issue certificates'
                yield (*path, "client_auth"), what, "name the issuers in client_ca"
        yield from _settings_without_effect(frontend, index)


def _settings_without_effect(frontend: Frontend, index: int) -> Iterator[Finding]:
    """CAs and CRLs of a block for whose names no client is asked for a certificate."""
    blocks: list[tuple[tuple[str | int, ...], TlsPolicy, list[Host | None]]] = [
        (("frontend", index, "tls"), frontend.tls, [None, *frontend.hosts])
    ]
    blocks += [
        (("frontend", index, "host", number), host, [host]) for number, host in enumerate(frontend.hosts)
    ]
    for path, block, concerned in blocks:
        if any(effective_policy(frontend, host).client_auth != "off" for host in concerned):
            continue
        for name in ("client_ca", "client_crl"):
            if getattr(block, name) is not None:
                what = f'{name} has no effect: client_auth is "off"'
                yield (*path, name), what, 'write client_auth = "required" or "optional"'
