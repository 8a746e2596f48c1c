"""Fixtures of more than one folder."""

from __future__ import annotations

import resource
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.clients import NAME, connect
from tests.support.endings import tell_cuts
from tests.support.server import Server, settings

PACKAGE = Path(__file__).parent.parent / "termproxy"

Serve = Callable[..., Server]
Dial = Callable[..., ssl.SSLSocket]


def pytest_sessionstart() -> None:
    """What is compiled is imported, whatever its source says by now."""
    for library in PACKAGE.rglob("*.so"):
        for source in library.parent.glob(f"{library.name.partition('.')[0]}.py*"):
            if source.stat().st_mtime > library.stat().st_mtime:
                pytest.exit(f"{source} is newer than what was compiled of it: run scripts/setup", 3)


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="session")
def site(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a chain and its key, for NAME."""
    return write_site(ca, tmp_path_factory.mktemp("site") / "site.pem")


@pytest.fixture(scope="session")
def trust(ca: trustme.CA) -> ssl.SSLContext:
    """A client's context: it trusts the tests' CA, and nobody else."""
    return client_context(ca)


@pytest.fixture
def dial(trust: ssl.SSLContext) -> Dial:
    """A function that connects to a server's first address, and verifies who answers."""

    def dial(server: Server, **options: Any) -> ssl.SSLSocket:
        return connect(server.port, options.pop("context", trust), **options)

    return dial


@pytest.fixture
def serve(site: Path, tmp_path: Path) -> Serve:
    """A function that makes a Server, to be entered, in front of these backends."""

    def serve(*servers: str, environment: dict[str, str] | None = None, **changes: Any) -> Server:
        return Server(tmp_path, settings(site, servers, **changes), environment=environment)

    return serve


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell starts what it runs in the background deaf to it, and programs inherit that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _many_descriptors() -> Iterator[None]:
    """The soft limit is made for programs that use select(); a test may hold thousands of clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def write_site(ca: trustme.CA, file: Path, name: str = NAME, **options: Any) -> Path:
    """A new certificate and key, in one file."""
    issued = ca.issue_cert(name, key_type=trustme.KeyType.ECDSA, **options)
    file.touch(mode=0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(file)
    return file


def client_context(ca: trustme.CA, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Trusts `ca` only, and speaks every version or just one."""
    context = tell_cuts(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    ca.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context
