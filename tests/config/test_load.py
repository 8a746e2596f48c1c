"""From a file or flags to a Config: every problem at once, each with where, what and cure."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termproxy.config.load import (
    FILE_MAX,
    FileSource,
    FlagSource,
    Path_,
    PlainSource,
    absolute,
    dotted,
    line_of,
    load,
)
from termproxy.config.schema import Config, Tls, keys_of
from termproxy.errors import ConfigError, Problem

GOOD = """\
[[frontend]]
name = "web"
listen = ["127.0.0.1:8443"]
cluster = "app"
certificates = ["site.pem"]

[cluster.app]
servers = ["127.0.0.1:8080"]
"""


def read(folder: Path, text: str | bytes) -> Config:
    file = folder / "t.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(FileSource.read(file))


def problems(folder: Path, text: str | bytes) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        read(folder, text)
    return list(refused.value.problems)


def told(folder: Path, text: str | bytes) -> list[str]:
    """Every problem as "LINE: KEY: WHAT; CURE"."""
    return [str(p).removeprefix(f"{folder / 't.toml'}:") for p in problems(folder, text)]


# What is right.


def test_a_small_file_has_the_defaults_in_all_else(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)

    assert config.workers is None
    assert config.timeouts.idle == 60.0
    assert config.limits.connections == 10_000
    assert config.log.access == "-"
    assert [str(address) for address in config.frontends[0].listen] == ["127.0.0.1:8443"]
    assert config.frontends[0].tls == Tls()
    assert config.frontends[0].hosts == ()
    assert [str(server) for server in config.clusters["app"].servers] == ["127.0.0.1:8080"]


def test_relative_paths_start_from_the_file_s_folder(tmp_path: Path) -> None:
    config = read(tmp_path, f'pidfile = "run/p.pid"\ncontrol = "/c.sock"\n{GOOD}')

    assert config.pidfile == tmp_path / "run" / "p.pid"
    assert config.control == Path("/c.sock")
    assert config.frontends[0].certificates[0].chain == tmp_path / "site.pem"


def test_windows_line_ends_are_line_ends(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace("\n", "\r\n")) == read(tmp_path, GOOD)


# What is wrong: where, what, cure.


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = 'workers = 0\ncontrl = "c"\n[timeouts]\nidle = "long"\n' + GOOD.replace("name", "nam")

    assert told(tmp_path, text) == [
        "1: workers: 0 is out of bounds; write a whole number from 1 to 256",
        "2: contrl: unknown key; did you mean 'control'?",
        "4: timeouts.idle: 'long' is a text; write a number of seconds from 1 to 86400",
        "5: frontend[0]: name is missing; write a name",
        "6: frontend[0].nam: unknown key; did you mean 'name'?",
    ]


def test_problems_come_in_the_file_s_order(tmp_path: Path) -> None:
    """As ConfigError promises: the operator goes through the file once."""
    found = told(tmp_path, f'user = 1\nworkers = 0\nfoo = 1\n{GOOD}[timeouts]\nidle = "x"\n')

    lines = [int(problem.partition(":")[0]) for problem in found]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[frontend]]\n", "1: frontend[0]: name is missing; write a name"),
        ("x = 1\n", "1: x: unknown key; known here: workers, user, pidfile, control, state_dir, log"),
        ("[timeout]\nidle = 1\n", "1: timeout: unknown key; did you mean 'timeouts'?"),
        ("[tiemouts]\n", "1: tiemouts: unknown key; did you mean 'timeouts'?"),
        ("timeouts = 3\n", "1: timeouts: 3 is not a table; write [timeouts]"),
        ("frontend = 3\n", "1: frontend: not a list of tables; write [[frontend]]"),
        ("[frontend]\nname = 'a'\n", "1: frontend: not a list of tables; write [[frontend]]"),
        ("frontend = [3]\n", "1: frontend[0]: 3 is not a table; write [frontend[0]]"),
        ("cluster = 3\n", "1: cluster: not a table; write [cluster.NAME]"),
        ("cluster.app = 3\n", "1: cluster.app: 3 is not a table; write [cluster.app]"),
        ("[cluster.app]\n", "1: cluster.app: servers is missing; write a list"),
        ("[log]\nlevel = 'loud'\n", "2: log.level: unknown value 'loud'; write \"debug\" or"),
        ("workers = true\n", "1: workers: True is a boolean; write a whole number"),
        ("workers = 'many'\n", "1: workers: unknown value 'many'; write \"auto\" or a whole number"),
        ("workers = 1.5\n", "1: workers: 1.5 is a number; write a whole number from 1 to 256"),
        ("[timeouts]\nidle = nan\n", "2: timeouts.idle: nan is out of bounds; write"),
        ("[timeouts]\ndrain = -1\n", "2: timeouts.drain: -1 is out of bounds; write"),
        ("[timeouts]\ndrain = inf\n", "2: timeouts.drain: inf is out of bounds; write"),
    ],
)
def test_a_problem_names_line_key_value_and_cure(tmp_path: Path, text: str, expected: str) -> None:
    found = told(tmp_path, text)

    assert any(problem.startswith(expected) for problem in found), found


def test_findings_of_the_checks_stand_beside_the_loader_s(tmp_path: Path) -> None:
    text = f"zzz = 1\n{GOOD}".replace('cluster = "app"', 'cluster = "ap"')

    assert told(tmp_path, text) == [
        "1: zzz: unknown key; known here: " + ", ".join(keys_of(Config)),
        "5: frontend[0].cluster: there is no cluster 'ap'; did you mean 'app'?",
    ]


def test_an_empty_file_has_no_frontend(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "")

    assert str(problem) == (
        f"{tmp_path / 't.toml'}: the file: no frontend; "
        "write [[frontend]] with name, listen, cluster and certificates"
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.dictionaries(
        st.sampled_from(["workers", "user", "pidfile", "control", "log", "timeouts", "frontend", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["name", "listen", "idle", "access"]), inner)
            ),
            max_leaves=6,
        ),
    )
)
def test_whatever_the_values_are_it_is_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:  # without a cluster nothing can be right
        load(FlagSource(values, {}))

    assert refused.value.problems
    assert all(p.where and p.what for p in refused.value.problems)


# Files that are no configuration at all.


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 'workers = 2\nuser = "x\n')

    assert problem.where == f"{tmp_path / 't.toml'}:2"
    assert problem.what.startswith("not TOML: ")
    assert problem.cure == "mend the syntax"


def test_what_ends_in_the_middle_is_told_without_a_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "a = [")

    assert problem.where.startswith(str(tmp_path / "t.toml"))
    assert problem.what.startswith("not TOML: ")


def test_what_is_not_utf_8_is_told(tmp_path: Path) -> None:
    assert [(p.what, p.cure) for p in problems(tmp_path, b'user = "\xff"\n')] == [
        ("not UTF-8", "TOML files are UTF-8 text")
    ]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; name a file you may read"):
        FileSource.read(tmp_path / "none.toml")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        FileSource.read(tmp_path)


@pytest.mark.parametrize(("size", "refused"), [(FILE_MAX, False), (FILE_MAX + 1, True)])
def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path, size: int, refused: bool) -> None:  # noqa: FBT001
    (tmp_path / "t.toml").write_bytes(b"#" * (size - 1) + b"\n")
    if refused:
        with pytest.raises(ConfigError, match="larger than 1 MiB"):
            FileSource.read(tmp_path / "t.toml")
    else:
        assert FileSource.read(tmp_path / "t.toml").values == {}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"workers = {'9' * 5000}\n", id="a number with more digits than int() reads"),
        pytest.param(f"workers = {'[' * 3000}{']' * 3000}\n", id="lists in lists"),
        pytest.param(f"workers = {'{a=' * 3000}1{'}' * 3000}\n", id="tables in tables"),
    ],
)
def test_what_the_parser_itself_cannot_take_is_a_problem_like_any_other(
    tmp_path: Path, text: str
) -> None:
    """A reload must survive whatever the file holds."""
    assert problems(tmp_path, text)


# Lines.

LINES = '''\
# A comment
workers = 2

user = """
first = "not a key"
"""
[log]
level = "info"

[[frontend]]
# about where
listen = [
  "127.0.0.1:1",  # one
  "127.0.0.1:2",
]
[frontend.tls]
min_version = "1.3"
[[frontend]]
name = "second"
[cluster.a]
servers = 1
[cluster."b.c"]
servers = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("workers",), 2),
        (("log", "level"), 8),
        (("frontend", 0), 10),
        (("frontend", 0, "listen"), 12),
        (("frontend", 0, "listen", 1), 12),
        (("frontend", 0, "tls", "min_version"), 17),
        (("frontend", 1), 18),
        (("frontend", 1, "name"), 19),
        (("cluster", "a", "servers"), 21),
        (("cluster", "b.c", "servers"), 23),
        (("user",), 4),
        (("nothing",), None),
        (("frontend", 2), None),
        (("frontend", "x"), None),
        (("workers", "x"), None),
    ],
)
def test_a_value_s_line_is_that_on_which_its_statement_begins(path: Path_, line: int | None) -> None:
    assert line_of(LINES, path) == line


def test_an_inline_table_stands_on_its_statement_s_line() -> None:
    text = 'a = 1\ncluster = { app = { servers = ["x"] } }\nfrontend = [{ name = "a" }, { name = 3 }]\n'

    assert line_of(text, ("cluster", "app", "servers")) == 2
    assert line_of(text, ("frontend", 1, "name")) == 3


def test_windows_line_ends_count_as_one() -> None:
    assert line_of("a = 1\r\nb = [\r\n 2]\r\nc = 3\r\n", ("c",)) == 4


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_only_toml_s_own_line_ends_are_counted(mark: str) -> None:
    assert line_of(f"# a{mark}b\nworkers = 0\n", ("workers",)) == 2


def test_a_problem_at_the_end_of_a_long_file_is_found_soon() -> None:
    """The master looks for the line, too, at a reload: it must not stand still meanwhile."""
    text = "".join(
        f'[[frontend]]\nname = "f{n}"\nlisten = ["127.0.0.1:{n}"]\ncluster = "c"\n' for n in range(200)
    )
    before = time.process_time()

    assert line_of(text, ("frontend", 199, "cluster")) == 800
    assert time.process_time() - before < 0.25


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), "the file"),
        (("workers",), "workers"),
        (("frontend", 0, "listen"), "frontend[0].listen"),
        (("cluster", "app"), "cluster.app"),
    ],
)
def test_a_path_reads_as_operators_write_it(path: Path_, text: str) -> None:
    assert dotted(path) == text


# Flags.


def test_a_problem_with_a_flag_names_the_flag() -> None:
    source = FlagSource(
        {
            "workers": "x",
            "user": 3,
            "frontend": [{"name": "main", "listen": ["nowhere"], "cluster": "main", "certificates": []}],
            "cluster": {"main": {"servers": ["127.0.0.1:8080"]}},
        },
        {
            ("workers",): "--workers",
            ("frontend", 0, "listen"): "--listen",
            ("cluster", "main"): "--backend",
        },
    )
    with pytest.raises(ConfigError) as refused:
        load(source)

    assert [p.where for p in refused.value.problems] == [
        "--workers",
        "user",
        "--listen",
        "frontend[0].certificates",
    ]
    assert source.where(("cluster", "main", "servers")) == "--backend"


def test_paths_in_flags_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert FlagSource({}, {}).base == tmp_path


def test_absolute_does_not_follow_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors name what the operator wrote."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)

    assert absolute("link/t.toml") == tmp_path / "link" / "t.toml"
    assert absolute(os.fspath(tmp_path / "a" / ".." / "b")) == tmp_path / "b"


def test_another_process_reads_the_same_from_the_values_alone(tmp_path: Path) -> None:
    file = tmp_path / "termproxy.toml"
    file.write_text(
        '[[frontend]]\nname = "a"\nlisten = ["127.0.0.1:1"]\ncluster = "app"\ncertificates = ["a.pem"]\n'
        '[cluster.app]\nservers = ["127.0.0.1:2"]\n[timeouts]\ndrain = 7\n'
    )
    source = FileSource.read(file)

    assert load(PlainSource(source.values, source.base)) == load(source)


def test_values_that_another_process_should_have_checked_are_refused_all_the_same() -> None:
    with pytest.raises(ConfigError) as refused:
        load(PlainSource({"workers": 0}, Path("/")))
    assert any("workers" in str(problem) for problem in refused.value.problems)
