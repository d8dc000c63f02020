"""A light head for small networks: 0.1 million parameters at 128 channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from t2sda.modeling.heads.base import Head
from t2sda.modeling.heads.layers import (
    init_classifier_,
    init_convolution_,
    sum_on_finest_grid,
)
from t2sda.registry import HEADS
from t2sda.structures import FeatureSpec


@HEADS.register()
class LightHead(Head):
    """Project every level, add them up on the finest grid, two separable convolutions, classify.

    Each level is projected before it is upsampled: bilinear upsampling commutes with a 1x1
    convolution, so the result is that of upsampling first, at the price of the coarse grid.

    Args:
        feature_specs: the backbone's levels, finest first.
        num_classes: C.
        channels: width of everything between projection and classifier.
        dropout: probability of zeroing a channel before the classifier.
    """

    def __init__(
        self,
        feature_specs: Sequence[FeatureSpec],
        num_classes: int,
        channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        # No bias: the BatchNorm after the sum would remove it.
        self.projections = nn.ModuleList(
            nn.Conv2d(spec.channels, channels, kernel_size=1, bias=False) for spec in feature_specs
        )
        self.fuse = nn.Sequential(_separable_conv(channels), _separable_conv(channels))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        # The projections keep torch's fan-in, as linear embeddings do: by fan-out, the level with
        # the most channels, which is the coarsest, would drown the others in the sum.
        for module in self.fuse.modules():
            if isinstance(module, nn.Conv2d):
                init_convolution_(module)
        init_classifier_(self.classifier)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, h_0, w_0); see Head.forward."""
        projected = [
            project(level) for project, level in zip(self.projections, features, strict=True)
        ]
        return self.classifier(self.dropout(self.fuse(sum_on_finest_grid(projected))))


def _separable_conv(channels: int) -> nn.Sequential:
    """Depthwise 3x3, pointwise 1x1, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
