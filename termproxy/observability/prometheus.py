"""What the master has measured, as Prometheus reads it (text format 0.0.4).

The names and the words of help stand in metrics.py; the client library does the formatting.  A counter
with many possible labels is told for those that have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from termproxy.observability import metrics
from termproxy.observability.metrics import FAMILIES, FRONTEND, MEASURED, TOTALS, Family

LABELS_MAX = 5  # a family with no more is told with its zeros

_KINDS = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def render(document: Mapping[str, Any]) -> bytes:
    """The text for what master/measuring.py gave."""
    return generate_latest(_Told(document))


class _Told(Collector):
    """One document; a metric without samples is not told."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._families: dict[str, Any] = {}

    def collect(self) -> Iterator[Metric]:
        for frontend, words in sorted(self._document["frontends"].items()):
            for name, family in FRONTEND.items():
                if family.metric is not None:
                    self._add_family(frontend, name, family, words)
        for column, (metric, values) in TOTALS.items():
            self._family(metric).add_metric(values, self._document["totals"][column])
        for name, metric in MEASURED.items():
            for values, value in self._document["measured"].get(name, ()):
                self._family(metric).add_metric(values, value)
        yield from self._families.values()

    def _add_family(self, frontend: str, name: str, family: Family, words: Sequence[int]) -> None:
        metric, places = family.metric, FAMILIES[name]
        assert metric is not None  # noqa: S101 - the caller has looked
        if family.sum is None:
            for label, index in places.items():
                if words[index] or len(places) <= LABELS_MAX:
                    values = (frontend, *family.values_of(label))
                    self._family(metric).add_metric(values, words[index] * family.unit)
            return
        counts = accumulate(words[index] for index in places.values())
        buckets = [[bound, count] for bound, count in zip(places, counts, strict=True)]
        if buckets[-1][1]:
            of, label = family.sum
            total = words[FAMILIES[of][label]] * family.unit
            self._family(metric).add_metric((frontend, *family.fixed), buckets, total)

    def _family(self, metric: metrics.Metric) -> Any:
        family = self._families.get(metric.name)
        if family is None:
            make: Any = _KINDS[metric.kind]
            family = self._families[metric.name] = make(metric.name, metric.help, labels=metric.labels)
        return family
