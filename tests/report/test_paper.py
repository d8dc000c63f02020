"""The paper's rows: as printed, and beside the runs that they belong to alone."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from t2sda.config import load_config
from t2sda.config.schema import flat_items
from t2sda.report.paper import PaperRow, paper_row, paper_rows
from t2sda.report.read import plain

REPRODUCING = Path(__file__).parents[2] / "docs/reproducing.md"
ROWS = paper_rows()


def settings_of(config: str, **overrides: Any) -> dict[str, Any]:
    """As the config.yaml of a run has them."""
    cfg = load_config(config, {key.replace("__", "."): v for key, v in overrides.items()})
    return {key: plain(value) for key, value in flat_items(cfg)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.config} {row.dataset}")
def test_classes_average_to_the_printed_mean(row: PaperRow) -> None:
    """A typing error would shift the mean; it is printed with one digit, as the classes are."""
    if not math.isnan(row.mean_iou):
        assert statistics.fmean(row.iou.values()) == pytest.approx(row.mean_iou, abs=0.1)
        assert len(row.iou) == (19 if "gta5" in row.config else 16)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.config} {row.dataset}")
def test_the_page_on_reproducing_has_the_same_mean_for_the_file(row: PaperRow) -> None:
    page, on_source = REPRODUCING.read_text(encoding="utf-8").split("## Table S11")
    pages = (on_source if row.dataset == "gta5_train" else page).splitlines()
    name = re.escape(row.config.removesuffix(".yaml"))
    (line, *_) = [text for text in pages if re.search(rf"\[`{name}`\]", text)]
    if not math.isnan(row.mean_iou):
        assert re.split(r"\s*\|\s*", line)[3].startswith(f"{row.mean_iou:.1f}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.config} {row.dataset}")
def test_a_run_of_the_file_finds_its_row(row: PaperRow) -> None:
    found = paper_row(settings_of(row.config, SEED=3, SOLVER__MAX_ITER=9), row.dataset)
    assert repr(found) == repr(row)  # a mean that is not printed is NaN, which equals nothing


def test_a_mean_over_fewer_classes_says_so() -> None:
    """Beside the mean over 19 it would look 19 / 16 times as good."""
    titles = {row.config: row.title for row in ROWS}
    assert titles["gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml"] == "T2S-DA"
    assert titles["synthia_to_cityscapes/t2sda_daformer_mit_b5.yaml"] == "T2S-DA, 16 classes"
    assert titles["synthia_to_cityscapes/fda_deeplabv2_r101.yaml"] == "FDA, 13 classes"


@pytest.mark.parametrize(
    ("config", "dataset"),
    [
        ("gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml", "acdc_val"),
        ("gta5_to_cityscapes/t2sda_deeplabv2_r101.yaml", "gta5_train"),
        ("gta5_to_cityscapes/mic_daformer_mit_b5.yaml", "cityscapes_val"),
        ("gta5_to_cityscapes/t2sda_mic_daformer_mit_b5.yaml", "cityscapes_val"),
        ("gta5_to_cityscapes/dacs_deeplabv2_r101.yaml", "cityscapes_val"),
        ("dg/gta5_t2sda_daformer_mit_b5.yaml", "cityscapes_val"),
        ("ablations/table_s7/tau_0.5.yaml", "acdc_val"),
        ("quickstart.yaml", "cityscapes_val"),
    ],
)
def test_other_runs_have_none(config: str, dataset: str) -> None:
    assert paper_row(settings_of(config), dataset) is None
