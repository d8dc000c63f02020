"""The network as it is shipped: pictures in, labels out, nothing to do before or after."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from t2sda.modeling.segmentor import SegmentationModel

INPUT_NAME = "images"
OutputKind = Literal["labels", "logits"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("labels", "logits")


class Deployable(nn.Module):
    """A segmentation model between the memory layout of cameras and that of label files.

    Args:
        model: normalises by itself, and upsamples to the size of the picture.
        output_kind: "labels" or "logits".
    """

    def __init__(self, model: SegmentationModel, output_kind: OutputKind) -> None:
        super().__init__()
        self.model = model
        self.output_kind = output_kind

    def forward(self, images: Tensor) -> Tensor:
        """Segment pictures.

        Args:
            images: (B, H, W, 3) uint8 RGB.

        Returns:
            (B, H, W) uint8 train ids, or (B, C, H, W) float32 logits.
        """
        # Cast before Transpose: TensorRT refuses to transpose uint8.
        logits = self.model(images.float().permute(0, 3, 1, 2))
        return logits if self.output_kind == "logits" else logits.argmax(dim=1).to(torch.uint8)
