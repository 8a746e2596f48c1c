"""What differs between two configurations, and whether running workers can follow."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from termproxy.config.load import FlagSource, load
from termproxy.config.schema import Config
from termproxy.master.changes import Takes, changes, needs_new_workers

VALUES: dict[str, Any] = {
    "frontend": [
        {
            "name": "web",
            "listen": ["127.0.0.1:8443"],
            "mode": "http",
            "cluster": "app",
            "certificates": ["/a.pem"],
            "host": [{"names": ["api.test"], "client_auth": "off"}],
            "route": [{"path_prefix": "/static", "cluster": "static"}],
        },
        {"name": "raw", "listen": ["127.0.0.1:8444"], "cluster": "app", "certificates": ["/a.pem"]},
    ],
    "cluster": {
        "app": {"servers": ["127.0.0.1:8080", {"address": "127.0.0.1:8081", "weight": 2}]},
        "static": {"servers": ["127.0.0.1:9000"]},
    },
}


def config(**changed: Any) -> Config:
    """With values at dotted places, as in frontend.0.mode."""
    values = copy.deepcopy(VALUES)
    for place, value in changed.items():
        *way, last = place.split("__")
        at: Any = values
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        if value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value
    return load(FlagSource(values, {}))


def told(**changed: Any) -> list[tuple[str, bool]]:
    """Each change, and whether it takes new workers."""
    found = changes(config(), config(**changed))
    return [(change.text, change.takes is Takes.WORKERS) for change in found]


def test_what_is_the_same_is_no_change() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("log__level", "debug", "log.level info -> debug"),
        ("log__query", True, "log.query false -> true"),
        ("timeouts__drain", 10, "timeouts.drain 30 -> 10"),
        ("limits__connections", 20000, "limits.connections 10000 -> 20000"),
        ("dns__servers", ["127.0.0.1:53"], "dns.servers (none) -> [127.0.0.1:53]"),
        ("frontend__1__cluster", "static", "frontend raw: cluster app -> static"),
        ("frontend__0__certificates", ["/b.pem"], "frontend web: certificates [/a.pem] -> [/b.pem]"),
        ("frontend__0__http", {"via": True}, "frontend web: http.via false -> true"),
        (
            "frontend__0__accept_proxy_from",
            ["10.0.0.0/8"],
            "frontend web: accept_proxy_from (none) -> [10.0.0.0/8]",
        ),
        (
            "frontend__0__route__0__path_prefix",
            "/files",
            "frontend web: routes [/static static] -> [/files static]",
        ),
        (
            "frontend__0__host__0__cluster",
            "static",
            "frontend web: host api.test: cluster (none) -> static",
        ),
        ("cluster__app__balance", "random_two", "cluster app: balance round_robin -> random_two"),
        ("cluster__app__queue", 5, "cluster app: queue 100 -> 5"),
        (
            "cluster__app__servers__1",
            {"address": "127.0.0.1:8081", "weight": 3},
            "cluster app: server 127.0.0.1:8081: weight 2 -> 3",
        ),
        ("cluster__more", {"servers": ["127.0.0.1:1"]}, "cluster more added"),
    ],
)
def test_running_workers_can_follow(place: str, value: Any, text: str) -> None:
    assert told(**{place: value}) == [(text, False)]


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("workers", 3, "workers (none) -> 3"),
        ("user", "nobody", "user (none) -> nobody"),
        ("log__access", "/a.log", "log.access - -> /a.log"),
        ("log__format", "common", "log.format json -> common"),
        ("resumption__lifetime", 60, "resumption.lifetime 43200 -> 60"),
        (
            "frontend__1__listen",
            ["127.0.0.1:8445"],
            "frontend raw: listen [127.0.0.1:8444] -> [127.0.0.1:8445]",
        ),
        ("frontend__1__mode", "http", "frontend raw: mode tcp -> http"),
        ("frontend__0__redirect_from", ["127.0.0.1:80"], ""),
        (
            "frontend__0__tls",
            {"min_version": "1.3"},
            "frontend web: tls.min_version (none) -> 1.3",
        ),
        (
            "frontend__0__host__0__min_version",
            "1.3",
            "frontend web: host api.test: min_version (none) -> 1.3",
        ),
        ("frontend__0__host", [], "frontend web: host api.test removed"),
        ("frontend__1__name", "other", ""),
        (
            "cluster__app__health",
            {"kind": "tcp"},
            "cluster app: health.kind off -> tcp",
        ),
    ],
)
def test_new_workers_must_come(place: str, value: Any, text: str) -> None:
    found = changes(config(), config(**{place: value}))
    assert needs_new_workers(found)
    if text:
        assert [change.text for change in found] == [text]


def test_servers_come_and_go() -> None:
    servers = ["127.0.0.1:8081", "127.0.0.1:8082"]
    assert told(cluster__app__servers=servers) == [
        ("cluster app: server 127.0.0.1:8080 removed", False),
        ("cluster app: server 127.0.0.1:8082 added", False),
        ("cluster app: server 127.0.0.1:8081: weight 2 -> 1", False),
    ]


def test_frontends_come_and_go() -> None:
    found = changes(config(), config(frontend__1__name="other"))
    assert [change.text for change in found] == ["frontend raw removed", "frontend other added"]


def test_the_order_of_frontends_is_a_change() -> None:
    swapped = config(frontend=[VALUES["frontend"][1], VALUES["frontend"][0]])
    found = changes(config(), swapped)
    assert [(change.text, change.takes) for change in found] == [
        ("frontends in another order", Takes.WORKERS)
    ]


@pytest.mark.parametrize("name", ["pidfile", "control", "state_dir"])
def test_what_is_fixed_takes_a_restart_and_says_so(name: str) -> None:
    found = changes(config(), config(**{name: "/elsewhere"}))
    assert [str(change) for change in found] == [
        f"{name} (none) -> /elsewhere; it takes a restart; the old one stays"
    ]
    assert not needs_new_workers(found)


def test_long_values_are_cut() -> None:
    files = [f"/{number}.pem" for number in range(1000)]
    ((text, _),) = told(frontend__0__certificates=files)
    assert len(text) < 200
