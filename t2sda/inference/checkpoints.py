"""The network that a checkpoint holds, built from nothing but the file."""

from __future__ import annotations

from pathlib import Path

from t2sda.config import ConfigError
from t2sda.engine.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.errors import UserError
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.registry import UnknownNameError

_OWN_COMPONENTS = (
    "If the run was started with --plugin, give the same --plugin here; in Python, import that "
    "module first"
)


def open_checkpoint(run_or_file: Path) -> Checkpoint:
    """Read a checkpoint, or the newest one of a run's folder; the registries must be filled.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is none of ours, or has settings that no loaded component owns.
    """
    path = resolve_checkpoint(run_or_file)
    try:
        return load_checkpoint(path)
    except (ConfigError, UnknownNameError) as error:
        raise UserError(f"{path}: {error}\n{_OWN_COMPONENTS}") from None


def model_of_checkpoint(checkpoint: Checkpoint, branch: str = "student") -> SegmentationModel:
    """The segmentation model of a branch, in evaluation mode on the CPU.

    No pretrained file is needed: the checkpoint holds every weight.

    Args:
        checkpoint: as read.
        branch: "student" or "teacher".

    Raises:
        UserError: if the checkpoint has no such branch, or needs a component that is not loaded.
    """
    prefix = f"{branch}.model."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.meta_arch.items()
        if name.startswith(prefix)
    }
    if not state:
        raise UserError(
            f"{checkpoint.path}: holds no {branch}; {checkpoint.cfg.META_ARCH.NAME} trains without"
        )
    cfg = checkpoint.cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.WEIGHTS = ""
    try:
        model = build_segmentation_model(cfg, checkpoint.taxonomy.num_classes)
    except UnknownNameError as error:
        raise UserError(f"{checkpoint.path}: {error}\n{_OWN_COMPONENTS}") from None
    load_weights_(model, state, checkpoint.path)
    return model.eval()
