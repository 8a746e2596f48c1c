"""The table of settings: what each may be, and the names that everyone's files rely on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from termproxy.address import Name, parse_address
from termproxy.config.schema import (
    FIELD_VALUE_MAX,
    Admin,
    BadItems,
    BadValue,
    CertificateFiles,
    Cluster,
    Config,
    Dns,
    Frontend,
    Health,
    Host,
    Http,
    Kind,
    Limits,
    Log,
    Server,
    Timeouts,
    Tls,
    TlsPolicy,
    auto_or,
    choice,
    key_of,
    keys_of,
    kind_of,
    seconds,
    some,
    whole,
)

BASE = Path("/etc/termproxy")

POLICY = (
    "preset",
    "min_version",
    "max_version",
    "ciphers",
    "ciphersuites",
    "groups",
    "signature_algorithms",
    "alpn",
    "client_auth",
    "client_ca",
    "client_crl",
    "client_depth",
)

# ARCHITECTURE.md §8 fixes these, so that everyone's files keep working.
FIXED_NAMES = {
    "workers",
    "user",
    "pidfile",
    "control",
    "state_dir",
    "admin.listen",
    "admin.names",
    "log.level",
    "log.access",
    "log.format",
    "log.query",
    "timeouts.handshake",
    "timeouts.connect",
    "timeouts.request_head",
    "timeouts.response",
    "timeouts.idle",
    "timeouts.tunnel",
    "timeouts.drain",
    "limits.connections",
    "limits.connections_per_client",
    "limits.handshakes_per_second",
    "limits.handshakes_per_client",
    "limits.handshake_queue",
    "limits.recycle_after",
    "limits.request_head",
    "limits.request_target",
    "limits.request_fields",
    "limits.request_body",
    "limits.body_rate",
    "resumption.tickets",
    "resumption.lifetime",
    "resumption.rotate",
    "resumption.session_cache",
    "resumption.persist",
    "resumption.ticket_keys",
    "resumption.tickets_per_handshake",
    "dns.servers",
    "dns.hosts",
    "frontend.name",
    "frontend.listen",
    "frontend.mode",
    "frontend.redirect_from",
    "frontend.redirect_port",
    "frontend.cluster",
    "frontend.certificates",
    "frontend.accept_proxy_from",
    "frontend.trust_forwarded_from",
    "frontend.http.x_forwarded",
    "frontend.http.forwarded",
    "frontend.http.request_id",
    "frontend.http.via",
    "frontend.http.facts",
    "frontend.http.underscores",
    "frontend.http.strict_transport_security",
    *(f"frontend.{block}.{name}" for block in ("tls", "host") for name in POLICY),
    "frontend.tls.unknown_name",
    "frontend.tls.stapling",
    "frontend.host.names",
    "frontend.host.cluster",
    "frontend.route.host",
    "frontend.route.path_prefix",
    "frontend.route.cluster",
    "cluster.servers",
    "cluster.balance",
    "cluster.idle_connections",
    "cluster.idle_timeout",
    "cluster.queue",
    "cluster.queue_timeout",
    "cluster.slow_start",
    "cluster.send_proxy",
    "cluster.health.kind",
    "cluster.health.path",
    "cluster.health.host",
    "cluster.health.expect",
    "cluster.health.interval",
    "cluster.health.timeout",
    "cluster.health.jitter",
    "cluster.health.rise",
    "cluster.health.fall",
    "cluster.passive.failures",
    "cluster.passive.eject",
    "cluster.passive.eject_max",
    "cluster.passive.eject_last",
}

FIXED_DEFAULTS: dict[type, dict[str, Any]] = {
    Config: {"workers": None},
    Log: {"level": "info", "access": "-"},
    Timeouts: {"handshake": 10, "connect": 3, "request_head": 10, "idle": 60, "drain": 30},
    Limits: {"connections": 10000, "connections_per_client": 0, "handshakes_per_second": 0},
    Tls: {"min_version": None, "client_auth": None, "unknown_name": "default"},
    Health: {"interval": 2, "rise": 2, "fall": 3},
}


def settings_of(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's dotted name, and its field."""
    for spec in fields(cls):
        name = f"{prefix}{key_of(spec)}"
        if kind_of(spec) is not None:
            yield name, spec
            continue
        inner = (spec.metadata.get(word) for word in ("section", "sections", "section_map"))
        yield from settings_of(next(cls for cls in inner if cls), f"{name}.")


