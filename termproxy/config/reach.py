"""Where a configuration's workers have to connect, as far as that can be known before they begin.

A name's addresses change while they run, its port does not.
"""

from __future__ import annotations

from termproxy.config.schema import Config


def backend_ports(config: Config) -> frozenset[int]:
    """The TCP ports of every cluster's servers."""
    addresses = (server.address for cluster in config.clusters.values() for server in cluster.servers)
    return frozenset(address.port for address in addresses if address.port)


def may_connect(allowed: frozenset[int] | None, config: Config) -> bool:
    """Whether workers that can connect to these ports only (None: to any) can serve `config`, too.

    What keeps them from the others cannot be taken off: when not, `config` takes new workers.
    """
    return allowed is None or backend_ports(config) <= allowed
