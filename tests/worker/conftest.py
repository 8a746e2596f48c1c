from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay.ends import server_context
from tests.worker.harness import Bench, HttpBench


@pytest.fixture
def bench(site: Path, trust: ssl.SSLContext, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(server_context(site), trust, tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def web(site: Path, trust: ssl.SSLContext, tmp_path: Path) -> Iterator[HttpBench]:
    """For mode "http"."""
    bench = HttpBench(server_context(site), trust, tmp_path)
    yield bench
    bench.close()
