"""The Mix Transformer, encoder of SegFormer (Xie et al., NeurIPS 2021), from the paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t2sda.config import SCHEMA, Field
from t2sda.modeling.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from t2sda.modeling.backbones.mit_blocks import Block, OverlapPatchEmbed, initialise_
from t2sda.registry import BACKBONES
from t2sda.structures import FeatureSpec
from t2sda.weights import licences
from t2sda.weights.mit import VARIANTS, rename_mit
from t2sda.weights.strict import LoadReport, load_strict

NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)
_HEADS = ("head.", "classifier.", "decode_head.", "decoder.", "segmentation_head.")

SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "VARIANT": Field("b5", "Size of the Mix Transformer.", choices=tuple(VARIANTS)),
        "NORM_EPS": Field(
            1e-6,
            "Epsilon of the LayerNorms before attention, before Mix-FFN and at the end of a stage; "
            "1e-5 gives the numbers of Hugging Face's Segformer.",
            low=0.0,
            exclusive_low=True,
        ),
        "CHECKPOINT_ACTIVATIONS": Field(
            False,
            "Compute every block again in the backward pass instead of keeping what is inside it: "
            "less memory, about a third more time.",
        ),
    },
    when=lambda cfg: BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, MiT),
    when_text="MODEL.BACKBONE.NAME is MiT",
)


@BACKBONES.register()
class MiT(Backbone):
    """Mix Transformer; the names of its parameters are the published ones.

    Args:
        variant: "b0" … "b5".
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        norm_eps: of the LayerNorms around attention and Mix-FFN and after a stage
            (docs/fidelity.md, A7).
        checkpoint_activations: trade time for memory in training; the numbers stay.
    """

    pixel_mean = IMAGENET_MEAN
    pixel_std = IMAGENET_STD
    may_have_batch_norm = False

    def __init__(
        self,
        variant: str = "b5",
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        dims, depths = VARIANTS[variant].dims, VARIANTS[variant].depths
        last = sum(depths) - 1
        rates = iter([drop_path * index / last for index in range(last + 1)])
        for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            kernel, stride = (7, 4) if stage == 0 else (3, 2)
            embed = OverlapPatchEmbed(3 if stage == 0 else dims[stage - 1], dim, kernel, stride)
            blocks = nn.ModuleList(
                Block(dim, NUM_HEADS[stage], REDUCTIONS[stage], next(rates), norm_eps)
                for _ in range(depth)
            )
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(f"block{stage + 1}", blocks)
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(dim, eps=norm_eps))
        self.feature_specs = tuple(map(FeatureSpec, dims, STRIDES))
        self.apply(initialise_)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> MiT:
        """Build the encoder and load MODEL.BACKBONE.WEIGHTS into it."""
        backbone = cls(
            variant=cfg.MODEL.BACKBONE.VARIANT,
            drop_path=cfg.MODEL.BACKBONE.DROP_PATH,
            norm_eps=cfg.MODEL.BACKBONE.NORM_EPS,
            checkpoint_activations=cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS,
        )
        if cfg.MODEL.BACKBONE.WEIGHTS:
            backbone.load_from(cfg.MODEL.BACKBONE.WEIGHTS)
        return backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of strides 4, 8, 16 and 32; shapes as in Backbone.forward.

        They lie in channels-last memory.
        """
        levels = []
        features = image
        for stage in range(1, len(STRIDES) + 1):
            tokens = getattr(self, f"patch_embed{stage}")(features)
            for block in getattr(self, f"block{stage}"):
                tokens = self._run(block, tokens)
            features = getattr(self, f"norm{stage}")(tokens).permute(0, 3, 1, 2)
            levels.append(features)
        return tuple(levels)

    def blocks_to_adapt(self) -> tuple[nn.Module, ...]:
        """Those of all stages."""
        stages = range(1, len(STRIDES) + 1)
        return tuple(block for stage in stages for block in getattr(self, f"block{stage}"))

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> LoadReport:
        """Load the encoder of a published file of any layout that `rename_mit` knows.

        A classifier or segmentation head may be left over; nothing else may.
        """
        state = rename_mit(state)
        heads = [name for name in state if name.startswith(_HEADS)]
        report = load_strict(self, state, source, heads)
        licences.note(licences.MIT)
        return report

    def _run(self, block: nn.Module, tokens: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False)
        return block(tokens)
