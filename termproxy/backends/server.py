"""One backend of a cluster: where it is."""

from __future__ import annotations

from dataclasses import dataclass

from termproxy.address import Address


@dataclass(frozen=True, slots=True)
class Server:
    address: Address

    def __str__(self) -> str:
        return str(self.address)
