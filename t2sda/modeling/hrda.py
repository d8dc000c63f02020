"""HRDA (Hoyer et al., ECCV 2022): context at half resolution, details at full, fused by attention.

Sizes and boxes are in pixels of the image. L, D and A are the context's logits, the detail's and
the attention, on the grids of the head's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.losses.numerics import at_least_float32
from t2sda.losses.segmentation import cross_entropy
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.heads.base import Head
from t2sda.modeling.segmentor import AuxiliaryHead, Features, SegmentationModel, Sliding, enlarged
from t2sda.registry import HEADS, MODELS
from t2sda.structures import FeatureSpec

REDUCTION = 2
"""Of each side, from the image to the context."""


def is_hrda(cfg: CfgNode) -> bool:
    """Whether the model is this one, or derived from it."""
    return MODELS.is_a(cfg.MODEL.NAME, HRDA)


SCHEMA.declare(
    "MODEL.HRDA",
    {
        "ATTENTION": Field(
            "SegFormerHead",
            "Registered name of the head that gives the scale attention; SegFormerHead computes "
            "what the published one does, DAFormer's with a 1x1 fusion; DeepLabV2Head beside a "
            "DeepLabV2Head",
        ),
        "DETAIL_SIZE": Field(
            (512, 512),
            "(height, width) of the detail crop, and of the windows that the teacher and "
            "evaluation slide in steps of half of it",
            unit="pixels",
            low=1,
            length=2,
        ),
        "DETAIL_WEIGHT": Field(
            0.1,
            "Share of the loss that the detail crop's own logits have; the fused ones have the "
            "rest.",
            low=0.0,
            high=1.0,
        ),
        "WINDOW_SIZE": Field(
            (1024, 1024),
            "(height, width) of what evaluation takes at once, as large as DATA.CROP_SIZE; larger "
            "images are slid over in steps of half of it, smaller ones continued",
            unit="pixels",
            low=1,
            length=2,
        ),
    },
    when=is_hrda,
    when_text="MODEL.NAME is HRDA",
)


@SCHEMA.check
def details_are_a_part_of_the_crop(cfg: CfgNode) -> list[str]:
    """A detail crop is cut out of the training crop and of a window."""
    if not is_hrda(cfg):
        return []
    detail = cfg.MODEL.HRDA.DETAIL_SIZE
    wholes = {
        "DATA.CROP_SIZE": cfg.DATA.CROP_SIZE,
        "MODEL.HRDA.WINDOW_SIZE": cfg.MODEL.HRDA.WINDOW_SIZE,
    }
    return [
        f"MODEL.HRDA.DETAIL_SIZE: {list(detail)} is larger than {key} {list(whole)}; use half of it"
        for key, whole in wholes.items()
        if any(part > side for part, side in zip(detail, whole, strict=True))
    ]


class Box(NamedTuple):
    """A window of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def on_grid(self, cell: int) -> Box:
        """The same window in cells."""
        return Box(self.top // cell, self.left // cell, self.height // cell, self.width // cell)

    def of(self, maps: Tensor, cell: int = 1) -> Tensor:
        """The window of (..., H, W), on a grid of `cell` pixels."""
        top, left, height, width = self.on_grid(cell)
        return maps[..., top : top + height, left : left + width]

    def within_zeros(self, maps: Tensor, size: tuple[int, int], cell: int = 1) -> Tensor:
        """(..., h, w) of the window -> (..., H, W) of an image of `size`, 0 outside."""
        top, left, height, width = self.on_grid(cell)
        below, right = size[0] // cell - top - height, size[1] // cell - left - width
        return F.pad(maps, (left, right, top, below))


@dataclass(kw_only=True)
class HRDAFeatures(Features):
    """`levels` are those of the context; details are looked at when the logits are asked for."""

    image: Tensor
    """(B, 3, H, W) RGB in [0, 255]."""
    box: Box | None
    """The detail crop that a student pass drew; None: windows all over the image."""
    detail_logits: Tensor | None = None
    """(B, C, h, w) D of the box, once the logits were computed."""


@MODELS.register()
class HRDA(SegmentationModel):
    """A context of half resolution and details of full resolution, through one backbone and head.

    Students see the details of one random box (docs/fidelity.md, A8); the teacher and evaluation
    those of overlapping windows, in one batch. `feature_specs` and `Features.levels`, which the
    pull loss and the feature distance read, are those of the context (docs/fidelity.md, B14).

    Args:
        backbone: h, of both resolutions.
        head: f, of both.
        attention: of the context; one channel for each class, on the grid of `head`.
        detail_size: (height, width) of the box and of windows.
        window_size: (height, width) of what `forward` takes at once.
        detail_weight: share of the loss that D has.
        aux_head: reads the context; for the loss alone.
    Raises:
        UserError: if a size does not lie on the grid of the context's logits, or the attention is
            on another grid than the head.
    """

    sliding: Sliding
    slides_itself = True

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        attention: Head,
        detail_size: tuple[int, int],
        window_size: tuple[int, int],
        detail_weight: float = 0.1,
        aux_head: AuxiliaryHead | None = None,
    ) -> None:
        super().__init__(backbone, head, aux_head)
        self.attention = attention
        self.stride = _whole_stride(head, backbone)
        self.cell = REDUCTION * self.stride
        self.detail_size = detail_size
        self.detail_weight = detail_weight
        self.sliding = Sliding(window_size, _half(window_size, self.cell))
        if _whole_stride(attention, backbone) != self.stride:
            raise UserError(
                f"MODEL.HRDA.ATTENTION: {type(attention).__name__} is on another grid than "
                f"{type(head).__name__}; use a head that reads the same finest level"
            )
        self._check_on_grid("MODEL.HRDA.DETAIL_SIZE", detail_size)
        self._check_on_grid("MODEL.HRDA.WINDOW_SIZE", window_size)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> HRDA:
        """Build backbone, heads and attention, pretrained weights loaded."""
        plain = SegmentationModel.from_config(cfg, num_classes)
        attention = HEADS.get(cfg.MODEL.HRDA.ATTENTION)
        return cls(
            plain.backbone,
            plain.head,
            attention.from_config(cfg, plain.backbone.feature_specs, num_classes),
            cfg.MODEL.HRDA.DETAIL_SIZE,
            cfg.MODEL.HRDA.WINDOW_SIZE,
            cfg.MODEL.HRDA.DETAIL_WEIGHT,
            plain.aux_head,
        )

    @classmethod
    def head_names(cls, cfg: CfgNode) -> list[str]:
        """And the attention."""
        return [*super().head_names(cfg), cfg.MODEL.HRDA.ATTENTION]

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Levels of the context, finest first, in pixels of the whole image."""
        return tuple(spec.shown_at(1 / REDUCTION) for spec in self.backbone.feature_specs)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """And the attention."""
        return (*super().networks, self.attention)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image, whatever that is; see `SegmentationModel.forward`.

        A window is what it was trained on: smaller images are continued by their border, larger
        ones slid over, and logits are averaged where windows overlap. The runtime does the same
        (`t2sda/runtime/sliding.py`).
        """
        height, width = image.shape[-2:]
        window, step = self.sliding
        below, right = max(window[0] - height, 0), max(window[1] - width, 0)
        if below or right:
            image = F.pad(at_least_float32(image), (0, right, 0, below), mode="replicate")
        size = (height + below, width + right)
        boxes = covering(size, window, step)
        logits = averaged([self.logits(self.features(box.of(image))) for box in boxes], boxes, size)
        return logits[..., :height, :width]

    def features(self, image: Tensor, generator: torch.Generator | None = None) -> HRDAFeatures:
        """h(x) of the context; the detail crop is drawn, and seen by `logits`.

        Args:
            image: (B, 3, H, W) RGB in [0, 255], uint8 or float; a training crop or a window.
            generator: the detail crop's, on the CPU; None: windows all over the image.

        Raises:
            UserError: if the image does not lie on the grid of the context's logits.
        """
        size = (image.shape[-2], image.shape[-1])
        self._check_on_grid("HRDA: an image", size)
        self._refuse_smaller_than_a_cell([side // REDUCTION for side in size])  # of the context
        box = None
        if generator is not None:
            box = draw_box(size, self.detail_size, self.cell, generator)
        return HRDAFeatures(
            self._levels(self.backbone, _reduced(image)), size, image=image, box=box
        )

    def logits(self, features: Features) -> Tensor:
        """Fused logits, (B, C, H, W) float32 at the image's size; computed once."""
        assert isinstance(features, HRDAFeatures)
        if features.known_logits is None:
            # BatchNorm sees the context first, as in the published code.
            context = at_least_float32(self.head(features.levels))
            detail = self._detail(features)
            attention = at_least_float32(self.attention(features.levels)).sigmoid()
            if features.box is not None:
                features.detail_logits = detail
                detail = features.box.within_zeros(detail, features.size, self.stride)
                attention = self._inside(attention, features.box, features.size)
            fused = fuse(context, detail, attention)
            features.computed_logits = enlarged(fused, features.size)
        assert features.computed_logits is not None
        return features.computed_logits

    def output_loss(
        self,
        features: Features,
        labels: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> Tensor:
        """Cross entropy of the fused logits, and of D within its box; see `loss`."""
        assert isinstance(features, HRDAFeatures)
        fused = cross_entropy(self.logits(features), labels, weight, normalizer)
        box = features.box
        assert box is not None, "a loss needs the features of a student pass, with its box"
        assert features.detail_logits is not None
        part = (box.height * box.width) / (features.size[0] * features.size[1])
        detail = cross_entropy(
            enlarged(features.detail_logits, (box.height, box.width)),
            box.of(labels),
            None if weight is None else box.of(weight),
            None if normalizer is None else normalizer * part,
        )
        return (1 - self.detail_weight) * fused + self.detail_weight * detail

    def deepest_features(self, image: Tensor, backbone: Backbone) -> Tensor:
        """(B, D, h, w) of the context by another backbone."""
        return super().deepest_features(_reduced(image), backbone)

    def _detail(self, features: HRDAFeatures) -> Tensor:
        """D of the box; or of the image, by windows in one batch, the mean where they overlap."""
        if features.box is not None:
            return self._logits_of(features.box.of(features.image))
        size = features.size
        window = (min(self.detail_size[0], size[0]), min(self.detail_size[1], size[1]))
        boxes = covering(size, window, _half(window, self.cell))
        logits = self._logits_of(torch.cat([box.of(features.image) for box in boxes]))
        return averaged(logits.chunk(len(boxes)), boxes, size, self.stride)

    def _logits_of(self, image: Tensor) -> Tensor:
        return at_least_float32(self.head(self._levels(self.backbone, image)))

    def _inside(self, attention: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
        """The attention within the box, 0 outside: there is nothing but the context."""
        return box.within_zeros(box.of(attention, self.cell), size, self.cell)

    def _check_on_grid(self, what: str, size: Sequence[int]) -> None:
        if any(side % self.cell for side in size):
            nearest = [round(side / self.cell) * self.cell for side in size]
            raise UserError(
                f"{what} of {size[0]}x{size[1]} pixels: sides must be multiples of {self.cell}, "
                f"such as {nearest[0]}x{nearest[1]}"
            )


def fuse(context: Tensor, detail: Tensor, attention: Tensor) -> Tensor:
    """Fused logits: the context is attenuated, then both it and A are enlarged.

    Args:
        context: (B, C, h, w) L.
        detail: (B, C, H, W) D, 0 outside of a box.
        attention: (B, C, h, w) A in [0, 1], 0 outside of a box.
    Returns:
        (B, C, H, W).
    """
    size = (detail.shape[-2], detail.shape[-1])
    return enlarged(attention, size) * detail + enlarged((1 - attention) * context, size)


def draw_box(
    size: tuple[int, int], detail_size: tuple[int, int], cell: int, generator: torch.Generator
) -> Box:
    """A random detail crop whose corners lie on a grid (docs/fidelity.md, A8).

    As in the published code the largest offset that would fit is never drawn.

    Args:
        size: (height, width) of the image.
        detail_size: (height, width) of the crop.
        cell: of the grid, in pixels.
        generator: on the CPU; two numbers are drawn from it.
    """
    top, left = (
        cell * int(torch.randint(max((side - part + 1) // cell, 1), (), generator=generator))
        for side, part in zip(size, detail_size, strict=True)
    )
    return Box(top, left, *detail_size)


def covering(size: tuple[int, int], window: tuple[int, int], step: tuple[int, int]) -> list[Box]:
    """Windows all over an image, row by row; the last of a row ends at the border.

    Args:
        size: (height, width) of the image.
        window: (height, width) at most.
        step: (height, width) from one window to the next.
    """
    parts = [min(*sides) for sides in zip(size, window, strict=True)]
    tops, lefts = (
        [*range(0, side - part, by), side - part]
        for side, part, by in zip(size, parts, step, strict=True)
    )
    height, width = parts
    return [Box(top, left, height, width) for top in tops for left in lefts]


def averaged(
    maps: Sequence[Tensor], boxes: Sequence[Box], size: tuple[int, int], cell: int = 1
) -> Tensor:
    """Windows put together, the mean where they overlap.

    Args:
        maps: (B, C, h, w) of every window.
        boxes: the windows, which cover all of the image.
        size: (height, width) of the image.
        cell: pixels from one value of `maps` to the next.
    Returns:
        (B, C, H // cell, W // cell).
    """
    if len(boxes) == 1:
        return maps[0]
    ones = torch.ones_like(maps[0][:1, :1])
    total, count = maps[0].new_zeros(()), ones.new_zeros(())
    for values, box in zip(maps, boxes, strict=True):
        total = total + box.within_zeros(values, size, cell)
        count = count + box.within_zeros(ones, size, cell)
    return total / count


def _reduced(image: Tensor) -> Tensor:
    """The context: (B, 3, H, W) -> (B, 3, H / 2, W / 2) float, each the mean of 2x2 pixels."""
    size = (image.shape[-2] // REDUCTION, image.shape[-1] // REDUCTION)
    return F.interpolate(at_least_float32(image), size, mode="bilinear", align_corners=False)


def _whole_stride(head: Head, backbone: Backbone) -> int:
    """Pixels from one of a head's logits to the next.

    Raises:
        UserError: if it is a fraction, or the head's grid is none of the backbone's.
    """
    level = head.levels_read(len(backbone.feature_specs))[0]
    stride = backbone.feature_specs[level].stride
    if not isinstance(stride, int):
        raise UserError(
            f"MODEL.NAME: HRDA cuts on the grid of the logits, which needs whole pixels, not "
            f"{float(stride):g}; leave MODEL.BACKBONE.TOKEN_STRIDE 0"
        )
    if head.upscaling != 1:
        raise UserError(
            f"MODEL.HEAD.NAME: HRDA cuts on the backbone's grid, but the logits of "
            f"{type(head).__name__} are {head.upscaling} times finer; use another head"
        )
    return stride


def _half(window: tuple[int, int], cell: int) -> tuple[int, int]:
    """Step from one window to the next, on the grid."""
    height, width = (max(side // 2 // cell * cell, cell) for side in window)
    return height, width
