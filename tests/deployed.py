"""A small trained-looking network in a checkpoint, for whatever runs checkpoints and exports."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import CheckpointWriter, checkpoint_path, load_checkpoint
from t2sda.export.onnx import export_onnx
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.runtime.checkpoints import model_of_checkpoint
from t2sda.streets import draw_street

SETTINGS = ("MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.HEAD.CHANNELS", "16")
"""`test_resnet` is a network of timm's own tests."""
IMAGE_SIZE = (96, 160)
"""(height, width) of the static export."""


@dataclass(frozen=True)
class Export:
    """A file that tests share."""

    name: str
    dynamic: bool
    output_kind: Literal["labels", "logits"]


def write_checkpoint(run_dir: Path, *settings: str) -> Path:
    """The checkpoint of a run that has just begun; returns its path."""
    torch.manual_seed(0)
    cfg = load_config(None, [*SETTINGS, *settings])
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19)
    _spread_logits(meta_arch)
    if meta_arch.has_teacher:
        meta_arch.teacher.load_state_dict(meta_arch.student.state_dict())
    writer = CheckpointWriter(
        run_dir,
        lambda: {
            "meta_arch": meta_arch.state_dict(),
            "optimizer": {},
            "pass_optimizers": {},
            "hooks": {},
            "scaler": {},
            "data": {},
        },
        cfg,
        CITYSCAPES_19,
        period=1,
        keep=0,
        max_iter=1,
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    writer.save(1)
    return checkpoint_path(run_dir, 1)


@torch.no_grad()
def _spread_logits(meta_arch: MetaArch) -> None:
    """Classes differ and BatchNorm knows its input: an untrained head ties everywhere."""
    model = meta_arch.student.model
    model.head.classifier.weight.mul_(100)  # type: ignore[operator, union-attr]
    street = torch.from_numpy(draw_street("clear", 9, 0, (128, 192))[0]).permute(2, 0, 1)
    model.train()
    for _ in range(20):
        model(street[None].repeat(2, 1, 1, 1))


DYNAMIC = Export("dynamic_labels.onnx", dynamic=True, output_kind="labels")
DYNAMIC_LOGITS = Export("dynamic_logits.onnx", dynamic=True, output_kind="logits")
STATIC = Export("static_labels.onnx", dynamic=False, output_kind="labels")
STATIC_PROBABILITIES = Export(
    "static_probabilities.onnx", dynamic=False, output_kind="probabilities"
)


def shared_checkpoint(factory: pytest.TempPathFactory) -> Path:
    """One checkpoint for all tests of a session; not to be changed."""
    path = checkpoint_path(shared_folder(factory), 1)
    with lock(path):
        return path if path.exists() else write_checkpoint(path.parent)


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """That of all processes of a session: an export takes seconds."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "deployed"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """For the one process that makes what the others wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_export(factory: pytest.TempPathFactory, export: Export) -> Path:
    """One file of each kind for all tests of a session, of `shared_checkpoint`'s student."""
    checkpoint = load_checkpoint(shared_checkpoint(factory))
    path = checkpoint.path.with_name(export.name)
    with lock(path):
        if not path.exists():
            export_onnx(
                model_of_checkpoint(checkpoint),
                checkpoint.taxonomy,
                path,
                image_size=IMAGE_SIZE,
                dynamic=export.dynamic,
                output_kind=export.output_kind,
                origin={"run": "deployed", "iteration": 1},
            )
    return path


def street(size: tuple[int, int], index: int = 1) -> np.ndarray:
    """A drawn street, (H, W, 3) uint8."""
    return draw_street("hazy", 9, index, size)[0]
