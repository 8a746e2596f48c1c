"""`passphrase`, `stapling` and `state_dir`: read, refused with a cure, and dumped to load again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.config.load import FileSource, FlagSource, load
from termproxy.config.reference import dump, reference
from termproxy.config.schema import CertificateFiles, Config
from termproxy.errors import ConfigError

HERE = Path("/etc/termproxy")

TEXTS = st.text('ab"\\/ \u00e9\u2028\x7f\t#=[]{}', min_size=1, max_size=10)


def values(*certificates: Any, tls: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    frontend: dict[str, Any] = {
        "name": "web",
        "listen": ["127.0.0.1:1"],
        "cluster": "app",
        "certificates": list(certificates) or ["site.pem"],
    }
    if tls is not None:
        frontend["tls"] = tls
    return {"frontend": [frontend], "cluster": {"app": {"servers": ["127.0.0.1:8080"]}}} | more


def in_file(text: str) -> FileSource:
    return FileSource(HERE / "t.toml", text, tomllib.loads(text))


def loaded(toml: str) -> Config:
    return load(in_file(toml))


FILE = """\
{top}
[[frontend]]
name = "web"
listen = ["127.0.0.1:1"]
cluster = "app"
certificates = [{certificates}]
[frontend.tls]
{tls}
[cluster.app]
servers = ["127.0.0.1:8080"]
"""


def file(certificates: str = '"site.pem"', tls: str = "", top: str = "") -> str:
    return FILE.format(certificates=certificates, tls=tls, top=top)


def refusal(toml: str) -> str:
    with pytest.raises(ConfigError) as refused:
        loaded(toml)
    return str(refused.value)


# passphrase


def test_a_passphrase_is_a_file_beside_the_configuration() -> None:
    config = loaded(file('{ chain = "a.crt", key = "a.key", passphrase = "a.pass" }'))
    [files] = config.frontends[0].certificates
    assert files == CertificateFiles(HERE / "a.crt", HERE / "a.key", HERE / "a.pass")


def test_the_key_may_be_left_out() -> None:
    config = loaded(file('{ chain = "certs", passphrase = "/run/pass" }, "b.pem"'))
    assert config.frontends[0].certificates == (
        CertificateFiles(HERE / "certs", None, Path("/run/pass")),
        CertificateFiles(HERE / "b.pem", None, None),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        '{ chain = "a", passphrase = 5 }',
        '{ chain = "a", passphrase = "" }',
        '{ chain = "a", passphrase = ["a"] }',
        '{ chain = "a", passphrase = { file = "a" } }',
        '{ chain = "a", pass = "a" }',
        '{ passphrase = "a" }',
    ],
)
def test_what_is_no_file_is_refused_with_its_line(wrong: str) -> None:
    assert "t.toml:6" in refusal(file(wrong))


def test_a_misspelt_passphrase_is_told_what_there_is() -> None:
    assert "passphrase" in refusal(file('{ chain = "a", passphrse = "a" }'))


FILES = st.fixed_dictionaries({"chain": TEXTS}, optional={"key": TEXTS, "passphrase": TEXTS})


@given(st.lists(FILES | TEXTS, min_size=1, max_size=3), st.booleans(), st.none() | TEXTS)
def test_what_is_dumped_loads_again(
    certificates: list[Any],
    stapling: bool,  # noqa: FBT001
    state_dir: str | None,
) -> None:
    more = {} if state_dir is None else {"state_dir": state_dir}
    source = FlagSource(values(*certificates, tls={"stapling": stapling}, **more), {})
    config = load(source)
    assert load(in_file(dump(config, source))) == config


def test_a_dump_names_the_files_and_shows_no_secret() -> None:
    source = in_file(file('{ chain = "a.crt", passphrase = "a.pass" }'))
    line = '{ chain = "/etc/termproxy/a.crt", passphrase = "/etc/termproxy/a.pass" }'
    assert line in dump(load(source), source)


# stapling


def test_stapling_is_on_until_it_is_turned_off() -> None:
    assert loaded(file()).frontends[0].tls.stapling is True
    assert loaded(file(tls="stapling = true")).frontends[0].tls.stapling is True
    assert loaded(file(tls="stapling = false")).frontends[0].tls.stapling is False


@pytest.mark.parametrize("wrong", ["0", "1", '"off"', '"false"', "[]", "1.0"])
def test_only_true_and_false_are_either(wrong: str) -> None:
    told = refusal(file(tls=f"stapling = {wrong}"))
    assert "t.toml:8" in told
    assert "true or false" in told


def test_stapling_is_a_frontends_and_not_a_hosts() -> None:
    toml = file() + '[[frontend.host]]\nnames = ["a.test"]\nstapling = false\n'
    assert "stapling" in refusal(toml)


def test_both_words_are_written_as_toml_has_them() -> None:
    for word in ("true", "false"):
        source = in_file(file(tls=f"stapling = {word}"))
        assert f"\nstapling = {word}  # " in dump(load(source), source)
    assert "\nstapling = true\n" in reference()


# state_dir


def test_the_state_dir_is_relative_to_the_file_and_none_by_default() -> None:
    assert loaded(file()).state_dir is None
    assert loaded(file(top='state_dir = ""')).state_dir is None
    assert loaded(file(top='state_dir = "state"')).state_dir == HERE / "state"


@pytest.mark.parametrize("wrong", ["5", "true", '["a"]'])
def test_a_state_dir_that_is_no_path_is_refused(wrong: str) -> None:
    assert "t.toml:1: state_dir" in refusal(file(top=f"state_dir = {wrong}"))
