"""Say what a client would get, and why, without one: `termproxy explain --sni NAME`.

The words follow the way that a ClientHello takes: the name, the host block, the certificates, the
policy, the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from termproxy.address import Address
from termproxy.tls._openssl import openssl_version_number
from termproxy.tls.certificates import Certificate
from termproxy.tls.client_hello import BadServerName, host_name
from termproxy.tls.context import CIPHERS, CIPHERSUITES, Policy, default_groups
from termproxy.tls.failures import alert_name
from termproxy.tls.selection import Identity, why_not
from termproxy.worker.assembly import Assembly

IPAddress = IPv4Address | IPv6Address


def explain(
    assembly: Assembly,
    sni: str | None,
    alpn: Sequence[str],
    client: IPAddress | None,
    now: datetime,
) -> dict[str, Any]:
    """What a client gets at this frontend that asks for `sni` (None: no name), offers `alpn` and comes
    from `client` (None: from anywhere).
    """
    answer: dict[str, Any] = {
        "frontend": assembly.config.name,
        "listen": [str(address) for address in assembly.config.listen],
        "asked_for": sni,
    }
    if client is not None:
        answer["client_ip"] = str(client)
        if not any(_reaches(client, address) for address in assembly.config.listen):
            return answer | {"unreachable": f"{client} has no way to an address that is listened on"}
    try:
        name = None if sni is None else host_name(sni.encode("latin-1", "replace"))
    except BadServerName as bad:
        return answer | _refused(bad.alert, f"{sni!r} is {bad}")
    known = None if name is None else (assembly.hosts.match(name) or assembly.by_name.match(name))
    if known is None and assembly.frontend.rejects_unknown:
        return answer | _refused(
            112, 'no certificate or host block has the name, and unknown_name = "reject"'
        )
    rule = (None if name is None else assembly.hosts.find(name)) or assembly.default
    identity = (None if name is None else assembly.by_name.find(name)) or assembly.first
    answer["name"] = name
    answer["host_block"] = _why_this_block(assembly, name)
    answer["certificates"] = [_shown(each, now) for each in identity]
    answer["why"] = _why_these(assembly, name, identity)
    answer["not_shown"] = list(_not_shown(assembly, name, identity, now))
    answer["policy"] = _policy(rule.policy)
    answer["cluster"] = rule.cluster.name
    return answer | _alpn(rule.policy.alpn, alpn)


def _reaches(client: IPAddress, address: Address) -> bool:
    """Whether the kernel could bring a client from there to a listener's address."""
    if address.is_shared:
        return True
    here = ip_address(address.sockaddr[0])
    if client.version != here.version:
        return False
    return client.is_loopback or not here.is_loopback


def _refused(alert: int, why: str) -> dict[str, Any]:
    return {"refused": alert_name(alert), "why": why}


def _why_this_block(assembly: Assembly, name: str | None) -> str:
    pattern = None if name is None else assembly.hosts.match(name)
    if pattern is None:
        return "none has the name: the frontend's own settings hold"
    return f"the one for {pattern} ({'exact' if pattern == name else 'one label of a wildcard'})"


def _why_these(assembly: Assembly, name: str | None, identity: Identity) -> str:
    pattern = None if name is None else assembly.by_name.match(name)
    if name is None:
        why = "no name was asked for (or an address, which is none): the first certificate"
    elif pattern is None:
        why = "no certificate has the name: the first one"
    elif pattern == name:
        why = "the exact name"
    else:
        why = f"one label of {pattern}"
    kinds = " and ".join(certificate.key_type for certificate in identity)
    chooses = f"; of {kinds} the client's signature algorithms choose" if len(identity) > 1 else ""
    return why + chooses


def _shown(certificate: Certificate, now: datetime) -> dict[str, Any]:
    return {
        "file": str(certificate.chain_file),
        "key_type": certificate.key_type,
        "issuer": certificate.issuer,
        "not_after": certificate.not_after.isoformat(timespec="seconds"),
        "days_left": (certificate.not_after - now).days,
    }


def _not_shown(assembly: Assembly, name: str | None, identity: Identity, now: datetime) -> Iterator[str]:
    """The certificates that have the name as well, and why they do not serve it."""
    pattern = None if name is None else assembly.by_name.match(name)
    for certificate in assembly.certificates:
        if pattern in certificate.names and pattern is not None:
            why = why_not(certificate, pattern, identity, now)
            if why is not None:
                yield f"{certificate.chain_file}: {why}"


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "min_version": policy.min_version,
        "max_version": policy.max_version or "1.3",
        "ciphers": list(policy.ciphers) or CIPHERS.split(":"),
        "ciphersuites": list(policy.ciphersuites) or CIPHERSUITES.split(":"),
        "groups": list(policy.groups) or default_groups(openssl_version_number()).split(":"),
        "client_auth": policy.client_auth.demand,
        "policy_group": policy.group_id().hex()[:16],
    }


def _alpn(ours: Sequence[str], offers: Sequence[str]) -> dict[str, Any]:
    if not offers or not ours:
        return {"alpn": None}
    agreed = next((protocol for protocol in ours if protocol in offers), None)
    if agreed is None:
        return _refused(120, f"of {', '.join(offers)} none is spoken here: {', '.join(ours)}")
    return {"alpn": agreed}
