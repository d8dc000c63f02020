"""What one position of the two domains gives, and many of them as a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from t2sda.structures import DomainBatch


class SourceSample(NamedTuple):
    """A source crop before batching."""

    image: np.ndarray  # (h, w, 3) uint8
    label: np.ndarray  # (h, w) uint8
    translated: np.ndarray | None  # (h, w, 3) float32


class TargetSample(NamedTuple):
    """A target crop before batching."""

    image: np.ndarray  # (h, w, 3) uint8
    valid: np.ndarray  # (h, w) bool
    label: np.ndarray | None  # (h, w) uint8; None where no pass reads it


class Style(NamedTuple):
    """A whole target image, for a translator."""

    image: np.ndarray  # (H, W, 3) uint8
    name: str
    size: tuple[int, int]
    """(height, width) before TARGET_SCALE_RANGE."""


@dataclass(frozen=True)
class FailedSample:
    """What a worker returns instead of a sample that a user's file prevents; see `collate`."""

    message: str


class DomainSample(NamedTuple):
    """What one position gives."""

    source: SourceSample
    target: TargetSample | None
    skipped: tuple[str, ...] = ()
    """Messages of the files in whose place others were taken."""


def collate(samples: list[DomainSample | FailedSample]) -> DomainBatch | FailedSample:
    """Samples -> batch; one that failed stands for the whole batch, so that its message arrives.

    An exception of a worker would arrive wrapped in the text of its traceback.
    """
    for sample in samples:
        if isinstance(sample, FailedSample):
            return sample
    pairs = [sample for sample in samples if not isinstance(sample, FailedSample)]
    sources = [pair.source for pair in pairs]
    targets = [pair.target for pair in pairs if pair.target is not None]
    translated = [source.translated for source in sources if source.translated is not None]
    target_labels = [target.label for target in targets if target.label is not None]
    return DomainBatch(
        source_image=_images([source.image for source in sources]),
        source_label=torch.from_numpy(np.stack([source.label for source in sources])).long(),
        translated_image=_images(translated) if translated else None,
        target_image=_images([target.image for target in targets]) if targets else None,
        target_valid=(
            torch.from_numpy(np.stack([target.valid for target in targets])) if targets else None
        ),
        target_label=(torch.from_numpy(np.stack(target_labels)).long() if target_labels else None),
    )


def _images(images: list[np.ndarray]) -> Tensor:
    """(h, w, 3) arrays -> (B, 3, h, w) contiguous."""
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))