def kind(cls: type, name: str) -> Kind:
    found = next(kind_of(spec) for spec in fields(cls) if spec.name == name)
    assert found is not None
    return found


def refusal(kind: Kind, value: Any) -> str:
    """What is said of a value, or of each bad item of a list, with its place when there are more."""
    with pytest.raises((BadValue, BadItems)) as refused:
        kind.read(value, BASE)
    bad = refused.value
    if isinstance(bad, BadValue):
        return f"{bad}; {bad.cure}"
    assert isinstance(bad, BadItems)
    if len(value) == 1:
        return f"{bad.items[0][1]}; {bad.items[0][1].cure}"
    return "\n".join(f"[{index}] {item}; {item.cure}" for index, item in bad.items)


@pytest.mark.parametrize("name", [name for name, _ in settings_of(Config)])
def test_a_setting_has_the_name_that_was_fixed(name: str) -> None:
    assert name in FIXED_NAMES


@pytest.mark.parametrize(
    ("cls", "name", "default"),
    [(cls, name, value) for cls, names in FIXED_DEFAULTS.items() for name, value in names.items()],
)
def test_a_setting_has_the_default_that_was_fixed(cls: type, name: str, default: object) -> None:
    assert getattr(cls(), name) == default


@pytest.mark.parametrize(("name", "spec"), list(settings_of(Config)))
def test_a_setting_says_in_a_sentence_what_it_is_and_what_it_may_be(name: str, spec: Any) -> None:
    assert spec.metadata["help"].endswith((".", "…")), name
    assert spec.metadata["kind"].expects


def test_a_configuration_is_never_edited() -> None:
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.user = "root"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.timeouts.idle = 1.0  # type: ignore[misc]


def test_lists_of_tables_are_named_in_the_singular_in_the_file() -> None:
    assert keys_of(Config)[-2:] == ["frontend", "cluster"]
    assert [spec.name for spec in fields(Config)][-2:] == ["frontends", "clusters"]


# Kinds.


@pytest.mark.parametrize("value", [1, 5, 9])
def test_a_whole_number_within_its_bounds_is_taken(value: int) -> None:
    assert whole(1, 9).read(value, BASE) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 is out of bounds; write a whole number of bytes from 1 to 9"),
        (10, "10 is out of bounds; write a whole number of bytes from 1 to 9"),
        (True, "True is a boolean; write a whole number of bytes from 1 to 9"),
        (1.0, "1.0 is a number; write a whole number of bytes from 1 to 9"),
        ("1", "'1' is a text; write a whole number of bytes from 1 to 9"),
        ([1], "[1] is a list; write a whole number of bytes from 1 to 9"),
        ({}, "{} is a table; write a whole number of bytes from 1 to 9"),
    ],
)
def test_no_other_is_a_whole_number(value: Any, expected: str) -> None:
    assert refusal(whole(1, 9, "bytes"), value) == expected


@pytest.mark.parametrize("value", [1, 1.0, 2.5, 86400])
def test_seconds_are_kept_as_a_float(value: float) -> None:
    read = seconds(1).read(value, BASE)

    assert read == value
    assert isinstance(read, float)


@pytest.mark.parametrize("value", [0.99, 86400.1, float("nan"), float("inf"), -1, 10**400, True, "1"])
def test_no_other_is_a_number_of_seconds(value: Any) -> None:
    assert refusal(seconds(1), value).endswith("; write a number of seconds from 1 to 86400")


@pytest.mark.parametrize("value", ["c", "", 1, ["a"], {"a": 1}, None, "A"])
def test_a_choice_is_one_of_its_words(value: Any) -> None:
    assert choice("a", "b").read("a", BASE) == "a"
    assert refusal(choice("a", "b"), value) == f'unknown value {value!r}; write "a" or "b"'


def test_auto_stands_for_none() -> None:
    assert auto_or(whole(1, 9)).read("auto", BASE) is None
    assert auto_or(whole(1, 9)).read(3, BASE) == 3
    assert refusal(auto_or(whole(1, 9)), "Auto") == (
        "unknown value 'Auto'; write \"auto\" or a whole number from 1 to 9"
    )


