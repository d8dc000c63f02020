"""The segmentation network f(h(x)): what is trained, evaluated, exported and shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.losses.numerics import at_least_float32
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.heads.base import Head
from t2sda.modeling.normalization import set_norm
from t2sda.registry import BACKBONES, HEADS

SCHEMA.declare("MODEL.BACKBONE", {"NAME": Field("TimmCNN", "Registered name of the backbone h.")})
SCHEMA.declare("MODEL.HEAD", {"NAME": Field("LightHead", "Registered name of the head f.")})
SCHEMA.declare(
    "MODEL",
    {
        "NORM": Field(
            "batch",
            "BatchNorm of the backbone: 'batch' is trained; 'frozen' keeps the statistics, scale "
            "and shift of MODEL.BACKBONE.WEIGHTS. The head has none to keep and is always trained.",
            choices=("batch", "frozen"),
        )
    },
)


class SegmentationModel(nn.Module):
    """Backbone and head behind the normalisation they expect.

    The input is what cameras and files give, RGB in [0, 255]. Mean and standard deviation are
    saved buffers: weights trained with one normalisation are wrong with another, so they travel
    in the checkpoint with them instead of being looked up in a library again.

    Args:
        backbone: h.
        head: f.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_classes = head.num_classes
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image.

        Args:
            image: (B, 3, H, W) RGB in [0, 255], uint8 or float.

        Returns:
            (B, C, H, W) float32.
        """
        return self.logits_from_features(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """h(x): (B, D_i, h_i, w_i) of every level of `backbone.feature_specs`, finest first.

        Raises:
            UserError: if the image is smaller than a cell of the coarsest level.
        """
        if not torch.compiler.is_compiling():  # a compiled graph has its range of sizes already
            self._refuse_smaller_than_a_cell(image.shape[-2:])
        # float32 also under autocast: [0, 255] has no room in eight bits of mantissa.
        image = image.to(self.pixel_mean.dtype)
        return self.backbone((image - self.pixel_mean) / self.pixel_std)

    def _refuse_smaller_than_a_cell(self, size: Sequence[int]) -> None:
        side = self.backbone.feature_specs[-1].stride
        if min(size) < side:
            nearest = "x".join(str(max(side, length)) for length in size)
            raise UserError(
                f"image of {size[0]}x{size[1]} pixels: {type(self.backbone).__name__} needs at "
                f"least {side} on each side; the nearest size that fits is {nearest}"
            )

    def logits_from_features(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """f: features to (B, C, H, W) float32 logits, upsampled bilinearly to size (H, W)."""
        logits = at_least_float32(self.head(features))
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def build_segmentation_model(cfg: CfgNode, num_classes: int) -> SegmentationModel:
    """The network a configuration describes, pretrained weights loaded.

    Raises:
        UserError: if MODEL.NORM is to freeze what the backbone does not have.
    """
    backbone = BACKBONES.get(cfg.MODEL.BACKBONE.NAME).from_config(cfg)
    if cfg.MODEL.NORM == "frozen" and not any(
        isinstance(module, nn.BatchNorm2d) for module in backbone.modules()
    ):
        raise UserError(
            f"MODEL.NORM: 'frozen' has no effect, this {cfg.MODEL.BACKBONE.NAME} has no BatchNorm; "
            f"remove it"
        )
    set_norm(backbone, cfg.MODEL.NORM)
    head = HEADS.get(cfg.MODEL.HEAD.NAME).from_config(cfg, backbone.feature_specs, num_classes)
    return SegmentationModel(backbone, head)
