"""The cost model: forwards counted by hand, operations and bytes by laws, a line by two points."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import t2sda.builtin  # noqa: F401  (fills the registries)
from benchmarks.scaling import Cost, Forward, cost_of, counted, forwards_of, line_through
from t2sda.config import load_config

MODELS = Path(__file__).parents[1] / "docs/models.md"
TINY = {"MODEL.BACKBONE.TIMM_NAME": "test_resnet", "MODEL.BACKBONE.WEIGHTS": ""}
SMALL = {"DATA.CROP_SIZE": [64, 96]}


def cost(config: str, **changes: object) -> Cost:
    return cost_of(load_config(config, {**SMALL, **changes}))


def test_forwards_of_t2sda_are_those_of_its_plan() -> None:
    cfg = load_config("gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml")
    # section 3 of the paper: the teacher sees both domains, the student has three passes
    assert [(each.who, each.networks) for each in forwards_of(cfg)] == [
        ("teacher", ("backbone", "projector")),
        ("teacher", ("backbone", "projector", "head")),
        ("student", ("backbone", "head")),
        ("student", ("backbone", "head")),
        ("student", ("backbone", "projector")),
        ("ImageNet", ("backbone",)),
    ]


def test_source_only_is_one_pass_of_the_student() -> None:
    found = cost("quickstart_source_only.yaml", **TINY)
    assert found.forwards == (Forward("student", "source image", ("backbone", "head")),)
    assert found.gathered == 0


def test_operations_are_those_of_another_counter() -> None:
    row = re.search(r"^\| `light` \|.*", MODELS.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    gmacs = float(row[0].split(" | ")[-2])  # of 512 x 1024, counted by fvcore
    found = cost("quickstart_source_only.yaml", **{"DATA.CROP_SIZE": [512, 1024]})
    # two images; a multiplication and an addition; a forward and its backward
    assert found.operations == pytest.approx(2 * 2 * 3 * gmacs * 1e9, rel=0.01)


def test_kept_bytes_grow_with_the_pixels() -> None:
    small, large = (
        cost("quickstart_source_only.yaml", **TINY, **{"DATA.CROP_SIZE": crop})
        for crop in ([64, 96], [128, 96])
    )
    # what is kept of pooled features and of statistics does not grow
    assert large.kept == pytest.approx(2 * small.kept, rel=0.03)
    assert large.held == small.held


def test_costs_of_t2sda_by_hand() -> None:
    cfg = load_config("quickstart.yaml", {**SMALL, **TINY})
    found, network = cost_of(cfg), counted(cfg)
    # stride 32 of crops of 64 x 96: 2 x 3 cells, 2 images, 2 domains, 256 floats and a label each
    assert found.gathered == 2 * 2 * 6 * (4 * 256 + 8)
    # weights, gradients, two moments, and a teacher of the same size
    assert found.held == 5 * found.reduced
    # teacher: h g, h g f; student: three times h f, h f, h g
    h = network.operations(("backbone",), trained=False)
    f = network.operations(("backbone", "head"), trained=False) - h
    g = network.operations(("backbone", "projector"), trained=False) - h
    assert found.operations == pytest.approx(11 * h + 7 * f + 5 * g)


def test_line_through_two_points() -> None:
    overhead, rate = line_through([1e9, 3e9], [0.3, 0.7])
    assert (overhead, rate) == (pytest.approx(0.1), pytest.approx(5e9))
