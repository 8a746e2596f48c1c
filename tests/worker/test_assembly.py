"""From settings and certificates to what is shown for each name."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termproxy.backends.cluster import Cluster
from termproxy.config.schema import CertificateFiles, Frontend, Host, Tls
from termproxy.errors import TlsError
from termproxy.tls._openssl import openssl_version
from termproxy.tls.certificates import Certificate, CertificateError
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly, findings_of, policy_files, warnings_of
from termproxy.worker.frontend import Choice, Served
from tests.support.tls import TLS_1_2, Pair
from tests.tls.pki import DAY, NOW, an_authority, crl_of, issue, loaded, showing
from tests.worker.test_frontend import SERVER, Hello, asking, client

CLUSTERS = {name: Cluster(name, [SERVER]) for name in ("app", "one", "two", "three")}
CA, OTHER_CA = an_authority(), an_authority("others")
CA_FILE, CRL_FILE = Path("/ca.pem"), Path("/crl.pem")
PEM = {CA_FILE: CA.pem}


def frontend(*hosts: Host, **tls: Any) -> Frontend:
    files = (CertificateFiles(Path("/certs"), None),)
    return Frontend(
        name="web", listen=(), cluster="app", certificates=files, tls=Tls(**tls), hosts=hosts
    )


def certificate(*names: str, file: str = "", **options: Any) -> Certificate:
    return loaded(issue(names[0], *names, **options), file or names[0])


def serving(config: Frontend, *certificates: Certificate, pem: Any = PEM) -> Assembly:
    made = Assembly(config, CLUSTERS, pem, Resumption(Stores()))
    assert made.problems == []
    made.serve(certificates, pem, NOW)
    return made


def choice(assembly: Assembly, name: str | None) -> Choice | None:
    hello: Any = Hello(None if name is None else asking(name.encode()))
    assembly.frontend.on_client_hello(hello)
    found: Choice | None = hello.note
    return found


def served(assembly: Assembly, name: str | None) -> Served:
    found = choice(assembly, name)
    assert found is not None
    assert found.served is not None
    return found.served


def files(assembly: Assembly, name: str | None) -> list[str]:
    return sorted(served(assembly, name).labels.values())


A, B, WILD = certificate("a.test"), certificate("b.test"), certificate("*.w.test")
GUARD: dict[str, Any] = {"client_auth": "required", "client_ca": CA_FILE}


# Who is asked for a certificate.


def test_a_host_is_guarded_and_its_neighbours_are_not() -> None:
    made = serving(frontend(Host(names=("b.test",), **GUARD)), A, B)
    for name in ("a.test", "other.test", None):
        with Pair(made.frontend.entry, client(), name=name) as pair:
            assert (
                pair.handshake().server.note.served.policy_group != served(made, "b.test").policy_group
            )
    with Pair(made.frontend.entry, client(), name="b.test") as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.code == 199


def test_a_guarded_frontend_s_open_host_is_open() -> None:
    made = serving(frontend(Host(names=("b.test",), client_auth="off"), **GUARD), A, B)
    with Pair(made.frontend.entry, client(), name="b.test") as pair:
        pair.handshake()
    for name in ("a.test", "other.test", None):
        with Pair(made.frontend.entry, client(), name=name) as pair, pytest.raises(TlsError):
            pair.handshake()


def test_a_guard_with_a_crl_refuses_who_is_revoked() -> None:
    good, revoked = issue("good", by=CA), issue("revoked", by=CA)
    config = frontend(Host(names=("a.test",), client_crl=CRL_FILE, **GUARD))
    made = serving(config, A, pem=PEM | {CRL_FILE: crl_of(CA, revoked)})
    with Pair(made.frontend.entry, showing(client(), good), name="a.test") as pair:
        pair.handshake()
    with Pair(made.frontend.entry, showing(client(), revoked), name="a.test") as pair:
        with pytest.raises(TlsError) as failure:
            pair.handshake()
        assert "revoked" in failure.value.reason


@pytest.mark.parametrize("pem", [{}, {CA_FILE: b""}, {CA_FILE: b"-----BEGIN garbage"}, {CA_FILE: b"\0"}])
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_guard_without_authorities_is_refused(pem: dict[Path, bytes], demand: str) -> None:
    """CVE-2026-27586: Caddy asked nobody when the file could not be read."""
    config = frontend(Host(names=("a.test",), client_auth=demand, client_ca=CA_FILE))
    with pytest.raises(CertificateError):
        Assembly(config, CLUSTERS, pem, Resumption(Stores())).serve([A], pem, NOW)


def test_a_guard_with_an_unusable_crl_is_refused() -> None:
    config = frontend(client_crl=CRL_FILE, **GUARD)
    pem = PEM | {CRL_FILE: b"-----BEGIN garbage"}
    with pytest.raises(CertificateError):
        Assembly(config, CLUSTERS, pem, Resumption(Stores())).serve([A], pem, NOW)


def test_the_policy_groups_follow_the_demand_on_clients() -> None:
    hosts = [
        Host(names=("plain.test",)),
        Host(names=("alpn.test",), alpn=("h2",), cluster="one"),
        Host(names=("guarded.test",), **GUARD),
        Host(names=("optional.test",), client_auth="optional", client_ca=CA_FILE),
        Host(names=("again.test",), **GUARD),
    ]
    made = serving(frontend(*hosts), A)
    groups = {
        name: served(made, name).policy_group
        for name in ("a.test", "plain.test", "alpn.test", "guarded.test", "optional.test", "again.test")
    }
    assert groups["a.test"] == groups["plain.test"] == groups["alpn.test"]
    assert groups["guarded.test"] == groups["again.test"]
    assert len(set(groups.values())) == 3


def test_the_same_policy_of_another_frontend_is_another_group() -> None:
    one = serving(frontend(), A)
    other = serving(replace(frontend(), name="other"), A)
    assert served(one, None).policy_group != served(other, None).policy_group


# Which certificate and cluster a name gets, against a model without tables.

PATTERNS = ["a.test", "b.test", "c.a.test", "*.test", "*.a.test", "*.b.test", "x.a.test"]
ASKED = [*(p for p in PATTERNS if "*" not in p), "d.test", "d.a.test", "d.d.a.test", "test", "d.b.test"]
POOL = [
    certificate(*names, file=f"{number}", key=key, not_after=NOW + days * DAY)
    for number, (names, key, days) in enumerate(
        itertools.chain(
            ((names, "ecdsa", 10 + n) for n, names in enumerate(itertools.combinations(PATTERNS, 2))),
            (((name,), "rsa", 20 + n) for n, name in enumerate(PATTERNS)),
            (((name,), "ecdsa", 5 + n) for n, name in enumerate(PATTERNS)),
        )
    )
]


def naive(patterns: list[str], name: str) -> str | None:
    if name in patterns:
        return name
    wildcard = "*." + name.partition(".")[2]
    return wildcard if wildcard in patterns else None


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Host, ...]:
    names = draw(st.lists(st.sampled_from(PATTERNS), unique=True, max_size=5))
    number = draw(st.integers(1, 3))
    clusters = ["one", "two", "three"][:number]
    blocks = zip(clusters, (names[index::number] for index in range(number)), strict=True)
    return tuple(Host(names=tuple(block), cluster=cluster) for cluster, block in blocks if block)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    blocks=hosts(),
    certificates=st.lists(st.sampled_from(POOL), min_size=1, max_size=4, unique_by=id),
    reject=st.booleans(),
)
def test_every_name_gets_what_a_model_without_tables_says(
    blocks: tuple[Host, ...], certificates: list[Certificate], *, reject: bool
) -> None:
    made = serving(frontend(*blocks, unknown_name="reject" if reject else "default"), *certificates)
    named = [name for each in certificates for name in each.names]
    by_host = {name: block for block in blocks for name in block.names}
    for name in ASKED:
        found = choice(made, name)
        assert found is not None
        host_name, certificate_name = naive(list(by_host), name), naive(named, name)
        if host_name is None and certificate_name is None and reject:
            assert found.served is None
            continue
        assert found.served is not None
        host = by_host.get(host_name or "")
        assert found.served.cluster.name == (host.cluster if host else "app")
        shown = set(found.served.labels.values())
        if certificate_name is None:
            assert str(certificates[0].chain_file) in shown
        else:
            assert shown == _best(certificates, certificate_name)


def _best(certificates: list[Certificate], name: str) -> set[str]:
    rivals = [each for each in certificates if name in each.names]
    kinds = {each.key_type for each in rivals}
    best = (max((r for r in rivals if r.key_type == k), key=lambda r: r.not_after) for k in kinds)
    return {str(each.chain_file) for each in best}


def test_without_a_name_the_first_certificate_and_the_frontend_s_policy_serve() -> None:
    made = serving(frontend(Host(names=("*.test",), cluster="one")), B, A)
    for name in (None, "192.0.2.1"):
        assert files(made, name) == ["b.test"]
        assert served(made, name).cluster.name == "app"


def test_a_host_without_a_certificate_gets_the_first_one_under_its_own_policy() -> None:
    made = serving(frontend(Host(names=("none.test",), max_version="1.2", cluster="one")), A, B)
    assert files(made, "none.test") == ["a.test"]
    with Pair(made.frontend.entry, client(), name="none.test") as pair:
        assert pair.handshake().server.version == "TLSv1.2"


def test_rsa_and_ecdsa_of_one_name_are_in_one_context() -> None:
    rsa = certificate("a.test", file="rsa", key="rsa")
    made = serving(frontend(), A, rsa)
    assert files(made, "a.test") == files(made, None) == ["a.test", "rsa"]
    with Pair(made.frontend.entry, client(TLS_1_2), name="a.test") as pair:
        shown = pair.handshake().server.own_certificate
    assert served(made, "a.test").label_of(shown) == "a.test"


# The entry's callback.


@pytest.mark.parametrize(
    ("config", "certificates"),
    [
        (frontend(), [A]),
        (frontend(), [A, B]),
        (frontend(unknown_name="reject"), [A]),
        (frontend(Host(names=("b.test",), **GUARD)), [A]),
        (frontend(**GUARD), [A]),
    ],
)
def test_the_entry_asks(config: Frontend, certificates: list[Certificate]) -> None:
    made = serving(config, *certificates)
    assert made.frontend.entry.on_client_hello == made.frontend.on_client_hello


def test_a_name_that_is_none_is_refused_also_where_there_is_nothing_to_choose() -> None:
    """A second certificate must not change what becomes of a malformed hello."""
    for certificates in ([A, B], [A]):
        made = serving(frontend(), *certificates)
        with Pair(made.frontend.entry, client(), name="a_b.-c.test") as pair, pytest.raises(TlsError):
            pair.handshake()


def test_only_the_entry_asks() -> None:
    made = serving(frontend(Host(names=("b.test",), **GUARD)), A, B, WILD)
    contexts = {served(made, name).context for name in ("a.test", "b.test", "x.w.test", None)}
    assert [context for context in contexts if context.on_client_hello] == [made.frontend.entry]


# From one time to the next.


def contexts(assembly: Assembly, *names: str | None) -> list[Any]:
    return [served(assembly, name).context for name in names]


def test_one_changed_certificate_costs_one_context() -> None:
    made = serving(frontend(Host(names=("b.test",), **GUARD)), A, B, WILD)
    before = contexts(made, None, "a.test", "b.test", "x.w.test")
    renewed = certificate("*.w.test", file="renewed")
    made.serve([A, B, renewed], PEM, NOW)
    after = contexts(made, None, "a.test", "b.test", "x.w.test")
    assert after[:3] == before[:3]
    assert after[3] is not before[3]
    assert files(made, "x.w.test") == ["renewed"]


def test_names_with_one_certificate_and_policy_share_a_context() -> None:
    both = certificate("a.test", "b.test")
    made = serving(frontend(Host(names=("b.test",), cluster="one")), both)
    assert len({*contexts(made, "a.test", None)}) == 1
    assert served(made, "b.test").cluster.name == "one"


def test_contexts_that_serve_nothing_any_more_are_let_go() -> None:
    made = serving(frontend(), A, B)
    held = len(made._contexts)
    for _ in range(5):
        made.serve([A, certificate("b.test")], PEM, NOW)
    assert len(made._contexts) == held


def test_another_ca_takes_effect_at_once() -> None:
    made = serving(frontend(**GUARD), A)
    ours, theirs = issue("ours", by=CA), issue("theirs", by=OTHER_CA)
    made.serve([A], {CA_FILE: OTHER_CA.pem}, NOW)
    with Pair(made.frontend.entry, showing(client(), theirs)) as pair:
        pair.handshake()
    with Pair(made.frontend.entry, showing(client(), ours)) as pair, pytest.raises(TlsError):
        pair.handshake()


def test_sessions_of_another_ca_s_time_are_not_resumed() -> None:
    made = serving(frontend(Host(names=("b.test",)), **GUARD), A)
    theirs = showing(client(), issue("ours", by=CA))
    with Pair(made.frontend.entry, theirs) as pair:
        session = pair.handshake().client.session()
    made.serve([A], {CA_FILE: OTHER_CA.pem}, NOW)
    with Pair(made.frontend.entry, theirs, session=session) as pair, pytest.raises(TlsError):
        pair.handshake()


@pytest.mark.parametrize(
    ("certificates", "pem"),
    [
        ([A, certificate("b.test", key="rsa1024")], PEM),
        ([A, certificate("b.test")], {CA_FILE: b"-----BEGIN garbage"}),
        ([A, certificate("b.test")], {}),
    ],
)
def test_a_refused_change_leaves_all_as_it_was(
    certificates: list[Certificate], pem: dict[Path, bytes]
) -> None:
    names = (None, "a.test", "b.test", "x.w.test")
    made = serving(frontend(Host(names=("*.w.test",), **GUARD)), A, B, WILD)
    before = contexts(made, *names), made.certificates, [files(made, name) for name in names]
    with pytest.raises(CertificateError):
        made.serve(certificates, pem, NOW)
    assert (contexts(made, *names), made.certificates, [files(made, name) for name in names]) == before
    made.serve([A, B, WILD], PEM, NOW)
    assert contexts(made, *names) == before[0]


def test_what_is_not_valid_now_gives_way_when_it_is_assembled_again() -> None:
    now = certificate("a.test", file="now", not_after=NOW + DAY)
    next_one = certificate("a.test", file="next", not_before=NOW + DAY / 2, not_after=NOW + 9 * DAY)
    made = serving(frontend(), now, next_one)
    assert files(made, "a.test") == ["now"]
    made.serve([now, next_one], PEM, NOW + DAY)
    assert files(made, "a.test") == ["next"]


def test_without_certificates_it_is_refused() -> None:
    with pytest.raises(CertificateError):
        Assembly(frontend(), CLUSTERS, PEM, Resumption(Stores())).serve([], PEM, NOW)


# What stands against a frontend.


@pytest.mark.parametrize("kind", ["ciphers", "ciphersuites", "groups", "signature_algorithms"])
def test_what_this_openssl_cannot_do_is_told_by_its_place_and_name(kind: str) -> None:
    expected = f"{openssl_version()} cannot do 'X25519MLKEM9999'"
    asked: dict[str, Any] = {kind: ("X25519MLKEM9999",)}
    in_frontend = Assembly(frontend(**asked), CLUSTERS, {}, Resumption(Stores())).problems
    assert [(path, what) for path, what, _ in in_frontend] == [(("tls", kind), expected)]
    in_host = Assembly(
        frontend(Host(names=("a.test",), **asked)), CLUSTERS, {}, Resumption(Stores())
    ).problems
    assert [(path, what) for path, what, _ in in_host] == [(("host", 0, kind), expected)]


def test_the_policy_s_files_are_named_once() -> None:
    config = frontend(
        Host(names=("a.test",), client_ca=Path("/b"), client_crl=CRL_FILE),
        Host(names=("b.test",), client_ca=CA_FILE),
        client_ca=CA_FILE,
    )
    assert set(policy_files(config, "client_ca")) == {Path("/b"), CA_FILE}
    assert set(policy_files(config, "client_crl")) == {CRL_FILE}
    assert policy_files(frontend(), "client_ca") == policy_files(frontend(), "client_crl") == {}


@pytest.mark.parametrize("kind", ["ciphers", "ciphersuites", "groups", "signature_algorithms"])
@pytest.mark.parametrize("name", ["no such", ":", "ALL", "HIGH:!aNULL", "a" * 10_000, "\u00fc"])
def test_what_is_no_name_of_anything_is_told_too(kind: str, name: str) -> None:
    asked: dict[str, Any] = {kind: (name,)}
    assert Assembly(frontend(**asked), CLUSTERS, {}, Resumption(Stores())).problems


@pytest.mark.parametrize("kind", ["ciphers", "ciphersuites", "groups", "signature_algorithms"])
def test_a_name_with_a_nul_is_told_too(kind: str) -> None:
    """TOML may write one, and `termproxy check` would end with a traceback."""
    asked: dict[str, Any] = {kind: ("X25519\0",)}
    assert Assembly(frontend(**asked), CLUSTERS, {}, Resumption(Stores())).problems


def test_an_empty_name_is_told_too() -> None:
    assert Assembly(frontend(ciphersuites=("",)), CLUSTERS, {}, Resumption(Stores())).problems


def test_a_host_without_a_certificate_is_warned_of() -> None:
    config = frontend(Host(names=("a.test", "x.w.test", "none.test", "*.w.test", "*.none.test")))
    assert list(warnings_of(config, [A, WILD], NOW)) == [
        f"frontend web: no certificate has the name {name}; the first one serves it"
        for name in ("none.test", "*.none.test")
    ]


def test_a_certificate_outside_its_time_is_warned_of() -> None:
    (warning,) = warnings_of(frontend(), [A], NOW + 1000 * DAY)
    assert warning.startswith("a.test: the certificate expired on")


def test_findings_are_told_with_their_file() -> None:
    weak = certificate("c.test", key="rsa1024", file="weak")
    short = certificate("a.test", file="short", not_after=NOW + DAY)
    told = list(findings_of([short, A, weak], NOW))
    assert "short: a.test is served by a.test, which expires later" in told
    assert any(line.startswith("weak: an RSA key of 1024 bits") for line in told)
