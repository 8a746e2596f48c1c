"""Where clients come in: which context a ClientHello gets, and which cluster goes with it.

The choice is made before OpenSSL decides anything (its ClientHello callback), so that a name's whole
policy holds: versions, client certificates, and which sessions may be resumed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from termproxy.backends.cluster import Cluster
from termproxy.observability.record import printable
from termproxy.tls._openssl import Connection, Context
from termproxy.tls.certificates import Certificate
from termproxy.tls.client_hello import (
    SERVER_NAME,
    UNRECOGNIZED_NAME,
    BadServerName,
    server_name,
)
from termproxy.tls.selection import NameTable


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What some names get."""

    context: Context
    cluster: Cluster
    policy_group: bytes  # sessions, and HTTP's Host, do not cross from one group to another
    labels: dict[bytes, str]  # the certificates' files, by the DER that is on the wire

    def label_of(self, certificate: bytes | None) -> str | None:
        return None if certificate is None else self.labels.get(certificate)


class Choice(NamedTuple):
    """What a connection's ClientHello led to: what was asked for, and what it gets."""

    name: str | None
    served: Served | None  # None: refused


class Frontend:
    """`entry` is the context that every connection begins with; `default` is what it stands for."""

    def __init__(self, name: str, *, reject_unknown: bool) -> None:
        self.name = name
        self.rejects_unknown = reject_unknown
        self._by_name: NameTable[Served] = NameTable()
        self.default: Served

    @property
    def entry(self) -> Context:
        return self.default.context

    def serve(self, default: Served, by_name: NameTable[Served]) -> None:
        """Show these from now on; connections that have begun keep what they have."""
        self.default, self._by_name = default, by_name

    def clusters(self) -> Iterable[Cluster]:
        return {served.cluster for served in (self.default, *self._by_name.values())}

    def on_client_hello(self, connection: Connection) -> Context | int | None:
        """The context for the name that the client asks for, or the alert to refuse it with."""
        extension = connection.client_hello_extension(SERVER_NAME)
        try:
            name = server_name(extension)
        except BadServerName as bad:
            # For the log: what stands behind the list's and the name's lengths and kind.
            connection.note = Choice(printable((extension or b"")[5:260]), None)
            return bad.alert
        served = None if name is None else self._by_name.find(name)
        if served is None and not self.rejects_unknown:
            served = self.default
        connection.note = Choice(name, served)
        return UNRECOGNIZED_NAME if served is None else served.context


def labels(certificates: Iterable[Certificate]) -> dict[bytes, str]:
    return {certificate.leaf_der: str(certificate.chain_file) for certificate in certificates}
