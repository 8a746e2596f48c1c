"""Where clients come in: which context a ClientHello gets, and which cluster goes with it.

The choice is made before OpenSSL decides anything (its ClientHello callback), so that a name's whole
policy holds: versions, client certificates, and which sessions may be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from termproxy.address import Networks
from termproxy.backends.cluster import Cluster
from termproxy.observability.metrics import new_tally
from termproxy.observability.record import printable
from termproxy.tls._openssl import Connection, Context
from termproxy.tls.client_hello import (
    SERVER_NAME,
    UNRECOGNIZED_NAME,
    BadServerName,
    asking_for,
    server_name,
)
from termproxy.tls.context import Policy, accepted
from termproxy.tls.mismatch import Accepts
from termproxy.tls.selection import Identity, NameTable
from termproxy.worker.gateway import Gateway


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What some names get."""

    context: Context
    cluster: Cluster
    policy: Policy
    policy_group: bytes  # sessions, and HTTP's Host, do not cross from one group to another
    key_types: tuple[str, ...]  # of the certificates
    curves: tuple[str, ...]  # of those with ECDSA keys
    labels: dict[bytes, str]  # the certificates' files, by the DER that is on the wire

    @classmethod
    def of(cls, context: Context, cluster: Cluster, policy: Policy, identity: Identity) -> Served:
        """With what follows from these; `context` was built from `policy` and `identity`."""
        labels = {certificate.leaf_der: str(certificate.chain_file) for certificate in identity}
        key_types = tuple(certificate.key_type for certificate in identity)
        curves = tuple(certificate.curve for certificate in identity if certificate.curve is not None)
        return cls(context, cluster, policy, policy.group_id(), key_types, curves, labels)

    def accepts(self) -> Accepts:
        """What a client must have in common with us."""
        return accepted(self.policy, self.key_types, self.curves, self.context)

    def label_of(self, certificate: bytes | None) -> str | None:
        return None if certificate is None else self.labels.get(certificate)


class Choice(NamedTuple):
    """What a connection's ClientHello led to: what was asked for, and what it gets."""

    name: str | None
    served: Served | None  # None: refused


class Frontend:
    """`entry` is the context that every connection begins with; `default` is what it stands for."""

    __slots__ = (
        "_by_extension",
        "_by_name",
        "default",
        "gateway",
        "is_uniform",
        "name",
        "proxies",
        "rejects_unknown",
        "tally",
    )

    def __init__(self, name: str, *, reject_unknown: bool) -> None:
        self.name = name
        self.rejects_unknown = reject_unknown
        self.tally = new_tally()
        """What has been counted, by observability/metrics.py; a worker puts its row's words here."""
        self._by_name: NameTable[Served] = NameTable()
        self._by_extension: dict[bytes | None, Choice] = {}
        self.default: Served
        self.is_uniform = True
        """Whether every name has the same policy group and cluster."""
        self.gateway: Gateway | None = None
        """Of mode "http"."""
        self.proxies: Networks = ()
        """Who sends a PROXY header first."""

    @property
    def destination(self) -> str:
        """Where its clients end up, in a word."""
        return self.default.cluster.name

    @property
    def entry(self) -> Context:
        return self.default.context

    def serve(self, default: Served, by_name: NameTable[Served]) -> None:
        """Show these from now on; connections that have begun keep what they have."""
        self.default, self._by_name = default, by_name
        served = (default, *by_name.values())
        self.is_uniform = len({(each.policy_group, each.cluster) for each in served}) == 1
        # Nearly every client asks for a name just as we write it, or for none: what it sends is looked
        # up as it is, and nothing needs to be read.
        choices = {asking_for(name): Choice(name, served) for name, served in by_name.exact()}
        self._by_extension = choices | {None: Choice(None, None if self.rejects_unknown else default)}

    def names(self) -> Iterator[tuple[str, Served]]:
        """Every name and wildcard that is known, and what it gets."""
        for pattern in self._by_name.patterns():
            served = self._by_name.find(pattern)
            if served is not None:
                yield pattern, served

    def match(self, name: str) -> str | None:
        """Which of them `name` is, or falls under."""
        return self._by_name.match(name)

    def served_for(self, name: str) -> Served:
        """What this name gets."""
        return self._by_name.find(name) or self.default

    def on_client_hello(self, connection: Connection) -> Context | int | None:
        """The context for the name that the client asks for, or the alert to refuse it with."""
        extension = connection.client_hello_extension(SERVER_NAME)
        choice = self._by_extension.get(extension)
        if choice is None:
            try:
                choice = self._choose(server_name(extension))
            except BadServerName as bad:
                # For the log: what stands behind the list's and the name's lengths and kind.
                connection.note = Choice(printable((extension or b"")[5:260]), None)
                return bad.alert
        connection.note = choice
        return UNRECOGNIZED_NAME if choice.served is None else choice.served.context

    def _choose(self, name: str | None) -> Choice:
        served = None if name is None else self._by_name.find(name)
        if served is None and not self.rejects_unknown:
            served = self.default
        return Choice(name, served)
