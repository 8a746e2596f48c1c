"""Ask each server once, before any load, what it is and what it agrees on with a client."""

import ssl
from dataclasses import dataclass

from comparison.clients import connect
from comparison.machine import first_line, loaded_openssl
from comparison.processes import Starter
from comparison.servers import Server


@dataclass(frozen=True, slots=True)
class Introduction:
    """Servers that differ in `openssl` or `agreed` do not do the same work."""

    version: str
    openssl: str
    agreed: str

    def __str__(self) -> str:
        return f"{self.version}; {self.openssl}; {self.agreed}"


def introduce(server: Server, starter: Starter) -> Introduction:
    with starter.start(server, "ecdsa", core=starter.cores.serving) as running:
        with connect(running.port, running.tls_context()) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            cipher = connection.cipher()
            agreed = f"{connection.version()} {cipher[0] if cipher else 'without a cipher'}"
        version = first_line(server.version_command(starter.termproxy))
        return Introduction(version, loaded_openssl(running.pid), agreed)
