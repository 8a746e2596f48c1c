"""The default policy, seen from a client's side."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from termproxy.errors import TlsError
from termproxy.tls._openssl import Context, openssl_version_number
from termproxy.tls.certificates import load_certificate
from termproxy.tls.context import CIPHERS, CIPHERSUITES, VERSIONS, Policy, build_context, default_groups
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, site

RSA_KEY_EXCHANGE = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA256"]
CBC = ["ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES128-SHA256"]
FINITE_FIELD = ["DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-CHACHA20-POLY1305"]


def context_for(folder: Path, key_type: trustme.KeyType, policy: Policy | None = None) -> Context:
    made = site(key_type=key_type)
    file = folder / "site.pem"
    file.write_bytes(made.chain + made.key)
    return build_context(load_certificate(file), policy or Policy())


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
