"""The network that a checkpoint holds, built from nothing but the file, and run by torch.

The only module here that needs torch: `load_model` imports it for a checkpoint.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import ConfigError, network_config
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.engine.device import choose_device
from t2sda.errors import UserError
from t2sda.modeling.backbones.folding import folded_state
from t2sda.modeling.segmentor import (
    SegmentationModel,
    build_segmentation_model,
    to_be_loaded,
)
from t2sda.registry import UnknownNameError

from .letterbox import Frame, Letterbox
from .onnx_content import nonsense_in
from .opened import LoadOptions
from .predictor import Predictor, no_numbers

_OWN_COMPONENTS = (
    "If the run was started with --plugin, give the same --plugin here; in Python, import that "
    "module first"
)


class TorchPredictor(Predictor):
    """A segmentation model in PyTorch: of a checkpoint, or while it is trained.

    Images are resized to fit `bound`, and the logits bilinearly back, so that scores are taken at
    the label's resolution, as in the DAFormer family: what is predicted is what was scored.

    Args:
        model: in evaluation mode while it predicts; its mode is restored afterwards.
        taxonomy: of its classes.
        bound: (height, width), or None for images as they are.
        device: where the model is.
        origin: see Predictor.
        name: of the network, for messages.
        window, step: see Predictor, `scored_window` and `scored_step`.

    Attributes:
        model: the network itself, such as `t2sda.export` takes.
    """

    runtime = "torch"

    def __init__(
        self,
        model: SegmentationModel,
        taxonomy: Taxonomy,
        bound: tuple[int, int] | None,
        device: torch.device,
        origin: Mapping[str, str | int] = MappingProxyType({}),
        name: str = "the network",
        *,
        window: tuple[int, int] | None = None,
        step: tuple[int, int] | None = None,
    ) -> None:
        self.taxonomy = taxonomy
        self.letterbox = Letterbox(bound=bound)
        self.model = model
        self._device = device
        self.origin = origin
        self._name = name
        self.scored_window, self.scored_step = window, step

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: SegmentationModel,
        taxonomy: Taxonomy,
        device: torch.device,
        origin: Mapping[str, str | int],
        name: str = "the network",
    ) -> Self:
        """Read EVALUATION: it sees images as the evaluations of the run do."""
        return cls(
            model,
            taxonomy,
            tuple(cfg.EVALUATION.IMAGE_SIZE) or None,
            device,
            origin,
            name,
            window=tuple(cfg.EVALUATION.WINDOW) or None,
            step=tuple(cfg.EVALUATION.STEP) or None,
        )

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        all_logits = self._logits_of(frames)
        return [own.argmax(dim=0).to(torch.uint8).cpu().numpy() for own in all_logits]

    def _logits(self, frames: list[Frame]) -> list[np.ndarray]:
        return [own.cpu().numpy() for own in self._logits_of(frames)]

    @torch.inference_mode()
    def _logits_of(self, frames: list[Frame]) -> Iterator[Tensor]:
        batch = torch.from_numpy(np.stack([frame.image for frame in frames]).transpose(0, 3, 1, 2))
        # Copied: with the strides of the array the network would compute in another order.
        batch = batch.contiguous().to(self._device)
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            logits = self.model(batch)
        finally:
            if was_training:
                self.model.train()
        if not all(bound.isfinite() for bound in logits.aminmax()):
            raise no_numbers(self._name, "logits")
        for frame, own in zip(frames, logits, strict=True):
            height, width = frame.inner_size
            inner = own[:, :height, :width]
            if frame.size != frame.inner_size:
                inner = F.interpolate(
                    inner[None], frame.size, mode="bilinear", align_corners=False
                )[0]
            yield inner


def load_checkpoint_predictor(path: Path, options: LoadOptions) -> TorchPredictor:
    """The student or teacher of a checkpoint, on the device that is asked for."""
    importlib.import_module("t2sda.builtin")  # the registries that checkpoints name things of
    device = choose_device(options.device)
    branch = options.branch or "student"
    checkpoint = open_checkpoint(path)
    if options.threads:
        torch.set_num_threads(options.threads)
    return TorchPredictor.from_config(
        checkpoint.cfg,
        model_of_checkpoint(checkpoint, branch).to(device),
        checkpoint.taxonomy,
        device,
        {"iteration": checkpoint.iteration, "branch": branch},
        str(path),
    )


def open_checkpoint(run_or_file: Path) -> Checkpoint:
    """Read a checkpoint, or the newest one of a run's folder; the registries must be filled.

    Only the network's settings must be known here: a method of a plugin needs no plugin once it is
    trained.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is none of ours, or its network has settings that no loaded component owns.
    """
    path = resolve_checkpoint(run_or_file)
    try:
        return load_checkpoint(path, read_config=network_config)
    except (ConfigError, UnknownNameError) as error:
        raise UserError(f"{path}: {error}\n{_OWN_COMPONENTS}") from None


def model_of_checkpoint(checkpoint: Checkpoint, branch: str = "student") -> SegmentationModel:
    """The segmentation model of a branch, in evaluation mode on the CPU.

    No pretrained file is needed: the checkpoint holds every weight. Adapters are folded into them.

    Args:
        checkpoint: as read.
        branch: "student" or "teacher".

    Raises:
        UserError: if the checkpoint has no such branch, needs a component that is not loaded, or
            holds weights that are no finite numbers.
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
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise nonsense_in(checkpoint.path, f"{prefix}{name}")
    try:
        model = build_segmentation_model(
            to_be_loaded(checkpoint.cfg), checkpoint.taxonomy.num_classes
        )
    except UnknownNameError as error:
        raise UserError(f"{checkpoint.path}: {error}\n{_OWN_COMPONENTS}") from None
    load_weights_(model, folded_state(state), checkpoint.path)
    return model.eval()
