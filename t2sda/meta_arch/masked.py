"""Masked image consistency (MIC, Hoyer et al., CVPR 2023), as a pass beside any with a teacher."""

from __future__ import annotations

from typing import Self

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import own_share, world_size
from t2sda.losses.masking import block_mask, cells_as_pixels
from t2sda.meta_arch.base import BuildContext, has_pass
from t2sda.meta_arch.mask_token import MaskToken
from t2sda.meta_arch.owners import OptimizerSettings
from t2sda.meta_arch.source_only import whole_batch_pixels
from t2sda.meta_arch.target_labels import (
    PseudoLabelledPass,
    PseudoLabelWeight,
    StrongAugmentation,
)
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import BACKBONES, MODELS, PASSES
from t2sda.structures import HiddenTokens, Step

UNITS = ("blocks", "tokens")

SCHEMA.declare(
    "MASKED",
    {
        "UNIT": Field(
            "blocks",
            "what is hidden: square blocks of pixels take the mean color (MIC), or tokens of a "
            "plain transformer are replaced by one that learns (VFM-UDA)",
            choices=UNITS,
        ),
        "RATIO": Field(
            0.7,
            "share of the blocks or tokens that are hidden",
            low=0.0,
            high=0.99,
            exclusive_low=True,
        ),
        "WEIGHT": Field(1.0, "weight of the masked loss", low=0.0, exclusive_low=True),
    },
    when=lambda cfg: has_pass(cfg, MaskedPass),
    when_text="META_ARCH.PASSES holds masked",
)
SCHEMA.declare(
    "MASKED",
    {
        "BLOCK_SIZE": Field(
            64, "side of a block: 64 for crops of 1024, 32 for crops of 512", unit="pixels", low=1
        ),
    },
    when=lambda cfg: has_pass(cfg, MaskedPass) and cfg.MASKED.UNIT == "blocks",
    when_text="META_ARCH.PASSES holds masked, and MASKED.UNIT is blocks",
)


@SCHEMA.check
def blocks_fit_into_crops(cfg: CfgNode) -> str | None:
    """A block that is larger than the crop would hide all or nothing."""
    hides_blocks = has_pass(cfg, MaskedPass) and cfg.MASKED.UNIT == "blocks"
    if not hides_blocks or min(cfg.DATA.CROP_SIZE) >= cfg.MASKED.BLOCK_SIZE:
        return None
    return (
        f"MASKED.BLOCK_SIZE: {cfg.MASKED.BLOCK_SIZE} pixels do not fit into DATA.CROP_SIZE "
        f"{cfg.DATA.CROP_SIZE}; use about a sixteenth of the crop"
    )


@SCHEMA.check
def there_are_tokens_to_hide(cfg: CfgNode) -> str | None:
    """Tokens are hidden from a backbone that has some, in a model that hands them on."""
    if not has_pass(cfg, MaskedPass) or cfg.MASKED.UNIT != "tokens":
        return None
    backbone, model = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.NAME
    if not BACKBONES.get(backbone).has_tokens:
        found = f"MODEL.BACKBONE.NAME {backbone} has none to hide; take TimmViT"
    elif not MODELS.get(model).hides_tokens:
        found = f"MODEL.NAME {model} has none to hide; take SegmentationModel"
    else:
        return None
    return f"MASKED.UNIT: 'tokens', but {found}, or set it to blocks"


@PASSES.register("masked")
class MaskedPass(PseudoLabelledPass):
    """Cross entropy on target images of which most is hidden, with the teacher's pseudo-labels.

    The image is augmented anew, each for itself (MIC draws one order of changes and one blur for
    all: docs/fidelity.md, E11), then blocks take the mean color. Labels and their weight are those
    of the mixed pass: the teacher saw the clean, whole target (docs/fidelity.md, A9). The student's
    BatchNorm in the model does not record the statistics of masked images.

    Args:
        ratio: share of the blocks or tokens that are hidden.
        block_size: side of a block in pixels.
        weight: of the loss.
        pseudo_label_weight: q.
        augmentation: drawn apart from that of the mixed pass.
        mask_token: in place of hidden tokens; None: blocks of pixels are hidden.
    """

    records_statistics = False
    augmentation_stream = "masked augmentation"
    forward_of = "augmented target image with hidden blocks or tokens: backbone, head"

    def __init__(
        self,
        ratio: float,
        block_size: int,
        weight: float,
        pseudo_label_weight: PseudoLabelWeight,
        augmentation: StrongAugmentation,
        mask_token: MaskToken | None = None,
    ) -> None:
        super().__init__(pseudo_label_weight, augmentation)
        self.ratio = ratio
        self.block_size = block_size
        self.weight = weight
        self.mask_token = mask_token

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read MASKED, SELF_TRAINING and STRONG_AUGMENTATION."""
        return cls(
            cfg.MASKED.RATIO,
            cfg.MASKED.BLOCK_SIZE,
            cfg.MASKED.WEIGHT,
            PseudoLabelWeight.from_config(cfg),
            StrongAugmentation.from_config(cfg, cls.augmentation_stream),
            MaskToken.from_config(cfg, context.tokens) if cfg.MASKED.UNIT == "tokens" else None,
        )

    def optimizer(self) -> OptimizerSettings | None:
        """That of the token in place of hidden ones."""
        return None if self.mask_token is None else self.mask_token.optimizer()

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_masked`."""
        teacher, valid = self.taught(step)
        features = self._features_of_hidden(student, step)
        quality = self.pseudo_label_weight(teacher.confidence)
        # q is one number for the mini-batch, or one for each image: (1 or b, 1, 1).
        weight = quality.view(-1, 1, 1) * valid
        labels = teacher.pseudo_labels
        loss = student.model.loss(features, labels, weight, whole_batch_pixels(labels))
        return {"loss_masked": self.weight * loss}

    def shown(self, student: Branch, step: Step) -> Tensor:
        """The target image, augmented; hidden blocks, or pixels of hidden tokens, in mean color."""
        image = self.augmentation(step.batch.image("target"), step)
        visible = self._visible(image, step)
        if self.mask_token is not None:
            size = (image.shape[-2], image.shape[-1])
            visible = cells_as_pixels(visible, size, self.mask_token.spec.stride)
        return torch.where(visible, image, student.model.pixel_mean)

    def _features_of_hidden(self, student: Branch, step: Step) -> Features:
        if self.mask_token is None:
            return self.features(student, self.shown(student, step), step)
        image = self.augmentation(step.batch.image("target"), step)
        hidden = HiddenTokens(~self._visible(image, step)[:, 0], self.mask_token.token)
        return student.model.features_with_hidden(image, hidden)

    def _visible(self, image: Tensor, step: Step) -> Tensor:
        """(b, 1, H, W) bool of pixels, or (b, 1, h, w) of tokens."""
        count, size, side = len(image), (image.shape[-2], image.shape[-1]), self.block_size
        if self.mask_token is not None:
            size, side = self.mask_token.spec.grid_of(size), 1
        # Drawn for all ranks' images, of which this rank takes its share.
        mask = block_mask(
            count * world_size(),
            size,
            side,
            self.ratio,
            step.streams.generator("masked blocks", image.device),
            image.device,
        )
        return mask[own_share(count)]
