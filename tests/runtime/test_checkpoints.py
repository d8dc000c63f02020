"""Networks from nothing but a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.errors import UserError
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from tests.deployed import shared_checkpoint, street


def changed(source: Path, target: Path, change: Any) -> Path:
    """A copy of a checkpoint whose content `change` has altered."""
    content = torch.load(source, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_checkpoint(tmp_path_factory)


def test_the_student_in_evaluation_mode(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    model = model_of_checkpoint(checkpoint)
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint.meta_arch[f"student.model.{name}"])


def test_no_pretrained_file_is_needed(source: Path, tmp_path: Path) -> None:
    def name_a_missing_file(content: dict[str, Any]) -> None:
        content["config"]["MODEL"]["BACKBONE"]["WEIGHTS"] = "/nowhere/imagenet.pth"

    checkpoint = open_checkpoint(changed(source, tmp_path / "c.pth", name_a_missing_file))
    assert model_of_checkpoint(checkpoint).num_classes == 19
    assert checkpoint.cfg.MODEL.BACKBONE.WEIGHTS == "/nowhere/imagenet.pth"  # still what it was


def test_the_teacher_where_there_is_one(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no teacher; SourceOnly trains without"):
        model_of_checkpoint(open_checkpoint(source), "teacher")

    def add_a_teacher(content: dict[str, Any]) -> None:
        content["meta_arch"] |= {
            name.replace("student.", "teacher.", 1): torch.ones_like(tensor)
            for name, tensor in content["meta_arch"].items()
        }

    checkpoint = open_checkpoint(changed(source, tmp_path / "c.pth", add_a_teacher))
    teacher = model_of_checkpoint(checkpoint, "teacher")
    assert all((parameter == 1).all() for parameter in teacher.parameters())


def test_components_of_the_user_s_own(source: Path, tmp_path: Path) -> None:
    def use_own_backbone(content: dict[str, Any]) -> None:
        content["config"]["MODEL"]["BACKBONE"] = {"NAME": "HarbourNet"}

    def use_own_setting(content: dict[str, Any]) -> None:
        content["config"]["MODEL"]["HEAD"]["DEPTH"] = 3

    for change in (use_own_backbone, use_own_setting):
        path = changed(source, tmp_path / "own.pth", change)
        with pytest.raises(UserError, match=r"own\.pth(.|\n)*give the same --plugin here"):
            model_of_checkpoint(open_checkpoint(path))


def test_a_method_of_the_user_s_own_is_not_needed_once_it_has_trained(
    source: Path, tmp_path: Path
) -> None:
    def use_own_method(content: dict[str, Any]) -> None:
        config = content["config"]
        config["HARBOUR"] = {"DEPTH": 3}
        config["META_ARCH"] |= {"NAME": "Harbour", "PASSES": ["source", "harbour"], "TIDE": 2}
        config["HOOKS"]["NAMES"] = ["Lighthouse"]
        config["EVALUATION"]["IMAGE_SIZE"] = [64, 96]
        content["meta_arch"]["discriminator.weight"] = torch.ones(3)

    path = changed(source, tmp_path / "own.pth", use_own_method)
    model, plain = load_model(path), load_model(source)
    assert model.letterbox.bound == (64, 96)
    small = street((64, 96))
    assert np.array_equal(model.predict(small), plain.predict(small))
    output = tmp_path / "own.onnx"
    assert main(["export", "onnx", str(path), "--output", str(output), "--dynamic"]) == 0
    # At the size that was scored nothing is resized: rounding alone may tip a label.
    assert (load_model(output).predict(small) == model.predict(small)).mean() > 0.999


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    source: Path, tmp_path: Path, value: float
) -> None:
    def damage(content: dict[str, Any]) -> None:
        content["meta_arch"]["student.model.head.classifier.weight"].flatten()[7] = value

    with pytest.raises(UserError, match=r"student\.model\.head\.classifier\.weight' hold NaN or"):
        load_model(changed(source, tmp_path / "c.pth", damage))


def test_logits_that_are_no_numbers_are_no_labels(source: Path, tmp_path: Path) -> None:
    """Each weight is a number; what the network makes of them is not."""

    def enlarge(content: dict[str, Any]) -> None:
        for name, tensor in content["meta_arch"].items():
            if name.endswith(".weight"):
                tensor.mul_(1e30)

    predictor = load_model(changed(source, tmp_path / "large.pth", enlarge))
    for label in (predictor.predict, predictor.logits, predictor.probabilities):
        with pytest.raises(UserError, match=r"large\.pth: gives logits that are no finite numbers"):
            label(street((64, 128)))


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    for content in (b"hello", b"", b"PK\x03\x04 half a zip"):
        (tmp_path / "c.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"c\.pth: not a .*checkpoint"):
            open_checkpoint(tmp_path / "c.pth")
