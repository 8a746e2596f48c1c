"""How a run is told: one table for both modes, one page that needs no other file."""

import re

from comparison.introductions import Introduction, read_group
from comparison.loads import CPU, Load
from comparison.page import page
from comparison.report import Result, as_json, doubts, headings, lines
from comparison.rounds import Measurement, Plan
from comparison.scale import SCALE_LOADS
from comparison.summary import rows, verdicts
from comparison.wrk import Wrk

ONE = Load(name="one", title="one worker", tool=Wrk(path="/", connections=1), shows=(CPU,))
TWO = Load(
    name="two", title="two <workers>", tool=Wrk(path="/", connections=1), shows=(CPU,), grows_from="one"
)
MODES = {"tcp": ["ours", "hitch", "nginx-stream"], "http": ["ours-http", "nginx-http"]}
COLUMNS = {
    "ours": "ours",
    "hitch": "hitch",
    "nginx-stream": "nginx",
    "ours-http": "ours",
    "nginx-http": "nginx",
}


def result(**more: float) -> Result:
    """Each server's CPU is 10 µs, and 15 with two; hitch has no valid figure for two."""
    measurements = [
        Measurement(round=0, load=load.name, server=server, problem="broken")
        if (load, server) == (TWO, "hitch")
        else Measurement(round=0, load=load.name, server=server, figures={"cpu": cpu, **more})
        for server in COLUMNS
        for load, cpu in ((ONE, 10e-6), (TWO, 15e-6))
    ]
    summary = [
        row for mode, servers in MODES.items() for row in rows(measurements, [ONE, TWO], servers, mode)
    ]
    return Result(
        machine={"CPU": "<fast>"},
        plan=Plan(rounds=1, seconds=1, fresh_rounds=1),
        columns=COLUMNS,
        introductions={name: Introduction("1.0", "OpenSSL 3.0", "TLSv1.3") for name in COLUMNS},
        measurements=measurements,
        rows=summary,
        verdicts=verdicts(summary),
    )


def test_the_same_programs_modes_share_a_column() -> None:
    assert headings(result()) == ["ours", "hitch", "nginx"]
    tcp, *_, http, _, _ = lines(result())
    assert (tcp.mode, tcp.figures, tcp.ratios) == ("tcp", ["10.0", "10.0", "10.0"], ["1.00", "1.00"])
    assert (http.mode, http.figures, http.ratios) == ("http", ["10.0", "", "10.0"], ["", "1.00"])


def test_growth_divides_each_server_by_itself() -> None:
    growth = [line for line in lines(result()) if line.label.startswith("growth")]
    assert [line.figures for line in growth] == [["1.50", "invalid", "1.50"], ["1.50", "", "1.50"]]


def test_a_figure_that_is_missing_for_a_reason_is_called_invalid() -> None:
    two = next(line for line in lines(result()) if line.title == TWO.title)
    assert two.figures == ["15.0", "invalid", "15.0"]


def test_a_page_has_its_chart_in_it_and_asks_for_no_other_file() -> None:
    text = "\n".join(page(result(), b"\x89PNG"))
    assert 'src="data:image/png;base64,iVBORw=="' in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "two &lt;workers&gt;" in text
    assert "&lt;fast&gt;" in text
    assert "invalid: round 1, two, hitch: broken" in text


def test_the_figures_tell_their_mode() -> None:
    assert [row["mode"] for row in as_json(result())["summary"]] == ["tcp"] * 3 + ["http"] * 3


def test_a_load_that_was_late_itself_is_doubted() -> None:
    assert doubts(result(p99=1e-3, late_p99=0.4e-3)) == []
    [doubt] = doubts(result(p99=1e-3, late_p99=0.6e-3))
    assert doubt.startswith("In 9 measurements of latency the load itself was late")


def test_the_key_exchange_is_read_from_old_and_new_versions() -> None:
    assert read_group("---\nServer Temp Key: X25519, 253 bits\n---") == "X25519"
    new = "Negotiated TLS1.3 group: X25519MLKEM768\n"
    assert read_group(f"Peer Temp Key: X25519, 253 bits\n{new}") == "X25519MLKEM768"
    assert read_group("CONNECTED(00000003)") == "unknown group"


def test_scale_shows_how_the_first_quantity_grows() -> None:
    assert {load.shows[0].name for load in SCALE_LOADS} == {"cpu"}
