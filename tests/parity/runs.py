"""Our shipped configurations on the records' weights, batches and draws, step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import load_config
from t2sda.engine.hooks import Hook
from t2sda.losses.masking import block_mask
from t2sda.losses.mixing import draw_pasted_classes
from t2sda.losses.pseudo_labels import pseudo_label_quality
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.hrda import HRDA, Box, draw_box
from t2sda.structures import TARGET_PROBS, DomainBatch, Step
from tests.parity import recipe
from tests.parity.depthwise import use_fast_depthwise
from tests.training import trainer_of

RECORDS = Path(__file__).parent / "records"
CONFIGS = Path(__file__).parents[2] / "configs" / "gta5_to_cityscapes"
PIXEL_MEAN = (123.675, 116.28, 103.53)
NUM_LEVELS = 4
PIXEL_STD = (58.395, 57.12, 57.375)

SMALL = [
    *("MODEL.BACKBONE.VARIANT=b0", "MODEL.BACKBONE.DROP_PATH=0.0"),
    *("MODEL.HEAD.CHANNELS=64", "MODEL.HEAD.DROPOUT=0.0"),
    *("SOLVER.MAX_ITER=40", "SOLVER.WARMUP_ITERS=3", "DATA.CROP_SIZE=[256, 256]"),
]
"""The records' network and schedule; methods, weights of losses and rates are the shipped ones."""
SELF_TRAINING = [
    *("STRONG_AUGMENTATION.JITTER_PROBABILITY=0.0", "STRONG_AUGMENTATION.BLUR_PROBABILITY=0.0"),
]
BLOCKS = ["MASKED.BLOCK_SIZE=16"]
WINDOWS = ["MODEL.HRDA.DETAIL_SIZE=[128, 128]", "MODEL.HRDA.WINDOW_SIZE=[256, 256]"]
OWN = {
    "source_only": ["SOURCE_AUGMENTATION.PHOTOMETRIC=false"],
    "daformer": SELF_TRAINING,
    "mic": [*SELF_TRAINING, *BLOCKS],
    "hrda": [*SELF_TRAINING, *WINDOWS],
    "mic_hrda": [*SELF_TRAINING, *WINDOWS, *BLOCKS],
}
CONFIG_OF = {"hrda": "daformer_hrda", "mic_hrda": "mic_hrda"}
"""Beginning of a configuration's name; of other cases NAME_daformer."""


def read_record(name: str) -> dict[str, Any]:
    """`records/NAME.json`."""
    return json.loads((RECORDS / f"{name}.json").read_text())


@dataclass
class Iteration:
    """What one of our steps computed, under the record's names."""

    losses: dict[str, float]
    learning_rates: dict[str, float]
    grad_norm: dict[str, float]
    student: dict[str, tuple[float, float, float]]
    quality: float | None = None
    pseudo_label_counts: list[int] | None = None
    teacher: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def run(
    case: str,
    record: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: list[str],
) -> list[Iteration]:
    """The record's iterations by our trainer, in float64."""
    cfg = _config(case, folder, settings)
    use_fast_depthwise(monkeypatch)
    trainer = trainer_of(cfg)
    trainer.meta_arch.double()
    set_exact_normalisation_(trainer.meta_arch)
    load_recipe_(trainer.meta_arch.student.model)
    recorder = Recorder(trainer.meta_arch, trainer.owners[0].optimizer, cfg)
    trainer.hooks.append(recorder)
    for hook in trainer.hooks:
        hook.before_train(0)
    replay_draws(monkeypatch, record, lambda: len(recorder.iterations))
    batches = _batches(record)
    for iteration in range(len(record["iterations"])):
        trainer.run_step(iteration, batches)
    return recorder.iterations


class Recorder(Hook):
    """Keeps what a record has."""

    def __init__(self, meta_arch: Any, optimizer: torch.optim.Optimizer, cfg: CfgNode) -> None:
        self.meta_arch = meta_arch
        self.optimizer = optimizer
        self.cfg = cfg
        self.iterations: list[Iteration] = []
        self._of_teacher: dict[str, Any] = {}

    def after_teacher(self, step: Step) -> None:
        """Quality and counts of pseudo-labels, and the teacher that made them."""
        if step.teacher is None or TARGET_PROBS not in step.teacher.views:
            return
        threshold = self.cfg.SELF_TRAINING.PSEUDO_LABEL_THRESHOLD
        pseudo_labels = step.teacher.pseudo_labels.flatten()
        self._of_teacher = {
            "quality": float(pseudo_label_quality(step.teacher.confidence, threshold)),
            "pseudo_label_counts": pseudo_labels.bincount(minlength=19).tolist(),
            "teacher": probes(self.meta_arch.teacher.model),
        }

    def after_step(self, step: Step) -> None:
        """Losses, rates, gradients and what the step made of the student."""
        model = self.meta_arch.student.model
        rates = {
            name: next(
                group["lr"]
                for group in self.optimizer.param_groups
                if any(parameter is member for member in group["params"])
            )
            for name, parameter in (
                ("backbone", next(model.backbone.parameters())),
                ("decode_head", next(model.head.parameters())),
            )
        }
        losses = {name: value.item() for name, value in step.losses.items()}
        self.iterations.append(
            Iteration(losses, rates, gradient_norms(model), probes(model), **self._of_teacher)
        )