def test_a_list_has_at_least_one_item() -> None:
    names = some(lambda value, _: value, "a list of names")

    assert names.read(["a", "b"], BASE) == ("a", "b")
    assert refusal(names, []) == "an empty list; write a list of names"
    assert refusal(names, "a") == "'a' is a text; write a list of names"


def test_every_bad_item_of_a_list_is_told_by_its_place() -> None:
    """As the docstring of some() says."""
    told = refusal(kind(Frontend, "listen"), ["127.0.0.1:1", "nowhere", "127.0.0.1:x"])

    assert "nowhere" in told
    assert "127.0.0.1:x" in told
    assert "[1]" in told


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"X_A": "tls_version"}, "'X_A' is no name of a field"),
        ({"X-A\r": "tls_version"}, "'X-A\\r' is no name of a field"),
        ({"": "tls_version"}, "'' is no name of a field"),
        ({"X-A": "tls_name", "x-a": "tls_name"}, "one twice"),
        ({f"X-{number}": "tls_name" for number in range(21)}, "too many fields"),
        ({"X-A": "nonsense"}, "X-A: unknown fact 'nonsense'"),
        *(
            ({name: "tls_name"}, f"{name} has a meaning of its own; choose another name for the field")
            for name in ("Host", "CONTENT-LENGTH", "Transfer-Encoding", "Connection", "X-Forwarded-For")
        ),
    ],
)
def test_facts_are_told_in_fields_that_mean_nothing_else(value: dict[str, str], problem: str) -> None:
    assert problem in refusal(kind(Http, "facts"), value)


def test_facts_may_be_told_in_any_other_field() -> None:
    value = {"X-Client-Subject": "client_subject", "Client-Cert": "client_certificate"}
    assert kind(Http, "facts").read(value, BASE).pairs == tuple(value.items())


@pytest.mark.parametrize("value", ["web", "a.b-c_d", "0"])
def test_a_name_is_letters_digits_and_three_marks(value: str) -> None:
    assert kind(Frontend, "name").read(value, BASE) == value


@pytest.mark.parametrize("value", ["", "a b", "é", "a/b", "a\n", '"'])
def test_no_other_text_is_a_name(value: str) -> None:
    assert refusal(kind(Frontend, "name"), value).endswith(
        "is not a name; use letters, digits, dots, dashes, underscores"
    )


def test_a_name_is_a_text() -> None:
    assert refusal(kind(Frontend, "cluster"), 3) == "3 is a number; write a text in quotes"


@pytest.mark.parametrize(
    ("value", "path"),
    [("", None), ("a/b", BASE / "a" / "b"), ("/x", Path("/x")), ("../x", BASE / ".." / "x")],
)
def test_a_path_starts_from_the_base_and_may_be_empty_for_none(value: str, path: Path | None) -> None:
    assert kind(Config, "pidfile").read(value, BASE) == path


def test_a_path_holds_no_nul() -> None:
    assert refusal(kind(Config, "control"), "a\0b") == "an empty path; name a file"
    assert refusal(kind(Config, "control"), 1) == "1 is a number; write a text in quotes"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("-", "-"), ("off", "off"), ("a.log", BASE / "a.log"), ("./off", BASE / "off")],
)
def test_the_access_log_goes_to_standard_output_nowhere_or_a_file(value: str, expected: object) -> None:
    assert kind(Log, "access").read(value, BASE) == expected


@pytest.mark.parametrize("value", ["", 1, []])
def test_the_access_log_goes_nowhere_else(value: Any) -> None:
    refusal(kind(Log, "access"), value)


def test_a_frontend_listens_on_ip_addresses_unix_sockets_and_what_systemd_passes() -> None:
    written = ["[::]:443", "unix:/run/a", "systemd:web"]
    assert [str(each) for each in kind(Frontend, "listen").read(written, BASE)] == written
    assert refusal(kind(Frontend, "listen"), ["systemd:"]) == (
        "'systemd:': that is no name; write FileDescriptorName= of the socket unit"
    )


def test_nobody_connects_to_what_systemd_passes() -> None:
    assert "is not a port" in refusal(kind(Cluster, "servers"), ["systemd:web"])


def test_an_address_s_problem_has_its_cure() -> None:
    assert refusal(kind(Frontend, "listen"), ["localhost:1"]) == (
        "'localhost:1': 'localhost' is not an IP address; write 127.0.0.1"
    )
    assert refusal(kind(Frontend, "listen"), [443]) == "443 is a number; write a text in quotes"


