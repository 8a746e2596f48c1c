"""Configurations written: the reference, and what is in force."""

from __future__ import annotations

import ipaddress
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termproxy.config.load import FileSource, FlagSource, load
from termproxy.config.reference import dump, help_of, reference
from termproxy.config.schema import Cluster, Config, Frontend, key_of

CONF = Path(__file__).parent.parent.parent / "conf"

GOOD: dict[str, Any] = {
    "frontend": [
        {"name": "web", "listen": ["127.0.0.1:1"], "cluster": "app", "certificates": ["site.pem"]}
    ],
    "cluster": {"app": {"servers": ["127.0.0.1:8080"]}},
}


def in_file(text: str) -> FileSource:
    return FileSource(Path("/etc/t.toml"), text, tomllib.loads(text))


def round_trip(values: dict[str, Any]) -> tuple[Config, Config]:
    """A configuration, and what its dump loads to."""
    source = FlagSource(values, {})
    config = load(source)
    return config, load(in_file(dump(config, source)))


# The reference.


def test_the_reference_in_conf_is_fresh() -> None:
    """`scripts/check --fix` writes it."""
    assert (CONF / "termproxy.toml").read_text() == reference()


def test_the_reference_loads_to_the_defaults() -> None:
    config = load(FileSource.read(CONF / "termproxy.toml"))

    for spec in fields(Config):
        if key_of(spec) not in ("frontend", "cluster"):
            assert getattr(config, spec.name) == getattr(Config(), spec.name)
    assert config.frontends[0].certificates[0].chain == CONF / "certs/*.pem"
    assert list(config.clusters) == ["app"]


def test_the_reference_names_every_setting_with_its_help() -> None:
    text = " ".join(line.removeprefix("# ") for line in reference().splitlines())

    for spec in fields(Frontend):
        assert spec.metadata["help"] in text
    assert "[timeouts]" in text
    assert "[frontend.tls]" in text


def test_the_minimal_configuration_loads() -> None:
    assert load(FileSource.read(CONF / "minimal.toml")).frontends


# The dump.


def test_a_dumped_line_says_where_it_came_from() -> None:
    text = """\
workers = 3
[[frontend]]
name = "web"
listen = ["127.0.0.1:1"]
cluster = "app"
certificates = [{ chain = "a.crt", key = "a.key" }]
[cluster."a b"]
servers = ["unix:/run/a"]
[cluster.app]
servers = ["127.0.0.1:8080"]
"""
    source = in_file(text)

    assert (
        dump(load(source), source)
        == """\
workers = 3  # /etc/t.toml:1: workers
user = ""  # default
pidfile = ""  # default
control = ""  # default
state_dir = ""  # default

[log]
level = "info"  # default
access = "-"  # default
format = "json"  # default
query = false  # default

[admin]
listen = ""  # default
names = []  # default

[timeouts]
handshake = 10  # default
connect = 3  # default
request_head = 10  # default
response = 60  # default
idle = 60  # default
tunnel = 3600  # default
drain = 30  # default

[limits]
connections = 10000  # default
connections_per_client = 0  # default
handshakes_per_second = 0  # default
handshakes_per_client = 0  # default
handshake_queue = 5  # default
recycle_after = 0  # default
request_head = 32768  # default
request_target = 8192  # default
request_fields = 100  # default
request_body = 0  # default
body_rate = 100  # default

[resumption]
tickets = true  # default
lifetime = 43200  # default
rotate = 14400  # default
session_cache = 20000  # default
persist = false  # default
ticket_keys = []  # default
tickets_per_handshake = 1  # default

[dns]
servers = []  # default
hosts = "/etc/hosts"  # default

[[frontend]]
name = "web"  # /etc/t.toml:3: frontend[0].name
listen = ["127.0.0.1:1"]  # /etc/t.toml:4: frontend[0].listen
redirect_from = []  # default
redirect_port = 0  # default
mode = "tcp"  # default
cluster = "app"  # /etc/t.toml:5: frontend[0].cluster
certificates = [{ chain = "/etc/a.crt", key = "/etc/a.key" }]  # /etc/t.toml:6: frontend[0].certificates
accept_proxy_from = []  # default
trust_forwarded_from = []  # default

[frontend.http]
x_forwarded = true  # default
forwarded = true  # default
request_id = true  # default
via = false  # default
facts = {}  # default
underscores = "reject"  # default
strict_transport_security = ""  # default

[frontend.tls]
unknown_name = "default"  # default
stapling = true  # default

[cluster."a b"]
servers = ["unix:/run/a"]  # /etc/t.toml:8: cluster.a b.servers
balance = "round_robin"  # default
send_proxy = "off"  # default
queue = 100  # default
queue_timeout = 5  # default
idle_connections = 64  # default
idle_timeout = 30  # default
slow_start = 0  # default

[cluster."a b".health]
kind = "off"  # default
path = "/"  # default
host = ""  # default
expect = ["200-399"]  # default
interval = 2  # default
timeout = 2  # default
jitter = 0.1  # default
rise = 2  # default
fall = 3  # default

[cluster."a b".passive]
failures = 3  # default
eject = 10  # default
eject_max = 300  # default
eject_last = false  # default

[cluster.app]
servers = ["127.0.0.1:8080"]  # /etc/t.toml:10: cluster.app.servers
balance = "round_robin"  # default
send_proxy = "off"  # default
queue = 100  # default
queue_timeout = 5  # default
idle_connections = 64  # default
idle_timeout = 30  # default
slow_start = 0  # default

[cluster.app.health]
kind = "off"  # default
path = "/"  # default
host = ""  # default
expect = ["200-399"]  # default
interval = 2  # default
timeout = 2  # default
jitter = 0.1  # default
rise = 2  # default
fall = 3  # default

[cluster.app.passive]
failures = 3  # default
eject = 10  # default
eject_max = 300  # default
eject_last = false  # default
"""
    )


