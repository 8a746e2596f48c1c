"""The dashboard and the alerts in conf/: each metric that they name exists, with the labels they use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from termproxy.observability.metrics import METRICS, Metric

CONF = Path(__file__).parent.parent.parent / "conf"

NAMED = re.compile(r"(termproxy_[a-z_]+)(?:\{([^}]*)\})?")
ADDED_BY_PROMETHEUS = {"instance", "job", "le"}


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONF / "grafana.json").read_text())
    return document


def expressions() -> Iterator[str]:
    """Every query in both files."""
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard()["templating"]["list"]:
        yield variable["query"]
    # An expression stands on its key's line, or indented below.
    alerts = (CONF / "alerts.yml").read_text()
    yield from re.findall(r"^ +expr: (.*(?:\n {10}.*)*)", alerts, re.MULTILINE)


def metric(name: str) -> Metric | None:
    """Of which this is a series."""
    for suffix, kind in (("_total", "counter"), ("_bucket", "histogram"), ("_count", "histogram")):
        found = METRICS.get(name.removesuffix(suffix))
        if name.endswith(suffix) and found is not None and found.kind == kind:
            return found
    found = METRICS.get(name)
    return found if found is not None and found.kind == "gauge" else None


def test_every_metric_that_is_named_exists() -> None:
    named = {name for each in expressions() for name, _ in NAMED.findall(each)}

    assert len(named) > 30
    assert {name for name in named if metric(name) is None} == set()


def test_every_label_that_is_asked_for_exists() -> None:
    for expression in expressions():
        for name, selector in NAMED.findall(expression):
            of = metric(name)
            assert of is not None
            asked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector))
            assert asked <= {*of.labels, *ADDED_BY_PROMETHEUS}, expression


def test_every_label_that_a_legend_shows_is_kept_by_its_query() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for of in [metric(name) for name, _ in NAMED.findall(target["expr"])]:
                assert of is not None
                assert shown <= {*of.labels, *ADDED_BY_PROMETHEUS}, panel["title"]


def test_the_dashboard_has_panels_that_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize(
    "what",
    ["certificate_expiry", "worker_restarts", "reload_success", "backend_up", "open_fds", 'how!="full"'],
)
def test_there_is_an_alert_for_what_hurts(what: str) -> None:
    assert what in (CONF / "alerts.yml").read_text()


def test_every_alert_says_what_is_and_what_to_do() -> None:
    alerts = (CONF / "alerts.yml").read_text()
    count = alerts.count("- alert: ")

    assert count > 10
    assert alerts.count("          summary: ") == alerts.count("          cure: ") == count
    assert len(re.findall(r"severity: (?:page|ticket) ", alerts)) == count