def test_a_server_is_an_address_or_a_table_with_one() -> None:
    servers = kind(Cluster, "servers").read(["127.0.0.1:1", {"address": "unix:/run/a"}], BASE)

    assert servers == (Server(parse_address("127.0.0.1:1")), Server(parse_address("unix:/run/a")))
    assert list(map(str, servers)) == ["127.0.0.1:1", "unix:/run/a"]
    assert refusal(kind(Cluster, "servers"), [{"addres": "x"}]) == (
        "unknown key 'addres'; known here: address, max_connections, weight"
    )


@pytest.mark.parametrize("text", ["localhost:80", "app.internal:8080", "my_app-1:1", "1a.test:65535"])
def test_a_server_may_be_a_name(text: str) -> None:
    host, _, port = text.rpartition(":")

    assert kind(Cluster, "servers").read([text], BASE) == (Server(Name(host, int(port))),)
    assert kind(Cluster, "servers").read([{"address": text.upper()}], BASE)[0].address.host == host


@pytest.mark.parametrize(
    "text",
    [
        "256.1.1.1:80",
        "1.2.3:80",
        "a..b:80",
        "-a:80",
        "a b:80",
        "app.internal",
        "app:0",
        "app:65536",
        "app:http",
    ],
)
def test_nothing_like_a_name_or_an_address_is_a_server(text: str) -> None:
    assert refusal(kind(Cluster, "servers"), [text])


def test_nobody_listens_on_a_name() -> None:
    assert "is not an IP address" in refusal(kind(Frontend, "listen"), ["app.internal:80"])


def test_name_servers_are_addresses_or_those_of_the_machine() -> None:
    assert kind(Dns, "servers").read([], BASE) == ()
    assert kind(Dns, "servers").read(["[::1]:8600"], BASE) == (parse_address("[::1]:8600"),)
    assert "cannot ask" in refusal(kind(Dns, "servers"), ["unix:/run/dns"])
    assert refusal(kind(Dns, "servers"), "127.0.0.1:53")
    assert kind(Dns, "hosts").read("", BASE) is None


def test_those_who_watch_have_an_address_or_none_and_names() -> None:
    assert kind(Admin, "listen").read("", BASE) is None
    assert kind(Admin, "listen").read("[::1]:9443", BASE) == parse_address("[::1]:9443")
    assert "cannot listen on" in refusal(kind(Admin, "listen"), "unix:/run/admin")
    assert kind(Admin, "names").read(["gate.example"], BASE) == ("gate.example",)
    assert kind(Admin, "names").read([], BASE) == ()
    assert refusal(kind(Admin, "names"), "gate.example")
    assert refusal(kind(Admin, "names"), ["gate.example:9443"])


def test_a_server_s_table_may_say_how_much_it_takes() -> None:
    table = {"address": "127.0.0.1:1", "weight": 256, "max_connections": 10}

    assert kind(Cluster, "servers").read([table], BASE) == (
        Server(parse_address("127.0.0.1:1"), 256, 10),
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"weight": 0}, "weight: 0 is out of bounds; write a whole number from 1 to 256"),
        ({"weight": 1.5}, "weight: 1.5 is a number; write a whole number from 1 to 256"),
        (
            {"max_connections": -1},
            "max_connections: -1 is out of bounds; write a whole number from 0 to 1000000",
        ),
    ],
)
def test_a_server_s_number_out_of_bounds_is_named(numbers: dict[str, Any], expected: str) -> None:
    assert refusal(kind(Cluster, "servers"), [{"address": "127.0.0.1:1", **numbers}]) == expected


def test_statuses_are_numbers_or_ranges() -> None:
    assert kind(Health, "expect").read([204, "301", "200-299"], BASE) == ("204", "301", "200-299")


@pytest.mark.parametrize(
    "value", [99, 600, 100, True, "2xx", "", "-", "200-", "-200", "300-200", "200-300-400", "\u0663"]
)
def test_nothing_else_is_a_status(value: Any) -> None:
    assert refusal(kind(Health, "expect"), [value])


@pytest.mark.parametrize("value", ["", "healthz", "/a b", "/a\r\nX: y", "/\u00e9", "/a#b", 1])
def test_nothing_but_a_path_is_asked_for(value: Any) -> None:
    assert refusal(kind(Health, "path"), value)


