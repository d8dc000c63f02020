"""Re-weighting hooks: what they write, for which loss, and which runs they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.engine.hooks import RunObjects, build_hooks
from t2sda.engine.reweighting import DynamicReweighting, StaticReweighting
from t2sda.errors import UserError
from t2sda.losses.reweighting import CITYSCAPES_CLASS_WEIGHTS, static_class_weights
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, TeacherOutput
from tests.meta_arch.conftest import config_of, make_batch, step_of  # noqa: F401

MakeBatch = Callable[..., DomainBatch]
STATIC = ["HOOKS.NAMES", "[EmaTeacher, StaticReweighting]"]
DYNAMIC = ["HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"]


def three_class_step(batch: DomainBatch) -> Step:
    """Class 0 is predicted with 0.9, class 1 with 0.6, class 2 never."""
    probs = torch.zeros(1, 3, 1, 2)
    probs[0, :, 0, 0] = torch.tensor([0.9, 0.05, 0.05])
    probs[0, :, 0, 1] = torch.tensor([0.2, 0.6, 0.2])
    step = step_of(batch)
    step.teacher = TeacherOutput({TARGET_PROBS: probs})
    return step


def test_dynamic_weights_follow_the_teacher_by_hand(make_batch: MakeBatch) -> None:  # noqa: F811
    step = three_class_step(make_batch())
    DynamicReweighting(0.5).after_teacher(step)
    raw = np.sqrt([0.1, 0.4, 1.0])  # conf = 0 for the class that is never predicted
    assert step.class_weights is not None
    np.testing.assert_allclose(step.class_weights, raw / raw.sum(), rtol=1e-5)
    assert step.target_class_weights is None


def test_a_class_never_predicted_may_get_no_weight(make_batch: MakeBatch) -> None:  # noqa: F811
    step = three_class_step(make_batch())
    DynamicReweighting(0.5, unpredicted="none").after_teacher(step)
    # gaps (.1, .4) / .4 -> (.25, 1) ** .5 = (.5, 1)
    assert step.class_weights is not None
    torch.testing.assert_close(step.class_weights, torch.tensor([1 / 3, 2 / 3, 0.0]))


@pytest.mark.parametrize("hook", [DynamicReweighting(1.0, "target"), None])
def test_weights_of_the_target_loss_go_to_the_target_loss(
    make_batch: MakeBatch,  # noqa: F811
    hook: DynamicReweighting | None,
) -> None:
    step = three_class_step(make_batch())
    (hook or StaticReweighting(static_class_weights(), "target")).after_teacher(step)
    assert step.class_weights is None
    assert step.target_class_weights is not None
    assert step.target_class_weights.sum().item() == pytest.approx(1, abs=1e-6)


def test_static_weights_are_those_of_the_supplement(make_batch: MakeBatch) -> None:  # noqa: F811
    cfg = config_of("T2SDA", *STATIC)
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19)
    hook = build_hooks(cfg, RunObjects(meta_arch, Path()))["StaticReweighting"]
    step = step_of(make_batch())
    hook.after_teacher(step)
    expected = np.array(CITYSCAPES_CLASS_WEIGHTS) / sum(CITYSCAPES_CLASS_WEIGHTS)
    assert step.class_weights is not None
    np.testing.assert_allclose(step.class_weights, expected, rtol=1e-6)


def test_static_weights_refuse_other_classes() -> None:
    cfg = config_of("T2SDA", *STATIC)
    twelve = Taxonomy("twelve", tuple("abcdefghijkl"), ((0, 0, 0),) * 12)
    meta_arch = build_meta_arch(cfg, twelve)
    with pytest.raises(UserError, match=r"StaticReweighting .* 19 .* has 12 classes; use Dynamic"):
        build_hooks(cfg, RunObjects(meta_arch, Path()))


def test_weights_change_the_mixed_loss_by_the_label_of_the_mixed_image(
    make_batch: MakeBatch,  # noqa: F811
) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    step = step_of(make_batch())
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    plain = meta_arch("mixed", step)["loss_mixed"]
    step.target_class_weights = torch.full((19,), 1 / 19)
    torch.testing.assert_close(meta_arch("mixed", step)["loss_mixed"], plain)
    # All the weight on one class: the classes' losses add up to the whole.
    parts = []
    for c in range(19):
        step.target_class_weights = torch.nn.functional.one_hot(torch.tensor(c), 19).float()
        parts.append(meta_arch("mixed", step)["loss_mixed"] / 19)
    torch.testing.assert_close(torch.stack(parts).sum(), plain)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "T2SDA",
            ["HOOKS.NAMES", "[EmaTeacher, DynamicReweighting, StaticReweighting]"],
            "DynamicReweighting, StaticReweighting write the same weights",
        ),
        ("SelfTraining", STATIC, "StaticReweighting has no loss to weigh"),
        (
            "T2SDA",
            [*DYNAMIC, "META_ARCH.PASSES", "[source, pull]", "REWEIGHTING.APPLY_TO", "target"],
            "no pass weighs the target's classes; add mixed",
        ),
        (
            "T2SDA",
            [
                *(*DYNAMIC, "META_ARCH.PASSES", "[source, pull]", "DATASETS.TARGET", ""),
                *("TRANSLATION.NAME", "RandomStyleFDA", "T2SDA.NEGATIVE_STRATEGY", "source"),
            ],
            "DATASETS.TARGET: empty, but read by DynamicReweighting",
        ),
        ("T2SDA", ["REWEIGHTING.APPLY_TO", "target"], "REWEIGHTING.APPLY_TO .*no effect"),
        ("T2SDA", [*STATIC, "REWEIGHTING.UNPREDICTED", "none"], "UNPREDICTED .*no effect"),
    ],
)
def test_runs_without_use_for_the_weights_are_refused(
    name: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(name, *overrides)


def test_the_target_loss_may_be_weighted_without_a_pull_loss() -> None:
    config_of("SelfTraining", *DYNAMIC, "REWEIGHTING.APPLY_TO", "target")
