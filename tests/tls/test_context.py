"""The default policy, seen from a client's side."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy.errors import TlsError
from termproxy.tls._openssl import Context, openssl_version_number
from termproxy.tls.certificates import CertificateError, load_certificate
from termproxy.tls.context import (
    CIPHERS,
    CIPHERSUITES,
    VERSIONS,
    ClientAuth,
    Policy,
    Resumption,
    Stores,
    accepted,
    build_context,
    default_groups,
    read_authorities,
    read_crls,
)
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, site, ticket_ring
from tests.tls.pki import an_authority, crl_of, issue, loaded, showing

RSA_KEY_EXCHANGE = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA256"]
CBC = ["ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES128-SHA256"]
FINITE_FIELD = ["DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-CHACHA20-POLY1305"]


def context_for(folder: Path, key_type: trustme.KeyType, policy: Policy | None = None) -> Context:
    made = site(key_type=key_type)
    file = folder / "site.pem"
    file.write_bytes(made.chain + made.key)
    return build_context([load_certificate(file)], policy or Policy())


@pytest.fixture
def rsa(tmp_path: Path) -> Context:
    """With an RSA key: the one that the refused ciphers would need."""
    return context_for(tmp_path, trustme.KeyType.RSA)


@pytest.fixture
def ecdsa(tmp_path: Path) -> Context:
    return context_for(tmp_path, trustme.KeyType.ECDSA)


def test_the_policy_is_tls_1_2_and_above() -> None:
    assert Policy() == Policy(min_version="1.2")
    assert VERSIONS == {"1.2": TLS_1_2, "1.3": TLS_1_3}


@pytest.mark.parametrize(("version", "name"), [(TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3")])
def test_tls_1_2_and_1_3_are_spoken(ecdsa: Context, version: int, name: str) -> None:
    with Pair(ecdsa, client_context(version=version)) as pair:
        assert pair.handshake().server.version == name


def test_a_minimum_of_1_3_refuses_1_2(tmp_path: Path) -> None:
    context = context_for(tmp_path, trustme.KeyType.ECDSA, Policy(min_version="1.3"))
    with Pair(context, client_context(version=TLS_1_2)) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.alert == 70  # protocol_version


def test_every_cipher_has_forward_secrecy_and_aead() -> None:
    assert all(
        cipher.startswith("ECDHE-")
        and cipher.endswith(("GCM-SHA256", "GCM-SHA384", "CHACHA20-POLY1305"))
        for cipher in CIPHERS.split(":")
    )
    assert CIPHERSUITES.split(":")[0] == "TLS_AES_128_GCM_SHA256"


@pytest.mark.parametrize("cipher", RSA_KEY_EXCHANGE + CBC + FINITE_FIELD)
def test_what_is_weak_or_without_forward_secrecy_is_refused(rsa: Context, cipher: str) -> None:
    client = client_context(version=TLS_1_2, ciphers=f"{cipher}:@SECLEVEL=0")
    with Pair(rsa, client) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.code == 193  # no shared cipher


@pytest.mark.parametrize("cipher", [name for name in CIPHERS.split(":") if "RSA" in name])
def test_each_cipher_of_an_rsa_key_works(rsa: Context, cipher: str) -> None:
    with Pair(rsa, client_context(version=TLS_1_2, ciphers=cipher)) as pair:
        assert pair.handshake().server.cipher == cipher


@pytest.mark.parametrize("cipher", [name for name in CIPHERS.split(":") if "ECDSA" in name])
def test_each_cipher_of_an_ecdsa_key_works(ecdsa: Context, cipher: str) -> None:
    with Pair(ecdsa, client_context(version=TLS_1_2, ciphers=cipher)) as pair:
        assert pair.handshake().server.cipher == cipher


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("group", ["X25519", "prime256v1", "secp384r1"])
def test_the_common_groups_are_accepted(rsa: Context, group: str, version: int) -> None:
    with Pair(rsa, client_context(version=version, group=group)) as pair:
        pair.handshake()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("group", ["X448", "secp521r1"])
def test_the_costly_groups_are_refused(rsa: Context, group: str, version: int) -> None:
    """A client's wish would make each handshake several times as dear."""
    with Pair(rsa, client_context(version=version, group=group)) as pair, pytest.raises(TlsError):
        pair.handshake()


