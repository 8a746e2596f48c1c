"""`check` and `config dump` look at a configuration and serve nothing."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from termproxy.cli.config import check
from termproxy.config.load import FileSource, load
from termproxy.master import landlock
from tests.conftest import Serve, write_site
from tests.support.command import termproxy
from tests.support.server import settings, write_toml

NOWHERE = "127.0.0.1:9"


def config_file(folder: Path, site: Path, **changes: object) -> Path:
    file = folder / "termproxy.toml"
    file.write_text(write_toml(settings(site, [NOWHERE], **changes)))
    return file


def test_check_says_that_a_good_configuration_is_fine(tmp_path: Path, site: Path) -> None:
    file = config_file(tmp_path, site)
    result = termproxy("check", "-c", str(file))
    assert (result.returncode, result.stdout) == (0, f"{file}: fine\n")
    assert {entry.name for entry in tmp_path.iterdir()} == {"termproxy.toml"}


def test_check_of_a_running_servers_file_disturbs_it_not(serve: Serve) -> None:
    with serve(NOWHERE) as server:
        assert termproxy("check", "-c", str(server.file)).returncode == 0
        assert server.is_answering()


def test_check_warns_of_an_expired_certificate_and_passes(ca: trustme.CA, tmp_path: Path) -> None:
    then = datetime.now(UTC) - timedelta(days=1)
    expired = write_site(ca, tmp_path / "expired.pem", not_after=then)
    result = termproxy("check", "-c", str(config_file(tmp_path, expired)))
    assert result.returncode == 0
    assert f"warning: {expired}: the certificate expired on" in result.stderr


def test_a_deep_check_tells_what_the_kernel_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Path
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.chdir(tmp_path)
    file = config_file(tmp_path, site)
    for deep, times in ([], 0), (["--deep"], 1):
        result = CliRunner().invoke(check, ["-c", str(file), *deep])
        assert result.exit_code == 0
        assert result.stderr.count("warning: this kernel has no Landlock") == times


def test_check_tells_every_problem_a_line_each(tmp_path: Path, site: Path) -> None:
    file = config_file(tmp_path, site, workers=0, colour="red", timeouts={"idle": 0})
    result = termproxy("check", "-c", str(file))
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"termproxy: {file}:") for line in lines)


def test_check_refuses_what_is_not_toml_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "termproxy.toml"
    file.write_text("workers = 1\nuser = = 1\n")
    result = termproxy("check", "-c", str(file))
    assert result.returncode == 1
    assert f"termproxy: {file}:2: not TOML" in result.stderr


def test_check_refuses_what_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "termproxy.toml"
    file.write_bytes(b"\xff\xfe\x00")
    result = termproxy("check", "-c", str(file))
    assert result.returncode == 1
    assert "not UTF-8" in result.stderr


def test_the_dump_is_a_configuration_that_says_the_same(tmp_path: Path, site: Path) -> None:
    file = config_file(tmp_path, site, workers=3, timeouts={"idle": 90.5})
    result = termproxy("config", "dump", "-c", str(file))
    assert result.returncode == 0
    again = tmp_path / "again.toml"
    again.write_text(result.stdout)
    assert load(FileSource.read(again)) == load(FileSource.read(file))


def test_the_dump_shows_numbers_as_exactly_as_they_are(tmp_path: Path, site: Path) -> None:
    file = config_file(tmp_path, site, timeouts={"idle": 3600.125})
    dumped = tomllib.loads(termproxy("config", "dump", "-c", str(file)).stdout)
    assert dumped["timeouts"]["idle"] == 3600.125


def test_the_dump_tells_where_each_value_came_from(tmp_path: Path, site: Path) -> None:
    said = termproxy("config", "dump", "-c", str(config_file(tmp_path, site, user=""))).stdout
    assert f"workers = 1  # {tmp_path}/termproxy.toml:1: workers\n" in said
    assert 'mode = "tcp"  # default\n' in said


def test_relative_paths_start_from_the_files_folder(ca: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_site(ca, tmp_path / "conf" / "site.pem")
    config_file(tmp_path / "conf", Path("site.pem"))
    result = termproxy("check", "-c", "../conf/termproxy.toml", cwd=tmp_path / "elsewhere")
    assert result.returncode == 0, result.stderr


def test_the_shipped_reference_is_valid_but_for_its_certificate(tmp_path: Path) -> None:
    reference = Path(__file__).parents[2] / "conf" / "termproxy.toml"
    result = termproxy("check", "-c", str(reference))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2
    assert "certs/*.pem" in result.stderr
    assert "site.crt" in result.stderr
