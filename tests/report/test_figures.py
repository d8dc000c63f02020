"""Charts: what they show by hand, and that many of them live in one page of any theme."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from t2sda.report.figures import (
    bar_chart,
    confusion_chart,
    curve_chart,
    mean_curve,
    row_shares,
    thinned,
)
from t2sda.report.read import Group, read_run
from tests.report.folders import entry_of, make_run, scores_of

CONFUSION = np.array([[6, 2, 0], [0, 10, 0], [0, 0, 0]])
CLASSES = ("quay", "<b>&water", "ship")


@pytest.fixture
def groups(tmp_path: Path) -> list[Group]:
    found = []
    for name in ("one", "two"):
        scores = scores_of({"a.png": CONFUSION.tolist()}, classes=CLASSES)
        metrics = [{"iteration": 10 * step, "loss": 1.0 / step} for step in (1, 2, 3)]
        run = make_run(tmp_path / name, [entry_of(scores)], metrics)
        found.append(Group(name, [read_run(run, name)]))
    return found


def charts_of(groups: list[Group]) -> list[str]:
    return [
        curve_chart(groups, "loss", "loss"),
        curve_chart(groups, "loss", "the same curve again"),
        bar_chart(groups, "harbour_val", {"one": {"quay": 50.0}}),
        confusion_chart(CONFUSION, CLASSES, "confusion"),
    ]


def test_shares_of_a_row_by_hand() -> None:
    shares = row_shares(CONFUSION)
    np.testing.assert_allclose(shares[:2], [[0.75, 0.25, 0], [0, 1, 0]])
    assert np.isnan(shares[2]).all()


def test_the_mean_of_curves_is_where_all_of_them_are() -> None:
    curves = [[(10, 1.0), (20, 2.0), (30, 9.0)], [(10, 3.0), (20, 4.0)]]
    assert mean_curve(curves) == [(10, 2.0), (20, 3.0)]


def test_long_curves_become_means_of_neighbours() -> None:
    curve = [(10, 1.0), (20, 3.0), (30, 5.0), (40, 7.0), (50, 9.0)]
    np.testing.assert_allclose(thinned(curve, 2), [[20, 3.0], [45, 8.0]])
    np.testing.assert_allclose(thinned(curve, 5), curve)
    long = [(step, float(step)) for step in range(2001)]
    assert 300 < len(thinned(long)) <= 400


def test_charts_are_whole_named_and_have_the_colors_of_the_page(groups: list[Group]) -> None:
    for chart in charts_of(groups):
        root = ET.fromstring(chart)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "#fe0" not in chart  # the colors that stand for those of the page
        assert "var(--series-" in chart or "var(--heat)" in chart
        assert "<style" not in chart
        assert "font-family" not in chart


def test_no_two_elements_of_a_page_have_one_id(groups: list[Group]) -> None:
    ids = [name for chart in charts_of(groups) for name in re.findall(r' id="([^"]*)"', chart)]
    assert len(ids) == len(set(ids))
    for chart in charts_of(groups):
        used = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', chart)
        assert {a or b for a, b in used} <= set(ids)


def test_a_confusion_chart_has_the_numbers_of_its_cells() -> None:
    chart = confusion_chart(CONFUSION, CLASSES, "confusion")
    texts = [
        "".join(item.itertext()).strip()
        for item in ET.fromstring(chart).iter()
        if "text" in item.tag
    ]
    assert [text for text in texts if text.isdigit()] == ["75", "25", "100"]
    assert texts.count("<b>&water") == 2


def test_names_that_are_long_or_formulas_are_drawn_as_they_are() -> None:
    chart = confusion_chart(CONFUSION, ("$\\alpha$", "x" * 100, "ship"), "confusion")
    assert "$\\alpha$" in chart
    assert "xxx…" in chart


def test_numbers_of_an_axis_keep_their_digits(tmp_path: Path) -> None:
    metrics = [{"iteration": step, "lr": 0.00015 * step} for step in range(4)]
    run = read_run(make_run(tmp_path / "run", metrics=metrics), "run")
    chart = curve_chart([Group("run", [run])], "lr", "learning rate")
    texts = ["".join(item.itertext()).strip() for item in ET.fromstring(chart).iter()]
    rates = {float(text) for text in texts if "0.0" in text and len(text) < 9}
    assert {0.0001, 0.0002, 0.0003, 0.0004} <= rates