def test_a_path_may_have_a_query() -> None:
    assert kind(Health, "path").read("/healthz?deep=1", BASE) == "/healthz?deep=1"


@pytest.mark.parametrize("value", ["a b", "a\r\nX: y", 1])
def test_a_host_header_is_one_word(value: Any) -> None:
    assert refusal(kind(Health, "host"), value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5"])
def test_nothing_else_is_a_part_of_a_whole(value: Any) -> None:
    assert refusal(kind(Health, "jitter"), value)
    assert kind(Health, "jitter").read(1, BASE) == 1.0


def test_a_server_s_table_without_an_address_says_what_is_missing() -> None:
    assert "no address" in refusal(kind(Cluster, "servers"), [{}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.pem", CertificateFiles(BASE / "a.pem", None)),
        ({"chain": "a.crt"}, CertificateFiles(BASE / "a.crt", None)),
        ({"chain": "a.crt", "key": "/k"}, CertificateFiles(BASE / "a.crt", Path("/k"))),
    ],
)
def test_a_certificate_is_a_file_or_a_table_of_two(value: Any, expected: CertificateFiles) -> None:
    assert kind(Frontend, "certificates").read([value], BASE) == (expected,)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"key": "k"}, 'no chain; write { chain = "site.crt", key = "site.key" }'),
        ({"chain": "a", "kee": "k"}, "unknown key 'kee'; known here: chain, key, passphrase"),
        ({"chain": ""}, "an empty path; name a file"),
        (3, "3 is a number; write a text in quotes"),
    ],
)
def test_no_other_is_a_certificate(value: Any, expected: str) -> None:
    assert refusal(kind(Frontend, "certificates"), [value]) == expected


# Host blocks.


@pytest.mark.parametrize("name", ["a.test", "*.a.test", "localhost", "xn--mnchen-3ya.test", "_a.test"])
def test_a_host_is_named_as_clients_ask(name: str) -> None:
    assert kind(Host, "names").read([name], BASE) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "*.",
        "A.test",
        "a.test.",
        "*.*.test",
        "a.*.test",
        "*a.test",
        "münchen.test",
        "a b",
        "::1",
        "a:443",
        "a\x00",
        "a" * 64,
        "a." * 127 + "aa",
    ],
)
def test_a_host_that_no_client_can_ask_for_is_refused(name: str) -> None:
    assert "is not a host name; write it in lower case" in refusal(kind(Host, "names"), [name])


def test_an_address_is_no_host() -> None:
    """No client names one: its block would never be used, whatever it demands of clients."""
    assert refusal(kind(Host, "names"), ["192.0.2.1"])
    assert refusal(kind(Host, "names"), ["*.192.0.2.1"])


def test_what_a_policy_does_not_say_is_none() -> None:
    assert all(
        getattr(block, spec.name) is None
        for block in (Tls(), Host(names=("a.test",)))
        for spec in fields(TlsPolicy)
    )


@pytest.mark.parametrize("cls", [Tls, Host])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preset", "old"),
        ("min_version", "1.1"),
        ("max_version", 1.3),
        ("client_auth", "on"),
        ("client_auth", True),
        ("client_depth", -1),
        ("client_depth", 17),
        ("client_ca", ""),
        ("client_crl", "a\0"),
        ("alpn", []),
        ("ciphers", "ECDHE"),
        ("groups", [1]),
    ],
)
def test_a_policy_s_value_has_its_bounds(cls: type, name: str, value: object) -> None:
    with pytest.raises((BadValue, BadItems)):
        kind(cls, name).read(value, BASE)


@pytest.mark.parametrize(("name", "value"), [("client_ca", "ca.pem"), ("client_crl", "crl.pem")])
def test_files_of_clients_are_beside_the_configuration(name: str, value: str) -> None:
    assert kind(Tls, name).read(value, BASE) == BASE / value


# Fields of answers.


def test_a_field_s_value_is_printable_and_short() -> None:
    setting = kind(Http, "strict_transport_security")

    assert setting.read(" max-age=300 ", BASE) == "max-age=300"
    assert refusal(setting, "a\r\nb").endswith("write printable ASCII")
    assert len(setting.read("x" * FIELD_VALUE_MAX, BASE)) == FIELD_VALUE_MAX
    assert refusal(setting, "x" * (FIELD_VALUE_MAX + 1)) == "1001 characters; write at most 1000"
