"""Short runs from the command line: reloads lose nothing, and what is lost is noticed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comparison.processes import free_port
from loading.server import make_site

pytestmark = [
    # Not imported here: it patches whatever imports it.
    pytest.mark.skipif(not importlib.util.find_spec("locust"), reason="needs locust"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]

PERF = Path(__file__).resolve().parents[1]


def load(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loading", *arguments, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": str(PERF)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_people_lose_nothing_while_the_server_is_reloaded(tmp_path: Path) -> None:
    arguments = ("--users", "16", "--seconds", "6", "--reload-every", "1.5", "--kill-every", "0")
    done = load(tmp_path, "storm", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "storm.json").read_text())
    assert told["problems"] == told["lost"] == []
    assert told["served"]["generations"] > 1
    # Each side counted the same handshakes.
    counted = sum(told["served"]["handshakes"].values())
    assert counted == sum(count for _, _, count in told["handshakes"]) > 0
    assert (tmp_path / "storm.html").exists()
    assert (tmp_path / "storm_stats.csv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is told a worker's connections")
def test_a_killed_worker_takes_its_own_connections_along_and_no_others(tmp_path: Path) -> None:
    arguments = ("--users", "16", "--seconds", "6", "--reload-every", "0", "--kill-every", "1.5")
    done = load(tmp_path, "storm", "--mode", "tcp", "--processes", "2", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "storm.json").read_text())
    assert told["lost"] == []
    kills = told["served"]["kills"]
    assert len(kills) >= 2
    clients = {client for kill in kills for client in kill["clients"]}
    assert clients
    assert {each["client"] for each in told["killed"] + told["again_killed"]} <= clients


def test_nobody_there_is_a_loss_of_everything(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    ca = str(make_site(site).certificates["ecdsa"].chain)
    host = f"https://localhost:{free_port()}"
    done = load(tmp_path, "steady", "--users", "2", "--seconds", "1", "--host", host, "--ca", ca)
    assert done.returncode == 1
    assert "operations were lost" in done.stdout
    lost = json.loads((tmp_path / "steady.json").read_text())["lost"]
    assert {each["loss"] for each in lost} == {"refused"}
