"""What ViT-L needs under T2S-DA, whole and with adapters: a table of docs/models.md.

Counted, nothing is run: the method is built on torch's meta device, parameters are counted there,
and what a student pass keeps for its backward is what `benchmarks.saved_memory` counts.

    python -m benchmarks.adapter_memory
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

import t2sda.builtin  # noqa: F401  (fills the registries)
from benchmarks.saved_memory import attention_counted, saved
from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.meta_arch.base import build_meta_arch
from t2sda.modeling.meta_device import on_meta_device

T2SDA = [
    *("MODEL.BACKBONE.TIMM_NAME=vit_large_patch14_dinov2.lvd142m", "MODEL.BACKBONE.WEIGHTS="),
    *("META_ARCH.NAME=T2SDA", "DATASETS.TARGET=cityscapes_train", "TRANSLATION.NAME=FDA"),
    "HOOKS.NAMES=[EmaTeacher]",
]
KINDS = {
    "all": [],
    "adapters from block 0": ["MODEL.BACKBONE.TRAIN=adapters"],
    "adapters from block 8": [
        *("MODEL.BACKBONE.TRAIN=adapters", "MODEL.BACKBONE.ADAPTER.FROM_BLOCK=8")
    ],
    "none": ["MODEL.BACKBONE.TRAIN=none"],
}
CROPS = (512, 1024)
BATCH = 2
COLUMNS = (
    "`TRAIN`",
    "trained (M)",
    "student",
    "teacher's own",
    "gradients",
    "moments",
    *(f"kept, {crop} × {crop}" for crop in CROPS),
    *(f"in all, {crop} × {crop}" for crop in CROPS),
)


def main() -> int:
    """Print the table."""
    print(table())
    return 0


def table() -> str:
    """A row for each kind of training."""
    rows = [f"| {name} | {' | '.join(row(settings))} |" for name, settings in KINDS.items()]
    return "\n".join(
        [f"| {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (len(COLUMNS) - 1)}", *rows]
    )


def row(settings: list[str]) -> list[str]:
    """Numbers of one kind: millions, then GiB."""
    with on_meta_device(), attention_counted():
        meta_arch: Any = build_meta_arch(
            load_config("models/dinov2.yaml", [*T2SDA, *settings]), CITYSCAPES_19
        ).train()
        model = meta_arch.student.model
        kept = [saved(model, torch.empty(BATCH, 3, crop, crop), with_loss=True) for crop in CROPS]
    students = list(meta_arch.student.parameters())
    trained = sum(p.numel() for p in students if p.requires_grad)
    gradients, moments = 4 * trained, 8 * trained  # AdamW keeps two numbers a parameter
    fixed = [size(meta_arch.student), own_size(meta_arch.teacher, students), gradients, moments]
    counts = [*fixed, *kept, *(sum(fixed) + count for count in kept)]
    return [f"{trained / 1e6:.1f}", *(f"{count / 2**30:.2f}" for count in counts)]


def size(module: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def own_size(teacher: nn.Module, students: list[nn.Parameter]) -> int:
    """Bytes of those of its parameters that it does not share with the student."""
    shared = {id(parameter) for parameter in students}
    return sum(p.numel() * p.element_size() for p in teacher.parameters() if id(p) not in shared)


if __name__ == "__main__":
    sys.exit(main())
