"""Ask each server once, before any load, what it is and what it agrees on with a client."""

import re
import ssl
import subprocess
from dataclasses import dataclass

from comparison.clients import connect
from comparison.machine import first_line, loaded_openssl
from comparison.processes import Starter
from comparison.servers import Server, Setting

# OpenSSL 3.0 tells of the server's key; later versions of the group, too, which is then the last.
GROUP = re.compile(r"^(?:Negotiated TLS1\.3 group|(?:Server|Peer) Temp Key): ([\w-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Introduction:
    """Servers that differ in `openssl` or `agreed` do not do the same work."""

    version: str
    openssl: str
    agreed: str

    def __str__(self) -> str:
        return f"{self.version}; {self.openssl}; {self.agreed}"


def introduce(server: Server, starter: Starter, setting: Setting) -> Introduction:
    with starter.start(server, setting) as running:
        with connect(running.port, running.tls_context()) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            cipher = connection.cipher()
            agreed = f"{connection.version()} {cipher[0] if cipher else 'without a cipher'}"
        agreed += f", {group_agreed(running.port)}"
        version = first_line(server.version_command(starter.termproxy))
        return Introduction(version, loaded_openssl(running.pid), agreed)


def group_agreed(port: int) -> str:
    """Return the key exchange that the system's OpenSSL, which wrk uses too, agrees on with a server."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=10
        )
    except subprocess.TimeoutExpired:
        return "unknown group"
    return read_group(done.stdout)


def read_group(output: str) -> str:
    """Read it from what `openssl s_client` prints, which differs from one version to the next."""
    groups = GROUP.findall(output)
    return groups[-1] if groups else "unknown group"