def test_post_quantum_groups_come_first_where_openssl_has_them() -> None:
    classic = "X25519:P-256:P-384"
    assert default_groups((3, 0)) == classic
    assert default_groups((3, 4)) == classic
    assert default_groups((3, 5)) == f"X25519MLKEM768:{classic}"
    assert default_groups((4, 0)) == f"X25519MLKEM768:{classic}"


def test_a_client_of_today_gets_the_best_group(ecdsa: Context) -> None:
    best = "x25519mlkem768" if openssl_version_number() >= (3, 5) else "x25519"
    with Pair(ecdsa) as pair:
        agreed = pair.handshake().server.group
    assert agreed is not None
    assert agreed.lower() == best


# What a policy may ask for.


def made(**policy: Any) -> Context:
    return build_context([loaded(issue("a", "a.test", key="rsa"))], Policy(**policy))


def trusting_all(version: int | None = None, ciphers: str | None = None, **more: Any) -> ssl.SSLContext:
    client = client_context(version=version, ciphers=ciphers, **more)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def test_the_settings_reach_the_handshake() -> None:
    policy = {
        "max_version": "1.2",
        "ciphers": ("ECDHE-RSA-AES256-GCM-SHA384",),
        "groups": ("P-384",),
        "alpn": ("h2",),
    }
    with Pair(made(**policy), trusting_all(alpn=["h2", "http/1.1"])) as pair:
        server = pair.handshake().server
        assert (server.version, server.cipher) == ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384")
        assert (server.group, server.alpn) == ("secp384r1", b"h2")


def test_the_ciphersuites_reach_the_handshake() -> None:
    with Pair(made(ciphersuites=("TLS_CHACHA20_POLY1305_SHA256",)), trusting_all()) as pair:
        assert pair.handshake().server.cipher == "TLS_CHACHA20_POLY1305_SHA256"


def test_finite_field_diffie_hellman_works_when_it_is_asked_for() -> None:
    cipher = "DHE-RSA-AES128-GCM-SHA256"
    with Pair(made(ciphers=(cipher,)), trusting_all(TLS_1_2, cipher)) as pair:
        assert pair.handshake().server.cipher == cipher


@pytest.mark.parametrize(
    "policy",
    [
        {"ciphers": ("none",)},
        {"ciphersuites": ("none",)},
        {"groups": ("none",)},
        {"signature_algorithms": ("none",)},
        {"min_version": "1.3", "max_version": "1.2"},
        {"groups": ("X25519\0",)},
        {"alpn": ("",)},
        {"alpn": ("x" * 256,)},
        {"client_auth": ClientAuth("required")},
        {"client_auth": ClientAuth("required", b"garbage")},
        {"client_auth": ClientAuth("optional", an_authority().pem, b"garbage")},
        {"client_auth": ClientAuth("sometimes", an_authority().pem)},
    ],
)
def test_what_openssl_refuses_is_refused_with_file_library_and_cure(policy: dict[str, Any]) -> None:
    with pytest.raises(
        CertificateError, match=r"OpenSSL 3\..* does not accept this for site.pem: "
    ) as error:
        made(**policy)
    assert error.value.cure
    assert error.value.__suppress_context__


def test_two_keys_serve_each_client_the_one_that_it_can_verify() -> None:
    rsa, ecdsa = issue("rsa", "a.test", key="rsa"), issue("ecdsa", "a.test")
    for identity in ([rsa, ecdsa], [ecdsa, rsa]):
        context = build_context(list(map(loaded, identity)), Policy())
        for kind, issued in (("RSA", rsa), ("ECDSA", ecdsa)):
            client = trusting_all(TLS_1_2, f"ECDHE-{kind}-AES128-GCM-SHA256")
            with Pair(context, client) as pair:
                assert pair.handshake().server.own_certificate == issued.der


