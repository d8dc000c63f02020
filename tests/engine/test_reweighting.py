"""Re-weighting hooks: what they write, for which loss, and which runs they refuse."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.engine.hooks import RunObjects, build_hooks
from t2sda.engine.metrics import JsonLinesWriter, MetricsHook, read_back
from t2sda.engine.reweighting import DynamicReweighting, StaticReweighting
from t2sda.errors import UserError
from t2sda.losses.reweighting import CITYSCAPES_CLASS_WEIGHTS, static_class_weights
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, TeacherOutput
from tests.host_reads import HostReads
from tests.meta_arch.conftest import config_of, make_batch, step_of  # noqa: F401

MakeBatch = Callable[..., DomainBatch]
STATIC = ["HOOKS.NAMES", "[EmaTeacher, StaticReweighting]"]
DYNAMIC = ["HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"]


def three_class_step(batch: DomainBatch, *probs: tuple[float, float, float]) -> Step:
    """Source labels of classes 0 to 2; a target of one row, a pixel for each of `probs`."""
    labels = torch.arange(3).expand_as(batch.source_label[..., :3]).clone()
    step = step_of(dataclasses.replace(batch, source_label=labels))
    target = torch.tensor(probs or ((0.9, 0.05, 0.05), (0.2, 0.6, 0.2)))
    step.teacher = TeacherOutput({TARGET_PROBS: target.T[None, :, None]})  # (1, 3, 1, W)
    return step


def weights_after(hook: DynamicReweighting, *steps: Step) -> np.ndarray:
    for step in steps:
        hook.after_teacher(step)
    assert steps[-1].class_weights is not None
    return steps[-1].class_weights.numpy()


def test_dynamic_weights_follow_the_teacher_by_hand(make_batch: MakeBatch) -> None:  # noqa: F811
    step = three_class_step(make_batch())
    found = weights_after(DynamicReweighting(3, 0.5, unpredicted="largest"), step)
    raw = np.sqrt([0.1, 0.4, 1.0])  # conf = 0 for the class that is never predicted
    np.testing.assert_allclose(found, raw / raw.sum(), rtol=1e-5)
    assert step.target_class_weights is None


def test_a_class_never_predicted_may_get_no_weight(make_batch: MakeBatch) -> None:  # noqa: F811
    step = three_class_step(make_batch())
    found = weights_after(DynamicReweighting(3, 0.5, unpredicted="none"), step)
    # gaps (.1, .4) / .4 -> (.25, 1) ** .5 = (.5, 1)
    np.testing.assert_allclose(found, [1 / 3, 2 / 3, 0.0], rtol=1e-6)


def test_a_class_not_predicted_now_keeps_its_running_confidence(
    make_batch: MakeBatch,  # noqa: F811
) -> None:
    seen = [
        three_class_step(make_batch(), (0.1, 0.1, 0.8)),
        three_class_step(make_batch(), (0.2, 0.2, 0.6)),
        three_class_step(make_batch()),
    ]
    found = weights_after(DynamicReweighting(3, 0.5, unpredicted="running"), *seen)
    raw = np.sqrt([0.1, 0.4, 1 - (0.9 * 0.8 + 0.1 * 0.6)])
    np.testing.assert_allclose(found, raw / raw.sum(), rtol=1e-5)


@pytest.mark.parametrize("unpredicted", ["running", "largest", "none"])
def test_classes_that_the_source_never_shows_leave_the_weights(
    unpredicted: str,
    make_batch: MakeBatch,  # noqa: F811
) -> None:
    step = three_class_step(make_batch())
    step.batch.source_label[step.batch.source_label == 2] = 255
    hook = DynamicReweighting(3, 0.5, unpredicted=unpredicted)
    np.testing.assert_allclose(weights_after(hook, step), [1 / 3, 2 / 3, 0.0], rtol=1e-6)
    hook.after_step(step)
    assert step.deferred_metrics["reweighting/unpredicted"] == 0


def test_metrics_say_what_is_unpredicted_and_what_reaches_the_loss(
    make_batch: MakeBatch,  # noqa: F811
) -> None:
    hook = DynamicReweighting(3, 0.5, unpredicted="largest")
    weights_after(hook, three_class_step(make_batch()))
    step = three_class_step(make_batch())
    step.batch.source_label.fill_(1)  # the source has shown 0 and 2, but not now
    found = weights_after(hook, step)
    hook.after_step(step)
    assert read_back(step.deferred_metrics) == {
        "reweighting/unpredicted": 1.0,
        "reweighting/weight_with_queries": pytest.approx(found[1]),
        **{f"reweighting/weight/{index}": pytest.approx(found[index]) for index in range(3)},
    }


def test_nothing_waits_for_the_device_until_metrics_are_due(
    make_batch: MakeBatch,  # noqa: F811
    tmp_path: Path,
) -> None:
    hook = DynamicReweighting(3, 0.5, class_names=("road", "sky", "car"))
    metrics = MetricsHook([JsonLinesWriter(tmp_path / "metrics.jsonl")], period=2, max_iter=9)
    reads = []
    for iteration in range(2):
        step = dataclasses.replace(three_class_step(make_batch()), iteration=iteration)
        with HostReads() as counter:
            hook.after_teacher(step)
            hook.after_step(step)
            metrics.after_step(step)
        reads.append(counter.reads)
    assert reads == [0, 1], "one wait for all scalars, where a line is written"
    written = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert step.class_weights is not None
    for name, weight in zip(("road", "sky", "car"), step.class_weights.tolist(), strict=True):
        assert written[f"reweighting/weight/{name}"] == pytest.approx(weight, rel=1e-6)


def test_a_resumed_hook_goes_on_with_what_it_knew(make_batch: MakeBatch) -> None:  # noqa: F811
    old, new = (DynamicReweighting(3, 0.5, unpredicted="running") for _ in range(2))
    weights_after(old, three_class_step(make_batch(), (0.1, 0.1, 0.8)))
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    last = three_class_step(make_batch())
    last.batch.source_label.fill_(0)  # what else the source has is known from before
    expected = weights_after(old, dataclasses.replace(last))
    assert expected[1] > 0 and expected[2] > 0  # noqa: PT018
    np.testing.assert_array_equal(weights_after(new, last), expected)


@pytest.mark.parametrize("hook", [DynamicReweighting(3, 1.0, "target"), None])
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


def test_weights_change_the_mixed_loss_by_the_label_and_keep_the_sum_of_its_pixels(
    make_batch: MakeBatch,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    step = step_of(make_batch())
    step.batch.source_label[:, :9] = 255
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    loss_of = meta_arch.student.model.loss

    def recording(features: Any, labels: Any, weight: Any, normalizer: Any) -> torch.Tensor:
        seen.append((labels, weight))
        return loss_of(features, labels, weight, normalizer)

    monkeypatch.setattr(meta_arch.student.model, "loss", recording)
    uniform = torch.full((19,), 1 / 19)
    uneven = torch.arange(1.0, 20.0) / 190
    losses = []
    for step.target_class_weights in (None, uniform, uneven):
        losses.append(meta_arch("mixed", step)["loss_mixed"])
    torch.testing.assert_close(losses[1], losses[0])
    (labels, plain), _, (_, weighted) = seen
    counted = labels != 255
    torch.testing.assert_close(weighted.sum(), plain[counted].sum())
    ratio = (weighted / plain)[counted & (plain > 0)]
    expected = uneven[labels[counted & (plain > 0)]]
    torch.testing.assert_close(ratio / ratio.mean(), expected / expected.mean())


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
    cfg = config_of("SelfTraining", *DYNAMIC, "REWEIGHTING.APPLY_TO", "target")
    assert cfg.REWEIGHTING.APPLY_TO == "target"
