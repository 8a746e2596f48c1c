"""A CA of servers, a CA of clients, and a folder to be filled with what they issue."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.names.parties import Place
from tests.support.pki import Authority


@pytest.fixture(scope="session")
def root() -> Authority:
    """Who issues the servers' certificates; clients trust it, and nobody else."""
    return Authority("servers' root")


@pytest.fixture(scope="session")
def clients() -> Authority:
    """Who issues the clients' certificates."""
    return Authority("clients' root")


@pytest.fixture
def place(tmp_path: Path, root: Authority) -> Place:
    """A folder with a configuration that a test fills, and a server of it."""
    return Place(tmp_path, root)


@pytest.fixture(scope="module")
def module_place(tmp_path_factory: pytest.TempPathFactory, root: Authority) -> Place:
    return Place(tmp_path_factory.mktemp("place"), root)