def test_a_client_that_can_both_gets_ecdsa() -> None:
    rsa, ecdsa = issue("rsa", "a.test", key="rsa"), issue("ecdsa", "a.test")
    context = build_context([loaded(rsa), loaded(ecdsa)], Policy())
    for version in (TLS_1_2, TLS_1_3):
        with Pair(context, trusting_all(version)) as pair:
            assert pair.handshake().server.own_certificate == ecdsa.der


# Client certificates.


def test_the_demand_reaches_the_handshake() -> None:
    authority = an_authority()
    shown, revoked = issue("client", by=authority), issue("revoked", by=authority)
    auth = ClientAuth("required", authority.pem, crl_of(authority, revoked), depth=0)
    context = made(client_auth=auth)
    with Pair(context, showing(trusting_all(), shown)) as pair:
        assert pair.handshake().server.peer_certificate == shown.der
    deep = issue("deep", by=issue("intermediate", by=authority, is_authority=True))
    for refused in (None, revoked, deep):
        with Pair(context, showing(trusting_all(), refused)) as pair, pytest.raises(TlsError):
            pair.handshake()


def test_a_policy_shows_no_authorities_in_its_repr() -> None:
    assert "BEGIN" not in repr(Policy(client_auth=ClientAuth("required", an_authority().pem, b"BEGIN")))


# Policy groups.

AUTH = ClientAuth("required", b"ca", b"crl", 4)


def group(scope: str = "web", auth: ClientAuth = AUTH, **policy: Any) -> bytes:
    return Policy(scope=scope, client_auth=auth, **policy).group_id()


def test_a_group_id_is_what_a_session_id_context_may_be() -> None:
    assert len(Policy().group_id()) == len(group()) == 32


@pytest.mark.parametrize(
    "other",
    [
        {"scope": "web2"},
        {"scope": ""},
        {"auth": replace(AUTH, demand="optional")},
        {"auth": ClientAuth()},
        {"auth": replace(AUTH, ca=b"ca2")},
        {"auth": replace(AUTH, ca=None)},
        {"auth": replace(AUTH, crl=b"crl2")},
        {"auth": replace(AUTH, crl=None)},
        {"auth": replace(AUTH, depth=5)},
        {"scope": "webrequired", "auth": replace(AUTH, demand="")},
        {"auth": replace(AUTH, ca=b"cac", crl=b"rl")},
        {"auth": replace(AUTH, ca=b"", crl=b"cacrl")},
    ],
)
def test_another_scope_or_another_rule_for_clients_is_another_group(other: dict[str, Any]) -> None:
    assert group(**other) != group()


def test_the_same_rule_for_clients_is_the_same_group() -> None:
    assert group() == group()
    assert group(alpn=("h2",)) == group(groups=("P-256",)) == group()


def test_a_session_is_not_resumed_with_a_cipher_that_its_name_does_not_allow() -> None:
    """OpenSSL looks whether the client offers the session's cipher, and not at our list."""
    weak, strong = "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"
    choices = [made(ciphers=(weak,)), made(ciphers=(strong,))]
    first = build_context(
        [loaded(issue("a", "a.test", key="rsa"))], Policy(), on_client_hello=lambda _: choices.pop(0)
    )
    client = trusting_all(TLS_1_2)
    with Pair(first, client) as pair:
        session = pair.handshake().client.session()
    with Pair(first, client, session=session) as pair:
        assert pair.handshake().server.cipher == strong


# Files of CAs and CRLs.

CRL = crl_of(an_authority())


def test_authorities_and_crls_are_read(tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(b"text\n" + an_authority().pem)
    assert read_authorities(tmp_path / "pem") == b"text\n" + an_authority().pem
    (tmp_path / "pem").write_bytes(CRL + b"text\n" + CRL)
    assert read_crls(tmp_path / "pem") == CRL + b"text\n" + CRL


@pytest.mark.parametrize("read", [read_authorities, read_crls])
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"garbage",
        b"\0\0",
        an_authority().der,
        an_authority().key_pem,
        an_authority().pem + an_authority().pem[:-40],
        an_authority().pem[:-40],
        CRL[:-40],
        CRL + CRL[:-40],
    ],
)
def test_what_is_not_whole_is_refused(
    tmp_path: Path, read: Callable[[Path], bytes], content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "pem").write_bytes(content)
    with pytest.raises(CertificateError) as error:
        read(tmp_path / "pem")
    assert str(tmp_path / "pem") in str(error.value)
    assert error.value.cure


