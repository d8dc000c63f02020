"""Two steps of every combination of `combinations_page` that the schema takes, on tiny networks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from benchmarks.combinations_page import METHODS, TABLES, Changes, Option, answer, combined
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from tests.training import SIZE, noise_batch, trainer_of

SMALL = {
    "DATA.CROP_SIZE": str(list(SIZE)),
    "MODEL.BACKBONE.TIMM_NAME": "test_resnet",
    "SOLVER.MAX_ITER": "4",
    "SOLVER.WARMUP_ITERS": "0",
    "EVALUATION.PERIOD": "0",
}
TINY: dict[str, Changes] = {
    "DeepLabV2": {"MODEL.BACKBONE.DEPTH": "18"},
    "DeepLabV2, corners aligned": {"MODEL.BACKBONE.DEPTH": "18"},
    "DAFormer, MiT": {"MODEL.BACKBONE.VARIANT": "b0"},
    "SegFormer, MiT": {"MODEL.BACKBONE.VARIANT": "b0"},
    **{
        title: {"MODEL.BACKBONE.TIMM_NAME": "test_vit"}
        for title in TABLES["networks"]
        if title.endswith("ViT")
    },
}
"""The smallest of the networks that are not the default one; their weights are random."""


def failures() -> Iterator[str]:
    """What went wrong, one line a combination."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(TimmCNN("test_resnet").net.state_dict(), weights)
        for name in METHODS:
            for options in TABLES.values():
                for title, option in options.items():
                    if answer(name, option) == "yes":
                        yield from _failure(name, title, option, str(weights))


def _failure(name: str, title: str, option: Option, weights: str) -> Iterator[str]:
    """The error of two steps, if there is one."""
    small = dict(SMALL) | {"MODEL.BACKBONE.WEIGHTS": weights}
    if title in TINY:
        del small["MODEL.BACKBONE.TIMM_NAME"]
        small |= TINY[title] | {"MODEL.BACKBONE.WEIGHTS": ""}
    if ("MIC" in name or "MIC" in title) and "tokens" not in title:
        small["MASKED.BLOCK_SIZE"] = "16"
    if title == "HRDA around it":
        small |= {"MODEL.HRDA.DETAIL_SIZE": "[32, 48]", "MODEL.HRDA.WINDOW_SIZE": "[64, 96]"}
    try:
        step_twice(combined(name, option, small))
    except Exception as error:  # whatever it is, it is what the page must not say
        yield f"{name} + {title}: {type(error).__name__}: {error}"


def step_twice(cfg: CfgNode) -> None:
    """Two iterations of a run with a batch of noise."""
    trainer = trainer_of(cfg)
    batch = noise_batch(cfg.SOLVER.BATCH_SIZE)
    batch = replace(batch, target_label=batch.source_label.roll(1, 0))
    for iteration in range(2):
        trainer.run_step(iteration, iter([batch] * cfg.SOLVER.ACCUMULATION))
