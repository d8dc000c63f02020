"""The network as it is shipped: images in, labels out, nothing to do before or after."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.metadata import Layout, OutputKind

INPUT_NAME = "images"


class Deployable(nn.Module):
    """A segmentation model between the memory layout of cameras and that of label files.

    Args:
        model: normalises by itself, and upsamples to the size of the image.
        output_kind: "labels", "logits" or "probabilities".
        layout: of the input.
    """

    def __init__(
        self, model: SegmentationModel, output_kind: OutputKind, layout: Layout = "nhwc"
    ) -> None:
        super().__init__()
        self.model = model
        self.output_kind = output_kind
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        """Segment images.

        Args:
            images: (B, H, W, 3) or, for "nchw", (B, 3, H, W) uint8 RGB.

        Returns:
            (B, H, W) uint8 train ids, or (B, C, H, W) float32 logits or probabilities.
        """
        # Cast before Transpose: TensorRT refuses to transpose uint8.
        images = images.float()
        logits = self.model(images.permute(0, 3, 1, 2) if self.layout == "nhwc" else images)
        if self.output_kind == "logits":
            return logits
        if self.output_kind == "probabilities":
            return logits.softmax(dim=1)
        return logits.argmax(dim=1).to(torch.uint8)


def in_half_precision(model: SegmentationModel) -> SegmentationModel:
    """A copy whose backbone and heads compute in float16 (evaluation mode).

    Normalisation before them and up-sampling after them stay in float32: values up to 255 and the
    positions of borders need the digits.
    """
    half = copy.deepcopy(model)
    half.backbone.half().register_forward_pre_hook(lambda _, images: (images[0].half(),))
    for network in half.networks[1:]:
        network.half()
    return half
