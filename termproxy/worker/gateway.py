"""What mode "http" has settled for a frontend before its first request: readers, limits, additions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from termproxy.address import Networks, is_in
from termproxy.http._wire import HeadReader
from termproxy.http.forwarding import Settings
from termproxy.http.head import NEVER_FORWARDED, STRICT_TRANSPORT_SECURITY, mask
from termproxy.http.routing import Routes

if TYPE_CHECKING:
    from termproxy.backends.cluster import Cluster


@dataclass(slots=True)
class Gateway:
    requests: HeadReader
    responses: HeadReader
    forwarding: Settings = field(default_factory=Settings)
    routes: Routes[Cluster] = field(default_factory=Routes)
    underscores: str = "reject"
    hsts: bytes = b""
    head_max: int = 32_768
    """Bytes of a request's head."""
    body_max: int = 0
    """Bytes of a request's body; 0: any number."""
    body_rate: int = 0
    """Bytes a second that a body has to come with; 0: none."""
    trusted: Networks = ()
    """Whose claims about a request's way stay."""
    logs_query: bool = False
    """In the access log."""
    hidden: int = field(init=False)
    """The mask of the fields that a plain answer loses, and"""
    added: bytes = field(init=False)
    """what it gets; and when it is the last one:"""
    added_at_end: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = NEVER_FORWARDED | (mask(STRICT_TRANSPORT_SECURITY) if self.hsts else 0)
        self.added = b"Strict-Transport-Security: %b\r\n" % self.hsts if self.hsts else b""
        self.added_at_end = self.added + b"Connection: close\r\n"

    def trusts(self, client: str) -> bool:
        return bool(self.trusted) and is_in(client, self.trusted)
