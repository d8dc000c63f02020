"""Two gloo processes with half the batch each give the numbers of one with the whole batch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from t2sda.distributed import own_share, world_size
from t2sda.engine.trainer import Trainer
from t2sda.structures import DomainBatch, Step
from tests.distributed import environments, on_two_ranks
from tests.integration.conftest import ROOT, TINY_CONFIG, environment
from tests.meta_arch.conftest import config_of
from tests.processes import end_of, start_t2sda
from tests.training import noise_batch, trainer_of

T2SDA_KEYS = """
META_ARCH: {NAME: T2SDA}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
"""


def train(config: Path, run: Path, environments: Sequence[Mapping[str, str]]) -> None:
    """In a process for each environment."""
    words = ("train", "--config-file", config, "--output-dir", run)
    started = []
    for rank, own in enumerate(environments):
        output = config.with_name(f"{run.name}_rank{rank}")
        output.mkdir()
        started.append((start_t2sda(words, ROOT, {**environment(), **own}, output), output))
    for process, output in started:
        assert end_of(process) == 0, (output / "stderr").read_text()


# T2S-DA holds the source pass; source only by itself is the shorter half of the same.
@pytest.mark.parametrize("method", [pytest.param("source_only", marks=pytest.mark.slow), "t2sda"])
def test_two_ranks_train_as_one(tmp_path: Path, method: str) -> None:
    config = tmp_path / "config.yaml"
    text = TINY_CONFIG.replace("MAX_ITER: 12", "MAX_ITER: 4").replace(
        "BATCH_SIZE: 2", "BATCH_SIZE: 4"
    )
    # Adam would turn rounding in a gradient near 0 into a step of the full rate.
    text = text.replace("BASE_LR: 1.0e-3", "BASE_LR: 1.0e-2, OPTIMIZER: sgd")
    # Dropout draws one mask a process; BatchNorm is taken over all ranks, so it may stay on.
    text = text.replace("HEAD: {CHANNELS: 16}", "HEAD: {CHANNELS: 16, DROPOUT: 0.0}")
    if method == "t2sda":
        text = text.replace(
            "DATASETS: {SOURCE: streets_clear_train}",
            "DATASETS: {SOURCE: streets_clear_train, TARGET: streets_hazy_train}",
        )
        text += T2SDA_KEYS
    config.write_text(text)
    train(config, tmp_path / "one", [{}])
    train(config, tmp_path / "two", environments())
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        for name in first:
            if name.startswith("loss_"):
                assert second[name] == pytest.approx(first[name], rel=2e-4), name
    states = [
        torch.load(tmp_path / name / "checkpoint_0000004.pth", weights_only=True)["meta_arch"]
        for name in ("one", "two")
    ]
    for name, expected in states[0].items():
        torch.testing.assert_close(
            states[1][name], expected, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


FROZEN = [
    *("MODEL.NORM", "frozen", "HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"),
    # Plain descent: Adam would turn the rounding of a gradient near 0 into a step.
    *("SOLVER.OPTIMIZER", "sgd", "SOLVER.MOMENTUM", "0.0", "SOLVER.WEIGHT_DECAY", "0.0"),
    *("SOLVER.BASE_LR", "1e-3", "SOLVER.HEAD_LR_FACTOR", "1.0", "SOLVER.WARMUP_ITERS", "0"),
]
VARIANTS = {
    "T2S-DA": [],
    "exact query sum": [
        *("T2SDA.QUERY_DRAW", "exact", "T2SDA.NEGATIVE_DRAW", "exact"),
        *("T2SDA.REDUCTION", "query_sum", "T2SDA.NEGATIVE_STRATEGY", "union"),
    ],
    "source to target": [
        *("META_ARCH.PASSES", "[source_pull, mixed]", "TRANSLATION.NAME", ""),
        *("T2SDA.POSITIVES", "target", "REWEIGHTING.APPLY_TO", "target"),
    ],
    "HRDA with masked consistency": [
        *("META_ARCH.PASSES", "[source, mixed, pull, masked]", "MASKED.BLOCK_SIZE", "16"),
        *("MODEL.NAME", "HRDA", "MODEL.HRDA.DETAIL_SIZE", "[32, 48]"),
    ],
    "adapters": [
        *("MODEL.NORM", "batch", "MODEL.BACKBONE.NAME", "TimmViT"),
        *("MODEL.BACKBONE.TIMM_NAME", "test_vit", "MODEL.BACKBONE.PYRAMID_CHANNELS", "8"),
        *("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.RANK", "4"),
        *("MODEL.BACKBONE.ADAPTER.FROM_BLOCK", "2", "MODEL.BACKBONE.ADAPTER.INIT", "smallest"),
    ],
}
NUM_IMAGES = 4
"""Images of the whole mini-batch."""


def mini_batch(iteration: int) -> DomainBatch:
    """Class 18 is on the first rank's images only, class 17 on the second's, some have no label."""
    batch = noise_batch(NUM_IMAGES, seed=iteration, num_classes=17)
    batch.source_label[0, :32, :40] = 18
    batch.source_label[3, 16:48, :40] = 17
    batch.source_label[1, :, 64:] = 255
    return batch


def own_part(batch: DomainBatch) -> DomainBatch:
    """The images of this rank."""
    share = own_share(NUM_IMAGES // world_size())
    fields = {item.name: getattr(batch, item.name) for item in dataclasses.fields(batch)}
    return DomainBatch(**{n: None if v is None else v[share] for n, v in fields.items()})


def trained(_: int = 0) -> dict[str, Any]:
    """Losses and weights of every variant after two steps, on this rank's part of the batch."""
    return {name: train_variant(overrides) for name, overrides in VARIANTS.items()}


def train_variant(overrides: list[str]) -> dict[str, Any]:
    trainer = trainer_of(config_of("T2SDA", *FROZEN, *overrides))
    losses = [losses_of(trainer, iteration) for iteration in range(2)]
    return {"losses": losses, "state": trainer.meta_arch.state_dict()}


def losses_of(trainer: Trainer, iteration: int) -> dict[str, float]:
    seen: list[Step] = []
    hook = trainer.hooks[0]
    after_step = type(hook).after_step

    def record(step: Step) -> None:
        seen.append(step)
        after_step(hook, step)

    hook.after_step = record  # type: ignore[method-assign]
    trainer.run_step(iteration, iter([own_part(mini_batch(iteration))]))
    return {name: value for name, value in seen[0].metrics.items() if name != "lr"}


def test_two_ranks_step_as_one_with_classes_on_one_rank_only(tmp_path: Path) -> None:
    whole = trained()
    for found in on_two_ranks(trained, tmp_path):
        for name, expected in whole.items():
            for ours, theirs in zip(found[name]["losses"], expected["losses"], strict=True):
                assert ours == pytest.approx(theirs, rel=2e-5), name
            for key, value in expected["state"].items():
                torch.testing.assert_close(
                    found[name]["state"][key],
                    value,
                    rtol=1e-4,
                    atol=2e-6,
                    msg=lambda m, n=name, k=key: f"{n}: {k}: {m}",
                )
