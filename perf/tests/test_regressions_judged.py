"""What counts as a regression, and whose figures today's are compared with."""

from pathlib import Path

from guard.judgement import MARGIN, Change, changes, least, middle, store, stored_figures, this_build


def test_dearer_by_more_than_the_margin_is_a_regression() -> None:
    assert Change("load", stored=1000, now=1151).is_regression
    assert not Change("load", stored=1000, now=1150).is_regression
    assert not Change("load", stored=1000, now=10).is_regression
    assert MARGIN == 0.15


def test_a_load_that_nobody_has_counted_is_no_regression() -> None:
    [change] = changes({"another": 1}, {"load": 1000})
    assert (change.stored, change.ratio, change.is_regression) == (None, None, False)


def test_the_middle_one_of_several_counts_is_stored() -> None:
    assert middle([{"load": 10, "other": 1}, {"load": 90, "other": 2}, {"load": 12, "other": 3}]) == {
        "load": 12,
        "other": 2,
    }


def test_of_what_was_counted_again_the_least_is_believed() -> None:
    assert least([{"load": 12, "other": 5}, {"load": 10}, {"load": 11}]) == {"load": 10, "other": 5}


def test_figures_are_stored_for_one_build_of_python_and_compared_with_its_own(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    assert stored_figures(file, "3.11") == {}
    store(file, "3.11", {"requests": 10, "handshakes": 20})
    store(file, "3.13", {"requests": 8})
    store(file, "3.11", {"requests": 11})
    assert stored_figures(file, "3.11") == {"requests": 11, "handshakes": 20}
    assert stored_figures(file, "3.13") == {"requests": 8}
    assert stored_figures(file, "3.12") == {}


def test_a_build_is_more_than_a_version() -> None:
    assert "gevent" in this_build()
    assert "(" in this_build()
