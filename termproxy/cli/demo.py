"""`termproxy demo`: a throw-away certificate, a small backend, and the proxy in front."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trustme

from termproxy.address import parse_address
from termproxy.cli.run import flag_source
from termproxy.errors import StartError
from termproxy.master.arbiter import Arbiter

# Whom workers run as when root tries the demo.
UNPRIVILEGED = "nobody"


@click.command()
@click.option("--listen", default="127.0.0.1:8443", show_default=True, metavar="ADDRESS")
def demo(listen: str) -> None:
    """Try termproxy in one command; Ctrl-C ends it and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="termproxy-demo-") as folder, backend() as address:
        ca, site = certificate(Path(folder))
        flags = {
            "listen": [listen],
            "cert": str(site),
            "backend": [address],
            "mode": "http",  # so that the backend shows what it is told of its client
            "user": UNPRIVILEGED if os.getuid() == 0 else "",
        }
        arbiter = Arbiter(lambda: flag_source(flags), lambda: announce(listen, ca), may_reload=False)
        status = arbiter.run()
    sys.exit(status)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files with a CA's certificate, and with a chain and key it issued for this machine's names."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
    ca_file, site_file = folder / "ca.pem", folder / "site.pem"
    ca.cert_pem.write_to_path(ca_file)
    site_file.touch(mode=0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(site_file)
    folder.chmod(0o755)  # the CA's certificate is for whoever pastes the line
    return ca_file, site_file


@contextmanager
def backend() -> Iterator[str]:
    """A small HTTP server in a process of its own; it goes when we do, however we go."""
    command = [sys.executable, "-m", "termproxy.cli.demo_backend"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None  # noqa: S101 - asked for above
        address = child.stdout.readline().strip()
        if not address:
            raise StartError("the demo's backend did not start")
        try:
            yield address
        finally:
            assert child.stdin is not None  # noqa: S101 - asked for above
            child.stdin.close()


def announce(listen: str, ca: Path) -> None:
    port = parse_address(listen).sockaddr[1]
    click.echo(
        f"\nPaste into another shell:\n\n  curl --cacert {ca} https://localhost:{port}/\n\n"
        "Ctrl-C ends it.\n"
    )
