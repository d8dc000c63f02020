"""The plan of a run: what it counts, and that the decisions are those of the fidelity page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from t2sda.cli.main import main
from t2sda.config import load_config
from t2sda.training.decisions import DECISIONS, decisions_in_force
from t2sda.training.plan import plan_text

ROOT = Path(__file__).parents[2]
OF_ANALYSES = {"B34"}
"""Decided by `t2sda analyze`, so no part of a run's plan."""
ROW = re.compile(r"^\| (B\d+) \|", re.MULTILINE)


def rows(name: str) -> list[str]:
    return [row for row, _ in decisions_in_force(load_config(ROOT / "configs" / name))]


def test_there_is_a_decision_for_every_row_of_the_page() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    expected = [row for row in ROW.findall(page) if row not in OF_ANALYSES]
    assert [decision.row for decision in DECISIONS] == expected


def test_every_decision_is_in_force_in_some_shipped_run() -> None:
    names = [
        "gta5_to_cityscapes/t2sda_hrda_mit_b5.yaml",
        "dg/gta5_t2sda_daformer_mit_b5.yaml",
        "ablations/translator/color_jitter.yaml",
    ]
    found = {row for name in names for row in rows(name)}
    assert found == {decision.row for decision in DECISIONS}


def test_source_only_takes_none_of_them() -> None:
    assert rows("gta5_to_cityscapes/source_only_deeplabv2_r101.yaml") == []


def test_what_exact_modes_make_void_is_not_listed() -> None:
    # Every position is a query whatever the strategy, and no negative is drawn.
    void = {"B12", "B32"}
    assert void <= set(rows("gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml"))
    assert not void & set(rows("ablations/readings/exact.yaml"))


def test_the_batch_and_the_images_are_counted_by_hand() -> None:
    # T2S-DA with masked consistency: 4 student passes, a teacher on 2 domains, the frozen encoder.
    cfg = load_config(
        ROOT / "configs/gta5_to_cityscapes/t2sda_mic_daformer_mit_b5.yaml",
        ["SOLVER.BATCH_SIZE", "8", "SOLVER.ACCUMULATION", "2"],
    )
    plan = plan_text(cfg, num_processes=2)
    assert "8 images of each domain a step: 2 process(es) x 2 micro-step(s) x 2" in plan
    assert "56 images through networks a step: student 32, teacher 16, ImageNet encoder 8" in plan


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["META_ARCH.BN_TRACK", "[source, mixed, pull]"], "record source, mixed, pull"),
        (["META_ARCH.TEACHER_NORM", "running"], "BatchNorm with running ones"),
        (["T2SDA.REDUCTION", "query_sum"], "B1   Eq. (3) as T2SDA.REDUCTION query_sum"),
        (["SELF_TRAINING.QUALITY", "image"], "B17  q of (S2): SELF_TRAINING.QUALITY image"),
        (["META_ARCH.PASSES", "[translated_pull, mixed]"], "cross entropy on translated images in"),
        (["META_ARCH.PASSES", "[source_pull, mixed]"], "source image: backbone, head, projector"),
        (["RARE_CLASSES.ENABLED", "true"], "rare classes first"),
        (["REWEIGHTING.APPLY_TO", "target"], "then by their mean over the pixels that count"),
        (["HOOKS.NAMES", "[EmaTeacher]", "EMA.MOMENTUM", "0.5"], "class weights uniform"),
    ],
)
def test_settings_show_in_the_plan(overrides: list[str], expected: str) -> None:
    if "[source_pull, mixed]" in overrides:
        overrides = [*overrides, "TRANSLATION.NAME", ""]
    assert expected in plan_text(load_config("quickstart.yaml", overrides))


def test_show_config_prints_the_plan_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    name = "gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml"
    assert main(["show-config", "--config-file", name, "--plan"]) == 0
    assert capsys.readouterr().out.strip() == plan_text(load_config(name))


def test_the_plan_says_which_datasets_are_drawn_how_often_and_how_they_are_cut() -> None:
    words = [
        *("DATASETS.SOURCE", "[gta5_train, synthia_train]", "DATASETS.SOURCE_WEIGHTS", "[7, 3]"),
        *("DATASETS.TARGET", "[cityscapes_train, acdc_train]"),
        *("DATA.SOURCE_SCALE_RANGE", "[0.9, 1.1]", "DATA.TARGET_SCALE_RANGE", "[1, 1.25]"),
    ]
    path = ROOT / "configs" / "gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml"
    plan = plan_text(load_config(path, words))
    assert "gta5_train (70 %) + synthia_train (30 %) within 720 x 1280, times 0.9 to 1.1," in plan
    assert "windows of 512 x 1024, crops of 512 x 512," in plan
    assert "cityscapes_train + acdc_train within 512 x 1024, times 1 to 1.25, shuffled" in plan
    assert "a window of 512 x 1024 is translated, then cropped" in plan
