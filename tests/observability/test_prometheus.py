"""The text that Prometheus reads: by its own parser, and by the rules for names."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from termproxy.observability.metrics import (
    CIPHERS,
    FAMILIES,
    FRONTEND,
    FRONTEND_WORDS,
    GROUPS,
    MEASURED,
    METRICS,
    TOTALS,
    count_agreed,
    count_full,
    count_resumed,
    new_tally,
)
from termproxy.observability.prometheus import render
from termproxy.outcome import Miss


def empty() -> dict[str, Any]:
    return {"frontends": {}, "totals": dict.fromkeys(TOTALS, 0), "measured": {}}


def full() -> dict[str, Any]:
    """Something of everything."""
    return {
        "frontends": {"web": [7] * FRONTEND_WORDS, "other": [0] * FRONTEND_WORDS},
        "totals": {name: number for number, name in enumerate(TOTALS)},
        "measured": {name: [(["x"] * len(metric.labels), 3.5)] for name, metric in MEASURED.items()},
    }


def samples(document: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """By name, and the values of the labels in their names' order."""
    text = render(document).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_of_the_table_is_told_under_its_name_and_kind() -> None:
    told = {family.name: family for family in text_string_to_metric_families(render(full()).decode())}

    assert {name: family.type for name, family in told.items()} == {
        name: metric.kind for name, metric in METRICS.items()
    }
    assert all(family.documentation == METRICS[name].help for name, family in told.items())


def test_no_series_stands_twice() -> None:
    lines = [line.rpartition(" ")[0] for line in render(full()).decode().splitlines() if line[0] != "#"]

    assert len(set(lines)) == len(lines)


def test_what_was_never_measured_is_not_told() -> None:
    assert not any(name.startswith("termproxy_backend_up") for name, *_ in samples(empty()))


def test_a_counter_in_microseconds_is_told_in_seconds() -> None:
    words = [0] * FRONTEND_WORDS
    words[FAMILIES["handshake_cpu_microseconds"]["full"]] = 1_500_000
    told = samples(empty() | {"frontends": {"web": words}})

    assert told["termproxy_handshake_cpu_seconds_total", "web", "full"] == 1.5


def test_a_histogram_adds_up_and_has_its_sum() -> None:
    tally = new_tally()
    count_full(tally, 0.0015, 0, Miss.NONE_OFFERED)
    count_full(tally, 100.0, 0, Miss.NONE_OFFERED)
    count_resumed(tally, 0.25, 0, 61, from_cache=False)
    told = samples(empty() | {"frontends": {"web": [tally[index] for index in range(len(tally))]}})
    name = "termproxy_handshake_duration_seconds"

    assert told[f"{name}_bucket", "web", "full", "0.001"] == 0
    assert told[f"{name}_bucket", "web", "full", "0.002"] == 1
    assert told[f"{name}_bucket", "web", "full", "5.0"] == 1
    assert told[f"{name}_bucket", "web", "full", "+Inf"] == 2
    assert told[f"{name}_count", "web", "full"] == 2
    assert told[f"{name}_sum", "web", "full"] == pytest.approx(100.0015)
    assert told[f"{name}_sum", "web", "resumed"] == pytest.approx(0.25)
    assert told["termproxy_resumed_session_age_seconds_sum", "web"] == 61


def test_versions_are_told_with_the_suites() -> None:
    tally = new_tally()
    count_agreed(tally, 0x1301, 1034)
    count_agreed(tally, 0xC02F, 415)
    count_agreed(tally, 0xBEEF, 99)
    told = samples(empty() | {"frontends": {"web": [tally[index] for index in range(len(tally))]}})
    name = "termproxy_handshake_ciphers_total"

    assert told[name, "TLS_AES_128_GCM_SHA256", "web", "TLSv1.3"] == 1
    assert told[name, "ECDHE-RSA-AES128-GCM-SHA256", "web", "TLSv1.2"] == 1
    assert told[name, "other", "web", "other"] == 1
    assert {labels[2] for labels in told if labels[0] == "termproxy_handshake_groups_total"} == {
        "X25519",
        "P-256",
        "other",
    }


def test_what_stands_in_a_label_breaks_no_line() -> None:
    document = empty()
    document["measured"]["certificate_expiry"] = [(["web", 'a"b\\c\nd'], 1.0)]

    assert samples(document)["termproxy_certificate_expiry_seconds", 'a"b\\c\nd', "web"] == 1.0


# Names, as https://prometheus.io/docs/practices/naming/ has them, and promtool.


def test_names_are_as_they_should_be() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"termproxy(_[a-z0-9]+)+", name), name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info_info")), name
        assert not re.search(r"gauge|counter|histogram|milli|micro|_ms$|kilo", name), name
        assert metric.help.endswith("."), name
        assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels), name
        assert "le" not in metric.labels, name
        if metric.kind == "histogram":
            assert name.endswith("_seconds"), name


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=render(full()), capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_labels_are_few_whatever_clients_do() -> None:
    assert len(CIPHERS) < 40
    assert len(GROUPS) < 20
    assert all(len(family.labels) < 50 for family in FRONTEND.values())
