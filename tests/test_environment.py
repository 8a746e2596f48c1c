"""What stands in the environment and must have no effect."""

from __future__ import annotations

import pytest

from termproxy.environment import scrub

OURS = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/n", "LISTEN_FDS": "1", "TZ": "UTC", "http_proxy": "p:1"}


@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "GEVENT_LOOP", "GEVENTARES_SERVERS", "LIBEV_FLAGS"])
def test_what_logs_keys_or_loads_modules_never_has_effect(name: str, *, is_root: bool) -> None:
    environment = OURS | {name: "/a/file"}
    assert scrub(environment, is_root=is_root) == [name]
    assert environment == OURS


@pytest.mark.parametrize(
    "name", ["OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "SSL_CERT_FILE", "SSL_CERT_DIR"]
)
def test_openssl_s_is_root_s_own_in_files_and_everybody_else_s_in_variables(name: str) -> None:
    environment = OURS | {name: "/a/file"}
    assert scrub(environment, is_root=False) == []
    assert environment == OURS | {name: "/a/file"}
    assert scrub(environment, is_root=True) == [name]
    assert environment == OURS


def test_the_rest_stays() -> None:
    environment = dict(OURS)
    assert scrub(environment, is_root=True) == []
    assert environment == OURS
