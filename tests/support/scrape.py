"""Metrics, as Prometheus gets them."""

from __future__ import annotations

import socket
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from termproxy.admin.routes import request_for
from tests.support.waiting import PATIENCE

Samples = dict[tuple[str, ...], float]


def scrape(control: Path) -> Samples:
    """Every sample, by its name without the prefix, and its labels' values in their names' order."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(control))
        sock.sendall(request_for({"verb": "metrics"}))
        received = b""
        while piece := sock.recv(1 << 16):
            received += piece
    head, _, text = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), received
    return samples(text.decode())


def samples(text: str) -> Samples:
    return {
        (
            sample.name.removeprefix("termproxy_"),
            *(sample.labels[name] for name in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
