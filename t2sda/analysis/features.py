"""The features of a trained network, cell by cell, each with the class at its centre."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

from t2sda.data.datasets import Sample
from t2sda.engine.checkpoint import Checkpoint, load_weights_
from t2sda.errors import UserError
from t2sda.losses.pull import Keys
from t2sda.losses.sampling import labels_on_grid
from t2sda.modeling.branch import Branch
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.letterbox import Letterbox, resize_labels
from t2sda.structures import IGNORE_INDEX, FeatureSpec

ENCODER, PROJECTOR = KINDS = ("encoder", "projector")


class FeatureReader:
    """Features h(x) of the level that the projector reads, or the embeddings g(h(x)) themselves.

    Without a projector it is the deepest level. Images are resized as in the run's evaluation and
    continued to whole cells, since where a cell's centre is was measured for those (`FeatureSpec`).

    Args:
        branch: in evaluation mode on `device`.
        kind: one of KINDS.
        bound: (height, width) that images are resized to fit, or None.
        device: where the network is.
    """

    def __init__(
        self, branch: Branch, kind: str, bound: tuple[int, int] | None, device: torch.device
    ) -> None:
        self.branch = branch
        self.kind = kind
        self.letterbox = Letterbox(bound=bound)
        self.device = device

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, model: SegmentationModel, kind: str, device: torch.device
    ) -> FeatureReader:
        """The reader of a checkpoint's student.

        Args:
            checkpoint: of the run.
            model: its student's model.
            kind: one of KINDS.
            device: where the model is, and the projector goes.
        Raises:
            UserError: if the projector is asked for and the run trained none.
        """
        cfg, specs = checkpoint.cfg, model.feature_specs
        prefix = "student.projector."
        state = _below(checkpoint.meta_arch, prefix)
        if not state and kind == PROJECTOR:
            raise UserError(
                f"{checkpoint.path}: {cfg.META_ARCH.NAME} trains no projector; analyze the "
                f"encoder's features: --features encoder"
            )
        level = cfg.MODEL.PROJECTOR.LEVEL if state else -1
        projector = None
        if kind == PROJECTOR:
            projector = Projector.from_config(cfg, specs)
            load_weights_(projector, state, checkpoint.path)
        branch = Branch(model, projector, level).to(device).eval()
        return cls(branch, kind, tuple(cfg.EVALUATION.IMAGE_SIZE) or None, device)

    @property
    def spec(self) -> FeatureSpec:
        """Grid of the features."""
        return self.branch.embedding_spec

    @property
    def channels(self) -> int:
        """D of the features."""
        projector = self.branch.projector
        if self.kind == PROJECTOR and isinstance(projector, Projector):
            return projector.channels
        return self.spec.channels

    @property
    def level(self) -> int:
        """Of the backbone's pyramid, 0 the finest."""
        return len(self.branch.model.feature_specs) + self.branch.level

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Keys:
        """Features (N, D) float32 and train ids (N,) int64 of an image's cells, on the CPU.

        The class is the one at a cell's centre (docs/fidelity.md, B7, E7).
        """
        frame = self.letterbox(sample.image)
        assert sample.label is not None, "features are sorted by labels"
        label = resize_labels(sample.label, frame.inner_size)
        image, label = self._whole_cells(frame.image, label)
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        features = self.branch.model.features(batch.to(self.device))
        if self.kind == PROJECTOR:
            grid = self.branch.embed(features)
        else:
            grid = features.levels[self.branch.level]
        labels = labels_on_grid(torch.from_numpy(label)[None].long(), self.spec)
        return Keys.from_grid(grid.float().cpu(), labels)

    def _whole_cells(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Continue the image by its border to multiples of the coarsest stride; no labels there."""
        stride = self.branch.model.feature_specs[-1].stride
        height, width = (math.ceil(-(-side // stride) * stride) for side in image.shape[:2])
        below, right = height - image.shape[0], width - image.shape[1]
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        padded = np.full((height, width), IGNORE_INDEX, dtype=np.uint8)
        padded[: label.shape[0], : label.shape[1]] = label
        return image, padded


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
