"""Whose word holds: the host block's, then the frontend's; in each the settings before the preset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.config.policy import CLIENT_DEPTH, Policy, effective_policy
from termproxy.config.schema import Frontend, Host, Tls, TlsPolicy

VALUES: dict[str, list[Any]] = {
    "max_version": ["1.2", "1.3"],
    "ciphers": [("A",), ("B",)],
    "ciphersuites": [("A",), ("B",)],
    "groups": [("A",), ("B",)],
    "signature_algorithms": [("A",), ("B",)],
    "alpn": [("h2",), ("http/1.1",)],
    "client_auth": ["off", "required"],
    "client_ca": [Path("/a"), Path("/b")],
    "client_crl": [Path("/a"), Path("/b")],
    "client_depth": [0, 1],
}


def effective(tls: dict[str, Any], host: dict[str, Any] | None = None) -> Policy:
    frontend = Frontend(name="web", listen=(), cluster="app", certificates=(), tls=Tls(**tls))
    return effective_policy(frontend, None if host is None else Host(names=("a.test",), **host))


@pytest.mark.parametrize("host", [None, {}])
def test_nothing_said_is_mozilla_s_intermediate(host: dict[str, Any] | None) -> None:
    assert effective({}, host) == Policy(
        min_version="1.2",
        max_version="",
        ciphers=(),
        ciphersuites=(),
        groups=(),
        signature_algorithms=(),
        alpn=(),
        client_auth="off",
        client_ca=None,
        client_crl=None,
        client_depth=CLIENT_DEPTH,
    )


@pytest.mark.parametrize("name", VALUES)
def test_the_host_s_word_outweighs_the_frontend_s(name: str) -> None:
    one, other = VALUES[name]
    for ours, theirs in ((one, other), (other, one)):
        assert getattr(effective({name: theirs}, {name: ours}), name) == ours
        assert getattr(effective({name: theirs}, {}), name) == theirs
        assert getattr(effective({}, {name: ours}), name) == ours
        assert getattr(effective({name: theirs}), name) == theirs


def test_every_setting_of_a_policy_has_its_word() -> None:
    """A setting that is not handed on would be no setting."""
    named = {spec.name for spec in fields(TlsPolicy)} - {"preset"}
    assert named == {spec.name for spec in fields(Policy)} == {*VALUES, "min_version"}


@pytest.mark.parametrize(
    ("tls", "host", "version"),
    [
        ({"preset": "modern"}, {}, "1.3"),
        ({"preset": "intermediate"}, {}, "1.2"),
        ({"preset": "modern", "min_version": "1.2"}, {}, "1.2"),
        ({"preset": "intermediate", "min_version": "1.3"}, {}, "1.3"),
        ({"min_version": "1.2"}, {"preset": "modern"}, "1.3"),
        ({"min_version": "1.3"}, {"preset": "intermediate"}, "1.2"),
        ({"preset": "modern"}, {"preset": "intermediate"}, "1.2"),
        ({"preset": "modern"}, {"min_version": "1.2"}, "1.2"),
        ({"preset": "intermediate"}, {"min_version": "1.3"}, "1.3"),
        ({"min_version": "1.3"}, {"client_auth": "off"}, "1.3"),
        ({"preset": "modern"}, {"alpn": ("h2",)}, "1.3"),
        ({}, {"preset": "modern", "min_version": "1.2"}, "1.2"),
    ],
)
def test_a_preset_is_its_block_s_word_after_the_block_s_own(
    tls: dict[str, Any], host: dict[str, Any], version: str
) -> None:
    assert effective(tls, host).min_version == version


def test_client_auth_off_in_a_host_block_is_a_word_too() -> None:
    policy = effective({"client_auth": "required", "client_ca": Path("/ca")}, {"client_auth": "off"})
    assert (policy.client_auth, policy.client_ca) == ("off", Path("/ca"))


def test_a_host_without_a_word_on_clients_demands_what_the_frontend_does() -> None:
    policy = effective({"client_auth": "required", "client_ca": Path("/ca")}, {"alpn": ("h2",)})
    assert (policy.client_auth, policy.client_ca) == ("required", Path("/ca"))


BLOCKS = st.fixed_dictionaries({}, optional={name: st.sampled_from(v) for name, v in VALUES.items()})


@given(tls=BLOCKS, host=BLOCKS)
def test_each_setting_is_decided_for_itself(tls: dict[str, Any], host: dict[str, Any]) -> None:
    found, default = effective(tls, host), effective({})
    for name in VALUES:
        assert getattr(found, name) == host.get(name, tls.get(name, getattr(default, name)))