def test_hosts_are_dumped_with_what_they_say_and_no_more() -> None:
    text = """\
[[frontend]]
name = "web"
listen = ["127.0.0.1:1"]
cluster = "app"
certificates = ["a.pem"]
[frontend.tls]
client_ca = "ca.pem"
[[frontend.host]]
names = ["a.test", "*.a.test"]
client_auth = "required"
[[frontend.host]]
names = ["b.test"]
cluster = "app"
[cluster.app]
servers = ["127.0.0.1:8080"]
"""
    source = in_file(text)
    dumped = dump(load(source), source)

    assert (
        """
[frontend.tls]
client_ca = "/etc/ca.pem"  # /etc/t.toml:7: frontend[0].tls.client_ca
unknown_name = "default"  # default
stapling = true  # default

[[frontend.host]]
client_auth = "required"  # /etc/t.toml:10: frontend[0].host[0].client_auth
names = ["a.test", "*.a.test"]  # /etc/t.toml:9: frontend[0].host[0].names

[[frontend.host]]
names = ["b.test"]  # /etc/t.toml:12: frontend[0].host[1].names
cluster = "app"  # /etc/t.toml:13: frontend[0].host[1].cluster
"""
        in dumped
    )
    assert load(in_file(dumped)) == load(source)


def test_auto_is_dumped_as_such() -> None:
    source = FlagSource(GOOD, {("frontend", 0, "listen"): "--listen"})
    text = dump(load(source), source)

    assert text.startswith('workers = "auto"  # default\n')
    assert '\nlisten = ["127.0.0.1:1"]  # --listen\n' in text


WORDS = st.text("abz019.-_", min_size=1, max_size=8)
TEXTS = st.text('ab"\\/ \u00e9\u2028\x7f\t#=[]', min_size=1, max_size=10)
PORTS = st.integers(1, 65535)
V4 = st.builds("{}:{}".format, st.ip_addresses(v=4), PORTS)
V6 = st.builds("[{}]:{}".format, st.ip_addresses(v=6).map(ipaddress.ip_address), PORTS)
UNIX = st.builds("unix:/{}".format, st.text("ab/ .\u00e9", max_size=20))
NAME = st.sampled_from(["app.internal:80", "localhost:1"])
SERVERS_KIND = next(spec.metadata["kind"] for spec in fields(Cluster) if spec.name == "servers")
SERVER_TABLES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"address": V4 | UNIX | NAME},
    optional={"weight": st.integers(1, 256), "max_connections": st.integers(0, 1000)},
)
SERVERS = st.lists(
    V4 | V6 | UNIX | SERVER_TABLES,
    min_size=1,
    max_size=3,
    unique_by=lambda server: str(SERVERS_KIND.read([server], CONF)[0]),
)
CLUSTERS = st.fixed_dictionaries(
    {"servers": SERVERS},
    optional={
        "balance": st.sampled_from(["least_connections", "client_hash"]),
        "queue": st.integers(0, 100),
        "health": st.fixed_dictionaries(
            {"kind": st.just("http")},
            optional={
                "path": st.sampled_from(["/", '/a"b?c=\\']),
                "expect": st.lists(st.integers(200, 299) | st.just("300-399"), min_size=1, max_size=2),
                "interval": st.sampled_from([0.5, 3]),
            },
        ),
        "passive": st.fixed_dictionaries({"eject_last": st.booleans()}),
    },
)
CERTIFICATES = (
    TEXTS
    | st.fixed_dictionaries({"chain": TEXTS})
    | st.fixed_dictionaries({"chain": TEXTS, "key": TEXTS})
)