PUBLISHED = {
    "attention.linear_c.": "decode_head.scale_attention.embed_layers.",
    "attention.linear_fuse.": "decode_head.scale_attention.fuse_layer.",
    "attention.linear_pred.": "decode_head.scale_attention.conv_seg.",
    "head.": "decode_head.head.",
}
"""Beginnings of HRDA's names, ours and theirs; other models have no `.head`."""


def published_name(name: str, model: nn.Module) -> str | None:
    """The name in the records of one of a model's tensors; None for what is ours alone."""
    if name in ("pixel_mean", "pixel_std"):
        return None
    for ours, theirs in PUBLISHED.items():
        if name.startswith(ours):
            theirs = theirs if isinstance(model, HRDA) else "decode_head."
            return theirs + name.removeprefix(ours)
    return name


def published_order(name: str, array: np.ndarray) -> np.ndarray:
    """A tensor as they have it, or ours of theirs: their 1x1 fusion sees the finest level first."""
    if not name.endswith("scale_attention.fuse_layer.conv.weight"):
        return array
    return np.concatenate(np.split(array, NUM_LEVELS, axis=1)[::-1], axis=1)


def load_recipe_(model: nn.Module) -> None:
    """Give a segmentation model the records' weights and buffers."""
    for name, tensor in model.state_dict().items():
        if (published := published_name(name, model)) is not None:
            weight = recipe.weight(published, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(published_order(published, weight)))


def set_exact_normalisation_(module: nn.Module) -> None:
    """The decimals as float64; a buffer made in float32 differs by 3e-8."""
    for part in module.modules():
        if isinstance(getattr(part, "pixel_mean", None), Tensor):
            part.pixel_mean.copy_(part.pixel_mean.new_tensor(PIXEL_MEAN).view(3, 1, 1))
            part.pixel_std.copy_(part.pixel_std.new_tensor(PIXEL_STD).view(3, 1, 1))


def probes(model: nn.Module) -> dict[str, tuple[float, float, float]]:
    """Of every parameter and floating-point buffer, under the records' names."""
    return {
        published: recipe.probe(published_order(published, tensor.detach().numpy()))
        for name, tensor in model.state_dict().items()
        if (published := published_name(name, model)) is not None and tensor.is_floating_point()
    }


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """L2 norm of the gradient of each module of a backbone or head, and of all."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        published = published_name(name, model)
        if parameter.grad is not None and published is not None:
            depth = 3 if isinstance(model, HRDA) and not published.startswith("backbone") else 2
            module = ".".join(published.split(".")[:depth])
            squares[module] = squares.get(module, 0.0) + float(parameter.grad.square().sum())
    squares["total"] = sum(squares.values())
    return {module: square**0.5 for module, square in squares.items()}


def replay_draws(
    monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], iteration: Callable[[], int]
) -> None:
    """Draw what the record drew: their generators are not ours."""

    def pasted(present: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.zeros_like(present)
        for row, classes in zip(
            drawn, record["iterations"][iteration()]["mixed_classes"], strict=True
        ):
            row[classes] = True
        assert not (drawn & ~present).any(), "the record pastes a class that is not in the batch"
        return drawn

    def visible(num_images: int, size: tuple[int, int], *rest: Any) -> Tensor:
        rows = record["iterations"][iteration()]["visible_blocks"]
        blocks = torch.tensor([[[float(digit) for digit in row] for row in one] for one in rows])
        return F.interpolate(blocks[:, None], size=size, mode="nearest").bool()

    boxes = iter([box for one in record["iterations"] for box in one.get("detail_boxes", ())])

    def box(*_: Any) -> Box:
        top, bottom, left, right = next(boxes)
        return Box(top, left, bottom - top, right - left)

    replace_everywhere(monkeypatch, draw_box, box)
    replace_everywhere(monkeypatch, draw_pasted_classes, pasted)
    replace_everywhere(monkeypatch, block_mask, visible)


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, original: Any, substitute: Any) -> None:
    """Put `substitute` in the place of a function in every module of ours that imported it."""
    name = original.__name__
    users = [
        module
        for key, module in list(sys.modules.items())
        if key.startswith("t2sda") and vars(module).get(name) is original
    ]
    assert users, f"nobody uses {name}"
    for module in users:
        monkeypatch.setattr(module, name, substitute)


def _config(case: str, folder: Path, settings: list[str]) -> CfgNode:
    """The shipped configuration at the records' size; the frozen encoder has weights of its own."""
    weights = folder / "encoder.pth"
    encoder = {
        name: torch.from_numpy(recipe.weight(f"backbone.{name}", tuple(tensor.shape), "imnet."))
        for name, tensor in MiT("b0").state_dict().items()
    }
    torch.save(encoder, weights)
    path = CONFIGS / f"{CONFIG_OF.get(case, f'{case}_daformer')}_mit_b5.yaml"
    return load_config(path, [*SMALL, *OWN[case], *settings, f"MODEL.BACKBONE.WEIGHTS={weights}"])


def _batches(record: dict[str, Any]) -> Iterator[DomainBatch]:
    valid = record["settings"]["valid"]
    for iteration in range(len(record["iterations"])):
        tensors = {
            name: torch.from_numpy(array).permute(0, 3, 1, 2)
            if array.ndim == 4
            else torch.from_numpy(array)
            for name, array in recipe.batch(iteration).items()
        }
        if valid is None:
            del tensors["target_image"]
        else:
            tensors["target_valid"] = torch.from_numpy(recipe.valid_pixels(valid))
        yield DomainBatch(**tensors)