def test_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(an_authority().pem)
    (tmp_path / "crl").write_bytes(CRL)
    with pytest.raises(CertificateError, match="client CRL"):
        read_crls(tmp_path / "ca")
    with pytest.raises(CertificateError, match="client CA"):
        read_authorities(tmp_path / "crl")


def test_a_file_that_goes_on_and_on_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(an_authority().pem)
    os.truncate(file, 64 << 20)
    with pytest.raises(CertificateError):
        read_authorities(file)


# Ticket keys.


def resuming(seed: bytes) -> Resumption:
    """With a ring of keys made from `seed`."""
    return Resumption(Stores(tickets=ticket_ring(seed)))


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize(("one", "other", "resumes"), [(b"1", b"1", True), (b"1", b"2", False)])
def test_contexts_with_the_same_ticket_keys_redeem_each_other_s_tickets(
    version: int, one: bytes, other: bytes, *, resumes: bool
) -> None:
    """As those of two workers, or from before and after a renewal."""
    certificate = loaded(issue("a", "a.test"))
    client = trusting_all(version)
    with Pair(build_context([certificate], Policy(), resuming(one)), client) as pair:
        session = pair.handshake().client.session()
    with Pair(build_context([certificate], Policy(), resuming(other)), client, session=session) as pair:
        assert pair.handshake().server.resumed == resumes


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_the_same_ticket_keys_do_not_open_another_group(version: int) -> None:
    certificate, client = loaded(issue("a", "a.test")), trusting_all(version)
    with Pair(build_context([certificate], Policy(scope="a"), resuming(b"k")), client) as pair:
        session = pair.handshake().client.session()
    other = build_context([certificate], Policy(scope="b"), resuming(b"k"))
    with Pair(other, client, session=session) as pair:
        assert not pair.handshake().server.resumed


# What a client must have in common with us.


def test_what_is_accepted_is_what_the_context_was_built_of(ecdsa: Context) -> None:
    ours = accepted(Policy(), ("ecdsa",), ("secp256r1",), ecdsa)

    assert (ours.min_version, ours.max_version) == (TLS_1_2, TLS_1_3)
    assert list(ours.ciphers.values()) == CIPHERS.split(":")
    assert list(ours.ciphersuites.values()) == CIPHERSUITES.split(":")
    assert list(ours.groups.values()) == default_groups(openssl_version_number()).split(":")
    assert (ours.protocols, ours.key_types, ours.signature_algorithms) == ((), ("ecdsa",), ())
    assert set(ours.curves) == {0x17}
    assert set(ours.ciphers) | set(ours.ciphersuites) <= set(ours.known_ciphers)


def test_a_name_s_own_policy_is_what_is_accepted(tmp_path: Path) -> None:
    policy = Policy(
        min_version="1.2",
        max_version="1.2",
        ciphers=("ECDHE-RSA-AES256-GCM-SHA384",),
        ciphersuites=("TLS_AES_256_GCM_SHA384",),
        groups=("secp384r1", "prime256v1"),
        signature_algorithms=("RSA+SHA256",),
        alpn=("h2",),
    )
    ours = accepted(policy, ("rsa",), (), context_for(tmp_path, trustme.KeyType.RSA, policy))

    assert (ours.min_version, ours.max_version) == (TLS_1_2, TLS_1_2)
    assert ours.ciphers == {0xC030: "ECDHE-RSA-AES256-GCM-SHA384"}
    assert ours.ciphersuites == {0x1302: "TLS_AES_256_GCM_SHA384"}
    assert list(ours.groups) == [0x18, 0x17]
    assert (ours.protocols, ours.signature_algorithms, ours.curves) == (("h2",), ("RSA+SHA256",), {})


def test_a_group_without_a_known_number_is_left_out(ecdsa: Context) -> None:
    ours = accepted(Policy(groups=("P-256", "a group to come")), ("ecdsa",), (), ecdsa)

    assert list(ours.groups) == [0x17]