NAMES = st.lists(st.sampled_from(["X25519", "P-256", "caf\u00e9", 'a"b']), min_size=1, max_size=2)
UNKNOWN_NAME: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {}, optional={"unknown_name": st.sampled_from(["default", "reject"])}
)
PATTERNS = ["a.test", "*.a.test", "xn--mnchen-3ya.test", "_b.test"]
POLICIES = st.fixed_dictionaries(
    {"client_ca": TEXTS, "client_auth": st.sampled_from(["optional", "required"])},
    optional={
        "preset": st.sampled_from(["intermediate", "modern"]),
        "min_version": st.sampled_from(["1.2", "1.3"]),
        "max_version": st.just("1.3"),
        "ciphers": NAMES,
        "ciphersuites": NAMES,
        "groups": NAMES,
        "signature_algorithms": NAMES,
        "alpn": NAMES,
        "client_crl": TEXTS,
        "client_depth": st.integers(0, 16),
    },
)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    clusters = draw(st.dictionaries(WORDS, CLUSTERS, min_size=1))
    names = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    listen = draw(st.lists(V4 | V6, min_size=len(names), max_size=6, unique=True))
    frontends = [
        {
            "name": name,
            "listen": listen[index :: len(names)],
            "cluster": draw(st.sampled_from(sorted(clusters))),
            "certificates": draw(st.lists(CERTIFICATES, min_size=1, max_size=3)),
            "tls": draw(POLICIES) | draw(UNKNOWN_NAME),
            "host": [
                draw(POLICIES) | {"names": [pattern], "cluster": draw(st.sampled_from(sorted(clusters)))}
                for pattern in draw(st.lists(st.sampled_from(PATTERNS), unique=True, max_size=3))
            ],
        }
        for index, name in enumerate(names)
    ]
    optional = {
        "workers": st.just("auto") | st.integers(1, 256),
        "user": TEXTS | st.just(""),
        "pidfile": TEXTS | st.just(""),
        "control": TEXTS | st.just(""),
        "log": st.fixed_dictionaries({"access": TEXTS | st.sampled_from(["-", "off"])}),
        "timeouts": st.fixed_dictionaries(
            {"handshake": st.integers(1, 86400), "idle": st.sampled_from([1, 2.5, 60, 0.5e3, 86400.0])}
        ),
        "limits": st.fixed_dictionaries({"connections": st.integers(1, 1_000_000)}),
    }
    values = {key: draw(strategy) for key, strategy in optional.items() if draw(st.booleans())}
    return {**values, "frontend": frontends, "cluster": clusters}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=configurations())
def test_a_dump_loads_to_the_configuration_it_was_made_of(values: dict[str, Any]) -> None:
    config, again = round_trip(values)

    assert again == config


@pytest.mark.parametrize("value", [1234.5678, 86399.25, 12345.67])
def test_a_dump_keeps_all_digits_of_a_number(value: float) -> None:
    config, again = round_trip({**GOOD, "timeouts": {"idle": value}})

    assert again.timeouts.idle == config.timeouts.idle == value


@pytest.mark.parametrize("name", ["caf\u00e9", "\u65e5\u672c", "a\nb", "a\x01b"])
def test_a_dump_keeps_every_name_that_toml_allows_a_cluster(name: str) -> None:
    spare = {name: {"servers": ["127.0.0.1:1"]}}
    config, again = round_trip({**GOOD, "cluster": {**GOOD["cluster"], **spare}})

    assert again == config
    assert name in again.clusters


def test_a_setting_s_help_serves_a_flag_too() -> None:
    assert help_of(Config, "workers") == (
        "Worker processes; auto is one for each CPU termproxy may use.  "
        '("auto" or a whole number from 1 to 256)'
    )
    assert help_of(Config, "timeouts") == "Seconds.  ()"
